"""All SQL about what carriers do to messages.

Every statement takes a whole batch. Statements that begin from the outbox or from a carrier's reference cannot
name the account; all others do. Locks are taken in one order, so that transactions seldom stand in each other's way:
outbox, messages, balances.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import sqlalchemy as sa

from hydrasms_core.carriers.base import ReceiptStatus
from hydrasms_core.db.dialect import SetStatement
from hydrasms_core.db.transaction import Transaction
from hydrasms_core.messaging.delivery import Move, Standing, Step
from hydrasms_core.messaging.model import Status
from hydrasms_core.messaging.tables import outbox
from hydrasms_core.messaging.text import Encoding

_KEY = ("account_id", "message_id")
_STATUSES = {status.value: status for status in Status}
_ENCODINGS = {encoding.value: encoding for encoding in Encoding}

_IS_DUE = (
    "step = :step AND due_at_ms <= :now_ms AND claim NOT IN (SELECT living.claim FROM living)"
    " AND (claim = '' OR due_at_ms <= :held_due_ms)"
)
_TAKE_DUE = SetStatement(
    # One lane alone, that of the longest due.
    "WITH living AS (SELECT r.claim FROM {rows})"
    " SELECT o.account_id, o.message_id, o.claim <> '', o.lane FROM outbox AS o"
    f" WHERE {_IS_DUE} AND o.lane = (SELECT lane FROM outbox WHERE {_IS_DUE} ORDER BY due_at_ms LIMIT 1)"
    " ORDER BY o.due_at_ms LIMIT :most {claim:o}",
    ("claim",),
)
_FIND_DUE = SetStatement(
    "SELECT m.account_id, m.id, m.sender, m.recipient, m.content, m.encoding, m.segments, m.credits,"
    " m.status, m.attempts, m.duplicate_risk, m.expires_at_ms, m.failure"
    " FROM {rows} JOIN messages AS m ON m.account_id = {r.account_id} AND m.id = r.message_id"
    " WHERE {accounts:m}",
    _KEY,
)
_NEXT_DUE = SetStatement(
    "SELECT r.step, (SELECT min(o.due_at_ms) FROM outbox AS o WHERE o.step = r.step) FROM {rows}",
    ("step",),
)
_HAND_OUT = SetStatement(
    f"UPDATE messages SET status = '{Status.SUBMITTING}', carrier = :carrier, attempts = attempts + 1,"
    " updated_at_ms = :at_ms {keyed:account_id,id=message_id} AND {accounts:messages}",
    _KEY,
)
_MARK_RISK = SetStatement(
    "UPDATE messages SET duplicate_risk = 1 {keyed:account_id,id=message_id} AND {accounts:messages}", _KEY
)
_LEASE = SetStatement(
    "UPDATE outbox SET claim = :claim, due_at_ms = :until_ms"
    " {keyed:message_id,account_id} AND {accounts:outbox}",
    _KEY,
)
_RENEW = SetStatement(
    "UPDATE outbox SET due_at_ms = :until_ms"
    " {keyed:message_id,account_id} AND claim = :claim AND {accounts:outbox}",
    _KEY,
)
_SCHEDULE = SetStatement(
    "UPDATE outbox SET step = r.step, due_at_ms = r.due_at_ms, claim = ''"
    " FROM {rows} WHERE outbox.message_id = {r.message_id} AND outbox.account_id = r.account_id"
    " AND outbox.claim = :claim AND {accounts:outbox} RETURNING outbox.message_id",
    (*_KEY, "step", "due_at_ms"),
)
_FINISH = SetStatement(
    "DELETE FROM outbox {keyed:message_id,account_id} AND claim = :claim AND {accounts:outbox}"
    " RETURNING outbox.message_id",
    _KEY,
)
_FORGET = SetStatement("DELETE FROM outbox {keyed:message_id,account_id} AND {accounts:outbox}", _KEY)
_SET_STATUS = SetStatement(
    "UPDATE messages SET status = r.status, failure = r.failure, updated_at_ms = :at_ms"
    " FROM {rows} WHERE messages.account_id = {r.account_id} AND messages.id = r.message_id"
    " AND {accounts:messages}",
    (*_KEY, "status", "failure"),
)
_INSERT_REFERENCES = SetStatement(
    # A carrier that gives one reference twice must not undo the rest of the batch: the first message keeps it.
    "INSERT INTO carrier_references (carrier, reference, account_id, message_id, lane)"
    " SELECT :carrier, r.reference, r.account_id, r.message_id, :lane FROM {rows} WHERE true"
    " ON CONFLICT (carrier, reference) DO NOTHING",
    (*_KEY, "reference"),
)
_FIND_REFERENCES = SetStatement(
    "SELECT c.carrier, c.reference, c.account_id, c.message_id, c.lane FROM {rows}"
    " JOIN carrier_references AS c ON c.carrier = {r.carrier} AND c.reference = r.reference",
    ("carrier", "reference"),
)
_HOLD_STATUSES = SetStatement(
    # Two reports of one message at once: whoever is second must see what the first has made of it.
    "SELECT m.account_id, m.id, m.status FROM {rows}"
    " JOIN messages AS m ON m.account_id = {r.account_id} AND m.id = r.message_id"
    " WHERE {accounts:m} ORDER BY r.account_id, r.message_id {lock:m}",
    _KEY,
)
_INSERT_RECEIPTS = SetStatement(
    "INSERT INTO receipts"
    " (id, carrier, reference, account_id, message_id, status, failure, applied, received_at_ms)"
    " SELECT r.id, r.carrier, r.reference, r.account_id, r.message_id, r.status, r.failure, r.applied,"
    " r.received_at_ms FROM {rows} WHERE true",
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
    "SELECT p.id, p.reference, p.status, p.failure"
    " FROM {rows}"
    " JOIN receipts AS p ON p.carrier = :carrier AND p.reference = r.reference AND p.message_id = ''"
    " ORDER BY p.id",
    ("reference",),
)
_MATCH_PARKED = SetStatement(
    "UPDATE receipts SET account_id = r.account_id, message_id = r.message_id, applied = r.applied"
    " FROM {rows} WHERE receipts.id = {r.id}",
    ("id", "account_id", "message_id", "applied"),
)


Key = tuple[str, str]
"""An account and a message of it."""

Known = tuple[Key, Status | None, int]
"""What a carrier's reference stands for: a message, its status and its lane. There is no status where there is no
such message: it is gone, or it was an automatic reply."""


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
    lane: int


Scheduled = tuple[str, str, Step, int]
"""An account, a message of it, what is to be done about the message, and when."""

Settled = tuple[str, str, Status, str]
"""An account, a message of it, the message's new status, and the carrier's word for why."""


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


class Parked(NamedTuple):
    """A receipt that came before its reference was known."""

    id: str
    reference: str
    status: ReceiptStatus
    failure: str


async def take_due(
    tx: Transaction, *, now_ms: int, most: int, living: Iterable[str], spare: bool = False
) -> list[Due]:
    """Return messages of one lane that are due to be handed on, but for those of living claims.

    `spare` leaves out those of all claims. Where several workers look at once, each is given messages that the
    others are not: theirs they are until the transaction ends, and after it only with a lease.
    """
    held = await _take(tx, Step.SUBMIT, now_ms=now_ms, most=most, living=living, spare=spare)
    found = {(row[0], row[1]): row for row in await tx.execute_set(_FIND_DUE, list(held))} if held else {}
    return [
        Due(
            row[0],
            row[1],
            row[2],
            row[3],
            row[4],
            _ENCODINGS[row[5]],
            row[6],
            row[7],
            Standing(_STATUSES[row[8]], row[9], row[10] != 0, row[11], is_held, row[12]),
            lane,
        )
        for row, is_held, lane in ((found[key], *taken) for key, taken in held.items())
    ]


async def take_overdue_receipts(tx: Transaction, *, now_ms: int, most: int) -> list[tuple[Key, Status]]:
    """Return messages of one lane whose receipt should have come by now, with their statuses."""
    overdue = await _take(tx, Step.RECEIPT, now_ms=now_ms, most=most, living=())
    return list((await _hold_statuses(tx, overdue)).items()) if overdue else []


async def _take(
    tx: Transaction, step: Step, *, now_ms: int, most: int, living: Iterable[str], spare: bool = False
) -> dict[Key, tuple[bool, int]]:
    """Return messages of one lane whose step is due, each with whether a claim is on it and its lane."""
    rows = [(claim,) for claim in living]
    held_due_ms = 0 if spare else now_ms
    parameters = {"step": step.value, "now_ms": now_ms, "most": most, "held_due_ms": held_due_ms}
    taken = await tx.execute_set(_TAKE_DUE, rows, parameters)
    return {(row[0], row[1]): (bool(row[2]), row[3]) for row in taken}


async def next_due(tx: Transaction) -> tuple[int | None, int | None]:
    """Return when the next message is due to be handed on, and when the next receipt is overdue."""
    found = dict(await tx.execute_set(_NEXT_DUE, [(step,) for step in Step]))
    return found[Step.SUBMIT], found[Step.RECEIPT]


async def hand_out(tx: Transaction, carrier: str, handed: Sequence[Key], *, at_ms: int) -> None:
    """Record that messages are on their way to a carrier, one attempt more."""
    await tx.execute_set(_HAND_OUT, handed, {"carrier": carrier, "at_ms": at_ms})


async def mark_risk(tx: Transaction, risky: Sequence[Key]) -> None:
    """Record that a carrier may take messages a second time."""
    await tx.execute_set(_MARK_RISK, risky)


async def lease(tx: Transaction, claim: str, handed: Sequence[Key], *, until_ms: int) -> None:
    """Put a claim on messages, until a time."""
    await tx.execute_set(_LEASE, handed, {"claim": claim, "until_ms": until_ms})


async def renew(tx: Transaction, claim: str, held: Sequence[Key], *, until_ms: int) -> None:
    """Let a claim last longer, on those of its messages that it still holds."""
    await tx.execute_set(_RENEW, held, {"claim": claim, "until_ms": until_ms})


async def is_held(tx: Transaction, claim: str, key: Key) -> bool:
    """Tell whether a claim is on a message, once whoever has the message locked is done with it."""
    account_id, message_id = key
    found = await tx.execute(
        sa.select(outbox.c.claim)
        .where(outbox.c.account_id == account_id, outbox.c.message_id == message_id)
        .with_for_update()
    )
    return found.scalar_one_or_none() == claim


async def bring_forward(tx: Transaction, *, now_ms: int, ahead_ms: int) -> int:
    """Let messages that nobody holds be due now, where they are due after `ahead_ms`; returns how many they were."""
    result = await tx.execute(
        sa.update(outbox)
        .where(outbox.c.step == Step.SUBMIT.value, outbox.c.due_at_ms > ahead_ms, outbox.c.claim == "")
        .values(due_at_ms=now_ms)
    )
    return result.rowcount


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


async def begin_adding(tx: Transaction, carrier: str) -> None:
    """Let nobody store a carrier's receipts as those of unknown references until the transaction ends.

    To be called before anything is held that a receipt might wait for.
    """
    await tx.hold(_adding(carrier), alone=False)


async def add_references(
    tx: Transaction, carrier: str, references: Sequence[tuple[str, str, str]], *, lane: int
) -> None:
    """Remember what a carrier calls messages of one lane: (account, message, reference)."""
    await tx.execute_set(_INSERT_REFERENCES, references, {"carrier": carrier, "lane": lane})


async def hold_references(
    tx: Transaction, references: Iterable[tuple[str, str]]
) -> dict[tuple[str, str], Known]:
    """Return the messages that (carrier, reference) pairs stand for, where they are known.

    Until the transaction ends nobody else changes those, and the others stay unknown.
    """
    asked = list(references)
    rows = await tx.execute_set(_FIND_REFERENCES, asked)
    unknown = {carrier for carrier, _ in asked} if len(rows) < len(asked) else ()
    if any([await tx.hold(_adding(carrier), alone=True) for carrier in sorted(unknown)]):
        # Whoever was just adding references has looked for receipts that wait for them, in vain.
        rows = await tx.execute_set(_FIND_REFERENCES, asked)
    lanes: dict[int, set[Key]] = {}
    for row in rows:
        # Automatic replies are no account's messages, and there is nothing to hold.
        if row[2]:
            lanes.setdefault(row[4], set()).add((row[2], row[3]))
    statuses: dict[Key, Status] = {}
    for lane in sorted(lanes):
        statuses |= await _hold_statuses(tx, lanes[lane])
    return {(row[0], row[1]): ((row[2], row[3]), statuses.get((row[2], row[3])), row[4]) for row in rows}


def _adding(carrier: str) -> str:
    return f"references of {carrier}"


async def _hold_statuses(tx: Transaction, keys: Iterable[Key]) -> dict[Key, Status]:
    """Return the statuses of messages of one lane, which nobody else changes until the transaction ends."""
    found = await tx.execute_set(_HOLD_STATUSES, sorted(keys))
    return {(row[0], row[1]): _STATUSES[row[2]] for row in found}


async def add_receipts(tx: Transaction, receipts: Sequence[StoredReceipt]) -> None:
    """Store receipts."""
    await tx.execute_set(_INSERT_RECEIPTS, receipts)


async def find_parked(tx: Transaction, carrier: str, references: Sequence[str]) -> list[Parked]:
    """Return the receipts that wait for these references, oldest first."""
    rows = await tx.execute_set(
        _FIND_PARKED, [(reference,) for reference in references], {"carrier": carrier}
    )
    return [Parked(row[0], row[1], ReceiptStatus(row[2]), row[3]) for row in rows]


async def match_parked(tx: Transaction, matched: Sequence[tuple[str, str, str, int]]) -> None:
    """Record which messages parked receipts belong to: (receipt, account, message, whether it moved it)."""
    await tx.execute_set(_MATCH_PARKED, matched)


async def apply_moves(tx: Transaction, moves: Sequence[Move], *, at_ms: int) -> None:
    """Move messages of one lane where reports say they are; nothing more is to be done about them."""
    await set_status(tx, [(*move.message, move.status, move.failure) for move in moves], at_ms=at_ms)
    await forget(tx, [move.message for move in moves])
