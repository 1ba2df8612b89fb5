"""All SQL about endpoints, and about deliveries as their owners see them."""

from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import sqlalchemy as sa

from hydrasms_core.db.dialect import SetStatement
from hydrasms_core.db.transaction import Transaction
from hydrasms_core.paging import PageRequest
from hydrasms_core.webhooks.model import (
    SHOWN_ATTEMPTS,
    Attempt,
    Delivery,
    DeliveryStatus,
    DeliveryType,
    Endpoint,
)
from hydrasms_core.webhooks.tables import webhook_deliveries, webhook_endpoints, webhook_outbox

_columns = webhook_endpoints.c
# In the order in which `_endpoint` reads them.
_ENDPOINT = (
    _columns.id,
    _columns.account_id,
    _columns.shortcode,
    _columns.url,
    _columns.retries,
    _columns.failing_since_ms,
    _columns.disabled_at_ms,
    _columns.disabled_reason,
    _columns.previous_until_ms,
)
# In the order in which `_delivery` reads them. While a claim is on it, it is being tried.
_DELIVERY = (
    webhook_deliveries.c.id,
    webhook_deliveries.c.account_id,
    webhook_deliveries.c.endpoint_id,
    webhook_deliveries.c.type,
    webhook_deliveries.c.subject_id,
    webhook_deliveries.c.status,
    webhook_deliveries.c.last_status,
    sa.case((webhook_outbox.c.claim == "", webhook_outbox.c.due_at_ms)),
    webhook_deliveries.c.created_at_ms,
    webhook_deliveries.c.attempts,
)
_WITH_OUTBOX = webhook_deliveries.outerjoin(
    webhook_outbox,
    sa.and_(
        webhook_outbox.c.account_id == webhook_deliveries.c.account_id,
        webhook_outbox.c.delivery_id == webhook_deliveries.c.id,
    ),
)

_FIND_ATTEMPTS = SetStatement(
    "SELECT a.delivery_id, a.number, a.at_ms, a.duration_ms, a.http_status, a.failure, a.answer FROM {rows}"
    " JOIN webhook_attempts AS a ON a.account_id = {r.account_id} AND a.delivery_id = r.delivery_id"
    " AND a.number > r.number WHERE {accounts:a} ORDER BY a.delivery_id, a.number",
    ("account_id", "delivery_id", "number"),
)
_CLEAR_FAILING = SetStatement(
    "UPDATE webhook_endpoints SET failing_since_ms = NULL {keyed:account_id,id=endpoint_id}"
    " AND failing_since_ms IS NOT NULL AND {accounts:webhook_endpoints}",
    ("account_id", "endpoint_id"),
)
_SET_FAILING = SetStatement(
    "UPDATE webhook_endpoints SET failing_since_ms = coalesce(webhook_endpoints.failing_since_ms, r.at_ms)"
    " FROM {rows} WHERE webhook_endpoints.account_id = {r.account_id} AND webhook_endpoints.id = r.endpoint_id"
    " AND {accounts:webhook_endpoints}"
    " RETURNING webhook_endpoints.account_id, webhook_endpoints.id, webhook_endpoints.failing_since_ms",
    ("account_id", "endpoint_id", "at_ms"),
)
_DISABLE = SetStatement(
    "UPDATE webhook_endpoints SET disabled_at_ms = :at_ms, disabled_reason = r.reason, updated_at_ms = :at_ms"
    " FROM {rows} WHERE webhook_endpoints.account_id = {r.account_id} AND webhook_endpoints.id = r.endpoint_id"
    " AND webhook_endpoints.disabled_at_ms IS NULL AND {accounts:webhook_endpoints}"
    " RETURNING webhook_endpoints.account_id, webhook_endpoints.id",
    ("account_id", "endpoint_id", "reason"),
)

EndpointKey = tuple[str, str]
"""An account and an endpoint of it."""


class SealedSecrets(NamedTuple):
    """The secrets of a new endpoint, as they are stored."""

    auth: str
    """Empty where pushes carry no such word."""
    signing: str


async def get_endpoint(
    tx: Transaction, account_id: str, endpoint_id: str, *, lock: bool = False
) -> Endpoint | None:
    """Return one endpoint, or None; with `lock` nobody else changes it until the transaction ends."""
    query = sa.select(*_ENDPOINT).where(_columns.account_id == account_id, _columns.id == endpoint_id)
    row = (await tx.execute(query.with_for_update() if lock else query)).one_or_none()
    return None if row is None else _endpoint(row)


async def find_endpoints(tx: Transaction, account_id: str, endpoint_ids: Collection[str]) -> list[Endpoint]:
    """Return those of these endpoints that exist."""
    found = await tx.execute(
        sa.select(*_ENDPOINT).where(_columns.account_id == account_id, _columns.id.in_(list(endpoint_ids)))
    )
    return [_endpoint(row) for row in found]


async def insert_endpoint(tx: Transaction, endpoint: Endpoint, secrets: SealedSecrets, *, at_ms: int) -> None:
    """Store a new endpoint."""
    await tx.execute(
        sa.insert(webhook_endpoints).values(
            account_id=endpoint.account_id,
            id=endpoint.id,
            shortcode=endpoint.shortcode,
            url=endpoint.url,
            retries=int(endpoint.retries),
            auth_sealed=secrets.auth,
            signing_sealed=secrets.signing,
            created_at_ms=at_ms,
            updated_at_ms=at_ms,
        )
    )


async def update_endpoint(
    tx: Transaction,
    account_id: str,
    endpoint_id: str,
    *,
    url: str | None,
    retries: bool | None,
    auth_sealed: str | None,
    at_ms: int,
) -> None:
    """Change what is not None of an endpoint; a URL enables it again and forgets its failures."""
    changed: dict[str, Any] = {
        "retries": None if retries is None else int(retries),
        "auth_sealed": auth_sealed,
    }
    values = {column: value for column, value in changed.items() if value is not None}
    if url is not None:
        values |= {"url": url, "failing_since_ms": None, "disabled_at_ms": None, "disabled_reason": ""}
    await tx.execute(
        sa.update(webhook_endpoints)
        .where(_columns.account_id == account_id, _columns.id == endpoint_id)
        .values(**values, updated_at_ms=at_ms)
    )


async def rotate_signing(
    tx: Transaction, account_id: str, endpoint_id: str, signing_sealed: str, *, until_ms: int, at_ms: int
) -> None:
    """Put a new signing secret in place of the present one, which is used beside it until a time."""
    await tx.execute(
        sa.update(webhook_endpoints)
        .where(_columns.account_id == account_id, _columns.id == endpoint_id)
        .values(
            previous_sealed=_columns.signing_sealed,
            previous_until_ms=until_ms,
            signing_sealed=signing_sealed,
            updated_at_ms=at_ms,
        )
    )


async def delete_endpoint(tx: Transaction, account_id: str, endpoint_id: str) -> bool:
    """Forget an endpoint; tells whether there was one."""
    result = await tx.execute(
        sa.delete(webhook_endpoints).where(_columns.account_id == account_id, _columns.id == endpoint_id)
    )
    return result.rowcount > 0


async def clear_failing(tx: Transaction, endpoints: Sequence[EndpointKey]) -> None:
    """Record that attempts succeed again."""
    await tx.execute_set(_CLEAR_FAILING, endpoints)


async def set_failing(tx: Transaction, failing: Sequence[tuple[str, str, int]]) -> dict[EndpointKey, int]:
    """Record that attempts fail, as (account, endpoint, since), and return since when: what is recorded stays."""
    return {(row[0], row[1]): row[2] for row in await tx.execute_set(_SET_FAILING, failing)}


async def disable(
    tx: Transaction, disabled: Sequence[tuple[str, str, str]], *, at_ms: int
) -> list[EndpointKey]:
    """Disable endpoints, as (account, endpoint, reason); returns those that were not disabled before."""
    return [(row[0], row[1]) for row in await tx.execute_set(_DISABLE, disabled, {"at_ms": at_ms})]


async def list_deliveries(
    tx: Transaction,
    account_id: str,
    page: PageRequest,
    *,
    status: DeliveryStatus | None = None,
    endpoint_id: str = "",
) -> list[Delivery]:
    """Return up to one delivery more than the page holds, newest first, each with its last attempts."""
    columns = webhook_deliveries.c
    query = sa.select(*_DELIVERY).select_from(_WITH_OUTBOX).where(columns.account_id == account_id)
    if page.before is not None:
        query = query.where(columns.id < page.before)
    if status is not None:
        query = query.where(_has_status(status))
    if endpoint_id:
        query = query.where(columns.endpoint_id == endpoint_id)
    found = await tx.execute(query.order_by(columns.id.desc()).limit(page.size + 1))
    return await _with_attempts(tx, [_delivery(row) for row in found])


async def get_delivery(tx: Transaction, account_id: str | None, delivery_id: str) -> Delivery | None:
    """Return one delivery with its last attempts, of the account, or of whichever has it; or None."""
    columns = webhook_deliveries.c
    query = sa.select(*_DELIVERY).select_from(_WITH_OUTBOX).where(columns.id == delivery_id)
    if account_id is not None:
        query = query.where(columns.account_id == account_id)
    row = (await tx.execute(query)).one_or_none()
    return None if row is None else (await _with_attempts(tx, [_delivery(row)]))[0]


async def bring_delivery_forward(tx: Transaction, account_id: str, delivery_id: str, *, at_ms: int) -> None:
    """Let a delivery be due now that waits for its next attempt, and lock it, whatever it does."""
    await tx.execute(
        sa.update(webhook_outbox)
        .where(
            webhook_outbox.c.account_id == account_id,
            webhook_outbox.c.delivery_id == delivery_id,
            webhook_outbox.c.claim == "",
        )
        .values(due_at_ms=at_ms)
    )
    await tx.execute(
        sa.update(webhook_deliveries)
        .where(
            webhook_deliveries.c.account_id == account_id,
            webhook_deliveries.c.id == delivery_id,
            webhook_deliveries.c.status == DeliveryStatus.PENDING.value,
        )
        .values(step=0, updated_at_ms=at_ms)
    )


async def revive(
    tx: Transaction, account_id: str, *, endpoint_id: str = "", delivery_id: str = "", most: int, at_ms: int
) -> list[tuple[str, str, str]]:
    """Let dead deliveries whose endpoint works be pending at the beginning of their schedule, the oldest first, so
    many at most; returns them as (account, delivery, endpoint).
    """
    columns = webhook_deliveries.c
    dead = _revivable(account_id, endpoint_id)
    if delivery_id:
        dead = dead.where(columns.id == delivery_id)
    revived = await tx.execute(
        sa.update(webhook_deliveries)
        .where(
            columns.account_id == account_id,
            # Again, for whoever has waited for another that revives them too.
            columns.status == DeliveryStatus.DEAD.value,
            columns.id.in_(dead.order_by(columns.id).limit(most)),
        )
        .values(status=DeliveryStatus.PENDING.value, step=0, updated_at_ms=at_ms)
        .returning(columns.account_id, columns.id, columns.endpoint_id)
    )
    return [(account, delivery, endpoint) for account, delivery, endpoint in map(tuple, revived)]


async def has_dead(tx: Transaction, account_id: str, *, endpoint_id: str = "") -> bool:
    """Tell whether `revive` would find anything."""
    found = await tx.execute(_revivable(account_id, endpoint_id).limit(1))
    return found.one_or_none() is not None


async def _with_attempts(tx: Transaction, deliveries: Sequence[Delivery]) -> list[Delivery]:
    tried = [
        (each.account_id, each.id, each.attempt_count - SHOWN_ATTEMPTS)
        for each in deliveries
        if each.attempt_count
    ]
    attempts: dict[str, list[Attempt]] = {}
    for row in await tx.execute_set(_FIND_ATTEMPTS, tried) if tried else ():
        attempts.setdefault(row[0], []).append(Attempt(*row[1:]))
    return [replace(each, attempts=tuple(attempts.get(each.id, ()))) for each in deliveries]


def _revivable(account_id: str, endpoint_id: str) -> "sa.Select[tuple[str]]":
    columns = webhook_deliveries.c
    works = sa.exists().where(
        _columns.account_id == account_id,
        _columns.id == columns.endpoint_id,
        _columns.disabled_at_ms.is_(None),
    )
    dead = sa.select(columns.id).where(
        columns.account_id == account_id, _has_status(DeliveryStatus.DEAD), works
    )
    return dead.where(columns.endpoint_id == endpoint_id) if endpoint_id else dead


def _has_status(status: DeliveryStatus) -> sa.ColumnElement[bool]:
    column = webhook_deliveries.c.status
    # As a literal, and for the second time as the index of what is undelivered has it: else that is not used.
    wanted = sa.text(f"webhook_deliveries.status = '{status}'")
    if status is DeliveryStatus.DELIVERED:
        return column == status.value
    return sa.and_(wanted, sa.text("webhook_deliveries.status <> 'delivered'"))


def _endpoint(row: Sequence[Any]) -> Endpoint:
    return Endpoint(row[0], row[1], row[2], row[3], row[4] != 0, row[5], row[6], row[7], row[8])


def _delivery(row: Sequence[Any]) -> Delivery:
    return Delivery(
        id=row[0],
        account_id=row[1],
        endpoint_id=row[2],
        type=DeliveryType(row[3]),
        subject_id=row[4],
        status=DeliveryStatus(row[5]),
        last_status=row[6],
        next_attempt_at_ms=row[7],
        created_at_ms=row[8],
        attempt_count=row[9],
    )
