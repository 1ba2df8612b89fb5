"""All SQL of the simulated phone network."""

from collections.abc import Sequence
from typing import NamedTuple

import sqlalchemy as sa

from hydrasms_core.carriers.base import ReceiptStatus
from hydrasms_core.carriers.simulator.tables import simulated_answers, simulated_receipts, simulated_texts
from hydrasms_core.db.dialect import SetStatement
from hydrasms_core.db.transaction import Transaction
from hydrasms_core.paging import PageRequest

_PURGE_AT_ONCE = 1_000

_TEXT = "id, message_id, sender, recipient, content, received_at_ms"
_RECEIPT = "due_at_ms, reference, ordinal, status, failure"
_INSERT_TEXTS = SetStatement(
    f"INSERT INTO simulated_texts ({_TEXT}) SELECT {_TEXT} FROM {{rows}} WHERE true",
    tuple(_TEXT.split(", ")),
)
_INSERT_RECEIPTS = SetStatement(
    f"INSERT INTO simulated_receipts ({_RECEIPT}) SELECT {_RECEIPT} FROM {{rows}} WHERE true",
    tuple(_RECEIPT.split(", ")),
)
_ANSWER = "due_at_ms, reference, sender, content"
_INSERT_ANSWERS = SetStatement(
    f"INSERT INTO simulated_answers ({_ANSWER}) SELECT {_ANSWER} FROM {{rows}} WHERE true",
    tuple(_ANSWER.split(", ")),
)
_DELETE_ANSWERS = SetStatement(
    "DELETE FROM simulated_answers {keyed:due_at_ms,reference}",
    ("due_at_ms", "reference"),
)
_LEASE_ANSWERS = SetStatement(
    "UPDATE simulated_answers SET due_at_ms = :until_ms {keyed:due_at_ms,reference}",
    ("due_at_ms", "reference"),
)
_DELETE_RECEIPTS = SetStatement(
    "DELETE FROM simulated_receipts {keyed:due_at_ms,reference,ordinal}",
    ("due_at_ms", "reference", "ordinal"),
)
_LEASE_RECEIPTS = SetStatement(
    "UPDATE simulated_receipts SET due_at_ms = :until_ms {keyed:due_at_ms,reference,ordinal}",
    ("due_at_ms", "reference", "ordinal"),
)


class SimulatedText(NamedTuple):
    """A text on a simulated phone; its id is the carrier's reference."""

    id: str
    message_id: str
    sender: str
    recipient: str
    content: str
    received_at_ms: int


class OwedReceipt(NamedTuple):
    """A receipt that the network is still to send, and when."""

    due_at_ms: int
    reference: str
    ordinal: int
    status: ReceiptStatus
    failure: str


class OwedAnswer(NamedTuple):
    """A text that a phone is still to send in answer to another, and when; `reference` is the other's."""

    due_at_ms: int
    reference: str
    sender: str
    content: str


class Owed(NamedTuple):
    """What the network is to bring now, and when there is more; None where nothing is known of more."""

    receipts: Sequence[OwedReceipt] = ()
    answers: Sequence[OwedAnswer] = ()
    next_ms: int | None = None


async def add(
    tx: Transaction,
    texts: Sequence[SimulatedText],
    receipts: Sequence[OwedReceipt],
    answers: Sequence[OwedAnswer],
) -> None:
    """Put texts on phones, and receipts and answers among those that are owed."""
    if answers:
        await tx.execute_set(_INSERT_ANSWERS, answers)
    if texts:
        await tx.execute_set(_INSERT_TEXTS, texts)
    if receipts:
        await tx.execute_set(_INSERT_RECEIPTS, receipts)


async def next_owed(tx: Transaction, acknowledged: Owed, *, now_ms: int, until_ms: int, most: int) -> Owed:
    """Forget what was acknowledged, take what is due, in order, `most` of each kind, and say when the next is.

    What is taken falls due again at `until_ms`, for whoever sees it first; before that nobody else gets it. The time
    is known only where all that is due was taken.
    """
    receipts, next_receipt_ms = await _next_receipts(
        tx, acknowledged.receipts, now_ms=now_ms, until_ms=until_ms, most=most
    )
    answers, next_answer_ms = await _next_answers(
        tx, acknowledged.answers, now_ms=now_ms, until_ms=until_ms, most=most
    )
    known = [at_ms for at_ms in (next_receipt_ms, next_answer_ms) if at_ms is not None]
    return Owed(receipts, answers, min(known, default=None))


async def _next_answers(
    tx: Transaction, acknowledged: Sequence[OwedAnswer], *, now_ms: int, until_ms: int, most: int
) -> tuple[list[OwedAnswer], int | None]:
    if acknowledged:
        await tx.execute_set(_DELETE_ANSWERS, [answer[:2] for answer in acknowledged])
    columns = simulated_answers.c
    result = await tx.execute(
        sa.select(columns.due_at_ms, columns.reference, columns.sender, columns.content)
        .order_by(columns.due_at_ms, columns.reference)
        .limit(most + 1)
        .with_for_update(skip_locked=True)
    )
    rows = [OwedAnswer(*tuple(row)) for row in result]
    due = [row for row in rows[:most] if row.due_at_ms <= now_ms]
    if due:
        await tx.execute_set(_LEASE_ANSWERS, [answer[:2] for answer in due], {"until_ms": until_ms})
    next_ms = rows[len(due)].due_at_ms if len(due) < len(rows) else None
    return [answer._replace(due_at_ms=until_ms) for answer in due], next_ms


async def _next_receipts(
    tx: Transaction, acknowledged: Sequence[OwedReceipt], *, now_ms: int, until_ms: int, most: int
) -> tuple[list[OwedReceipt], int | None]:
    if acknowledged:
        await tx.execute_set(_DELETE_RECEIPTS, [receipt[:3] for receipt in acknowledged])
    columns = simulated_receipts.c
    result = await tx.execute(
        sa.select(columns.due_at_ms, columns.reference, columns.ordinal, columns.status, columns.failure)
        .order_by(columns.due_at_ms, columns.reference, columns.ordinal)
        .limit(most + 1)
        # Where several take at once, each takes others.
        .with_for_update(skip_locked=True)
    )
    rows = [
        OwedReceipt(row.due_at_ms, row.reference, row.ordinal, ReceiptStatus(row.status), row.failure)
        for row in result
    ]
    due = [row for row in rows[:most] if row.due_at_ms <= now_ms]
    if due:
        await tx.execute_set(_LEASE_RECEIPTS, [receipt[:3] for receipt in due], {"until_ms": until_ms})
    next_ms = rows[len(due)].due_at_ms if len(due) < len(rows) else None
    return [receipt._replace(due_at_ms=until_ms) for receipt in due], next_ms


async def list_texts(tx: Transaction, recipient: str, page: PageRequest) -> list[SimulatedText]:
    """Return up to one text more than the page holds, newest first."""
    columns = simulated_texts.c
    query = sa.select(
        columns.id,
        columns.message_id,
        columns.sender,
        columns.recipient,
        columns.content,
        columns.received_at_ms,
    ).where(columns.recipient == recipient)
    if page.before is not None:
        query = query.where(columns.id < page.before)
    found = await tx.execute(query.order_by(columns.id.desc()).limit(page.size + 1))
    return [SimulatedText(*tuple(row)) for row in found]


async def purge(tx: Transaction, *, before_ms: int) -> int:
    """Forget the oldest texts from before a time, 1,000 at most; returns how many they were.

    Ids sort by time, so the oldest texts are those with the lowest ids.
    """
    oldest = sa.select(simulated_texts.c.id).order_by(simulated_texts.c.id).limit(_PURGE_AT_ONCE)
    result = await tx.execute(
        sa.delete(simulated_texts).where(
            simulated_texts.c.id.in_(oldest), simulated_texts.c.received_at_ms < before_ms
        )
    )
    return result.rowcount
