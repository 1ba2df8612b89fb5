"""All SQL about what carriers do to messages.

Every statement takes a whole batch. Statements that begin from the outbox or from a carrier's reference cannot
name the account; all others do.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import sqlalchemy as sa

from hydrasms_core.carriers.base import ReceiptStatus
from hydrasms_core.db.dialect import SetStatement
from hydrasms_core.db.transaction import Transaction
from hydrasms_core.messaging.delivery import Move, Report, Standing, Step
from hydrasms_core.messaging.model import Status
from hydrasms_core.messaging.tables import messages, outbox
from hydrasms_core.messaging.text import Encoding

_FIND_DUE = SetStatement(
    "SELECT o.account_id, o.message_id, m.sender, m.recipient, m.content, m.encoding, m.segments, m.credits,"
    " m.status, m.attempts, m.duplicate_risk, m.expires_at_ms, o.claim <> '', m.failure"
    " FROM outbox AS o JOIN messages AS m ON m.account_id = o.account_id AND m.id = o.message_id"
    f" WHERE o.step = '{Step.SUBMIT}' AND o.due_at_ms <= :now_ms"
    " AND o.claim NOT IN (SELECT r.claim FROM {rows} AS r)"
    " ORDER BY o.due_at_ms LIMIT :most",
    ("claim",),
)
_HAND_OUT = SetStatement(
    f"UPDATE messages SET status = '{Status.SUBMITTING}', carrier = r.carrier, attempts = r.attempts,"
    " duplicate_risk = r.duplicate_risk, updated_at_ms = :at_ms"
    " FROM {rows} AS r WHERE messages.account_id = r.account_id AND messages.id = r.message_id",
    ("account_id", "message_id", "carrier", "attempts", "duplicate_risk"),
)
_LEASE = SetStatement(
    "UPDATE outbox SET claim = :claim, due_at_ms = :until_ms"
    " FROM {rows} AS r WHERE outbox.account_id = r.account_id AND outbox.message_id = r.message_id",
    ("account_id", "message_id"),
)
_RENEW = SetStatement(
    "UPDATE outbox SET due_at_ms = :until_ms"
    " FROM {rows} AS r WHERE outbox.account_id = r.account_id AND outbox.message_id = r.message_id"
    " AND outbox.claim = :claim",
    ("account_id", "message_id"),
)
_SCHEDULE = SetStatement(
    "UPDATE outbox SET step = r.step, due_at_ms = r.due_at_ms, claim = ''"
    " FROM {rows} AS r WHERE outbox.account_id = r.account_id AND outbox.message_id = r.message_id"
    " AND outbox.claim = :claim RETURNING outbox.message_id",
    ("account_id", "message_id", "step", "due_at_ms"),
)
_FINISH = SetStatement(
    "DELETE FROM outbox WHERE claim = :claim"
    " AND (account_id, message_id) IN (SELECT r.account_id, r.message_id FROM {rows} AS r)"
    " RETURNING message_id",
    ("account_id", "message_id"),
)
_FORGET = SetStatement(
    "DELETE FROM outbox"
    " WHERE (account_id, message_id) IN (SELECT r.account_id, r.message_id FROM {rows} AS r)",
    ("account_id", "message_id"),
)
_SET_STATUS = SetStatement(
    "UPDATE messages SET status = r.status, failure = r.failure, updated_at_ms = :at_ms"
    " FROM {rows} AS r WHERE messages.account_id = r.account_id AND messages.id = r.message_id",
    ("account_id", "message_id", "status", "failure"),
)
_INSERT_REFERENCES = SetStatement(
    # A carrier that gives one reference twice must not undo the rest of the batch: the first message keeps it.
    "INSERT INTO carrier_references (carrier, reference, account_id, message_id)"
    " SELECT :carrier, r.reference, r.account_id, r.message_id FROM {rows} AS r WHERE true"
    " ON CONFLICT (carrier, reference) DO NOTHING",
    ("account_id", "message_id", "reference"),
)
_FIND_REFERENCES = SetStatement(
    "SELECT c.carrier, c.reference, c.account_id, c.message_id, m.status"
    " FROM {rows} AS r"
    " JOIN carrier_references AS c ON c.carrier = r.carrier AND c.reference = r.reference"
    " JOIN messages AS m ON m.account_id = c.account_id AND m.id = c.message_id",
    ("carrier", "reference"),
)
_INSERT_RECEIPTS = SetStatement(
    "INSERT INTO receipts"
    " (id, carrier, reference, account_id, message_id, status, failure, applied, received_at_ms)"
    " SELECT r.id, r.carrier, r.reference, r.account_id, r.message_id, r.status, r.failure, r.applied,"
    " r.received_at_ms FROM {rows} AS r WHERE true",
    (
        "id",
        "carrier",
        "reference",
        "account_id",
        "message_id",
        "status",
        "failure",
        "applied",
        "received_at_ms",
    ),
)
_FIND_PARKED = SetStatement(
    "SELECT p.id, c.account_id, c.message_id, m.status, p.status, p.failure"
    " FROM {rows} AS r"
    " JOIN receipts AS p ON p.carrier = :carrier AND p.reference = r.reference AND p.message_id = ''"
    " JOIN carrier_references AS c ON c.carrier = p.carrier AND c.reference = p.reference"
    " JOIN messages AS m ON m.account_id = c.account_id AND m.id = c.message_id"
    " ORDER BY p.id",
    ("reference",),
)
_MATCH_PARKED = SetStatement(
    "UPDATE receipts SET account_id = r.account_id, message_id = r.message_id, applied = r.applied"
    " FROM {rows} AS r WHERE receipts.id = r.id",
    ("id", "account_id", "message_id", "applied"),
)


Key = tuple[str, str]
"""An account and a message of it."""


class Due(NamedTuple):
    """A message whose step `submit` is due, with all that handing it on takes."""

    account_id: str
    message_id: str
    sender: str
    recipient: str
    content: str
    encoding: Encoding
    segments: int
    credits: int
    standing: Standing


class HandedOut(NamedTuple):
    """A message that goes to a carrier; `attempts` counts this time."""

    account_id: str
    message_id: str
    carrier: str
    attempts: int
    duplicate_risk: int


class Settled(NamedTuple):
    """A message's new status, with the carrier's word for why."""

    account_id: str
    message_id: str
    status: Status
    failure: str


class Scheduled(NamedTuple):
    """What is to be done about a message, and when."""

    account_id: str
    message_id: str
    step: Step
    due_at_ms: int


class StoredReceipt(NamedTuple):
    """A receipt as it is kept; the ids of its message are empty where it has not found one."""

    id: str
    carrier: str
    reference: str
    account_id: str
    message_id: str
    status: ReceiptStatus
    failure: str
    applied: int
    received_at_ms: int


async def find_due(tx: Transaction, *, now_ms: int, most: int, living: Iterable[str]) -> list[Due]:
    """Return the messages that are due to be handed on, the longest due first, but for those of living claims."""
    rows = await tx.execute_set(_FIND_DUE, [(claim,) for claim in living], {"now_ms": now_ms, "most": most})
    return [
        Due(
            row[0],
            row[1],
            row[2],
            row[3],
            row[4],
            Encoding(row[5]),
            row[6],
            row[7],
            Standing(Status(row[8]), row[9], bool(row[10]), row[11], bool(row[12]), row[13]),
        )
        for row in rows
    ]


async def next_due(tx: Transaction) -> tuple[int | None, int | None]:
    """Return when the next message is due to be handed on, and when the next receipt is overdue."""
    earliest = [
        sa.select(sa.func.min(outbox.c.due_at_ms)).where(outbox.c.step == step.value).scalar_subquery()
        for step in (Step.SUBMIT, Step.RECEIPT)
    ]
    submit_ms, receipt_ms = tuple((await tx.execute(sa.select(*earliest))).one())
    return submit_ms, receipt_ms


async def hand_out(
    tx: Transaction, claim: str, handed: Sequence[HandedOut], *, until_ms: int, at_ms: int
) -> None:
    """Record that messages are on their way to carriers, held by a claim until a time."""
    await tx.execute_set(_HAND_OUT, handed, {"at_ms": at_ms})
    await tx.execute_set(_LEASE, [row[:2] for row in handed], {"claim": claim, "until_ms": until_ms})


async def renew(tx: Transaction, claim: str, held: Sequence[Key], *, until_ms: int) -> None:
    """Let a claim last longer, on those of its messages that it still holds."""
    await tx.execute_set(_RENEW, held, {"claim": claim, "until_ms": until_ms})


async def release_claims(tx: Transaction, *, now_ms: int) -> int:
    """Let all claims end at once; returns how many messages they held. Only for whoever owns the database alone."""
    result = await tx.execute(
        sa.update(outbox)
        .where(outbox.c.step == Step.SUBMIT.value, outbox.c.claim != "")
        .values(due_at_ms=now_ms)
    )
    return result.rowcount


async def schedule(tx: Transaction, claim: str, scheduled: Sequence[Scheduled]) -> set[str]:
    """Set what comes next for messages that a claim holds and let go of them; returns the ids of those held."""
    rows = await tx.execute_set(_SCHEDULE, scheduled, {"claim": claim})
    return {row[0] for row in rows}


async def finish(tx: Transaction, claim: str, finished: Sequence[Key]) -> set[str]:
    """Take messages that a claim holds out of the outbox; returns the ids of those held."""
    rows = await tx.execute_set(_FINISH, finished, {"claim": claim})
    return {row[0] for row in rows}


async def forget(tx: Transaction, finished: Sequence[Key]) -> None:
    """Take messages out of the outbox, whoever holds them."""
    await tx.execute_set(_FORGET, finished)


async def set_status(tx: Transaction, settled: Sequence[Settled], *, at_ms: int) -> None:
    """Record new statuses."""
    await tx.execute_set(_SET_STATUS, settled, {"at_ms": at_ms})


async def add_references(tx: Transaction, carrier: str, references: Sequence[tuple[str, str, str]]) -> None:
    """Remember what a carrier calls messages: (account, message, reference)."""
    await tx.execute_set(_INSERT_REFERENCES, references, {"carrier": carrier})


async def find_references(
    tx: Transaction, references: Iterable[tuple[str, str]]
) -> dict[tuple[str, str], tuple[Key, Status]]:
    """Return the messages that (carrier, reference) pairs stand for, where they are known, and their statuses."""
    rows = await tx.execute_set(_FIND_REFERENCES, list(references))
    return {(row[0], row[1]): ((row[2], row[3]), Status(row[4])) for row in rows}


async def add_receipts(tx: Transaction, receipts: Sequence[StoredReceipt]) -> None:
    """Store receipts."""
    await tx.execute_set(_INSERT_RECEIPTS, receipts)


async def find_parked(tx: Transaction, carrier: str, references: Sequence[str]) -> list[tuple[str, Report]]:
    """Return the receipts that came before their references were known, oldest first, with their ids."""
    rows = await tx.execute_set(
        _FIND_PARKED, [(reference,) for reference in references], {"carrier": carrier}
    )
    return [(row[0], Report((row[1], row[2]), Status(row[3]), ReceiptStatus(row[4]), row[5])) for row in rows]


async def match_parked(tx: Transaction, matched: Sequence[tuple[str, str, str, int]]) -> None:
    """Record which messages parked receipts belong to: (receipt, account, message, whether it moved it)."""
    await tx.execute_set(_MATCH_PARKED, matched)


async def apply_moves(tx: Transaction, moves: Sequence[Move], *, at_ms: int) -> None:
    """Move messages where reports say they are; nothing more is to be done about them."""
    await set_status(tx, [Settled(*move.message, move.status, move.failure) for move in moves], at_ms=at_ms)
    await forget(tx, [move.message for move in moves])


async def find_overdue_receipts(tx: Transaction, *, now_ms: int, most: int) -> list[tuple[Key, Status]]:
    """Return the messages whose receipt should have come by now, the longest due first, with their statuses."""
    result = await tx.execute(
        sa.select(outbox.c.account_id, outbox.c.message_id, messages.c.status)
        .join(
            messages,
            sa.and_(messages.c.account_id == outbox.c.account_id, messages.c.id == outbox.c.message_id),
        )
        .where(outbox.c.step == Step.RECEIPT.value, outbox.c.due_at_ms <= now_ms)
        .order_by(outbox.c.due_at_ms)
        .limit(most)
    )
    return [((row.account_id, row.message_id), Status(row.status)) for row in result]
