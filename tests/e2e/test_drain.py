"""SIGTERM loses nothing: no request, no call, no claim, however busy the process is that is told to end."""

import contextlib
import signal
import sqlite3

import pytest

from tests.support.roles import Split, split_in, status_of
from tests.support.served import free_port, wait_until
from tests.support.strict_clients import StrictClients

SENDS = 150


@pytest.fixture
def split(tmp_path):
    with split_in(tmp_path) as product:
        yield product


def two_cores(split, transport):
    """Return two cores, and what makes an edge know both."""
    if transport == "unix":
        paths = [split.folder / f"core-{n}.sock" for n in (1, 2)]
        places = [{"HYDRASMS_GRPC_SOCKET": str(path)} for path in paths]
        addresses = [f"unix:{path}" for path in paths]
    else:
        ports = [free_port(), free_port()]
        places = [{"HYDRASMS_GRPC_SOCKET": "", "HYDRASMS_GRPC_PORT": str(port)} for port in ports]
        addresses = [f"127.0.0.1:{port}" for port in ports]
    cores = [split.role("core", name=f"core-{n}", **place) for n, place in enumerate(places, start=1)]
    split.settings["HYDRASMS_CORE"] = ",".join(addresses)
    return cores


def await_calls(core):
    """Wait until a core that came back gets its share again, by itself."""
    calls = calls_of(core)
    wait_until(lambda: calls_of(core) > calls + 5, what="calls to the core that came back")


def calls_of(core):
    return sum('"event":"rpc"' in line.replace(" ", "") for line in core.log_file.read_text().splitlines())


def await_readiness(split, port):
    client = Split(split.folder, http_port=port, settings=split.settings).client
    wait_until(lambda: status_of(client, "/readyz") == 200, what="a product that is ready")


@pytest.mark.parametrize("transport", ["unix", "tcp"])
def test_no_request_fails_while_one_core_after_the_other_is_replaced(split, transport):
    cores = two_cores(split, transport)
    for core in cores:
        core.start()
    split.role("edge").start()
    client = split.client
    await_readiness(split, split.http_port)
    account_id, key = client.account(credits=1_000_000)
    with StrictClients([split.http_port], key) as clients:
        for core in cores:
            clients.wait_for(SENDS)
            assert core.terminate() == 0
            clients.wait_for(SENDS)
            core.start()
            await_calls(core)
        clients.wait_for(SENDS)
    assert clients.failures == []
    sent = sum(clients.by_port.values())
    assert client.json("credits", "balance", account_id)["balance"] == 1_000_000 - sent
    assert client.json("ledger", "verify")["ok"] is True


def test_no_request_fails_while_one_edge_after_the_other_is_replaced(split):
    split.role("core").start()
    ports = [free_port(), free_port()]
    edges = [split.role("edge", name=f"edge-{port}", HYDRASMS_HTTP_PORT=str(port)) for port in ports]
    for edge in edges:
        edge.start()
    split.http_port = ports[0]
    client = split.client
    await_readiness(split, split.http_port)
    account_id, key = client.account(credits=1_000_000)
    with StrictClients(ports, key) as clients:
        for edge, port in zip(edges, ports, strict=True):
            clients.wait_for(SENDS)
            assert edge.terminate() == 0
            clients.wait_for(SENDS)
            edge.start()
            await_readiness(split, port)
        clients.wait_for(SENDS)
    assert clients.failures == []
    assert set(clients.by_port) == set(ports)
    sent = sum(clients.by_port.values())
    assert client.json("credits", "balance", account_id)["balance"] == 1_000_000 - sent


def test_a_worker_that_is_told_to_end_leaves_no_claim_behind(split):
    split.role("core").start()
    split.role("edge").start()
    worker = split.role("worker")
    worker.start()
    client = split.client
    await_readiness(split, split.http_port)
    account_id, key = client.account(credits=1_000_000)
    with StrictClients([split.http_port], key) as clients:
        for _ in range(2):
            clients.wait_for(SENDS)
            assert worker.terminate() == 0
            assert claimed(split) == 0
            clients.wait_for(SENDS)
            worker.start()
        clients.wait_for(SENDS)
    assert clients.failures == []
    wait_until(lambda: outbox(split) == 0, bound_s=120, what="delivery of everything")
    messages = client.messages(account_id)
    assert {message["status"] for message in messages} == {"delivered"}
    # Nobody had to hand anything on twice.
    assert [message for message in messages if message["duplicate_risk"]] == []


def claimed(split):
    return _count(split, "SELECT count(*) FROM outbox WHERE claim <> ''")


def outbox(split):
    return _count(split, "SELECT count(*) FROM outbox")


def _count(split, query):
    with contextlib.closing(sqlite3.connect(split.folder / "var" / "hydrasms.db")) as reader:
        return reader.execute(query).fetchone()[0]


def test_an_edge_leaves_a_core_that_hangs_and_finds_it_again(split):
    cores = two_cores(split, "unix")
    for core in cores:
        core.start()
    split.role("edge").start()
    await_readiness(split, split.http_port)
    client = split.client
    _, key = client.account(credits=1_000_000)
    hanging = cores[0].process
    hanging.send_signal(signal.SIGSTOP)
    try:
        # Calls that it has are answered by nobody; soon it gets no more.
        wait_until(
            lambda: [client.send(key).status for _ in range(20)] == [200] * 20,
            bound_s=60,
            what="an edge that calls the other core alone",
        )
    finally:
        hanging.send_signal(signal.SIGCONT)
    with StrictClients([split.http_port], key) as clients:
        await_calls(cores[0])
    assert clients.failures == []


def test_the_clients_notice_a_request_that_fails(split):
    """The control: what is killed, instead of told to end, leaves clients without an answer."""
    split.role("core").start()
    edge = split.role("edge")
    edge.start()
    client = split.client
    await_readiness(split, split.http_port)
    _, key = client.account(credits=1_000_000)
    with StrictClients([split.http_port], key) as clients:
        clients.wait_for(SENDS)
        edge.end()
        wait_until(lambda: clients.failures, what="a failure")
