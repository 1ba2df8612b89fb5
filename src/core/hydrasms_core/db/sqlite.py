"""SQLite: one writer connection and a few readers, each on a thread of its own.

Every transaction is one hop to such a thread and one back, however many statements it has: there `execute` does its
work at once, so that a coroutine written against `Transaction` runs to its end without ever being suspended.
docs/decisions/0003 says why this is not aiosqlite, with figures.
"""

import asyncio
import queue
import sqlite3
import threading
from collections.abc import Callable, Coroutine, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar, cast

import sqlalchemy as sa
from sqlalchemy import event, exc
from sqlalchemy.pool import NullPool

from hydrasms_core.db.dialect import SetStatement
from hydrasms_core.db.transaction import IntegrityViolation, StoreCorrupt, Work
from hydrasms_core.errors import StoreUnavailable

T = TypeVar("T")

_READERS = 4
_BUSY_TIMEOUT_MS = 5_000
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
    """An open SQLite file."""

    def __init__(self, path: Path) -> None:
        self._writer = _Threads("hydrasms-writer", sync_engine(path), 1)
        self._readers = _Threads("hydrasms-reader", sync_engine(path, read_only=True), _READERS)

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

    def __init__(self, connection: sa.Connection) -> None:
        self._connection = connection
        self._driver = cast("sqlite3.Connection", connection.connection.driver_connection)

    async def execute(
        self, statement: sa.Executable, parameters: Mapping[str, Any] | None = None
    ) -> sa.CursorResult[Any]:
        return self._connection.execute(statement, parameters)

    async def execute_set(
        self,
        statement: SetStatement,
        rows: Sequence[Sequence[Any]],
        parameters: Mapping[str, Any] | None = None,
    ) -> list[tuple[Any, ...]]:
        # Straight to the driver: SQLAlchemy's own path costs more than the statement does.
        text, values = statement.for_sqlite(rows, parameters or {})
        return self._driver.execute(text, values).fetchall()

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


class _Threads:
    """Runs transactions in the order in which they were asked for, on threads with a connection each."""

    def __init__(self, name: str, engine: sa.Engine, number: int) -> None:
        self._engine = engine
        self._jobs: queue.SimpleQueue[Callable[[sa.Connection], None] | None] = queue.SimpleQueue()
        self._threads = [threading.Thread(target=self._loop, name=name, daemon=True) for _ in range(number)]
        for thread in self._threads:
            thread.start()

    async def run(self, work: Work[T]) -> T:
        loop = asyncio.get_running_loop()
        done: asyncio.Future[T] = loop.create_future()

        def settle(result: T | None, error: BaseException | None) -> None:
            if done.cancelled():
                return
            if error is not None:
                done.set_exception(error)
            else:
                done.set_result(cast("T", result))

        def job(connection: sa.Connection) -> None:
            result: T | None = None
            error: Exception | None = None
            try:
                with connection.begin():
                    result = _run_at_once(work(_OpenTransaction(connection)))  # type: ignore[arg-type]
            except (sqlite3.Error, exc.DBAPIError) as caught:
                error = _translated(caught)
                error.__cause__ = caught
            except Exception as caught:  # noqa: BLE001 - it belongs to whoever awaits the result
                error = caught
            loop.call_soon_threadsafe(settle, result, error)

        self._jobs.put(job)
        return await done

    def stop(self) -> None:
        for _ in self._threads:
            self._jobs.put(None)
        for thread in self._threads:
            thread.join()

    def _loop(self) -> None:
        connection: sa.Connection | None = None
        # Opened by the first who asks: most threads of a process that only looks something up are never asked.
        while (job := self._jobs.get()) is not None:
            connection = connection or self._engine.connect()
            job(connection)
        if connection is not None:
            connection.close()


def _run_at_once(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine that waits for nothing but its transaction, which never suspends it here."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        return cast("T", stop.value)
    coroutine.close()
    raise RuntimeError("a transaction waited for something other than its database")


def _translated(error: Exception) -> Exception:
    original = error.orig if isinstance(error, exc.DBAPIError) and error.orig is not None else error
    # SQLAlchemy wraps the error of the driver; its class is what tells.
    if isinstance(original, sqlite3.IntegrityError | exc.IntegrityError):
        return IntegrityViolation(str(original))
    if isinstance(original, sqlite3.OperationalError):
        return StoreUnavailable()
    if isinstance(original, sqlite3.DatabaseError):
        return StoreCorrupt(str(original))
    return StoreUnavailable() if isinstance(error, exc.OperationalError) else error
