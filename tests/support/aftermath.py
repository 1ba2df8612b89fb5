"""What every test of a fault does once it is over: wait for the traffic to end, and hold it against the books."""

from collections import Counter
from collections.abc import Collection

import sqlalchemy as sa

from hydrasms_core.db.transaction import Transaction
from tests.support.history import Books, History, Outcome, check, read_books
from tests.support.served import Served, wait_until


def settle(server: Served, *, bound_s: float = 120.0) -> None:
    """Wait until nothing is to be done any more: every accepted message is final."""

    async def waiting(tx: Transaction) -> int:
        return int((await tx.execute(sa.text("SELECT count(*) FROM outbox"))).scalar_one())

    wait_until(lambda: server.read(waiting) == 0, bound_s=bound_s, what="delivery of everything")


def books_of(server: Served) -> Books:
    """Return a server's books; it need not run."""
    books: Books = server.with_database(read_books)
    return books


def judge(server: Served, history: History, *, refusals: Collection[str] = ()) -> Books:
    """Hold a history against a server that has settled; returns the books. `refusals` are those to be expected."""
    attempts, books = history.attempts(), books_of(server)
    assert check(attempts, books) == []
    assert history.count(Outcome.ACKNOWLEDGED).total() > 0
    assert set(history.count(Outcome.REFUSED)) <= set(refusals)
    assert Counter(message.status for message in books.messages) == {"delivered": len(books.messages)}
    _judge_texts(server, books)
    verdict = server.json("ledger", "verify")
    assert (verdict["ok"], verdict["messages"]) == (True, len(books.messages))
    return books


def _judge_texts(server: Served, books: Books) -> None:
    """Every message reached its phone, and a text that came twice is one that was said to perhaps come twice."""

    async def work(tx: Transaction) -> list[str]:
        return list((await tx.execute(sa.text("SELECT message_id FROM simulated_texts"))).scalars())

    received = Counter(server.read(work))
    assert set(received) == {message.id for message in books.messages}
    risky = {message.id for message in books.messages if message.duplicate_risk}
    assert {message_id for message_id, count in received.items() if count > 1} <= risky
