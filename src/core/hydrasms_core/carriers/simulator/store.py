"""All SQL of the simulated phone network."""

from collections.abc import Sequence
from typing import NamedTuple

import sqlalchemy as sa

from hydrasms_core.carriers.base import ReceiptStatus
from hydrasms_core.carriers.simulator.tables import simulated_receipts, simulated_texts
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


async def add(tx: Transaction, texts: Sequence[SimulatedText], receipts: Sequence[OwedReceipt]) -> None:
    """Put texts on phones, and receipts among those that are owed."""
    if texts:
        await tx.execute_set(_INSERT_TEXTS, texts)
    if receipts:
        await tx.execute_set(_INSERT_RECEIPTS, receipts)


async def next_receipts(
    tx: Transaction, acknowledged: Sequence[OwedReceipt], *, now_ms: int, until_ms: int, most: int
) -> tuple[list[OwedReceipt], int | None]:
    """Forget what was acknowledged, take the receipts that are due, in order, and say when the next one is.

    What is taken falls due again at `until_ms`, for whoever sees it first; before that nobody else gets it. The time
    is known only where all that is due was taken.
    """
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
