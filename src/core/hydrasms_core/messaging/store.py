"""All SQL about sending and listing messages; what carriers do to them is in `delivery_store.py`."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import sqlalchemy as sa

from hydrasms_core.db.dialect import SetStatement
from hydrasms_core.db.lists import newest_first
from hydrasms_core.db.transaction import Transaction
from hydrasms_core.messaging.model import InboundMessage, Message, Status
from hydrasms_core.messaging.numbering import PhoneNumber
from hydrasms_core.messaging.tables import inbound_messages, messages, outbox
from hydrasms_core.messaging.text import Encoding
from hydrasms_core.paging import PageRequest

SEND = "message.send"
"""The operation that a send's idempotency key belongs to."""

# In the order in which `_message` reads them and `_values` writes them.
_COLUMNS = (
    "id",
    "account_id",
    "sender",
    "recipient",
    "country_iso2",
    "country_iso3",
    "calling_code",
    "content",
    "status",
    "credits",
    "encoding",
    "segments",
    "created_at_ms",
    "updated_at_ms",
    "expires_at_ms",
    "carrier",
    "attempts",
    "duplicate_risk",
    "failure",
)
_SELECTED = [messages.c[name] for name in _COLUMNS]
_LIST = ", ".join(_COLUMNS)

INBOUND = tuple(inbound_messages.c[name] for name in InboundMessage._fields)
"""The columns of a text from a phone, in the order in which an InboundMessage takes them."""

_INSERT_MESSAGES = SetStatement(
    f"INSERT INTO messages ({_LIST}) SELECT {_LIST} FROM {{rows}} WHERE true", _COLUMNS
)
_INSERT_OUTBOX = SetStatement(
    "INSERT INTO outbox (account_id, message_id, step, due_at_ms, lane)"
    " SELECT account_id, message_id, 'submit', due_at_ms, :lane FROM {rows} WHERE true",
    ("account_id", "message_id", "due_at_ms"),
)
_INSERT_KEYS = SetStatement(
    "INSERT INTO idempotency_keys (account_id, operation, key, fingerprint, subject_id, created_at_ms)"
    f" SELECT account_id, '{SEND}', key, fingerprint, subject_id, created_at_ms FROM {{rows}} WHERE true",
    ("account_id", "key", "fingerprint", "subject_id", "created_at_ms"),
)
_FIND_KEYS = SetStatement(
    f"SELECT k.key, k.fingerprint, {', '.join(f'm.{name}' for name in _COLUMNS)}"
    " FROM {rows}"
    # As a constant the operation would be reason enough to read all of the index.
    " JOIN idempotency_keys AS k"
    " ON k.account_id = {r.account_id} AND k.operation = r.operation AND k.key = r.key"
    " JOIN messages AS m ON m.account_id = {k.account_id} AND m.id = k.subject_id"
    " WHERE {accounts:k} AND {accounts:m}",
    ("account_id", "operation", "key"),
)


class KeyedSend(NamedTuple):
    """An idempotency key with the fingerprint of its request and the message that it made."""

    key: str
    fingerprint: str
    message: Message


async def find_keyed(tx: Transaction, keys: Sequence[tuple[str, str]]) -> Mapping[tuple[str, str], KeyedSend]:
    """Return, by (account, key), what earlier sends with these keys made."""
    found = await tx.execute_set(_FIND_KEYS, [(account_id, SEND, key) for account_id, key in keys])
    sends = [KeyedSend(row[0], row[1], _message(row[2:])) for row in found]
    return {(send.message.account_id, send.key): send for send in sends}


async def insert_queued(
    tx: Transaction, accepted: Sequence[Message], keyed: Sequence[KeyedSend], *, lane: int = 0
) -> None:
    """Store new messages of one lane, their place in the outbox and their idempotency keys."""
    await tx.defer_set(_INSERT_MESSAGES, [_values(message) for message in accepted])
    await tx.defer_set(
        _INSERT_OUTBOX,
        [(message.account_id, message.id, message.created_at_ms) for message in accepted],
        {"lane": lane},
    )
    if keyed:
        await tx.defer_set(
            _INSERT_KEYS,
            [
                (
                    send.message.account_id,
                    send.key,
                    send.fingerprint,
                    send.message.id,
                    send.message.created_at_ms,
                )
                for send in keyed
            ],
        )


async def get_message(tx: Transaction, account_id: str, message_id: str) -> Message | None:
    """Return one message of an account, or None."""
    found = await tx.execute(
        sa.select(*_SELECTED).where(messages.c.account_id == account_id, messages.c.id == message_id)
    )
    row = found.one_or_none()
    return None if row is None else _message(row)


async def list_messages(tx: Transaction, account_id: str, page: PageRequest) -> list[Message]:
    """Return up to one message more than the page holds, newest first."""
    found = await tx.execute(newest_first(tx.dialect, _SELECTED, account_id, page))
    return [_message(row) for row in found]


async def cancel_queued(tx: Transaction, account_id: str, message_id: str, *, at_ms: int) -> bool:
    """Take a message out of the outbox that no worker holds, and record that it was cancelled.

    Tells whether it was there to be taken. The outbox comes first: whoever has a message's row there, a worker
    who claims it or this, decides about the message.
    """
    taken = await tx.execute(
        sa.delete(outbox).where(
            outbox.c.account_id == account_id,
            outbox.c.message_id == message_id,
            outbox.c.step == "submit",
            outbox.c.claim == "",
        )
    )
    if not taken.rowcount:
        return False
    await tx.execute(
        sa.update(messages)
        .where(messages.c.account_id == account_id, messages.c.id == message_id)
        .values(status=Status.CANCELLED.value, updated_at_ms=at_ms)
    )
    return True


_FIND_IDS = SetStatement(
    "SELECT m.id FROM {rows} JOIN messages AS m ON m.account_id = {r.account_id} AND m.id = r.message_id"
    " WHERE {accounts:m}",
    ("account_id", "message_id"),
)


async def find_ids(tx: Transaction, keys: Sequence[tuple[str, str]]) -> set[str]:
    """Return the ids of those (account, message) pairs that are stored."""
    return {row[0] for row in await tx.execute_set(_FIND_IDS, keys)}


async def list_inbound(tx: Transaction, account_id: str, page: PageRequest) -> list[InboundMessage]:
    """Return up to one inbound message more than the page holds, newest first."""
    found = await tx.execute(newest_first(tx.dialect, INBOUND, account_id, page))
    return [InboundMessage(*tuple(row)) for row in found]


def _values(message: Message) -> tuple[Any, ...]:
    number = message.recipient
    return (
        message.id,
        message.account_id,
        message.sender,
        number.e164,
        number.country_iso2,
        number.country_iso3,
        number.calling_code,
        message.content,
        message.status.value,
        message.credits,
        message.encoding.value,
        message.segments,
        message.created_at_ms,
        message.updated_at_ms,
        message.expires_at_ms,
        message.carrier,
        message.attempts,
        int(message.duplicate_risk),
        message.failure,
    )


def _message(row: Sequence[Any]) -> Message:
    return Message(
        id=row[0],
        account_id=row[1],
        sender=row[2],
        recipient=PhoneNumber(row[3], row[4], row[5], row[6]),
        content=row[7],
        status=Status(row[8]),
        credits=row[9],
        encoding=Encoding(row[10]),
        segments=row[11],
        created_at_ms=row[12],
        updated_at_ms=row[13],
        expires_at_ms=row[14],
        carrier=row[15],
        attempts=row[16],
        duplicate_risk=bool(row[17]),
        failure=row[18],
    )
