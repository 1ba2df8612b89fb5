"""All SQL about events.

Events are read in the order of (position, id), and whoever has read up to a place must not miss what is committed
before that place later. On SQLite there is one writer, whose transaction counts on from the highest position. On
PostgreSQL transactions overlap, and the position is the transaction's own number: only what is older than the oldest
transaction that is still open is read, because nothing before that place can be added any more.
"""

from collections.abc import Sequence
from typing import Any

import orjson
import sqlalchemy as sa

from hydrasms_base.ids import new_id
from hydrasms_core.db.dialect import SetStatement
from hydrasms_core.db.lists import oldest_first
from hydrasms_core.db.transaction import Transaction
from hydrasms_core.events.model import ABOUT_INBOUND, BEGINNING, KEPT_MS, Event, EventType, Place
from hydrasms_core.events.tables import events
from hydrasms_core.messaging.model import InboundMessage
from hydrasms_core.messaging.ports import Happening

_PURGE_AT_ONCE = 1_000

# Calling the enumeration costs several times what this does.
_TYPES = {kind.value: kind.value for kind in EventType}

_COLUMNS = ("account_id", "id", "type", "subject_id", "detail")


def _insert(position: str) -> SetStatement:
    return SetStatement(
        "INSERT INTO events (account_id, position, id, type, subject_id, detail, created_at_ms)"
        f" SELECT r.account_id, {position}, r.id, r.type, r.subject_id, r.detail, :at_ms FROM {{rows}} WHERE true",
        _COLUMNS,
    )


_INSERT = {
    "sqlite": _insert("(SELECT coalesce(max(e.position), 0) + 1 FROM events AS e)"),
    "postgresql": _insert("CAST(CAST(pg_current_xact_id() AS text) AS bigint)"),
}
_FIND_INBOUND = SetStatement(
    "SELECT i.account_id, i.id, i.sender, i.shortcode, i.content, i.webhook_status, i.created_at_ms FROM {rows}"
    " JOIN inbound_messages AS i ON i.account_id = {r.account_id} AND i.id = r.subject_id WHERE {accounts:i}",
    ("account_id", "subject_id"),
)

_SELECTED = (
    events.c.position,
    events.c.id,
    events.c.account_id,
    events.c.type,
    events.c.subject_id,
    events.c.detail,
    events.c.created_at_ms,
)
_OLDEST_OPEN = sa.cast(
    sa.cast(sa.func.pg_snapshot_xmin(sa.func.pg_current_snapshot()), sa.Text), sa.BigInteger
)
_CURRENT = sa.cast(sa.cast(sa.func.pg_current_xact_id(), sa.Text), sa.BigInteger)


async def add(tx: Transaction, happenings: Sequence[Happening], *, at_ms: int) -> None:
    """Add what happened to the events, in order."""
    rows = [
        (
            happening.account_id,
            new_id(),
            _TYPES[happening.type],
            happening.subject_id,
            orjson.dumps(happening.detail).decode() if happening.detail else "",
        )
        for happening in happenings
    ]
    await tx.defer_set(_INSERT[tx.dialect], rows, {"at_ms": at_ms})


async def read_after(tx: Transaction, account_id: str | None, place: Place, *, most: int) -> list[Event]:
    """Return the first events after a place, of an account or (None) of all, oldest first."""
    if account_id is None:
        all_of = _settled(tx, sa.select(*_SELECTED)).where(_after(place))
        query = all_of.order_by(events.c.position, events.c.id).limit(most)
    else:
        query = _settled(tx, oldest_first(tx.dialect, _SELECTED, account_id, place, most))
    found = await tx.execute(query)
    rows = [_event(row) for row in found]
    texts = {(row.account_id, row.subject_id) for row in rows if row.type in ABOUT_INBOUND}
    if not texts:
        return rows
    inbound = {(row[0], row[1]): _inbound(row) for row in await tx.execute_set(_FIND_INBOUND, sorted(texts))}
    return [_with_text(row, inbound.get((row.account_id, row.subject_id))) for row in rows]


async def newest(tx: Transaction) -> Place:
    """Return the place of the newest event that may be read."""
    found = await tx.execute(
        _settled(tx, sa.select(events.c.position, events.c.id))
        .order_by(events.c.position.desc(), events.c.id.desc())
        .limit(1)
    )
    row = found.one_or_none()
    return BEGINNING if row is None else Place(row.position, row.id)


async def is_known(tx: Transaction, place: Place) -> bool:
    """Tell whether a place is one of this order: that of an event, or one before all that are kept.

    It is not where the database has been restored from a backup, or moved, since the place was given out.
    """
    there = await tx.execute(
        sa.select(events.c.id).where(events.c.position == place.position, events.c.id == place.id)
    )
    if there.one_or_none() is not None:
        return True
    oldest = (await tx.execute(sa.select(sa.func.min(events.c.position)))).scalar_one()
    return oldest is not None and place.position < oldest


async def accounts_after(tx: Transaction, place: Place, *, most: int) -> tuple[set[str], Place, bool]:
    """Return whose events are next after a place, the place of the last of them, and whether there may be more."""
    found = await tx.execute(
        _settled(tx, sa.select(events.c.account_id, events.c.position, events.c.id))
        .where(_after(place))
        .order_by(events.c.position, events.c.id)
        .limit(most)
    )
    rows = found.all()
    last = Place(rows[-1].position, rows[-1].id) if rows else place
    return {row.account_id for row in rows}, last, len(rows) == most


async def purge(tx: Transaction, *, now_ms: int) -> int:
    """Forget the oldest events that are past their time, 1,000 at most; returns how many they were.

    The newest stays, however old it is, so that no position is given twice.
    """
    highest = sa.select(sa.func.max(events.c.position)).scalar_subquery()
    old = (
        sa.select(events.c.account_id, events.c.position, events.c.id)
        .where(events.c.created_at_ms < now_ms - KEPT_MS, events.c.position < highest)
        .order_by(events.c.created_at_ms)
        .limit(_PURGE_AT_ONCE)
    )
    result = await tx.execute(
        sa.delete(events).where(sa.tuple_(events.c.account_id, events.c.position, events.c.id).in_(old))
    )
    return result.rowcount


async def settle_order(tx: Transaction) -> int:
    """Put events that come from another database before all that this one will add; returns how many they were.

    Only PostgreSQL has such, where a backup was restored into another server or a SQLite file was moved there: their
    positions are ahead of its transactions' numbers. They keep their order, and their old places are not known.
    """
    if tx.dialect != "postgresql":
        return 0
    found = (
        await tx.execute(sa.select(sa.func.max(events.c.position).label("ahead"), _CURRENT.label("now")))
    ).one()
    if found.ahead is None or found.ahead <= found.now:
        return 0
    result = await tx.execute(sa.update(events).values(position=events.c.position - found.ahead - 1))
    return result.rowcount


def _settled(tx: Transaction, query: sa.Select[Any]) -> sa.Select[Any]:
    """Leave out what something may still be added before."""
    return query.where(events.c.position < _OLDEST_OPEN) if tx.dialect == "postgresql" else query


def _after(place: Place) -> sa.ColumnElement[bool]:
    return sa.tuple_(events.c.position, events.c.id) > sa.tuple_(
        sa.literal(place.position, sa.BigInteger), sa.literal(place.id, sa.String)
    )


def _event(row: Any) -> Event:
    return Event(
        place=Place(row.position, row.id),
        account_id=row.account_id,
        type=EventType(row.type),
        subject_id=row.subject_id,
        detail=orjson.loads(row.detail) if row.detail else {},
        created_at_ms=row.created_at_ms,
    )


def _with_text(event: Event, inbound: InboundMessage | None) -> Event:
    return Event(
        event.place,
        event.account_id,
        event.type,
        event.subject_id,
        event.detail,
        event.created_at_ms,
        inbound,
    )


def _inbound(row: Sequence[Any]) -> InboundMessage:
    account_id, its_id, *rest = row
    return InboundMessage(its_id, account_id, *rest)
