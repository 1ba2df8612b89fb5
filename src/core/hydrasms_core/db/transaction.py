"""One open transaction, as every store method receives it."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Protocol, TypeVar

from sqlalchemy import CursorResult, Executable

from hydrasms_core.db.dialect import SetStatement

T = TypeVar("T")


class Transaction(Protocol):
    """Runs statements inside one transaction; whoever opened it commits or rolls back.

    Nothing but the transaction itself may be awaited while it is open: it holds the write lock.
    """

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


Work = Callable[[Transaction], Awaitable[T]]
"""Something to do inside one transaction."""


class Database(Protocol):
    """A database that is open for business.

    Both methods run the work in one transaction, commit where it returns and roll back where it raises, and
    let no driver's error out: StoreUnavailable, IntegrityViolation or StoreCorrupt come in their place.
    """

    async def read(self, work: Work[T]) -> T:
        """Run work that changes nothing, on one consistent state."""
        ...

    async def write(self, work: Work[T]) -> T:
        """Run work under the write lock; durable when this returns."""
        ...

    async def close(self) -> None:
        """Finish what is running and let go of the files."""
        ...


class IntegrityViolation(Exception):
    """A constraint refused the change; the store that knows the constraint turns this into a domain error."""


class StoreCorrupt(Exception):
    """The database is damaged: nothing it says can be trusted."""
