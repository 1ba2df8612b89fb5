"""`hydrasms serve --workers N`: several processes on one port, over one database."""

import os
import signal
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from tests.support.aftermath import judge, settle
from tests.support.history import Outcome
from tests.support.load import Clients
from tests.support.roles import split_in
from tests.support.served import Served, free_port, served, wait_until
from tests.support.worker_processes import (
    accepted_by_worker,
    await_replacement,
    has_ended,
    worker_pids,
)

CREDITS = 10_000_000
BALANCE = 100
RACERS = 400
REFUSALS = ("IDEMPOTENCY_MISMATCH",)


@pytest.fixture
def server(tmp_path):
    with served(tmp_path / "var", "--workers", "2") as server:
        yield server


@pytest.fixture
def server_on_each(tmp_path, database_target):
    """A server, on every kind of database."""
    url = database_target if isinstance(database_target, str) else None
    with served(tmp_path / "var", "--workers", "2", database_url=url) as server:
        yield server


@pytest.fixture(scope="module")
def standing(tmp_path_factory):
    """A server for those who leave it as it is."""
    with served(tmp_path_factory.mktemp("standing") / "var", "--workers", "2") as server:
        yield server


def loaded(server, *, threads=16):
    """Clients of a server that send for some accounts; they have begun."""
    clients = Clients(
        [server.http_port], [server.account(credits=CREDITS) for _ in range(4)], threads=threads
    )
    clients.start()
    return clients


def test_two_workers_share_the_sends_and_say_so_in_one_exposition(server_on_each):
    server = server_on_each
    clients = loaded(server, threads=64)
    clients.wait_for(1_000)
    clients.stop()
    shares = accepted_by_worker(server)
    assert sorted(shares) == ["0", "1"]
    assert shares.total() >= 1_000
    assert min(shares.values()) >= 0.2 * shares.total()
    settle(server)
    judge(server, clients.history, refusals=REFUSALS)
    assert server.output_file.read_text().count("hydrasms is up") == 1
    assert "workers    2" in server.output_file.read_text()


def test_a_worker_that_is_killed_is_replaced_and_nothing_acknowledged_is_lost(server_on_each):
    server = server_on_each
    clients = loaded(server)
    try:
        for _ in range(3):
            clients.wait_for(100)
            victim = worker_pids(server)[0]
            os.kill(victim, signal.SIGKILL)
            # The other one goes on meanwhile.
            clients.wait_for(20)
            await_replacement(server, victim, 2)
        clients.wait_for(100)
    finally:
        clients.stop()
    settle(server)
    judge(server, clients.history, refusals=REFUSALS)
    # The kills were felt: else nothing of this was tested.
    assert clients.history.count(Outcome.UNKNOWN).total() > 0
    assert server.log_file.read_text().count('"worker_died"') == 3
    assert server.terminate() == 0


def kill_parents(server, *, kills):
    """Kill the parent under load and start again, as whoever watches over the server would."""
    clients = loaded(server)
    try:
        for _ in range(kills):
            clients.wait_for(50)
            assert server.process is not None
            os.kill(server.process.pid, signal.SIGKILL)
            server.process.wait(30)
            server.start("--workers", "2")
        clients.wait_for(50)
    finally:
        clients.stop()
    settle(server)
    judge(server, clients.history, refusals=REFUSALS)
    assert clients.history.count(Outcome.UNKNOWN).total() > 0


def test_nothing_acknowledged_is_lost_where_the_parent_is_killed(server):
    kill_parents(server, kills=2)


@pytest.mark.faults
def test_nothing_acknowledged_is_lost_where_the_parent_is_killed_50_times(server):
    kill_parents(server, kills=50)


def test_a_stopped_server_has_answered_every_request_that_reached_it(server):
    clients = loaded(server)
    clients.wait_for(200)
    pids = worker_pids(server)
    assert server.terminate() == 0
    clients.stop()
    assert all(has_ended(pid) for pid in pids)
    broken = clients.history.count(Outcome.UNKNOWN)
    # Whoever comes afterwards finds nobody; nobody was cut off, and nobody was told that something failed.
    assert set(broken) <= {"ConnectionRefusedError"}
    assert server.start("--workers", "2") > 0
    settle(server)
    judge(server, clients.history, refusals=REFUSALS)


def test_workers_do_not_outlive_a_parent_that_is_killed(server):
    pids = worker_pids(server)
    # One of them hangs, too, and cannot notice anything by itself.
    os.kill(pids[1], signal.SIGSTOP)
    assert server.process is not None
    os.kill(server.process.pid, signal.SIGKILL)
    server.process.wait(30)
    wait_until(lambda: all(has_ended(pid) for pid in pids), what="the end of all workers")
    assert server.start("--workers", "2") > 0
    assert server.get("/readyz").status == 200


def test_a_worker_that_stands_still_stops_neither_metrics_nor_the_end(server):
    pids = worker_pids(server)
    os.kill(pids[1], signal.SIGSTOP)

    def seen_without_it():
        # A request that comes to the one that stands still gets no answer.
        try:
            return 'hydrasms_worker_up{worker="1"} 0' in server.get("/metrics").body
        except TimeoutError:
            return False

    stopped = psutil.Process(pids[1])
    wait_until(lambda: stopped.status() == psutil.STATUS_STOPPED, what="a worker that stands still")
    clients = ThreadPoolExecutor(8)
    try:
        found = [clients.submit(seen_without_it) for _ in range(8)]
        wait_until(lambda: any(one.done() and one.result() for one in found), what="metrics without it")
    finally:
        os.kill(pids[1], signal.SIGCONT)
        clients.shutdown()
    assert server.terminate() == 0


def test_exactly_as_many_sends_are_accepted_as_there_are_credits_through_two_workers(standing):
    account_id, key = standing.account(credits=BALANCE)
    with ThreadPoolExecutor(32) as racers:
        answers = list(racers.map(lambda number: standing.send(key, f"racer {number}"), range(RACERS)))
    assert Counter((answer.status, answer.body.get("code")) for answer in answers) == {
        (200, None): BALANCE,
        (400, "INSUFFICIENT_CREDITS"): RACERS - BALANCE,
    }
    assert min(accepted_by_worker(standing).values()) > 0
    assert standing.json("credits", "balance", account_id)["balance"] == 0
    assert len(standing.messages(account_id)) == BALANCE
    assert standing.json("ledger", "verify")["ok"] is True


def test_twins_with_one_idempotency_key_are_one_message_whichever_workers_they_reach(standing):
    account_id, key = standing.account(credits=CREDITS)
    together = threading.Barrier(8, timeout=60)

    def twin(number):
        together.wait()
        return standing.send(key, f"pair {number}", Idempotency_Key=f"pair-{number}")

    ids = set()
    with ThreadPoolExecutor(8) as twins:
        for pair in range(20):
            answers = list(twins.map(twin, [pair] * 8))
            assert {answer.status for answer in answers} == {200}
            assert len({answer.body["ID"] for answer in answers}) == 1
            assert [answer.headers.get("idempotent-replayed") for answer in answers].count("true") == 7
            ids.add(answers[0].body["ID"])
    # Both were asked: every request had a connection of its own.
    assert min(accepted_by_worker(standing).values()) > 0
    assert {message["id"] for message in standing.messages(account_id)} == ids


def test_another_server_on_the_data_directory_or_a_port_is_refused(standing, tmp_path):
    refused = standing.run("serve", "--workers", "2")
    assert refused.returncode == 1
    assert "already uses the data directory" in refused.stderr
    assert standing.process is not None
    assert f"process {standing.process.pid}" in refused.stderr
    elsewhere = Served(tmp_path / "other")
    for flags in (["--workers", "2"], []):
        for port in ("http", "grpc"):
            ports = {"http": free_port(), "grpc": free_port()} | {port: getattr(standing, f"{port}_port")}
            refused = elsewhere.run(
                "serve", *flags, "--http-port", str(ports["http"]), "--grpc-port", str(ports["grpc"])
            )
            assert refused.returncode == 1
            assert f"HYDRASMS_{port.upper()}_PORT" in refused.stderr
    assert standing.get("/readyz").status == 200


def test_workers_that_cannot_start_end_the_server_with_a_word_why(tmp_path: Path):
    server = Served(tmp_path / "var", variables={"HYDRASMS_WORKERS": "2", "HYDRASMS_GRPC_HOST": "localhost"})
    (tmp_path / "var").mkdir()
    (tmp_path / "var" / "demo.key").mkdir()
    refused = server.run("serve")
    assert refused.returncode == 1
    last = refused.stderr.splitlines()[-1]
    assert last.startswith("hydrasms: worker 0 ended with status 1")


def test_a_worker_that_dies_again_and_again_is_given_up(server):
    # What it needs is taken away: the service token is not one any more.
    token = server.data_dir / "service.token"
    token.unlink()
    token.mkdir()
    os.kill(worker_pids(server)[0], signal.SIGKILL)
    assert server.process is not None
    assert server.process.wait(60) == 1
    last = server.log_file.read_text().splitlines()[-1]
    assert last.startswith("hydrasms: worker")
    assert "times in a row" in last


def test_several_edges_serve_one_core(tmp_path):
    with split_in(tmp_path, HYDRASMS_WORKERS="1") as split:
        split.role("core").start()
        split.role("worker").start()
        edge = split.role("edge", HYDRASMS_WORKERS="2")
        edge.start()
        client = split.client
        wait_until(lambda: client.get("/readyz").status == 200, what="an edge that found its core")
        _, key = client.account(credits=CREDITS)
        with ThreadPoolExecutor(16) as senders:
            answers = list(senders.map(lambda number: client.send(key, f"send {number}"), range(64)))
        assert {answer.status for answer in answers} == {200}
        assert accepted_by_worker(client).total() == 64
        assert min(accepted_by_worker(client).values()) > 0
        refused = client.run("serve", "core", "--workers", "2")
        assert refused.returncode == 1
        assert "HYDRASMS_WORKERS" in refused.stderr
        assert edge.terminate() == 0


def test_a_server_that_is_told_to_stop_while_it_starts_leaves_nobody(tmp_path):
    server = Served(tmp_path / "var", variables={"HYDRASMS_WORKERS": "2"})
    began = time.monotonic()
    thread = threading.Thread(target=server.try_start, daemon=True)
    thread.start()
    wait_until(lambda: server.process is not None and len(worker_pids(server)) == 2, what="two workers")
    pids = worker_pids(server)
    assert server.terminate() == 0
    thread.join(60)
    assert all(has_ended(pid) for pid in pids)
    assert time.monotonic() - began < 60
