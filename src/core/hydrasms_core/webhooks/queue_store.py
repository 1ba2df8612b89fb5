"""All SQL about the queue of pushes: what comes into it, and what leaves it without having been tried."""

from collections.abc import Collection, Sequence
from typing import NamedTuple

import sqlalchemy as sa

from hydrasms_core.db.dialect import SetStatement
from hydrasms_core.db.transaction import Transaction
from hydrasms_core.webhooks.model import DeliveryStatus, DeliveryType
from hydrasms_core.webhooks.tables import webhook_deliveries, webhook_outbox

_PURGE_AT_ONCE = 1_000
_KEY = ("account_id", "delivery_id")

_INSERT_DELIVERIES = SetStatement(
    "INSERT INTO webhook_deliveries"
    " (account_id, id, endpoint_id, type, subject_id, payload, status, created_at_ms, updated_at_ms)"
    f" SELECT r.account_id, r.id, r.endpoint_id, r.type, r.subject_id, r.payload, '{DeliveryStatus.PENDING}',"
    " :at_ms, :at_ms FROM {rows} JOIN webhook_endpoints AS e ON e.account_id = {r.account_id}"
    " AND e.id = r.endpoint_id AND e.disabled_at_ms IS NULL WHERE {accounts:e}"
    " RETURNING account_id, id, endpoint_id",
    ("account_id", "id", "endpoint_id", "type", "subject_id", "payload"),
)
_INSERT_OUTBOX = SetStatement(
    "INSERT INTO webhook_outbox (account_id, delivery_id, endpoint_id, due_at_ms)"
    " SELECT r.account_id, r.delivery_id, r.endpoint_id, :at_ms FROM {rows} WHERE true",
    (*_KEY, "endpoint_id"),
)
_FIND_OWN = SetStatement(
    "SELECT e.account_id FROM {rows} JOIN webhook_endpoints AS e ON e.account_id = {r.account_id}"
    " AND e.id = r.endpoint_id AND e.disabled_at_ms IS NULL WHERE {accounts:e}",
    ("account_id", "endpoint_id"),
    as_one=1,
)

_FORGET = SetStatement(
    "DELETE FROM webhook_outbox {keyed:delivery_id,account_id} AND {accounts:webhook_outbox}",
    _KEY,
)
_BURY = SetStatement(
    f"UPDATE webhook_deliveries SET status = '{DeliveryStatus.DEAD}', updated_at_ms = :at_ms"
    " {keyed:account_id,id=delivery_id} AND {accounts:webhook_deliveries}",
    _KEY,
)
_PURGE_ATTEMPTS = SetStatement(
    "DELETE FROM webhook_attempts {keyed:account_id,delivery_id} AND {accounts:webhook_attempts}",
    _KEY,
)
_PURGE_DELIVERIES = SetStatement(
    "DELETE FROM webhook_deliveries {keyed:account_id,id=delivery_id} AND {accounts:webhook_deliveries}",
    _KEY,
)

Key = tuple[str, str]
"""An account and a delivery of it."""


class NewDelivery(NamedTuple):
    """A push to queue."""

    account_id: str
    id: str
    endpoint_id: str
    type: DeliveryType
    subject_id: str
    payload: str


async def queue(tx: Transaction, deliveries: Sequence[NewDelivery], *, at_ms: int) -> set[str]:
    """Queue those whose endpoint exists and works; returns their ids."""
    stored = await tx.execute_set(_INSERT_DELIVERIES, deliveries, {"at_ms": at_ms})
    if stored:
        await requeue(tx, [(row[0], row[1], row[2]) for row in stored], at_ms=at_ms)
    return {row[1] for row in stored}


async def with_own_webhook(tx: Transaction, account_ids: Collection[str]) -> set[str]:
    """Return those of these accounts that have a webhook of their own, which goes by the account's id and works."""
    keys = [(account_id, account_id) for account_id in account_ids]
    return {row[0] for row in await tx.execute_set(_FIND_OWN, keys)}


async def requeue(tx: Transaction, deliveries: Sequence[tuple[str, str, str]], *, at_ms: int) -> None:
    """Let deliveries that are in the outbox no more, as (account, delivery, endpoint), be due."""
    await tx.defer_set(_INSERT_OUTBOX, deliveries, {"at_ms": at_ms})


async def give_up(tx: Transaction, keys: Sequence[Key], *, at_ms: int) -> None:
    """Let deliveries that the caller has taken be dead."""
    await tx.execute_set(_FORGET, keys)
    await tx.execute_set(_BURY, keys, {"at_ms": at_ms})


async def give_up_all(tx: Transaction, account_id: str, endpoint_id: str, *, at_ms: int) -> int:
    """Let all that waits for an endpoint be dead, but for what is being tried just now; returns how many that was."""
    outbox = webhook_outbox.c
    gone = await tx.execute(
        sa.delete(webhook_outbox)
        .where(outbox.account_id == account_id, outbox.endpoint_id == endpoint_id, outbox.claim == "")
        .returning(outbox.delivery_id)
    )
    keys = [(account_id, str(row[0])) for row in gone]
    if keys:
        await tx.execute_set(_BURY, keys, {"at_ms": at_ms})
    return len(keys)


async def purge(tx: Transaction, *, before_id: str) -> int:
    """Forget up to 1,000 deliveries with ids below this one that are over, and their attempts; returns how many."""
    columns = webhook_deliveries.c
    found = await tx.execute(
        sa.select(columns.account_id, columns.id)
        .where(columns.id < before_id, columns.status != DeliveryStatus.PENDING.value)
        .order_by(columns.id)
        .limit(_PURGE_AT_ONCE)
    )
    keys = [(account_id, delivery_id) for account_id, delivery_id in map(tuple, found)]
    if keys:
        await tx.execute_set(_PURGE_DELIVERIES, keys)
        await tx.execute_set(_PURGE_ATTEMPTS, keys)
    return len(keys)
