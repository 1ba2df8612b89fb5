"""Connections to PostgreSQL, and what becomes of the driver's errors.

SQLAlchemy makes connections and speaks Core over them; it begins no transaction by itself, and its own pool is not
used: taking a connection from it takes as long as a round trip.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any, NamedTuple, cast

import asyncpg
import sqlalchemy as sa
from sqlalchemy import exc
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool

from hydrasms_core.db.transaction import IntegrityViolation, StoreCorrupt
from hydrasms_core.errors import StoreBusy, StoreUnavailable

_CONNECT_S = 5.0
_ROLL_BACK_S = 1.0
_PREPARED_STATEMENTS = 512

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

_OF_THE_DRIVER = (
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    OSError,
    TimeoutError,
)
_UNAVAILABLE = (
    OSError,
    TimeoutError,
    asyncpg.InterfaceError,
    # What the driver makes of a server that ends a connection while nobody asks it for anything.
    asyncpg.InternalClientError,
    asyncpg.PostgresConnectionError,
    asyncpg.OperatorInterventionError,
    asyncpg.InsufficientResourcesError,
    asyncpg.ObjectInUseError,
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


class Undone(Exception):
    """The database undid the transaction for another's sake; it may be run anew."""


class Pool:
    """At most so many connections, made when they are needed and kept."""

    def __init__(self, url: str, settings: Mapping[str, str], connections: int) -> None:
        self._engine = async_engine(url, settings)
        self._free = asyncio.Semaphore(connections)
        # Those that nobody uses, the latest last.
        self._idle: list[Link] = []

    @contextlib.asynccontextmanager
    async def link(self, begin: str) -> AsyncIterator["Link"]:
        """Lend a connection on which a transaction has begun: those that a restart broke are passed over."""
        with translated():
            async with asyncio.timeout(_CONNECT_S):
                await self._free.acquire()
        try:
            link = await self._begun_link(begin)
            try:
                yield link
            finally:
                if link.driver.is_closed():
                    await link.let_go()
                else:
                    self._idle.append(link)
        finally:
            self._free.release()

    async def _begun_link(self, begin: str) -> "Link":
        while self._idle:
            link = self._idle.pop()
            if not link.driver.is_closed():
                try:
                    await link.driver.execute(begin, timeout=_CONNECT_S)
                except _OF_THE_DRIVER:
                    # Nobody had told us yet that it is broken, and nothing was done on it.
                    link.break_off()
                except BaseException:
                    link.break_off()
                    raise
                else:
                    return link
            await link.let_go()
        with translated():
            connection = await self._engine.connect()
            raw = await connection.get_raw_connection()
            link = Link(connection, cast("asyncpg.Connection[Any]", raw.driver_connection))
            try:
                await link.driver.execute(begin, timeout=_CONNECT_S)
            except BaseException:
                link.break_off()
                await link.let_go()
                raise
        return link

    async def close(self) -> None:
        """Close the connections that nobody uses."""
        while self._idle:
            await self._idle.pop().connection.close()
        await self._engine.dispose()


class Link(NamedTuple):
    """A connection, as SQLAlchemy has it and as the driver has it."""

    connection: AsyncConnection
    driver: "asyncpg.Connection[Any]"

    async def roll_back(self) -> None:
        """Undo what is open; a connection that cannot even do that is broken off, and the server undoes it."""
        try:
            await self.driver.execute("ROLLBACK", timeout=_ROLL_BACK_S)
        except _OF_THE_DRIVER:
            self.break_off()

    def break_off(self) -> None:
        """End the connection without asking the server for anything."""
        self.driver.terminate()

    async def let_go(self) -> None:
        """Forget a connection that has ended."""
        await self.connection.invalidate()
        await self.connection.close()


def async_engine(url: str, settings: Mapping[str, str] | None = None) -> AsyncEngine:
    """Return an engine that leaves transactions to whoever has the connection, and keeps none of them."""
    return create_async_engine(
        sa.make_url(url).set(drivername="postgresql+asyncpg"),
        isolation_level="AUTOCOMMIT",
        poolclass=NullPool,
        # An error's text reaches the log; the values bound to its statement are numbers and bodies.
        hide_parameters=True,
        connect_args={
            "timeout": _CONNECT_S,
            "statement_cache_size": _PREPARED_STATEMENTS,
            "server_settings": {**_SERVER_SETTINGS, **(settings or {})},
        },
    )


@contextlib.contextmanager
def translated() -> Iterator[None]:
    """Let out no driver's error that is not a bug of ours."""
    try:
        yield
    except (exc.SQLAlchemyError, *_OF_THE_DRIVER) as error:
        known = _domain_error(error)
        if known is None:
            # A bug of ours, such as a statement that is wrong.
            raise
        raise known from error


def _domain_error(error: BaseException) -> Exception | None:
    original = _original(error)
    if isinstance(original, asyncpg.IntegrityConstraintViolationError):
        # The detail would quote the row.
        return IntegrityViolation(str(original.args[0]) if original.args else type(original).__name__)
    if isinstance(original, _UNDONE):
        return Undone()
    if isinstance(original, asyncpg.DataCorruptedError | asyncpg.IndexCorruptedError):
        return StoreCorrupt(type(original).__name__)
    if isinstance(original, asyncpg.LockNotAvailableError):
        return StoreBusy()
    if isinstance(original, _UNAVAILABLE):
        return StoreUnavailable()
    if isinstance(error, exc.TimeoutError):
        return StoreUnavailable()
    return None


def _original(error: BaseException) -> BaseException:
    """Return the driver's own error, which SQLAlchemy wraps twice."""
    if isinstance(error, exc.DBAPIError) and error.orig is not None:
        return error.orig.__cause__ or error.orig
    return error
