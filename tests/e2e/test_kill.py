"""kill -9 under load: what was acknowledged is there, what is there was paid, and nothing twice."""

import contextlib
import sqlite3
from collections import Counter
from pathlib import Path

import pytest

from tests.support.load import Clients, History
from tests.support.served import Served, served, wait_until

CREDITS = 1_000_000
READY_WITHIN_S = 20.0


def lost(history: History, stored: dict[str, str]) -> set[str]:
    """Return what was acknowledged and is not stored under the same id: the check that kill -9 is held against."""
    return {
        content for content, message_id in history.acknowledged.items() if stored.get(content) != message_id
    }


def kill_again_and_again(server: Served, *, kills: int, sends_between: int) -> None:
    accounts = [server.account(credits=CREDITS) for _ in range(4)]
    clients = Clients(server.http_port, [key for _, key in accounts])
    clients.start()
    try:
        for _ in range(kills):
            clients.wait_for(sends_between)
            server.kill()
            assert server.start() < READY_WITHIN_S
        clients.wait_for(sends_between)
    finally:
        clients.stop()
    settle(server, accounts)
    verify(server, clients.history, accounts)


def settle(server: Served, accounts: list[tuple[str, str]]) -> None:
    """Wait until every accepted message is final."""

    def settled() -> bool:
        with contextlib.closing(sqlite3.connect(server.data_dir / "hydrasms.db")) as connection:
            return connection.execute("SELECT count(*) FROM outbox").fetchone() == (0,)

    wait_until(settled, bound_s=120, what="delivery of everything")


def verify(server: Served, history: History, accounts: list[tuple[str, str]]) -> None:
    owned = {account_id: server.messages(account_id) for account_id, _ in accounts}
    messages = [message for own in owned.values() for message in own]
    by_content = Counter(message["content"] for message in messages)
    assert history.surprises == []
    assert len(history.acknowledged) > 0
    assert lost(history, {message["content"]: message["id"] for message in messages}) == set()
    assert set(by_content) <= history.attempted
    assert [content for content, count in by_content.items() if count > 1] == []
    assert [content for content, ids in history.retried.items() if len(ids) > 1] == []
    for account_id, _ in accounts:
        spent = -sum(t["amount"] for t in server.transactions(account_id) if t["kind"] == "spend")
        assert spent == sum(message["credits"] for message in owned[account_id])
        assert server.json("credits", "balance", account_id)["balance"] == CREDITS - spent
    assert {message["status"] for message in messages} == {"delivered"}
    # A text that came twice is one that the server said may come twice.
    risky = {message["id"] for message in messages if message["duplicate_risk"]}
    with contextlib.closing(sqlite3.connect(server.data_dir / "hydrasms.db")) as connection:
        received = Counter(row[0] for row in connection.execute("SELECT message_id FROM simulated_texts"))
    assert set(received) == {message["id"] for message in messages}
    assert {message_id for message_id, count in received.items() if count > 1} <= risky
    assert server.json("ledger", "verify")["ok"] is True


def test_nothing_acknowledged_is_lost_over_a_few_kills(tmp_path: Path):
    with served(tmp_path / "var") as server:
        kill_again_and_again(server, kills=4, sends_between=100)


@pytest.mark.faults
def test_nothing_acknowledged_is_lost_over_200_kills(tmp_path: Path):
    with served(tmp_path / "var") as server:
        kill_again_and_again(server, kills=200, sends_between=100)


def test_the_check_finds_a_lost_message(tmp_path: Path):
    """The control: the same check against a store that lost one acknowledged message."""
    with served(tmp_path / "var") as server:
        account_id, key = server.account(credits=100)
        clients = Clients(server.http_port, [key], threads=2)
        clients.start()
        clients.wait_for(20)
        clients.stop()
        settle(server, [(account_id, key)])
        stored = {message["content"]: message["id"] for message in server.messages(account_id)}
        assert lost(clients.history, stored) == set()
        victim = next(iter(clients.history.acknowledged))
        with contextlib.closing(sqlite3.connect(server.data_dir / "hydrasms.db")) as connection:
            connection.execute("DELETE FROM messages WHERE content = ?", (victim,))
            connection.commit()
        stored = {message["content"]: message["id"] for message in server.messages(account_id)}
        assert lost(clients.history, stored) == {victim}
        verdict = server.run("ledger", "verify", "--json")
        assert verdict.returncode != 0
        assert "spend" in verdict.stdout
