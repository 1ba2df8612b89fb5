"""`hydrasms serve core | edge | worker`: the product in several processes over one SQLite file."""

import contextlib
import sqlite3

import pytest

from hydrasms_app.certificates import make_trial_certificates
from tests.support.roles import Split, split_in, status_of
from tests.support.served import free_port, served, wait_until


@pytest.fixture
def split(tmp_path):
    with split_in(tmp_path) as product:
        yield product


def test_an_edge_without_a_core_says_so_and_recovers_by_itself(split):
    client = split.client
    edge, core = split.role("edge"), split.role("core")
    edge.start()
    assert client.get("/").body == {"data": "SMS API Online", "server": "Team Hydra"}
    assert client.get("/livez").status == 200
    assert client.get("/readyz").status == 503
    core.start()
    wait_until(lambda: client.get("/readyz").status == 200, what="an edge that found its core")
    _, key = client.account(credits=5)
    assert client.send(key).status == 200
    assert core.terminate() == 0
    refused = client.send(key)
    assert (refused.status, refused.body["code"], refused.headers["retry-after"]) == (503, "UNAVAILABLE", "1")
    core.start()
    wait_until(lambda: client.send(key).status == 200, what="an edge that found its core again")
    assert edge.terminate() == 0


@pytest.mark.parametrize("order", ["core edge worker", "edge worker core", "worker core edge"])
def test_roles_start_in_any_order(split, order):
    processes = [split.role(role) for role in order.split()]
    for process in processes:
        process.start(wait=False)
    client = split.client
    wait_until(lambda: status_of(client, "/readyz") == 200, what="a product that is ready")
    account_id, key = client.account(credits=5)
    sent = client.send(key, "through three processes").body
    wait_until(lambda: [m["status"] for m in client.messages(account_id)] == ["delivered"], what="delivery")
    assert client.messages(account_id)[0]["id"] == sent["ID"]
    assert client.json("ledger", "verify")["ok"] is True
    assert [process.terminate() for process in processes] == [0, 0, 0]


def test_a_second_core_on_the_socket_is_refused_and_the_first_lives_on(split):
    split.role("core").start()
    refused = split.client.run("serve", "core")
    assert refused.returncode == 1
    assert "already listens on" in refused.stderr
    assert refused.stderr.count("\n") == 1
    assert split.client.json("account", "list") == {"accounts": [], "next_page_token": ""}


def test_a_core_that_was_killed_leaves_a_socket_that_the_next_one_takes(split):
    core = split.role("core")
    core.start()
    core.end()
    assert (split.folder / "core.sock").is_socket()
    core.start()
    assert split.client.run("account", "list").returncode == 0
    core.terminate()
    assert not (split.folder / "core.sock").exists()


def test_a_server_that_is_all_in_one_and_roles_keep_off_each_others_file(tmp_path):
    with split_in(tmp_path) as split:
        worker = split.role("worker")
        worker.start()
        refused = split.client.run("serve", "--no-demo")
        assert refused.returncode == 1
        assert "already uses the data directory" in refused.stderr
        worker.terminate()
    with served(tmp_path / "var") as server:
        refused = server.run("serve", "core")
        assert refused.returncode == 1
        assert server.process is not None
        assert f"process {server.process.pid}" in refused.stderr


def test_a_role_that_waits_for_its_database_ends_when_told_to(split):
    (split.folder / "var").mkdir()
    file = split.folder / "var" / "hydrasms.db"
    with contextlib.closing(sqlite3.connect(file, isolation_level=None)) as holder:
        holder.execute("BEGIN EXCLUSIVE")
        core = split.role("core")
        core.start(wait=False)
        wait_until(lambda: "waiting_for_database" in core.log_file.read_text(), what="a core that waits")
        assert core.terminate() == 0
        core.start(wait=False)
        wait_until(lambda: core.log_file.read_text().count("waiting_for_database") > 1, what="another wait")
        holder.execute("ROLLBACK")
        wait_until(lambda: "core is up" in core.output_file.read_text(), what="a core that went on")


@pytest.mark.parametrize("role", ["core", "worker"])
def test_a_role_without_a_rest_api_tells_operators_on_a_port_of_its_own(split, role):
    port = free_port()
    process = split.role(role, HYDRASMS_OPS_PORT=str(port))
    client = Split(split.folder, http_port=port, settings=split.settings).client
    (split.folder / "var").mkdir()
    file = split.folder / "var" / "hydrasms.db"
    with contextlib.closing(sqlite3.connect(file, isolation_level=None)) as holder:
        holder.execute("BEGIN EXCLUSIVE")
        process.start(wait=False)
        wait_until(lambda: status_of(client, "/livez") == 200, what="a role that lives")
        assert status_of(client, "/readyz") == 503
        holder.execute("ROLLBACK")
    wait_until(lambda: status_of(client, "/readyz") == 200, what="a role that is ready")
    assert "hydrasms_" in client.get("/metrics").body
    assert status_of(client, "/") == 404
    assert status_of(client, "/api/messages") == 404
    assert process.terminate() == 0


def test_over_tls_a_certificate_is_enough_for_edge_and_command_line(tmp_path):
    made = make_trial_certificates(tmp_path / "certs", (), 1)
    of_core = tls(made.core, made.core_key, made.authority)
    of_client = tls(made.client, made.client_key, made.authority)
    with split_in(tmp_path, HYDRASMS_GRPC_SOCKET="", HYDRASMS_GRPC_PORT=str(free_port())) as split:
        core = split.role("core", **of_core)
        edge = split.role("edge", **of_client, HYDRASMS_DATA_DIR=str(tmp_path / "elsewhere"))
        edge.start()
        core.start()
        split.settings.update(of_client, HYDRASMS_DATA_DIR=str(tmp_path / "elsewhere"))
        client = split.client
        wait_until(lambda: status_of(client, "/readyz") == 200, what="a product that is ready")
        _, key = client.account(credits=5)
        assert client.send(key).status == 200
        assert not (tmp_path / "elsewhere").exists()

        # The core's own certificate is known and not trusted: it needs the token, which lies in the core's directory.
        split.settings.update(of_core)
        refused = split.client.run("account", "list")
        assert refused.returncode == 1
        assert f"does not accept the certificate {made.core}" in refused.stderr
        split.settings["HYDRASMS_DATA_DIR"] = str(tmp_path / "var")
        assert len(split.client.json("account", "list")["accounts"]) == 1

        # And nobody gets in without one.
        for name in of_core:
            del split.settings[name]
        assert "does not answer" in split.client.run("account", "list").stderr


def tls(certificate, key, authority):
    return {
        "HYDRASMS_TLS_CERT": str(certificate),
        "HYDRASMS_TLS_KEY": str(key),
        "HYDRASMS_TLS_CA": str(authority),
    }
