"""kill -9 under load: what was acknowledged is there, what is there was paid, and nothing twice."""

import contextlib
import itertools
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import pytest

from tests.support.aftermath import books_of, judge, settle
from tests.support.history import Outcome, check
from tests.support.load import Clients
from tests.support.roles import split_in, status_of
from tests.support.served import Served, served, wait_until

CREDITS = 10_000_000
FEW = 50
READY_WITHIN_S = 30.0
"""A bound that a busy machine keeps as well; what a start took is noted and is to be under 5 s."""
REFUSALS = ("INSUFFICIENT_CREDITS", "IDEMPOTENCY_MISMATCH")


def kill_again_and_again(
    server: Served, kill_and_start: Callable[[], float], *, kills: int, sends_between: int
) -> list[float]:
    """Kill something under load and start it again; returns how many seconds each start took."""
    accounts = [*(server.account(credits=CREDITS) for _ in range(3)), server.account(credits=FEW)]
    clients = Clients([server.http_port], accounts)
    clients.start()
    starts_s = []
    try:
        for _ in range(kills):
            clients.wait_for(sends_between)
            starts_s.append(kill_and_start())
        clients.wait_for(sends_between)
    finally:
        clients.stop()
    settle(server)
    judge(server, clients.history, refusals=REFUSALS)
    # The poor account's sends were refused, and the faults were felt: else nothing of all this was tested.
    assert clients.history.count(Outcome.REFUSED)["INSUFFICIENT_CREDITS"] > 0
    assert clients.history.count(Outcome.UNKNOWN).total() > 0
    assert max(starts_s) < READY_WITHIN_S
    return starts_s


def kill_all_in_one(folder: Path, database_url: str | None, *flags: str, kills: int) -> list[float]:
    with served(folder / "var", *flags, database_url=database_url) as server:

        def kill_and_start() -> float:
            server.kill()
            return server.start(*flags)

        return kill_again_and_again(server, kill_and_start, kills=kills, sends_between=100)


def kill_roles_in_turn(folder: Path, database_url: str | None, *, kills: int) -> list[float]:
    with split_in(folder, HYDRASMS_DATABASE_URL=database_url or "") as split:
        roles = [split.role(name) for name in ("core", "edge", "worker")]
        for process in roles:
            process.start()
        server, turns = split.client, itertools.cycle(roles)
        wait_until(lambda: status_of(server, "/readyz") == 200, what="a product that is ready")

        def kill_and_start() -> float:
            process, began = next(turns), time.monotonic()
            process.end()
            process.start()
            wait_until(lambda: status_of(server, "/readyz") == 200, what="a product that is ready again")
            return time.monotonic() - began

        return kill_again_and_again(server, kill_and_start, kills=kills, sends_between=100)


def summary(starts_s: list[float]) -> str:
    late = sum(start_s > 5 for start_s in starts_s)
    return (
        f"ready again after {median(starts_s):.2f} s (median), {max(starts_s):.2f} s (worst), {late} over 5 s"
    )


def test_nothing_acknowledged_is_lost_over_a_few_kills(tmp_path: Path, database_url, note):
    note(summary(kill_all_in_one(tmp_path, database_url, kills=4)))


def test_nothing_acknowledged_is_lost_where_each_role_is_killed(tmp_path: Path, database_url, note):
    note(summary(kill_roles_in_turn(tmp_path, database_url, kills=3)))


@pytest.mark.faults
def test_nothing_acknowledged_is_lost_over_200_kills(tmp_path: Path, database_url, note):
    note(summary(kill_all_in_one(tmp_path, database_url, kills=200)))


@pytest.mark.faults
def test_nothing_acknowledged_is_lost_over_60_kills_of_two_workers(tmp_path: Path, database_url, note):
    note(summary(kill_all_in_one(tmp_path, database_url, "--workers", "2", kills=60)))


@pytest.mark.faults
def test_nothing_acknowledged_is_lost_over_60_kills_of_roles(tmp_path: Path, database_url, note):
    note(summary(kill_roles_in_turn(tmp_path, database_url, kills=60)))


def test_the_check_finds_a_lost_message(tmp_path: Path):
    """The control: the same check against a store that lost one acknowledged message."""
    with served(tmp_path / "var") as server:
        clients = Clients([server.http_port], [server.account(credits=100_000)], threads=2)
        clients.start()
        clients.wait_for(20)
        clients.stop()
        settle(server)
        judge(server, clients.history, refusals=REFUSALS)
        victim = books_of(server).messages[0]
        with contextlib.closing(sqlite3.connect(server.data_dir / "hydrasms.db")) as connection:
            connection.execute("DELETE FROM messages WHERE id = ?", (victim.id,))
            connection.commit()
        violations = check(clients.history.attempts(), books_of(server))
        assert {violation.rule for violation in violations} <= {"lost", "paid without message"}
        assert "paid without message" in {violation.rule for violation in violations}
        assert {violation.subject for violation in violations} == {victim.id}
        verdict = server.run("ledger", "verify", "--json")
        assert verdict.returncode != 0
        assert "spend" in verdict.stdout
