"""PostgreSQL: a pool of connections, each transaction on one of them.

SQLAlchemy keeps the pool and speaks Core; it never begins a transaction by itself. Transactions begin and end here,
on the driver's own connection, where set statements run as well: a group commit is four round trips.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Coroutine, Iterator, Mapping, Sequence
from typing import Any, Literal, TypeVar, cast

import asyncpg
import sqlalchemy as sa
from sqlalchemy import exc
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from hydrasms_base.log import get_logger
from hydrasms_core.db.dialect import SetStatement
from hydrasms_core.db.transaction import IntegrityViolation, StoreCorrupt, Work
from hydrasms_core.errors import CommitUnknown, StoreUnavailable

T = TypeVar("T")

_CONNECTIONS = 12
_CONNECT_S = 5.0
# How long a transaction may take. Reading everything, as the ledger's verification does, takes minutes.
_WRITE_S = 30.0
_READ_S = 900.0
_ROLL_BACK_S = 1.0
_PREPARED_STATEMENTS = 512
# A transaction that the database undoes for another's sake is run anew so often.
_RUNS = 4
_RESOLVE_S = 30.0
_FIRST_BACK_OFF_S = 0.05
_MAX_BACK_OFF_S = 1.0

_BEGIN_READING = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"
_BEGIN_WRITING = "BEGIN"

_SERVER_SETTINGS = {
    "application_name": "hydrasms",
    "timezone": "UTC",
    # What is acknowledged is on disk, whatever the server's default is.
    "synchronous_commit": "on",
    # Compiling statements of a few milliseconds costs more than it saves.
    "jit": "off",
    # A process that stands still in mid-transaction must not keep the others from its accounts for ever.
    "idle_in_transaction_session_timeout": "10s",
    "lock_timeout": "5s",
}

_UNAVAILABLE = (
    OSError,
    TimeoutError,
    asyncpg.InterfaceError,
    asyncpg.PostgresConnectionError,
    asyncpg.OperatorInterventionError,
    asyncpg.InsufficientResourcesError,
    asyncpg.ObjectInUseError,
    asyncpg.LockNotAvailableError,
    asyncpg.IdleInTransactionSessionTimeoutError,
    asyncpg.ReadOnlySQLTransactionError,
    asyncpg.InvalidAuthorizationSpecificationError,
    asyncpg.InvalidCatalogNameError,
    asyncpg.PostgresSystemError,
)
# The last: a migration has changed what a prepared statement was about; the driver then prepares it anew.
_UNDONE = (
    asyncpg.DeadlockDetectedError,
    asyncpg.SerializationError,
    asyncpg.InvalidCachedStatementError,
)

log = get_logger(__name__)


class _Undone(Exception):
    """The database undid the transaction for another's sake; it may be run anew."""


class PostgresDatabase:
    """A PostgreSQL database that is open for business; no connection is made before one is needed.

    `partitioned` has every statement planned for its own values, so that it touches only the partitions of the
    accounts that it names.
    """

    def __init__(self, url: str, *, partitioned: bool = False, connections: int = _CONNECTIONS) -> None:
        self._engine = async_engine(url, partitioned=partitioned, connections=connections)
        self._running: set[asyncio.Task[Any]] = set()

    async def read(self, work: Work[T]) -> T:
        """Run work that changes nothing, on one consistent state."""
        return await self._finished(self._once(_BEGIN_READING, work, _READ_S))

    async def write(self, work: Work[T], landed: Work[bool] | None = None) -> T:
        """Run work in a transaction; durable when this returns."""
        return await self._finished(self._write(work, landed))

    async def close(self) -> None:
        """Finish the transactions that were asked for, then close every connection."""
        while self._running:
            await asyncio.wait(self._running)
        await self._engine.dispose()

    async def _finished(self, transaction: Coroutine[Any, Any, T]) -> T:
        """See a transaction through to its end, also where its caller goes away meanwhile."""
        task = asyncio.create_task(transaction)
        self._running.add(task)
        task.add_done_callback(self._ended)
        return await asyncio.shield(task)

    def _ended(self, task: "asyncio.Task[Any]") -> None:
        self._running.discard(task)
        if not task.cancelled():
            # Nobody may be left to ask for it.
            task.exception()

    async def _write(self, work: Work[T], landed: Work[bool] | None) -> T:
        for runs_left in reversed(range(_RUNS)):
            result: list[T] = []

            async def kept(tx: "PostgresTransaction", result: list[T] = result) -> T:
                result.append(await work(tx))
                return result[-1]

            try:
                return await self._once(_BEGIN_WRITING, kept, _WRITE_S)  # type: ignore[arg-type]
            except _Undone:
                if not runs_left:
                    raise StoreUnavailable from None
            except CommitUnknown:
                if landed is None:
                    raise
                log.warning("commit_unknown")
                if await self._look(landed):
                    return result[-1]
                raise StoreUnavailable from None
        raise AssertionError("a run either returns or raises")

    async def _look(self, landed: Work[bool]) -> bool:
        """Find out whether a commit came through; raises CommitUnknown where the database stays away."""
        back_off_s = _FIRST_BACK_OFF_S
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_RESOLVE_S):
                while True:
                    try:
                        found = await self._once(_BEGIN_WRITING, landed, _WRITE_S)
                    except (StoreUnavailable, _Undone):
                        await asyncio.sleep(back_off_s)
                        back_off_s = min(back_off_s * 2, _MAX_BACK_OFF_S)
                    else:
                        log.warning("commit_resolved", committed=found)
                        return found
        raise CommitUnknown

    async def _once(self, begin: str, work: Work[T], limit_s: float) -> T:
        async with self._connection() as connection:
            driver = await _driver(connection)
            transaction = PostgresTransaction(connection, driver)
            try:
                with _translated():
                    async with asyncio.timeout(limit_s):
                        await driver.execute(begin)
                        result = await work(transaction)
                        await transaction.flush()
            except BaseException:
                await _roll_back(connection, driver)
                raise
            try:
                with _translated():
                    ended = await driver.execute("COMMIT", timeout=limit_s)
            except BaseException as error:
                await connection.invalidate()
                if transaction.changed and isinstance(error, StoreUnavailable):
                    raise CommitUnknown from error
                raise
            if ended != "COMMIT":
                # So it answers where a statement had failed and the work went on as if it had not.
                raise IntegrityViolation("a statement of the transaction had failed")
            return result

    @contextlib.asynccontextmanager
    async def _connection(self) -> AsyncIterator[AsyncConnection]:
        """Lend a connection that was alive a moment ago: those that a restart of the server broke are passed over."""
        while True:
            with _translated():
                connection = await self._engine.connect()
            if not (await _driver(connection)).is_closed():
                break
            await connection.invalidate()
            await connection.close()
        try:
            yield connection
        finally:
            await connection.close()


class PostgresTransaction:
    """An open transaction."""

    dialect: Literal["sqlite", "postgresql"] = "postgresql"

    def __init__(self, connection: AsyncConnection, driver: "asyncpg.Connection[Any]") -> None:
        self._connection = connection
        self._driver = driver
        self._deferred: list[tuple[SetStatement, Sequence[Sequence[Any]], Mapping[str, Any]]] = []
        self.changed = False
        """Whether it may have changed anything."""

    async def execute(
        self, statement: sa.Executable, parameters: Mapping[str, Any] | None = None
    ) -> sa.CursorResult[Any]:
        """Run one SQLAlchemy Core statement and return its buffered result."""
        await self.flush()
        self.changed = self.changed or not isinstance(statement, sa.Select)
        return await self._connection.execute(statement, parameters)

    async def execute_set(
        self,
        statement: SetStatement,
        rows: Sequence[Sequence[Any]],
        parameters: Mapping[str, Any] | None = None,
    ) -> list[tuple[Any, ...]]:
        """Run one statement over a batch of rows and return what it selects or returns."""
        await self.flush()
        self.changed = self.changed or bool(statement.target)
        text, values = statement.for_postgres(rows, parameters or {})
        # A record is a tuple in all but name.
        return cast("list[tuple[Any, ...]]", await self._driver.fetch(text, *values))

    async def defer_set(
        self,
        statement: SetStatement,
        rows: Sequence[Sequence[Any]],
        parameters: Mapping[str, Any] | None = None,
    ) -> None:
        """Have a statement run with the others that are deferred."""
        if any(statement.target == earlier.target for earlier, _, _ in self._deferred):
            # Statements that run together do not see each other's rows.
            await self.flush()
        self.changed = True
        self._deferred.append((statement, rows, parameters or {}))

    async def flush(self) -> None:
        """Run what was deferred, as one statement."""
        if not self._deferred:
            return
        deferred, self._deferred = self._deferred, []
        texts: list[str] = []
        values: list[Any] = []
        for number, (statement, rows, parameters) in enumerate(deferred):
            text, own = statement.for_postgres(rows, parameters, len(values) + 1)
            texts.append(f"s{number} AS ({text})")
            values += own
        await self._driver.execute(f"WITH {', '.join(texts)} SELECT 1", *values)


def async_engine(url: str, *, partitioned: bool = False, connections: int = _CONNECTIONS) -> AsyncEngine:
    """Return an engine that leaves transactions to whoever has the connection."""
    settings = dict(_SERVER_SETTINGS)
    if partitioned:
        settings["plan_cache_mode"] = "force_custom_plan"
    return create_async_engine(
        sa.make_url(url).set(drivername="postgresql+asyncpg"),
        isolation_level="AUTOCOMMIT",
        pool_size=connections,
        max_overflow=0,
        pool_timeout=_CONNECT_S,
        # An error's text reaches the log; the values bound to its statement are numbers and bodies.
        hide_parameters=True,
        connect_args={
            "timeout": _CONNECT_S,
            "statement_cache_size": _PREPARED_STATEMENTS,
            "server_settings": settings,
        },
    )


async def _driver(connection: AsyncConnection) -> "asyncpg.Connection[Any]":
    raw = await connection.get_raw_connection()
    return cast("asyncpg.Connection[Any]", raw.driver_connection)


async def _roll_back(connection: AsyncConnection, driver: "asyncpg.Connection[Any]") -> None:
    """Undo what is open; a connection that cannot even do that is thrown away, and the server undoes it."""
    try:
        await driver.execute("ROLLBACK", timeout=_ROLL_BACK_S)
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError):
        await connection.invalidate()


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    """Let no driver's error out."""
    try:
        yield
    except (
        exc.SQLAlchemyError,
        asyncpg.PostgresError,
        asyncpg.InterfaceError,
        OSError,
        TimeoutError,
    ) as error:
        raise _domain_error(error) from error


def _domain_error(error: BaseException) -> Exception:
    original = _original(error)
    if isinstance(original, asyncpg.IntegrityConstraintViolationError):
        # The detail would quote the row.
        return IntegrityViolation(str(original.args[0]) if original.args else type(original).__name__)
    if isinstance(original, _UNDONE):
        return _Undone()
    if isinstance(original, asyncpg.DataCorruptedError | asyncpg.IndexCorruptedError):
        return StoreCorrupt(type(original).__name__)
    if isinstance(original, _UNAVAILABLE):
        return StoreUnavailable()
    if isinstance(error, exc.TimeoutError):
        return StoreUnavailable()
    return original if isinstance(original, Exception) else StoreUnavailable()


def _original(error: BaseException) -> BaseException:
    """Return the driver's own error, which SQLAlchemy wraps twice."""
    if isinstance(error, exc.DBAPIError) and error.orig is not None:
        return error.orig.__cause__ or error.orig
    return error
