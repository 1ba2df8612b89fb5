"""The clock of a real server is set on and back by an hour, under load."""

import json
from pathlib import Path

import pytest

from tests.support.aftermath import judge, settle
from tests.support.history import Outcome
from tests.support.load import Clients
from tests.support.served import Served
from tests.support.set_clock import SetClock

HOUR_S = 3600
# The simulated network owes its receipts by the clock, so that at the end it is as late as it ever was.
JUMPS_S = (HOUR_S, 0, -HOUR_S, HOUR_S)


def jump_under_load(
    folder: Path, database_url: str | None, note, *, jumps: tuple[int, ...], sends_between: int
) -> None:
    clock = SetClock(folder / "clock")
    server = Served(folder / "var", database_url=database_url, variables=clock.variables)
    server.start()
    try:
        clients = Clients([server.http_port], [server.account(credits=1_000_000) for _ in range(3)])
        clients.start()
        try:
            for seconds in jumps:
                clients.wait_for(sends_between)
                clock.set(seconds)
            clients.wait_for(sends_between)
        finally:
            clients.stop()
        settle(server)
        books = judge(server, clients.history, refusals=["IDEMPOTENCY_MISMATCH"])
        # Nobody was refused for it, and nothing was handed on twice.
        assert clients.history.count(Outcome.UNKNOWN) == {}
        assert not any(message.duplicate_risk for message in books.messages)
    finally:
        server.kill()
    note(f"{len(jumps)} jumps of an hour or two: {len(books.messages)} messages, each handed on once")


def noticed_s(server: Served) -> int:
    """Return by how much the server has found its clock set, in whole hours' seconds."""
    lines = [json.loads(line) for line in server.log_file.read_text().splitlines() if line.endswith("}")]
    return HOUR_S * round(sum(line["seconds"] for line in lines if line["event"] == "clock_jumped") / HOUR_S)


def test_a_clock_that_jumps_delays_and_doubles_nothing(tmp_path: Path, database_url, note):
    jump_under_load(tmp_path, database_url, note, jumps=JUMPS_S, sends_between=50)


@pytest.mark.faults
def test_a_clock_that_jumps_again_and_again(tmp_path: Path, database_url, note):
    jump_under_load(tmp_path, database_url, note, jumps=JUMPS_S * 10, sends_between=300)
