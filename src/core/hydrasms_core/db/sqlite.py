"""SQLite: one writer connection and a few readers, each on a thread of its own.

Every transaction is one hop to such a thread and one back, however many statements it has: there `execute` does its
work at once, so that a coroutine written against `Transaction` runs to its end without ever being suspended.
docs/decisions/0003 says why this is not aiosqlite, with figures. Processes that write to one file take turns
(`turns.py`).
"""

import asyncio
import queue
import sqlite3
import threading
from collections.abc import Callable, Coroutine, Mapping, Sequence
from pathlib import Path
from typing import Any, Generic, Literal, NamedTuple, TypeVar, cast

import sqlalchemy as sa
from sqlalchemy import event, exc
from sqlalchemy.pool import NullPool

from hydrasms_core.db.dialect import SetStatement
from hydrasms_core.db.sqlite_errors import SqliteErrors
from hydrasms_core.db.transaction import Work
from hydrasms_core.db.turns import Turnstile
from hydrasms_core.errors import StoreUnavailable

T = TypeVar("T")

Connect = Callable[[], sa.Connection]

_READERS = 4
_BUSY_TIMEOUT_S = 5.0
# Under load a checkpoint copies a page once however often the log holds it, so a longer log is less work.
_CHECKPOINT_PAGES = 8_000
_CACHE_KIB = 32_768
# Every set statement has a text for each power of two that its batches grow to.
_PREPARED_STATEMENTS = 512

_PRAGMAS = (
    f"PRAGMA busy_timeout={round(_BUSY_TIMEOUT_S * 1000)}",
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

    def __init__(self, path: Path, *, patience_s: float = _BUSY_TIMEOUT_S) -> None:
        # Whoever else writes has the lock for so long at most, or a write ends in StoreUnavailable.
        turns = _Turns(Turnstile(path), patience_s)
        self._writer = _Threads("hydrasms-writer", sync_engine(path), 1, turns)
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


class _Turns(NamedTuple):
    """The queue of all who write, and how long its head may be waited for."""

    turnstile: Turnstile
    patience_s: float

    @property
    def left_s(self) -> float:
        """How much longer the thread that waits for a turn may do so."""
        return self.patience_s - self.turnstile.waited_s

    def join(self, thread: threading.Thread) -> None:
        """Wait for a thread's end, but not for a turn that does not come: the thread ends with its process then."""
        while thread.is_alive() and self.left_s > 0:
            thread.join(self.left_s)


class _Job(Generic[T]):
    """One transaction, and the future of whoever asked for it; to be made and awaited on the loop's thread."""

    def __init__(self, work: Work[T], errors: SqliteErrors, turns: _Turns | None) -> None:
        self._work = work
        self._errors = errors
        self._loop = asyncio.get_running_loop()
        self._turns = turns
        # Taken once: by the thread that does the job, or by the loop that gives it up.
        self._claimed = threading.Lock()
        self.done: asyncio.Future[T] = self._loop.create_future()
        self._timer = self._loop.call_later(turns.patience_s, self._give_up) if turns is not None else None

    def run(self, connect: Connect) -> None:
        """Run the transaction, in its turn, and hand over what came of it."""
        result: T | None = None
        error: Exception | None = None
        try:
            if self._turns is None:
                result = self._transact(connect())
            else:
                self._turns.turnstile.take()
                try:
                    if not self._claimed.acquire(blocking=False):
                        return
                    result = self._transact(connect())
                finally:
                    self._turns.turnstile.give_back()
        except (sqlite3.Error, exc.DBAPIError, UnicodeDecodeError) as caught:
            error = self._errors.translated(caught)
            error.__cause__ = caught
        except Exception as caught:  # noqa: BLE001 - it belongs to whoever awaits the result
            error = caught
        self._loop.call_soon_threadsafe(self._settle, result, error)

    def _transact(self, connection: sa.Connection) -> T:
        with connection.begin():
            return _run_at_once(self._work(_OpenTransaction(connection)))  # type: ignore[arg-type]

    def _settle(self, result: T | None, error: BaseException | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self.done.cancelled():
            return
        if error is not None:
            self.done.set_exception(error)
        else:
            self.done.set_result(cast("T", result))

    def _give_up(self) -> None:
        """Refuse the job where the thread has waited for a turn too long; look again later where it has not.

        The thread cannot be called back from its wait, so that it is the loop which keeps the time. What is given
        up is not done when the turn comes at last.
        """
        assert self._turns is not None
        if (left_s := self._turns.left_s) > 0:
            self._timer = self._loop.call_later(left_s, self._give_up)
        elif self._claimed.acquire(blocking=False) and not self.done.cancelled():
            self.done.set_exception(StoreUnavailable())


class _Threads:
    """Runs transactions in the order in which they were asked for, on threads with a connection each."""

    def __init__(self, name: str, engine: sa.Engine, number: int, turns: _Turns | None = None) -> None:
        self._engine = engine
        self._errors = SqliteErrors()
        self._turns = turns
        self._jobs: queue.SimpleQueue[_Job[Any] | None] = queue.SimpleQueue()
        self._threads = [threading.Thread(target=self._loop, name=name, daemon=True) for _ in range(number)]
        for thread in self._threads:
            thread.start()

    async def run(self, work: Work[T]) -> T:
        job = _Job(work, self._errors, self._turns)
        self._jobs.put(job)
        return await job.done

    def stop(self) -> None:
        for _ in self._threads:
            self._jobs.put(None)
        for thread in self._threads:
            if self._turns is None:
                thread.join()
            else:
                self._turns.join(thread)

    def _loop(self) -> None:
        connection: sa.Connection | None = None

        def connect() -> sa.Connection:
            nonlocal connection
            # Opened by the first who asks: most threads of a process that only looks something up are never
            # asked. Where it cannot be opened whoever asks is told, and the next who asks tries again.
            connection = connection or self._engine.connect()
            return connection

        while (job := self._jobs.get()) is not None:
            job.run(connect)
        if connection is not None:
            connection.close()
        if self._turns is not None:
            self._turns.turnstile.close()


def _run_at_once(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine that waits for nothing but its transaction, which never suspends it here."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        return cast("T", stop.value)
    coroutine.close()
    raise RuntimeError("a transaction waited for something other than its database")
