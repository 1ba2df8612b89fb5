"""Backups made under load: each restores, verifies and holds all that was acknowledged before it began."""

import contextlib
from pathlib import Path

import pytest

from tests.support.aftermath import books_of, judge, settle
from tests.support.backups import backups_of
from tests.support.history import Attempt, check
from tests.support.load import Clients
from tests.support.served import Served, served

CREDITS = 10_000_000
REFUSALS = ("IDEMPOTENCY_MISMATCH",)


def back_up_again_and_again(
    folder: Path, database_url: str | None, note, *, backups: int, sends_between: int
) -> None:
    with contextlib.ExitStack() as stack:
        ways = backups_of(database_url, folder, stack)
        with served(folder / "var", database_url=database_url) as server:
            clients = Clients([server.http_port], [server.account(credits=CREDITS) for _ in range(3)])
            clients.start()
            before: list[list[Attempt]] = []
            try:
                for number in range(backups):
                    clients.wait_for(sends_between)
                    before.append(clients.history.attempts())
                    ways.make(server, number)
                clients.wait_for(sends_between)
            finally:
                clients.stop()
            settle(server)
            judge(server, clients.history, refusals=REFUSALS)
        attempts = clients.history.attempts()
        kept = [serve(ways.restored(number), attempts, owed) for number, owed in enumerate(before)]
    assert kept == sorted(kept)
    note(f"{backups} of {backups} restored and verified, with {kept[0]} to {kept[-1]} messages")


def serve(restored: Served, attempts: list[Attempt], owed: list[Attempt]) -> int:
    """Verify what was restored, and serve it until all that was queued in it is delivered."""
    assert restored.json("ledger", "verify", "--offline")["ok"] is True
    books = books_of(restored)
    assert check(attempts, books, owed=owed) == []
    restored.start("--no-demo")
    settle(restored)
    assert check(attempts, books_of(restored), owed=owed) == []
    assert restored.terminate() == 0
    return len(books.messages)


def test_a_backup_made_under_load_restores_and_verifies(tmp_path: Path, database_url, note):
    back_up_again_and_again(tmp_path, database_url, note, backups=2, sends_between=100)


@pytest.mark.faults
def test_20_backups_made_under_load_restore_and_verify(tmp_path: Path, database_url, note):
    back_up_again_and_again(tmp_path, database_url, note, backups=20, sends_between=200)


def test_the_check_finds_a_backup_that_began_too_early(tmp_path: Path):
    """The control: a copy that lacks what was acknowledged before it is said to have been made is found."""
    with served(tmp_path / "var") as server:
        clients = Clients([server.http_port], [server.account(credits=CREDITS)], threads=2)
        clients.start()
        clients.wait_for(20)
        assert server.run("db", "backup", str(tmp_path / "early.db")).returncode == 0
        clients.wait_for(20)
        clients.stop()
    early = Served(tmp_path / "unused", database_url=f"sqlite:///{tmp_path / 'early.db'}")
    attempts = clients.history.attempts()
    assert {violation.rule for violation in check(attempts, books_of(early))} == {"lost"}
