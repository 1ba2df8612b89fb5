"""All SQL about handing automatic replies to carriers. They belong to no account, and nothing is partitioned."""

from collections.abc import Collection, Sequence
from typing import NamedTuple

import sqlalchemy as sa

from hydrasms_core.db.dialect import SetStatement
from hydrasms_core.db.transaction import Transaction
from hydrasms_core.inbound.responding import Change, ReplyStatus, Standing
from hydrasms_core.inbound.tables import replies

_LEASE = SetStatement(
    "UPDATE replies SET claim = :claim, due_at_ms = :until_ms, attempts = attempts + 1,"
    " duplicate_risk = r.duplicate_risk FROM {rows} WHERE replies.id = r.id",
    ("id", "duplicate_risk"),
)
_SETTLE = SetStatement(
    "UPDATE replies SET status = r.status, due_at_ms = r.due_at_ms, duplicate_risk = r.duplicate_risk, claim = ''"
    " FROM {rows} WHERE replies.id = r.id AND replies.claim = :claim RETURNING replies.id",
    ("id", "status", "due_at_ms", "duplicate_risk"),
)
_FAIL = SetStatement(
    f"UPDATE replies SET status = '{ReplyStatus.FAILED}', claim = '' WHERE id IN (SELECT r.id FROM {{rows}})",
    ("id",),
)


class DueReply(NamedTuple):
    """A reply that is due to be handed on."""

    id: str
    recipient: str
    content: str
    created_at_ms: int
    standing: Standing


async def next_due(tx: Transaction) -> int | None:
    """Return when the next reply is due; None where none waits."""
    columns = replies.c
    found = await tx.execute(
        sa.select(sa.func.min(columns.due_at_ms)).where(columns.status == ReplyStatus.QUEUED.value)
    )
    due_at_ms: int | None = found.scalar_one()
    return due_at_ms


async def take_due(tx: Transaction, *, now_ms: int, ahead_ms: int, most: int) -> list[DueReply]:
    """Return replies that are due, and those that are due later than anything can be, at `ahead_ms`: the clock was
    set back since.

    Where several workers look at once, each is given others; theirs they are until the transaction ends.
    """
    columns = replies.c
    found = await tx.execute(
        sa.select(
            columns.id,
            columns.recipient,
            columns.content,
            columns.created_at_ms,
            columns.attempts,
            columns.duplicate_risk,
            columns.claim,
        )
        .where(
            columns.status == ReplyStatus.QUEUED.value,
            sa.or_(columns.due_at_ms <= now_ms, columns.due_at_ms > ahead_ms),
        )
        .order_by(columns.due_at_ms)
        .limit(most)
        .with_for_update(skip_locked=True)
    )
    return [
        DueReply(
            row.id,
            row.recipient,
            row.content,
            row.created_at_ms,
            Standing(row.attempts, row.duplicate_risk != 0, row.claim != ""),
        )
        for row in found
    ]


async def lease(tx: Transaction, claim: str, handed: Sequence[tuple[str, int]], *, until_ms: int) -> None:
    """Put a claim on replies, (id, duplicate risk) each, until a time; one attempt more."""
    await tx.execute_set(_LEASE, handed, {"claim": claim, "until_ms": until_ms})


async def is_held(tx: Transaction, claim: str, reply_id: str) -> bool:
    """Tell whether a claim is on a reply, once whoever has it locked is done with it."""
    found = await tx.execute(sa.select(replies.c.claim).where(replies.c.id == reply_id).with_for_update())
    return found.scalar_one_or_none() == claim


async def settle(tx: Transaction, claim: str, changes: Sequence[tuple[str, Change]]) -> set[str]:
    """Record what came of replies that a claim holds, and let go of them; returns the ids of those held."""
    rows = [(reply_id, c.status, c.due_at_ms, int(c.duplicate_risk)) for reply_id, c in changes]
    return {row[0] for row in await tx.execute_set(_SETTLE, rows, {"claim": claim})}


async def fail(tx: Transaction, ids: Collection[str]) -> None:
    """Give replies up."""
    await tx.execute_set(_FAIL, [(reply_id,) for reply_id in ids])


async def release_claims(tx: Transaction, *, now_ms: int) -> int:
    """Let all claims end at once; returns how many replies they held. Only for whoever owns the database alone."""
    columns = replies.c
    result = await tx.execute(
        sa.update(replies)
        .where(columns.status == ReplyStatus.QUEUED.value, columns.claim != "")
        .values(due_at_ms=now_ms)
    )
    return result.rowcount
