"""Two edges, two cores and two workers over one PostgreSQL, any of which is killed and started again under load."""

import contextlib
import itertools
import random
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.aftermath import judge, settle
from tests.support.databases import postgres_template, postgres_url
from tests.support.history import Outcome
from tests.support.load import Clients
from tests.support.roles import RoleProcess, split_in, status_of
from tests.support.served import READY_S, Served, free_port, wait_until

pytestmark = pytest.mark.postgresql

CREDITS = 10_000_000
READY_WITHIN_S = 30.0
SENDS_BETWEEN = 100


@contextlib.contextmanager
def fleet(folder: Path, **settings: str) -> Iterator[tuple[Served, list[int], list[RoleProcess]]]:
    """Run two of each role; gives what calls the first edge, the ports of both edges, and all six processes."""
    grpc_ports = [free_port(), free_port()]
    with contextlib.ExitStack() as stack:
        # Empty: the schema is made by whoever comes first.
        database = stack.enter_context(postgres_template(lambda _: None))
        shared = {
            "HYDRASMS_DATABASE_URL": postgres_url(database),
            "HYDRASMS_CORE": ",".join(f"127.0.0.1:{port}" for port in grpc_ports),
            "HYDRASMS_GRPC_SOCKET": "",
        }
        split = stack.enter_context(split_in(folder, **shared, **settings))
        ports = [split.http_port, free_port()]
        processes = [
            *(split.role("edge", name=f"edge-{port}", HYDRASMS_HTTP_PORT=str(port)) for port in ports),
            *(split.role("core", name=f"core-{port}", HYDRASMS_GRPC_PORT=str(port)) for port in grpc_ports),
            *(split.role("worker", name=f"worker-{number}") for number in (1, 2)),
        ]
        for process in processes:
            # In any order, and all at once: they wait for each other.
            process.start(wait=False)
        clients = [Served(folder / "var", port) for port in ports]
        for client in clients:
            wait_until(
                lambda client=client: status_of(client, "/readyz") == 200,
                bound_s=READY_S,
                what="an edge that is ready",
            )
        yield split.client, ports, processes


def kill_one_after_the_other(folder: Path, *, kills: int, **settings: str) -> str:
    """Kill and start again, at random but each as often; holds what clients were told against the books."""
    with fleet(folder, **settings) as (server, ports, processes):
        accounts = [server.account(credits=CREDITS) for _ in range(6)]
        clients = Clients(ports, accounts, threads=8)
        clients.start()
        took_s = []
        try:
            rounds = (random.sample(processes, len(processes)) for _ in itertools.count())
            for process in itertools.islice(itertools.chain.from_iterable(rounds), kills):
                clients.wait_for(SENDS_BETWEEN)
                began = time.monotonic()
                process.end()
                process.start()
                took_s.append(time.monotonic() - began)
            clients.wait_for(SENDS_BETWEEN)
        finally:
            clients.stop()
        # What a killed worker held is taken over when its lease has run out.
        settle(server)
        books = judge(server, clients.history, refusals=["IDEMPOTENCY_MISMATCH"])
    unknown = clients.history.count(Outcome.UNKNOWN).total()
    assert unknown > 0
    assert max(took_s) < READY_WITHIN_S
    risky = sum(message.duplicate_risk for message in books.messages)
    return (
        f"{kills} kills, {len(books.messages)} messages, {unknown} attempts without an answer, "
        f"{risky} marked as perhaps doubled, ready again within {max(took_s):.1f} s"
    )


def test_a_fleet_loses_nothing_where_each_of_its_processes_is_killed(tmp_path: Path, note):
    note(kill_one_after_the_other(tmp_path, kills=6))


@pytest.mark.faults
def test_a_fleet_loses_nothing_over_60_kills(tmp_path: Path, note):
    note(kill_one_after_the_other(tmp_path, kills=60))


@pytest.mark.faults
def test_a_fleet_over_partitions_loses_nothing(tmp_path: Path, note):
    note(kill_one_after_the_other(tmp_path, kills=12, HYDRASMS_LANES="4"))


def test_a_process_of_a_fleet_that_ends_in_order_costs_no_request(tmp_path: Path):
    with fleet(tmp_path) as (server, ports, processes):
        clients = Clients(ports, [server.account(credits=CREDITS) for _ in range(4)], threads=4)
        clients.start()
        try:
            # Edges are left out: whoever talks to one that ends has to turn to the other, as a load balancer does.
            for process in processes[2:]:
                clients.wait_for(SENDS_BETWEEN)
                assert process.terminate() == 0
                clients.wait_for(SENDS_BETWEEN)
                process.start()
        finally:
            clients.stop()
        assert clients.history.count(Outcome.UNKNOWN) == {}
        settle(server)
        judge(server, clients.history, refusals=["IDEMPOTENCY_MISMATCH"])
