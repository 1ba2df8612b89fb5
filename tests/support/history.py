"""What clients were told, held against what is stored: the check that every fault is followed by.

A `History` knows every attempt of every client and how it ended; `Books` are what a database holds afterwards.
`check` says in which ways the two cannot both be right. Each send has a content of its own, so that a stored message
is always known to come of one send.
"""

import enum
import threading
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import sqlalchemy as sa

from hydrasms_core.db.transaction import Database, Transaction


class Outcome(enum.Enum):
    """What a client knows of an attempt once it is over."""

    ACKNOWLEDGED = enum.auto()
    REFUSED = enum.auto()
    UNKNOWN = enum.auto()
    """No answer, or one that leaves open what was done: connection lost, time out, 5xx."""


class Send(NamedTuple):
    """Something that a client wants sent, once. The content is its id: it is never used for another send."""

    content: str
    account_id: str
    key: str | None
    credits: int


class Attempt(NamedTuple):
    """One request for a send; `detail` is the message's id, the reason of the refusal, or what broke."""

    send: Send
    outcome: Outcome
    detail: str


class History:
    """Every attempt of many clients. Each is noted before its first byte leaves, and again when it is over."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._attempts: list[Attempt] = []

    def begin(self, send: Send) -> int:
        """Note that an attempt is about to leave; returns its number."""
        with self._lock:
            self._attempts.append(Attempt(send, Outcome.UNKNOWN, "under way"))
            return len(self._attempts) - 1

    def end(self, number: int, outcome: Outcome, detail: str) -> None:
        """Note how an attempt ended. What is never ended stays unknown, as after a crash of the client."""
        with self._lock:
            self._attempts[number] = self._attempts[number]._replace(outcome=outcome, detail=detail)

    def attempts(self) -> list[Attempt]:
        """Return all attempts so far."""
        with self._lock:
            return list(self._attempts)

    def count(self, outcome: Outcome) -> Counter[str]:
        """Return how many attempts ended so, by reason or by what broke (acknowledged: by id)."""
        return Counter(attempt.detail for attempt in self.attempts() if attempt.outcome is outcome)


class StoredMessage(NamedTuple):
    """A message as the database has it."""

    id: str
    account_id: str
    content: str
    credits: int
    status: str
    duplicate_risk: bool


class StoredTransfer(NamedTuple):
    """A transfer as the database has it; `change` is what it did to the account's balance."""

    account_id: str
    kind: str
    change: int
    message_id: str


@dataclass(frozen=True)
class Books:
    """All messages, transfers and balances of a database, of one moment."""

    messages: Sequence[StoredMessage] = ()
    transfers: Sequence[StoredTransfer] = ()
    balances: Mapping[str, int] = field(default_factory=dict)


class Violation(NamedTuple):
    """A way in which history and books, or the books alone, cannot be right."""

    rule: str
    subject: str
    detail: str


async def read_books(database: Database) -> Books:
    """Read a database's books in one transaction, from the tables themselves."""

    async def work(tx: Transaction) -> Books:
        messages = await tx.execute(
            sa.text("SELECT id, account_id, content, credits, status, duplicate_risk FROM messages")
        )
        transfers = await tx.execute(
            sa.text(
                "SELECT account_id, kind, CASE WHEN credit_account = account_id THEN amount ELSE -amount END,"
                " message_id FROM transfers"
            )
        )
        balances = await tx.execute(sa.text("SELECT account_id, balance FROM balances"))
        return Books(
            [
                StoredMessage(
                    row.id, row.account_id, row.content, row.credits, row.status, bool(row.duplicate_risk)
                )
                for row in messages
            ],
            [StoredTransfer(*tuple(row)) for row in transfers],
            dict(tuple(row) for row in balances),
        )

    return await database.read(work)


def check(
    attempts: Sequence[Attempt], books: Books, *, owed: Sequence[Attempt] | None = None
) -> list[Violation]:
    """Return all that is wrong.

    acknowledged ⊆ stored ⊆ attempted, nothing stored that was only ever refused, no key and no attempt stored twice,
    an id for each send and a send for each id, and exact sums. `owed` are the attempts whose acknowledgements must be
    stored where those are not all: of a backup, what was acknowledged before it began.
    """
    return [
        *_of_acknowledgements(attempts, owed if owed is not None else attempts, books.messages),
        *_of_what_is_stored(attempts, books.messages),
        *check_sums(books),
    ]


def check_sums(books: Books) -> list[Violation]:
    """Return what is wrong with the money alone: every message is paid once, and balances are sums."""
    return [*_of_payments(books), *_of_balances(books)]


def _of_acknowledgements(
    attempts: Sequence[Attempt], owed: Sequence[Attempt], messages: Sequence[StoredMessage]
) -> Iterator[Violation]:
    stored = {message.id: message for message in messages}
    for send, message_id in _acknowledged(owed):
        message = stored.get(message_id)
        if message is None:
            yield Violation("lost", message_id, f"acknowledged for {send.content} and not stored")
        elif message[1:4] != (send.account_id, send.content, send.credits):
            yield Violation("altered", message_id, f"acknowledged as {send}, stored as {message}")
    ids: defaultdict[Send, set[str]] = defaultdict(set)
    sends: defaultdict[str, set[Send]] = defaultdict(set)
    for send, message_id in _acknowledged(attempts):
        ids[send].add(message_id)
        sends[message_id].add(send)
    for send, found in ids.items():
        if send.key is not None and len(found) > 1:
            yield Violation("replayed under another id", send.content, f"acknowledged as {sorted(found)}")
    for message_id, shared in sends.items():
        if len(shared) > 1:
            yield Violation("one id for two sends", message_id, f"acknowledged for {len(shared)} sends")


def _acknowledged(attempts: Sequence[Attempt]) -> list[tuple[Send, str]]:
    return [(send, message_id) for send, outcome, message_id in attempts if outcome is Outcome.ACKNOWLEDGED]


def _of_what_is_stored(attempts: Sequence[Attempt], messages: Sequence[StoredMessage]) -> Iterator[Violation]:
    sends = {attempt.send.content: attempt.send for attempt in attempts}
    # How often a send without a key may be stored: once for each attempt that was not refused.
    allowed = Counter(a.send.content for a in attempts if a.outcome is not Outcome.REFUSED)
    stored = Counter(message.content for message in messages)
    for message in messages:
        send = sends.get(message.content)
        if send is None or send.account_id != message.account_id:
            yield Violation("phantom", message.id, f"nobody attempted to send {message.content}")
        elif not allowed[message.content]:
            yield Violation("refused and stored", message.id, f"every attempt of {send.content} was refused")
        elif send.key is None and stored[send.content] > allowed[send.content]:
            yield Violation("doubled", message.id, f"{send.content} is stored {stored[send.content]} times")
    keys = Counter(
        (send.account_id, send.key)
        for send in (sends.get(message.content) for message in messages)
        if send is not None and send.key is not None
    )
    for (account_id, key), times in keys.items():
        if times > 1:
            yield Violation("doubled", account_id, f"the key {key} is stored {times} times")


def _of_payments(books: Books) -> Iterator[Violation]:
    spent, refunded = _changes(books.transfers, "spend"), _changes(books.transfers, "refund")
    messages = {(message.account_id, message.id): message for message in books.messages}
    if len(messages) < len(books.messages):
        yield Violation("doubled", "", "two messages of one account have one id")
    for key, message in messages.items():
        if spent.get(key, []) != [-message.credits]:
            yield Violation("not paid once", key[1], f"costs {message.credits}, spends {spent.get(key, [])}")
        if refunded.get(key, []) not in ([], [message.credits]):
            yield Violation("wrong refund", key[1], f"costs {message.credits}, refunds {refunded[key]}")
    for key in (spent.keys() | refunded.keys()) - messages.keys():
        yield Violation(
            "paid without message", key[1], f"spends {spent.get(key)}, refunds {refunded.get(key)}"
        )


def _changes(transfers: Collection[StoredTransfer], kind: str) -> dict[tuple[str, str], list[int]]:
    found: defaultdict[tuple[str, str], list[int]] = defaultdict(list)
    for transfer in transfers:
        if transfer.kind == kind:
            found[transfer.account_id, transfer.message_id].append(transfer.change)
    return found


def _of_balances(books: Books) -> Iterator[Violation]:
    sums: Counter[str] = Counter()
    for transfer in books.transfers:
        sums[transfer.account_id] += transfer.change
    for account_id in sums.keys() | books.balances.keys():
        balance = books.balances.get(account_id)
        if balance is None or balance != sums[account_id] or balance < 0:
            yield Violation("wrong sum", account_id, f"the balance is {balance}, the sum {sums[account_id]}")
