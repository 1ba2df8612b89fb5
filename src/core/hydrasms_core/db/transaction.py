"""One open transaction, as every store method receives it."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Literal, Protocol, TypeVar

from sqlalchemy import CursorResult, Executable

from hydrasms_core.db.dialect import SetStatement

T = TypeVar("T")


class Transaction(Protocol):
    """Runs statements inside one transaction; whoever opened it commits or rolls back.

    Nothing but the transaction itself may be awaited while it is open: it holds locks.
    """

    @property
    def dialect(self) -> Literal["sqlite", "postgresql"]:
        """What kind of database it is, for the few who look at the schema itself or lock what SQLite need not."""
        ...

    async def execute(
        self, statement: Executable, parameters: Mapping[str, Any] | None = None
    ) -> CursorResult[Any]:
        """Run one SQLAlchemy Core statement and return its buffered result."""
        ...

    async def execute_set(
        self,
        statement: SetStatement,
        rows: Sequence[Sequence[Any]],
        parameters: Mapping[str, Any] | None = None,
    ) -> list[tuple[Any, ...]]:
        """Run one statement over a batch of rows and return what it selects or returns."""
        ...

    async def defer_set(
        self,
        statement: SetStatement,
        rows: Sequence[Sequence[Any]],
        parameters: Mapping[str, Any] | None = None,
    ) -> None:
        """Have a statement run before the next one that is not deferred, and before the commit at the latest.

        For changes whose result nobody needs: a database that is far away runs all that were deferred in one
        round trip. They are of different tables and see nothing of each other. An IntegrityViolation comes when
        they run.
        """
        ...

    async def hold(self, name: str, *, alone: bool) -> bool:
        """Hold a name until the transaction ends: alone, or together with all others who do not want it alone.

        For what is not there yet, and so has no row to lock. Tells whether others may have had the name before, so
        that what was looked up without it must be looked up again.
        """
        ...

    def after_commit(self, call: Callable[[], None]) -> None:
        """Have something called once the transaction is committed, on whatever thread that is; it must not fail.

        For waking others, who look for themselves: where the commit's answer is lost, nothing is called.
        """
        ...


Work = Callable[[Transaction], Awaitable[T]]
"""Something to do inside one transaction."""


class Database(Protocol):
    """A database that is open for business.

    Both methods run the work in one transaction, commit where it returns and roll back where it raises, and
    let no driver's error out: StoreUnavailable, IntegrityViolation or StoreCorrupt come in their place.
    """

    @property
    def writes_in_turn(self) -> bool:
        """Whether writes run one after the other, in the order in which they were asked for."""
        ...

    async def read(self, work: Work[T]) -> T:
        """Run work that changes nothing, on one consistent state."""
        ...

    async def write(self, work: Work[T], landed: Work[bool] | None = None) -> T:
        """Run work in a transaction that may change things; durable when this returns.

        Work may run more than once, where the database undid it for the sake of another transaction; only the last
        run counts. On SQLite it has the whole database to itself. On PostgreSQL it sees what others have committed
        before each of its statements, and has to itself what it locks.

        A commit whose answer was lost may have come through or not. `landed` then looks, in a transaction that
        begins afterwards: it waits for the locks that work held and tells whether its changes are there. Without
        it CommitUnknown is raised.
        """
        ...

    async def close(self) -> None:
        """Finish what is running and let go of the files."""
        ...


class IntegrityViolation(Exception):
    """A constraint refused the change; the store that knows the constraint turns this into a domain error."""


class StoreCorrupt(Exception):
    """The database is damaged: nothing it says can be trusted."""
