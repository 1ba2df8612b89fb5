"""What the state machine of the ledger looks at in the database, past every service and store."""

from typing import Any

import sqlalchemy as sa

from hydrasms_billing.tables import balances, transfers
from hydrasms_core.db.transaction import Transaction
from hydrasms_core.idempotency.tables import idempotency_keys
from hydrasms_core.messaging.tables import carrier_references, messages, outbox, receipts

TABLES = (balances, transfers, messages, outbox, carrier_references, receipts, idempotency_keys)

# Balance, and sum of transfers, of every account.
_SUMS = sa.text(
    "SELECT b.account_id, b.balance,"
    " coalesce((SELECT sum(CASE WHEN t.credit_account = b.account_id THEN t.amount ELSE -t.amount END)"
    " FROM transfers AS t WHERE t.account_id = b.account_id), 0) AS total FROM balances AS b"
)
# Status, cost, and number and sum of all spends and of all refunds, of every message.
_FATES = sa.text(
    "SELECT m.id, m.account_id, m.status, m.credits,"
    " sum(CASE WHEN t.kind = 'spend' THEN 1 ELSE 0 END) AS spends,"
    " sum(CASE WHEN t.kind = 'spend' THEN t.amount ELSE 0 END) AS spent,"
    " sum(CASE WHEN t.kind = 'refund' THEN 1 ELSE 0 END) AS refunds,"
    " sum(CASE WHEN t.kind = 'refund' THEN t.amount ELSE 0 END) AS refunded"
    " FROM messages AS m LEFT JOIN transfers AS t ON t.message_id = m.id"
    " GROUP BY m.id, m.account_id, m.status, m.credits"
)


async def sums_and_fates(tx: Transaction) -> tuple[list[Any], list[Any], dict[str, int]]:
    """Return every account's sums, every message's fate, and how many rows some tables have."""
    counted = {}
    for table in (transfers, receipts, carrier_references, outbox):
        found = await tx.execute(sa.select(sa.func.count()).select_from(table))
        counted[table.name] = int(found.scalar_one())
    return list(await tx.execute(_SUMS)), list(await tx.execute(_FATES)), counted


async def receipts_kept(tx: Transaction) -> list[Any]:
    """Return of each receipt its message and whether it moved that."""
    return list(await tx.execute(sa.select(receipts.c.message_id, receipts.c.applied)))


async def all_rows(tx: Transaction) -> list[list[Any]]:
    """Return all that a step which is refused must leave as it is."""
    return [list(await tx.execute(sa.select(*table.columns).order_by(*table.columns))) for table in TABLES]
