"""All SQL about idempotency keys, but for the batch of sends (`messaging/store.py`)."""

import sqlalchemy as sa

from hydrasms_core.db.transaction import Transaction
from hydrasms_core.errors import IdempotencyMismatch
from hydrasms_core.idempotency.model import KEPT_MS
from hydrasms_core.idempotency.tables import idempotency_keys as keys

_PURGE_AT_ONCE = 1_000


async def recall(tx: Transaction, account_id: str, operation: str, key: str, fingerprint: str) -> str | None:
    """Return the id of what the key made, or None for a new key; raises IdempotencyMismatch."""
    found = (
        await tx.execute(
            sa.select(keys.c.fingerprint, keys.c.subject_id).where(
                keys.c.account_id == account_id, keys.c.operation == operation, keys.c.key == key
            )
        )
    ).one_or_none()
    if found is None:
        return None
    if found.fingerprint != fingerprint:
        raise IdempotencyMismatch
    return str(found.subject_id)


async def remember(
    tx: Transaction,
    account_id: str,
    operation: str,
    key: str,
    fingerprint: str,
    subject_id: str,
    *,
    at_ms: int,
) -> None:
    """Keep what a new key made. Call `recall` first, in the same transaction."""
    await tx.execute(
        sa.insert(keys).values(
            account_id=account_id,
            operation=operation,
            key=key,
            fingerprint=fingerprint,
            subject_id=subject_id,
            created_at_ms=at_ms,
        )
    )


async def purge(tx: Transaction, *, now_ms: int) -> int:
    """Forget the oldest keys that are past their time, 1,000 at most; returns how many they were."""
    old = (
        sa.select(keys.c.account_id, keys.c.operation, keys.c.key)
        .where(keys.c.created_at_ms < now_ms - KEPT_MS)
        .order_by(keys.c.created_at_ms)
        .limit(_PURGE_AT_ONCE)
    )
    result = await tx.execute(
        sa.delete(keys).where(sa.tuple_(keys.c.account_id, keys.c.operation, keys.c.key).in_(old))
    )
    return result.rowcount
