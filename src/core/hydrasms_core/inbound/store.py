"""All SQL about taking texts in.

Whose a text is, and whether it came before, is looked up by its word, its sender's number and its carrier's
reference, which no account leads to. What is written to tables that are partitioned names the account.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

import orjson
import sqlalchemy as sa

from hydrasms_core.db.dialect import SetStatement
from hydrasms_core.db.transaction import Transaction
from hydrasms_core.inbound.model import Outcome
from hydrasms_core.inbound.replies import Reply
from hydrasms_core.inbound.tables import inbound_references, replies
from hydrasms_core.messaging.model import InboundMessage
from hydrasms_core.messaging.store import INBOUND
from hydrasms_core.messaging.tables import inbound_messages

_PURGE_AT_ONCE = 1_000

_REFERENCE = ("carrier", "reference", "account_id", "message_id", "outcome", "received_at_ms")
_REFERENCE_LIST = ", ".join(_REFERENCE)
_ADD_REFERENCES = (
    f"INSERT INTO inbound_references ({_REFERENCE_LIST}) SELECT {_REFERENCE_LIST} FROM {{rows}} WHERE true"
    " ON CONFLICT (carrier, reference) DO NOTHING"
)
_TAKE_REFERENCES = SetStatement(f"{_ADD_REFERENCES} RETURNING message_id", _REFERENCE)
# On SQLite the interpreter's lock changes hands for every row that is fetched: there it is told how many were added,
# nearly always all.
_TAKE_REFERENCES_UNTOLD = SetStatement(_ADD_REFERENCES, _REFERENCE)
_HOW_MANY = SetStatement("SELECT changes()", ())
_FIND_TAKEN_BY = SetStatement(
    "SELECT {listed:f.message_id} FROM {rows} JOIN inbound_references AS f ON f.carrier = {r.carrier}"
    " AND f.reference = r.reference AND f.message_id = r.message_id",
    ("carrier", "reference", "message_id"),
)
_MESSAGE_LIST = ", ".join(InboundMessage._fields)
_INSERT_MESSAGES = SetStatement(
    f"INSERT INTO inbound_messages ({_MESSAGE_LIST}) SELECT {_MESSAGE_LIST} FROM {{rows}} WHERE true",
    InboundMessage._fields,
)
_FIND_TAKEN = SetStatement(
    "SELECT f.carrier, f.reference, f.outcome, f.account_id, f.message_id,"
    " m.sender, m.shortcode, m.content, m.webhook_status, m.created_at_ms"
    " FROM {rows} JOIN inbound_references AS f ON f.carrier = {r.carrier} AND f.reference = r.reference"
    " LEFT JOIN inbound_messages AS m ON m.account_id = {f.account_id} AND m.id = f.message_id",
    ("carrier", "reference"),
)
_REPLY = ("id", "recipient", "content", "kind", "created_at_ms")
_REPLY_LIST = ", ".join(_REPLY)
_INSERT_REPLIES = SetStatement(
    f"INSERT INTO replies ({_REPLY_LIST}, status, due_at_ms)"
    f" SELECT {_REPLY_LIST}, 'queued', created_at_ms FROM {{rows}} WHERE true",
    _REPLY,
)
_COUNT_REPLIES = SetStatement(
    "SELECT r.recipient, (SELECT count(*) FROM replies AS p"
    " WHERE p.recipient = {r.recipient} AND p.created_at_ms > :since_ms) FROM {rows}",
    ("recipient",),
)


class Reference(NamedTuple):
    """What a carrier calls a text, whose text it is, and what became of it."""

    carrier: str
    reference: str
    account_id: str
    message_id: str
    outcome: Outcome
    received_at_ms: int


class Taken(NamedTuple):
    """What was stored of a text that came before; `message` is None where it has been removed since."""

    outcome: Outcome
    account_id: str
    message_id: str
    message: InboundMessage | None


async def take_references(tx: Transaction, references: Sequence[Reference]) -> set[str]:
    """Store references that are not there yet, each named once, and return the ids of their messages, which are new.

    One that another transaction has just stored is waited for.
    """
    # In one order, so that two who store the same ones do not wait for each other.
    rows = sorted(references)
    if tx.dialect == "sqlite":
        await tx.execute_set(_TAKE_REFERENCES_UNTOLD, rows)
        [(how_many,)] = await tx.execute_set(_HOW_MANY, ())
        if how_many == len(rows):
            return {reference.message_id for reference in rows}
        [(taken,)] = await tx.execute_set(
            _FIND_TAKEN_BY, [(r.carrier, r.reference, r.message_id) for r in rows]
        )
        return set(orjson.loads(taken))
    return {row[0] for row in await tx.execute_set(_TAKE_REFERENCES, rows)}


async def is_taken(tx: Transaction, reference: Reference) -> bool:
    """Tell whether a reference is stored, once whoever may just be storing it is done."""
    if not await tx.execute_set(_TAKE_REFERENCES, [reference]):
        return True
    columns = inbound_references.c
    await tx.execute(
        sa.delete(inbound_references).where(
            columns.carrier == reference.carrier, columns.reference == reference.reference
        )
    )
    return False


async def find_taken(
    tx: Transaction, references: Collection[tuple[str, str]]
) -> Mapping[tuple[str, str], Taken]:
    """Return what was stored of texts that came before, by carrier and reference."""
    rows = await tx.execute_set(_FIND_TAKEN, list(references))
    return {
        (row[0], row[1]): Taken(
            Outcome(row[2]),
            row[3],
            row[4],
            None if row[5] is None else InboundMessage(row[4], row[3], *row[5:]),
        )
        for row in rows
    }


async def insert_messages(tx: Transaction, messages: Sequence[InboundMessage]) -> None:
    """Store texts of accounts of one lane."""
    await tx.defer_set(_INSERT_MESSAGES, messages)


async def hold_replies(tx: Transaction) -> None:
    """Let nobody else count or queue replies until the transaction ends."""
    await tx.hold("automatic replies", alone=True)


async def count_replies(tx: Transaction, recipients: Collection[str], *, since_ms: int) -> Mapping[str, int]:
    """Return how many replies were queued for numbers since a time; those that got none are left out."""
    rows = await tx.execute_set(
        _COUNT_REPLIES, [(recipient,) for recipient in recipients], {"since_ms": since_ms}
    )
    return {row[0]: row[1] for row in rows}


async def queue_replies(tx: Transaction, queued: Sequence[Reply]) -> None:
    """Store replies, due at once."""
    await tx.defer_set(_INSERT_REPLIES, queued)


async def find_message(tx: Transaction, account_id: str, message_id: str) -> InboundMessage | None:
    """Return one text of an account, or of nobody where `account_id` is empty; None where there is none."""
    columns = inbound_messages.c
    found = await tx.execute(
        sa.select(*INBOUND).where(columns.account_id == account_id, columns.id == message_id)
    )
    row = found.one_or_none()
    return None if row is None else InboundMessage(*tuple(row))


async def assign(tx: Transaction, message_id: str, account_id: str) -> None:
    """Give a text that is nobody's to an account; changes nothing where there is no such text."""
    columns, references = inbound_messages.c, inbound_references.c
    await tx.execute(
        sa.update(inbound_messages)
        .where(columns.account_id == "", columns.id == message_id)
        .values(account_id=account_id)
    )
    # Its carrier may bring it once more, and is to be answered with it.
    await tx.execute(
        sa.update(inbound_references)
        .where(references.account_id == "", references.message_id == message_id)
        .values(account_id=account_id)
    )


async def purge_references(tx: Transaction, *, before_ms: int) -> int:
    """Forget the oldest references from before a time, 1,000 at most; returns how many they were."""
    columns = inbound_references.c
    old = (
        sa.select(columns.carrier, columns.reference)
        .where(columns.received_at_ms < before_ms)
        .order_by(columns.received_at_ms)
        .limit(_PURGE_AT_ONCE)
    )
    result = await tx.execute(
        sa.delete(inbound_references).where(sa.tuple_(columns.carrier, columns.reference).in_(old))
    )
    return result.rowcount


async def purge_replies(tx: Transaction, *, before_ms: int) -> int:
    """Forget replies that are done, due before a time, 1,000 at most; returns how many they were."""
    columns = replies.c
    old = (
        sa.select(columns.id)
        .where(columns.status.in_(("sent", "failed")), columns.due_at_ms < before_ms)
        .limit(_PURGE_AT_ONCE)
    )
    result = await tx.execute(sa.delete(replies).where(columns.id.in_(old)))
    return result.rowcount
