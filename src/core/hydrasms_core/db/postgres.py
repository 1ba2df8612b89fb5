"""PostgreSQL: a pool of connections, each transaction on one of them.

SQLAlchemy makes connections and speaks Core; it never begins a transaction by itself. Transactions begin and end
here, on the driver's own connection, where set statements run as well: a group commit is four round trips.
"""

import asyncio
import contextlib
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, Literal, TypeVar, cast

import asyncpg
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from hydrasms_base.log import get_logger
from hydrasms_core.db.dialect import SetStatement
from hydrasms_core.db.postgres_pool import Pool, Undone, translated
from hydrasms_core.db.transaction import IntegrityViolation, Work
from hydrasms_core.errors import CommitUnknown, StoreUnavailable

T = TypeVar("T")

_WRITERS = 8
_READERS = 8
# How long a transaction may take. Reading everything, as the ledger's verification does, takes minutes.
_WRITE_S = 30.0
_READ_S = 900.0
# A transaction that the database undoes for another's sake is run anew so often.
_RUNS = 4
_RESOLVE_S = 30.0
_FIRST_BACK_OFF_S = 0.05
_MAX_BACK_OFF_S = 1.0

# A change finds its rows by their keys, whatever is in the table. Left to itself the planner weighs a statement's
# values anew each time, which takes as long as the statement does, and reads whole tables while it thinks that
# they are small. A plan is kept until the table is next analyzed, a minute or more, and may not depend on how much
# there was when it was made: `SetStatement` says how.
_WRITING = {
    "plan_cache_mode": "force_generic_plan",
    "enable_seqscan": "off",
    # A whole index is no better than a whole table.
    "enable_indexonlyscan": "off",
    # The first of many rows that are due come in the index's order, not by sorting them all.
    "enable_bitmapscan": "off",
}
# Only a plan for the very values leaves partitions out.
_WRITING_PARTITIONS = _WRITING | {"plan_cache_mode": "force_custom_plan"}

_BEGIN_READING = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"
_BEGIN_WRITING = "BEGIN"
_HOLD_ALONE = "SELECT pg_advisory_xact_lock(hashtextextended($1, 0))"
_HOLD_TOGETHER = "SELECT pg_advisory_xact_lock_shared(hashtextextended($1, 0))"

log = get_logger(__name__)


class PostgresDatabase:
    """A PostgreSQL database that is open for business; no connection is made before one is needed.

    `partitioned` has every statement planned for its own values, so that it touches only the partitions of the
    accounts that it names. A transaction of writing that takes longer than `write_limit_s` is given up.
    """

    writes_in_turn = False

    def __init__(
        self,
        url: str,
        *,
        partitioned: bool = False,
        writers: int = _WRITERS,
        readers: int = _READERS,
        write_limit_s: float | None = _WRITE_S,
    ) -> None:
        self._partitioned = partitioned
        self._write_limit_s = write_limit_s
        self._writers = Pool(url, _WRITING_PARTITIONS if partitioned else _WRITING, writers)
        self._readers = Pool(url, {}, readers)
        self._running: set[asyncio.Task[Any]] = set()

    async def read(self, work: Work[T]) -> T:
        """Run work that changes nothing, on one consistent state."""
        try:
            return await self._finished(self._once(self._readers, _BEGIN_READING, work, _READ_S))
        except Undone:
            raise StoreUnavailable from None

    async def write(self, work: Work[T], landed: Work[bool] | None = None) -> T:
        """Run work in a transaction; durable when this returns."""
        return await self._finished(self._write(work, landed))

    async def close(self) -> None:
        """Finish the transactions that were asked for, then close every connection."""
        while self._running:
            await asyncio.wait(self._running)
        await self._writers.close()
        await self._readers.close()

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
                return await self._once(self._writers, _BEGIN_WRITING, kept, self._write_limit_s)  # type: ignore[arg-type]
            except Undone:
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
                        found = await self._once(self._writers, _BEGIN_WRITING, landed, self._write_limit_s)
                    except (StoreUnavailable, Undone):
                        await asyncio.sleep(back_off_s)
                        back_off_s = min(back_off_s * 2, _MAX_BACK_OFF_S)
                    else:
                        log.warning("commit_resolved", committed=found)
                        return found
        raise CommitUnknown

    async def _once(self, pool: Pool, begin: str, work: Work[T], limit_s: float | None) -> T:
        async with pool.link(begin) as link:
            transaction = PostgresTransaction(link.connection, link.driver, partitioned=self._partitioned)
            try:
                with translated():
                    async with asyncio.timeout(limit_s):
                        result = await work(transaction)
                        await transaction.flush()
            except BaseException:
                await link.roll_back()
                raise
            try:
                with translated():
                    ended = await link.driver.execute("COMMIT", timeout=limit_s)
            except BaseException as error:
                link.break_off()
                if transaction.changed and isinstance(error, StoreUnavailable):
                    raise CommitUnknown from error
                raise
            if ended != "COMMIT":
                # So it answers where a statement had failed and the work went on as if it had not.
                raise IntegrityViolation("a statement of the transaction had failed")
        for call in transaction.afterwards:
            call()
        return result


class PostgresTransaction:
    """An open transaction."""

    dialect: Literal["sqlite", "postgresql"] = "postgresql"

    def __init__(
        self, connection: AsyncConnection, driver: "asyncpg.Connection[Any]", *, partitioned: bool
    ) -> None:
        self._connection = connection
        self._driver = driver
        self._partitioned = partitioned
        self._deferred: list[tuple[SetStatement, Sequence[Sequence[Any]], Mapping[str, Any]]] = []
        self.changed = False
        """Whether it may have changed anything."""
        self.afterwards: list[Callable[[], None]] = []
        """What to call once it is committed."""

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
        text, values = statement.for_postgres(rows, parameters or {}, partitioned=self._partitioned)
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

    async def copy_rows(self, table: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """Put many rows into a table, the fastest way there is."""
        await self.flush()
        self.changed = True
        await self._driver.copy_records_to_table(table, records=rows, columns=list(columns))

    async def hold(self, name: str, *, alone: bool) -> bool:
        """Hold a name until the transaction ends; tells that what was looked up before must be looked up again."""
        await self.flush()
        await self._driver.execute(_HOLD_ALONE if alone else _HOLD_TOGETHER, name)
        return True

    def after_commit(self, call: Callable[[], None]) -> None:
        """Have something called once the transaction is committed."""
        self.afterwards.append(call)

    async def flush(self) -> None:
        """Run what was deferred, as one statement."""
        if not self._deferred:
            return
        deferred, self._deferred = self._deferred, []
        texts: list[str] = []
        values: list[Any] = []
        for number, (statement, rows, parameters) in enumerate(deferred):
            text, own = statement.for_postgres(
                rows, parameters, first=len(values) + 1, partitioned=self._partitioned
            )
            texts.append(f"s{number} AS ({text})")
            values += own
        await self._driver.execute(f"WITH {', '.join(texts)} SELECT 1", *values)
