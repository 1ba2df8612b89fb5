"""All SQL about pushes on their way: finding, claiming and settling what is due.

Every statement takes a whole batch. What looks for what is due cannot name the account; all others do. Locks are
taken in one order: outbox, deliveries, inbound messages, endpoints.
"""

from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import orjson
import sqlalchemy as sa

from hydrasms_core.db.dialect import SetStatement
from hydrasms_core.db.transaction import Transaction
from hydrasms_core.webhooks.model import DeliveryStatus, DeliveryType
from hydrasms_core.webhooks.queue_store import Key
from hydrasms_core.webhooks.sharing import Queue
from hydrasms_core.webhooks.tables import webhook_outbox

MAX_QUEUES = 1_000
"""How many endpoints where something is due are looked at once."""

# Calling the enumeration costs several times what this does.
_TYPES = {each.value: each for each in DeliveryType}

_KEY = ("account_id", "delivery_id")
_HELD = (*_KEY, "claim")

_FIND_QUEUES = SetStatement(
    # From one endpoint's place in the index to the next one's: what waits for each costs nothing, however much.
    "WITH RECURSIVE found(endpoint_id) AS ("
    " SELECT min(endpoint_id) FROM webhook_outbox"
    " UNION ALL SELECT (SELECT min(o.endpoint_id) FROM webhook_outbox AS o WHERE o.endpoint_id > f.endpoint_id)"
    " FROM found AS f WHERE f.endpoint_id IS NOT NULL),"
    " heads AS MATERIALIZED (SELECT f.endpoint_id,"
    " (SELECT o.account_id FROM webhook_outbox AS o WHERE o.endpoint_id = f.endpoint_id LIMIT 1) AS account_id,"
    " (SELECT min(o.due_at_ms) FROM webhook_outbox AS o WHERE o.endpoint_id = f.endpoint_id) AS due_at_ms"
    " FROM found AS f WHERE f.endpoint_id IS NOT NULL),"
    " due AS (SELECT h.account_id, h.endpoint_id, h.due_at_ms,"
    " CASE WHEN e.failing_since_ms IS NULL THEN 0 ELSE 1 END AS failing,"
    " coalesce(e.retries, 0) AS retries"
    " FROM heads AS h LEFT JOIN webhook_endpoints AS e ON e.account_id = h.account_id AND e.id = h.endpoint_id"
    " WHERE h.due_at_ms <= :now_ms ORDER BY failing, h.due_at_ms LIMIT :most)"
    " SELECT n.next_ms, d.account_id, d.endpoint_id, d.failing, d.retries"
    " FROM (SELECT min(due_at_ms) AS next_ms FROM heads WHERE due_at_ms > :now_ms) AS n"
    " LEFT JOIN due AS d ON true ORDER BY d.failing, d.due_at_ms",
    (),
    as_one=5,
)

_IS_DUE = "o.due_at_ms <= :now_ms AND (o.claim = '' OR o.due_at_ms <= :held_due_ms)"

_TAKE = SetStatement(
    "SELECT o.account_id, o.delivery_id, o.claim <> '', d.endpoint_id, d.type, d.subject_id, d.payload, d.attempts,"
    " d.step, d.created_at_ms, e.url, e.retries, e.shortcode, e.auth_sealed, e.signing_sealed, e.previous_sealed,"
    " e.previous_until_ms, e.disabled_at_ms, e.failing_since_ms, m.sender, m.shortcode, m.content"
    " FROM {rows} JOIN webhook_outbox AS o ON o.delivery_id = {r.delivery_id} AND o.account_id = r.account_id"
    " JOIN webhook_deliveries AS d ON d.account_id = {r.account_id} AND d.id = {r.delivery_id}"
    " LEFT JOIN webhook_endpoints AS e ON e.account_id = {d.account_id} AND e.id = d.endpoint_id AND {accounts:e}"
    " LEFT JOIN inbound_messages AS m ON m.account_id = {d.account_id} AND m.id = d.subject_id AND {accounts:m}"
    # The sum keeps the planner from reading all that is due, which is more than was asked for.
    f" WHERE {_IS_DUE.replace('o.due_at_ms', '(o.due_at_ms + 0)')} AND {{accounts:o}} AND {{accounts:d}} {{claim:o}}",
    _KEY,
    as_one=22,
)
_LEASE = SetStatement(
    "UPDATE webhook_outbox SET claim = :claim, due_at_ms = :until_ms"
    " {keyed:delivery_id,account_id} AND {accounts:webhook_outbox}",
    _KEY,
)
_RENEW = SetStatement(
    "UPDATE webhook_outbox SET due_at_ms = :until_ms {keyed:delivery_id,account_id,claim}"
    " AND {accounts:webhook_outbox}",
    _HELD,
)
_SCHEDULE = SetStatement(
    "UPDATE webhook_outbox SET due_at_ms = r.due_at_ms, claim = '' FROM {rows}"
    " WHERE webhook_outbox.delivery_id = {r.delivery_id} AND webhook_outbox.account_id = r.account_id"
    " AND webhook_outbox.claim = r.claim AND {accounts:webhook_outbox} RETURNING webhook_outbox.delivery_id",
    (*_HELD, "due_at_ms"),
)
_FORGET_HELD = "DELETE FROM webhook_outbox {keyed:delivery_id,account_id,claim} AND {accounts:webhook_outbox}"
_FINISH = SetStatement(f"{_FORGET_HELD} RETURNING webhook_outbox.delivery_id", _HELD)
# On SQLite the interpreter's lock changes hands for every row that is fetched, and after each the writer waits for
# the loop to let go of it: there what is held is one value, looked up before it is deleted.
_STILL_HELD = SetStatement(
    "SELECT {listed:o.delivery_id} FROM {rows} JOIN webhook_outbox AS o ON o.delivery_id = {r.delivery_id}"
    " AND o.account_id = r.account_id AND o.claim = r.claim",
    _HELD,
)
_FINISH_UNTOLD = SetStatement(_FORGET_HELD, _HELD)
_INSERT_ATTEMPTS = SetStatement(
    "INSERT INTO webhook_attempts"
    " (account_id, delivery_id, number, at_ms, duration_ms, http_status, failure, answer)"
    " SELECT r.account_id, r.delivery_id, r.number, r.at_ms, r.duration_ms, r.http_status, r.failure, r.answer"
    " FROM {rows} WHERE true",
    (*_KEY, "number", "at_ms", "duration_ms", "http_status", "failure", "answer"),
)
_RECORD = SetStatement(
    # The place in the schedule goes by the name of `ordinal`, for what columns are called says what they hold.
    "UPDATE webhook_deliveries SET status = r.status, attempts = r.attempts, step = r.ordinal,"
    " last_status = coalesce(r.last_status, webhook_deliveries.last_status), updated_at_ms = :at_ms FROM {rows}"
    " WHERE webhook_deliveries.account_id = {r.account_id} AND webhook_deliveries.id = {r.delivery_id}"
    " AND {accounts:webhook_deliveries}",
    (*_KEY, "status", "attempts", "ordinal", "last_status"),
)
_SET_WEBHOOK_STATUS = SetStatement(
    "UPDATE inbound_messages SET webhook_status = r.webhook_status FROM {rows}"
    " WHERE inbound_messages.account_id = {r.account_id} AND inbound_messages.id = r.message_id"
    " AND {accounts:inbound_messages}",
    ("account_id", "message_id", "webhook_status"),
)


class Target(NamedTuple):
    """Where a push goes, as its endpoint is when the push is claimed."""

    url: str
    retries: bool
    shortcode: str
    auth_sealed: str
    signing_sealed: str
    previous_sealed: str
    previous_until_ms: int | None
    disabled: bool
    failing: bool


class Text(NamedTuple):
    """A text that is pushed."""

    sender: str
    shortcode: str
    content: str


class Due(NamedTuple):
    """A push that is due, with all that an attempt takes.

    `interrupted`: a claim was on it, so that its worker died. No target: the endpoint was taken away. No text: it is
    about none, or that is gone.
    """

    account_id: str
    id: str
    interrupted: bool
    endpoint_id: str
    type: DeliveryType
    subject_id: str
    payload: str
    attempts: int
    step: int
    created_at_ms: int
    target: Target | None
    text: Text | None


class Made(NamedTuple):
    """An attempt to store."""

    account_id: str
    delivery_id: str
    number: int
    at_ms: int
    duration_ms: int
    http_status: int | None
    failure: str
    answer: str


class Recorded(NamedTuple):
    """What an attempt made of a delivery; without a `last_status` the one before stays."""

    account_id: str
    delivery_id: str
    status: DeliveryStatus
    attempts: int
    step: int
    last_status: int | None


async def find_queues(tx: Transaction, *, now_ms: int) -> tuple[list[Queue], int | None]:
    """Return the endpoints where something is due, those that work first and then the longest due, 1,000 at most,
    and when something falls due at any other.
    """
    rows = await tx.execute_set(_FIND_QUEUES, (), {"now_ms": now_ms, "most": MAX_QUEUES})
    return [Queue(row[1], row[2], bool(row[3]), bool(row[4])) for row in rows if row[1] is not None], rows[0][
        0
    ]


async def find_heads(
    tx: Transaction, endpoints: Sequence[Key], *, now_ms: int, each: int, spare: bool = False
) -> list[tuple[str, str, str]]:
    """Return the longest due of each of these endpoints, so many each, as (account, endpoint, delivery) in order."""
    parameters = {"now_ms": now_ms, "held_due_ms": 0 if spare else now_ms}
    rows = await tx.execute_set(_heads(each), endpoints, parameters)
    return [
        (account_id, endpoint_id, delivery_id)
        for account_id, endpoint_id, listed in rows
        for delivery_id in orjson.loads(listed or "[]")
    ]


async def take(tx: Transaction, keys: Sequence[Key], *, now_ms: int, spare: bool = False) -> list[Due]:
    """Return those of these deliveries that are due and that nobody else is about to claim.

    They are the caller's until the transaction ends, and after it only with a lease. `spare` leaves out those that
    are claimed.
    """
    rows = await tx.execute_set(_TAKE, keys, {"now_ms": now_ms, "held_due_ms": 0 if spare else now_ms})
    return [_due(row) for row in rows]


async def lease(tx: Transaction, claim: str, keys: Sequence[Key], *, until_ms: int) -> None:
    """Put a claim on deliveries, until a time."""
    await tx.execute_set(_LEASE, keys, {"claim": claim, "until_ms": until_ms})


async def renew(tx: Transaction, held: Sequence[tuple[str, str, str]], *, until_ms: int) -> None:
    """Let claims last longer on those of (account, delivery, claim) that they still hold."""
    await tx.execute_set(_RENEW, held, {"until_ms": until_ms})


async def is_held(tx: Transaction, claim: str, key: Key) -> bool:
    """Tell whether a claim is on a delivery, once whoever has it locked is done with it."""
    account_id, delivery_id = key
    found = await tx.execute(
        sa.select(webhook_outbox.c.claim)
        .where(webhook_outbox.c.account_id == account_id, webhook_outbox.c.delivery_id == delivery_id)
        .with_for_update()
    )
    return found.scalar_one_or_none() == claim


async def schedule(tx: Transaction, scheduled: Sequence[tuple[str, str, str, int]]) -> set[str]:
    """Set when deliveries, as (account, delivery, claim, due), are tried again; returns the ids of those held."""
    return {row[0] for row in await tx.execute_set(_SCHEDULE, scheduled)}


async def finish(tx: Transaction, finished: Sequence[tuple[str, str, str]]) -> set[str]:
    """Take (account, delivery, claim) out of the outbox; returns the ids of those held."""
    if tx.dialect == "sqlite":
        [(held,)] = await tx.execute_set(_STILL_HELD, finished)
        await tx.execute_set(_FINISH_UNTOLD, finished)
        return set(orjson.loads(held))
    return {row[0] for row in await tx.execute_set(_FINISH, finished)}


async def add_attempts(tx: Transaction, attempts: Sequence[Made]) -> None:
    """Store attempts."""
    await tx.defer_set(_INSERT_ATTEMPTS, attempts)


async def record(tx: Transaction, recorded: Sequence[Recorded], *, at_ms: int) -> None:
    """Record what attempts have made of deliveries."""
    await tx.defer_set(_RECORD, recorded, {"at_ms": at_ms})


async def set_webhook_status(tx: Transaction, answered: Sequence[tuple[str, str, int]]) -> None:
    """Record of inbound messages, as (account, message, HTTP status), what their webhook last answered with."""
    await tx.defer_set(_SET_WEBHOOK_STATUS, answered)


async def bring_forward(tx: Transaction, *, now_ms: int, ahead_ms: int) -> int:
    """Let what nobody holds be due now where it is due after `ahead_ms`; returns how many those were."""
    result = await tx.execute(
        sa.update(webhook_outbox)
        .where(webhook_outbox.c.due_at_ms > ahead_ms, webhook_outbox.c.claim == "")
        .values(due_at_ms=now_ms)
    )
    return result.rowcount


async def release_claims(tx: Transaction, *, now_ms: int) -> int:
    """Let all claims end at once; returns how many deliveries they held. Only for whoever owns the database alone."""
    result = await tx.execute(
        sa.update(webhook_outbox).where(webhook_outbox.c.claim != "").values(due_at_ms=now_ms)
    )
    return result.rowcount


def keys_of(deliveries: Iterable[Due]) -> list[Key]:
    """Return what deliveries are known by."""
    return [(due.account_id, due.id) for due in deliveries]


@lru_cache
def _heads(each: int) -> SetStatement:
    """Return what finds so many deliveries of every endpoint: neither database lets a LIMIT depend on a row."""
    return SetStatement(
        "SELECT r.account_id, r.endpoint_id, (SELECT {listed:h.delivery_id} FROM (SELECT o.delivery_id"
        f" FROM webhook_outbox AS o WHERE o.endpoint_id = r.endpoint_id AND {_IS_DUE} AND {{accounts:o}}"
        f" ORDER BY o.due_at_ms, o.delivery_id LIMIT {each}) AS h) FROM {{rows}} WHERE true",
        ("account_id", "endpoint_id"),
        as_one=3,
    )


def _due(row: Sequence[Any]) -> Due:
    target = text = None
    if row[10] is not None:
        target = Target(
            row[10],
            row[11] != 0,
            row[12],
            row[13],
            row[14],
            row[15],
            row[16],
            row[17] is not None,
            row[18] is not None,
        )
    if row[19] is not None:
        text = Text(row[19], row[20], row[21])
    return Due(
        row[0],
        row[1],
        bool(row[2]),
        row[3],
        _TYPES[row[4]],
        row[5],
        row[6],
        row[7],
        row[8],
        row[9],
        target,
        text,
    )
