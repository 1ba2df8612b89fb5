"""What the store benchmark divides by: one transaction a send with SQLAlchemy Core over aiosqlite.

It writes the rows that a send needs into the same tables, as durably, the way one would without a writer of one's
own: a pool of connections, the balance read and then changed under the write lock.
"""

from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from hydrasms_base.ids import new_id
from hydrasms_billing.tables import balances, transfers
from hydrasms_core.messaging.model import Message
from hydrasms_core.messaging.tables import messages, outbox

# As durable as the writer, and with its long log; a caller waits for the lock for as long as it takes.
_PRAGMAS = ("journal_mode=WAL", "synchronous=FULL", "wal_autocheckpoint=8000", "busy_timeout=30000")


class NaiveStore:
    """Accepts sends, each in a transaction of its own."""

    def __init__(self, path: Path, *, connections: int) -> None:
        self._engine: AsyncEngine = create_async_engine(
            f"sqlite+aiosqlite:///{path}", pool_size=connections, max_overflow=0
        )
        event.listen(self._engine.sync_engine, "connect", _connected)
        event.listen(self._engine.sync_engine, "begin", _began)

    async def send(self, message: Message) -> bool:
        """Debit and store one message, durably; False where the balance is too low or the lock was not had."""
        try:
            async with self._engine.begin() as connection:
                found = await connection.execute(
                    sa.select(balances.c.balance).where(balances.c.account_id == message.account_id)
                )
                if found.scalar_one() < message.credits:
                    return False
                await connection.execute(
                    sa.update(balances)
                    .where(balances.c.account_id == message.account_id)
                    .values(balance=balances.c.balance - message.credits, updated_at_ms=message.created_at_ms)
                )
                await connection.execute(sa.insert(transfers).values(_transfer(message)))
                await connection.execute(sa.insert(messages).values(_row(message)))
                await connection.execute(
                    sa.insert(outbox).values(
                        account_id=message.account_id,
                        message_id=message.id,
                        step="submit",
                        due_at_ms=message.created_at_ms,
                    )
                )
        except sa.exc.OperationalError:
            return False
        return True

    async def close(self) -> None:
        """Close every connection."""
        await self._engine.dispose()


def _connected(connection: Any, _record: object) -> None:
    connection.isolation_level = None
    cursor = connection.cursor()
    for pragma in _PRAGMAS:
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _began(connection: sa.Connection) -> None:
    # With a lock that is taken only at the first write, two at once would fail each other.
    connection.exec_driver_sql("BEGIN IMMEDIATE")


def _transfer(message: Message) -> dict[str, object]:
    return {
        "account_id": message.account_id,
        "id": new_id(),
        "debit_account": message.account_id,
        "credit_account": "spent",
        "amount": message.credits,
        "kind": "spend",
        "message_id": message.id,
        "actor": "account",
        "created_at_ms": message.created_at_ms,
    }


def _row(message: Message) -> dict[str, object]:
    return {
        "account_id": message.account_id,
        "id": message.id,
        "sender": message.sender,
        "recipient": message.recipient.e164,
        "country_iso2": message.recipient.country_iso2,
        "country_iso3": message.recipient.country_iso3,
        "calling_code": message.recipient.calling_code,
        "content": message.content,
        "status": message.status.value,
        "credits": message.credits,
        "encoding": message.encoding.value,
        "segments": message.segments,
        "created_at_ms": message.created_at_ms,
        "updated_at_ms": message.updated_at_ms,
        "expires_at_ms": message.expires_at_ms,
    }
