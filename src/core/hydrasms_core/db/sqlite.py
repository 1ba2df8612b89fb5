"""SQLite: one writer connection and a few readers, each on a thread of its own.

Every transaction is one hop to such a thread and one back, however many statements it has: there `execute` does its
work at once, so that a coroutine written against `Transaction` runs to its end without ever being suspended.
docs/decisions/0003 says why this is not aiosqlite, with figures. Processes that write to one file take turns
(`turns.py`).
"""

import asyncio
import sqlite3
from collections.abc import Callable, Coroutine, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar, cast

import orjson
import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.pool import NullPool

from hydrasms_core.db.dialect import SetStatement
from hydrasms_core.db.sqlite_threads import Threads, Writer
from hydrasms_core.db.transaction import Work
from hydrasms_core.db.turns import Turnstile

T = TypeVar("T")

_READERS = 4
_BUSY_TIMEOUT_MS = 5_000
_PATIENCE_S = 2.0
# Under load a checkpoint copies a page once however often the log holds it, so a longer log is less work.
_CHECKPOINT_PAGES = 8_000
_CACHE_KIB = 32_768
# Every set statement has a text for each power of two that its batches grow to.
_PREPARED_STATEMENTS = 512

_PRAGMAS = (
    f"PRAGMA busy_timeout={_BUSY_TIMEOUT_MS}",
    "PRAGMA journal_mode=WAL",
    "PRAGMA synchronous=FULL",
    "PRAGMA secure_delete=ON",
    # Without it INSERT OR REPLACE deletes rows behind the back of the ledger's triggers.
    "PRAGMA recursive_triggers=ON",
    "PRAGMA foreign_keys=ON",
    f"PRAGMA wal_autocheckpoint={_CHECKPOINT_PAGES}",
    f"PRAGMA cache_size=-{_CACHE_KIB}",
)


def _prepare(engine: sa.Engine, *, begin: str, read_only: bool) -> None:
    """Make every connection of an engine ours: our pragmas, and transactions that begin as we say."""

    def connected(connection: Any, _record: object) -> None:
        # The driver must not begin transactions by itself: it would begin them too late and never for DDL.
        connection.isolation_level = None
        cursor = connection.cursor()
        for pragma in _PRAGMAS:
            cursor.execute(pragma)
        if read_only:
            cursor.execute("PRAGMA query_only=ON")
        cursor.close()

    def began(connection: sa.Connection) -> None:
        # `_transact` begins with the driver itself, and SQLAlchemy learns of it when it is asked for a statement.
        if not _driver(connection).in_transaction:
            connection.exec_driver_sql(begin)

    event.listen(engine, "connect", connected)
    event.listen(engine, "begin", began)


def sync_engine(path: Path, *, read_only: bool = False) -> sa.Engine:
    """Return an engine whose transactions take the write lock at once, or, read-only, never."""
    engine = sa.create_engine(
        f"sqlite:///{path}",
        poolclass=NullPool,
        connect_args={"cached_statements": _PREPARED_STATEMENTS},
        # An error's text reaches the log; the values bound to its statement are numbers and bodies.
        hide_parameters=True,
    )
    _prepare(engine, begin="BEGIN" if read_only else "BEGIN IMMEDIATE", read_only=read_only)
    return engine


class SqliteDatabase:
    """An open SQLite file; `patience_s` is how long a write waits for its turn among all who write."""

    writes_in_turn = True

    def __init__(self, path: Path, *, patience_s: float = _PATIENCE_S) -> None:
        reading = sync_engine(path, read_only=True)
        self._writer = Writer(sync_engine(path), _write, Turnstile(path), patience_s)
        self._readers = Threads("hydrasms-reader", reading, _read, _READERS)

    async def read(self, work: Work[T]) -> T:
        """Run work on one consistent state, on one of the readers."""
        return await self._readers.run(work)

    async def write(self, work: Work[T], landed: Work[bool] | None = None) -> T:
        """Run work under the write lock, on the writer's thread; durable when this returns.

        A commit is never in doubt here, so that `landed` is not needed.
        """
        return await self._writer.run(work)

    async def close(self) -> None:
        """Finish the transactions that were asked for, then close every connection."""
        await asyncio.to_thread(self._readers.stop)
        await asyncio.to_thread(self._writer.stop)


class _OpenTransaction:
    """Does its work at once, on the thread that it is called on."""

    dialect: Literal["sqlite", "postgresql"] = "sqlite"

    def __init__(self, connection: sa.Connection, driver: sqlite3.Connection) -> None:
        self._connection = connection
        self._driver = driver
        self.afterwards: list[Callable[[], None]] = []

    async def execute(
        self, statement: sa.Executable, parameters: Mapping[str, Any] | None = None
    ) -> sa.CursorResult[Any]:
        self.require_open()
        return self._connection.execute(statement, parameters)

    async def execute_set(
        self,
        statement: SetStatement,
        rows: Sequence[Sequence[Any]],
        parameters: Mapping[str, Any] | None = None,
    ) -> list[tuple[Any, ...]]:
        # Straight to the driver: SQLAlchemy's own path costs more than the statement does.
        self.require_open()
        text, values = statement.for_sqlite(rows, parameters or {})
        found = self._driver.execute(text, values).fetchall()
        return [tuple(row) for row in orjson.loads(found[0][0])] if statement.as_one else found

    async def defer_set(
        self,
        statement: SetStatement,
        rows: Sequence[Sequence[Any]],
        parameters: Mapping[str, Any] | None = None,
    ) -> None:
        # Nothing is far away here.
        await self.execute_set(statement, rows, parameters)

    async def hold(self, name: str, *, alone: bool) -> bool:
        # The whole database is held.
        return False

    def require_open(self) -> None:
        """Run nothing more where a violation has ended the transaction: it would be committed by itself."""
        if not self._driver.in_transaction:
            raise RuntimeError("a violation has ended the transaction")

    def after_commit(self, call: Callable[[], None]) -> None:
        self.afterwards.append(call)


def _read(connection: sa.Connection, work: Work[T]) -> T:
    return _transact(connection, "BEGIN", work)


def _write(connection: sa.Connection, work: Work[T]) -> T:
    return _transact(connection, "BEGIN IMMEDIATE", work)


def _transact(connection: sa.Connection, begin: str, work: Work[T]) -> T:
    """Run work in one transaction, which the driver begins and ends: in SQLAlchemy that takes as long as a send."""
    driver = _driver(connection)
    driver.execute(begin)
    transaction = _OpenTransaction(connection, driver)
    try:
        result: T = _run_at_once(work(transaction))  # type: ignore[arg-type]
        transaction.require_open()
        driver.commit()
    except BaseException:
        driver.rollback()
        raise
    finally:
        if connection.in_transaction():
            # Nothing is left to be done in the database.
            connection.rollback()
    for call in transaction.afterwards:
        call()
    return result


def _driver(connection: sa.Connection) -> sqlite3.Connection:
    return cast("sqlite3.Connection", connection.connection.driver_connection)


def _run_at_once(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine that waits for nothing but its transaction, which never suspends it here."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        return cast("T", stop.value)
    coroutine.close()
    raise RuntimeError("a transaction waited for something other than its database")
