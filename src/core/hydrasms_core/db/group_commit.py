"""Group commit: many callers, one transaction.

While one transaction runs, or the next waits for its turn, whatever arrives gathers for the next: under load batches
grow by themselves and with one caller each batch is one item. There is no timer, so nobody waits for a batch to fill.
Where writes wait in line anyway, those who come together have the next transaction asked for while one runs.
"""

import asyncio
import contextvars
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, NamedTuple, Protocol, TypeVar, cast

from hydrasms_base.log import get_logger
from hydrasms_core.db.transaction import Database, StoreCorrupt, Transaction
from hydrasms_core.errors import DomainError, Overloaded

Item = TypeVar("Item")
Outcome = TypeVar("Outcome")
Outcome_contra = TypeVar("Outcome_contra", contravariant=True)

Commit = Callable[[Transaction, Sequence[Item]], Awaitable[Sequence[Outcome | DomainError]]]
"""Works on a batch inside one transaction and returns one outcome an item, in the same order. An item's own
failure is an outcome; only what dooms the whole transaction is raised."""

Landed = Callable[[Transaction, Sequence[Item], Sequence[Outcome | DomainError]], Awaitable[bool]]
"""Tells of a batch and its outcomes, in a later transaction, whether it was committed; see `Database.write`."""

log = get_logger(__name__)


class _Answer(Protocol[Outcome_contra]):
    """Where an item's outcome goes; futures are such."""

    def done(self) -> bool:
        """Tell whether nobody waits for it any more."""
        ...

    def set_result(self, result: Outcome_contra, /) -> None:
        """Hand the outcome over."""
        ...

    def set_exception(self, exception: Exception, /) -> None:
        """Hand over why there is none."""
        ...


class _Waiting(NamedTuple, Generic[Item, Outcome]):
    item: Item
    answer: _Answer[Outcome]


class _Together(Generic[Outcome]):
    """The outcomes of items that were submitted together, and who waits for the last of them.

    A future an item costs several times what this does.
    """

    __slots__ = ("all_there", "missing", "outcomes")

    def __init__(self, count: int) -> None:
        self.outcomes: list[Outcome | Exception] = [_NO_OUTCOME] * count
        self.missing = count
        self.all_there: asyncio.Future[None] = asyncio.get_running_loop().create_future()


class _Share(Generic[Outcome]):
    """The place of one item's outcome among them."""

    __slots__ = ("_place", "_together")

    def __init__(self, together: _Together[Outcome], place: int) -> None:
        self._together = together
        self._place = place

    def done(self) -> bool:
        return self._together.all_there.done()

    def set_result(self, result: Outcome | Exception, /) -> None:
        together = self._together
        together.outcomes[self._place] = result
        together.missing -= 1
        if not together.missing and not together.all_there.done():
            together.all_there.set_result(None)

    set_exception = set_result


_NO_OUTCOME = RuntimeError("nothing became of the item")


class GroupCommit(Generic[Item, Outcome]):
    """Gathers items into transactions and hands every caller its own outcome.

    `max_batch` bounds a transaction, `max_waiting` the queue: past it callers get Overloaded at once. No outcome
    is handed out before its transaction is durable. `refusal` is asked about each item when its turn has come: what
    it returns is the item's outcome, and nothing is done for it. `told` says what an item's caller is told where the
    database refuses the whole batch.
    """

    def __init__(
        self,
        database: Database,
        commit: Commit[Item, Outcome],
        landed: Landed[Item, Outcome] | None = None,
        *,
        max_batch: int = 256,
        max_waiting: int = 10_000,
        refusal: Callable[[Item], DomainError | None] = lambda _: None,
        told: Callable[[Item, Exception], Exception] = lambda _, error: error,
    ) -> None:
        self._database = database
        self._commit = commit
        self._landed = landed
        self._max_batch = max_batch
        self._max_waiting = max_waiting
        self._refusal = refusal
        self._told = told
        self._queue: deque[_Waiting[Item, Outcome]] = deque()
        self._running: set[asyncio.Task[None]] = set()
        # Whether a transaction is asked for that has not taken its batch yet.
        self._is_due = False

    async def submit(self, item: Item) -> Outcome:
        """Have one item committed and return its outcome.

        Raises the item's own DomainError, Overloaded where too many wait, and StoreUnavailable where the
        database refuses. A caller that is cancelled while its item waits takes the item back.
        """
        if len(self._queue) >= self._max_waiting:
            raise Overloaded
        answer: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self._queue.append(_Waiting(item, answer))
        if not self._running:
            self._ask()
        return await answer

    async def submit_all(self, items: Sequence[Item]) -> list[Outcome | DomainError]:
        """Have many items committed and return their outcomes in order, each its own.

        Raises Overloaded where there is no room for all of them, and what is no item's own error.
        """
        if len(self._queue) + len(items) > self._max_waiting:
            raise Overloaded
        outcomes: list[Outcome | DomainError] = []
        for outcome in await self.submit_each(items):
            if isinstance(outcome, Exception) and not isinstance(outcome, DomainError):
                raise outcome
            outcomes.append(outcome)
        return outcomes

    async def submit_each(self, items: Sequence[Item]) -> list[Outcome | Exception]:
        """Do as `submit` for each of many items; what it would raise for one stands in the place of its outcome."""
        if not items:
            return []
        together: _Together[Outcome] = _Together(len(items))
        for place, item in enumerate(items):
            share = _Share(together, place)
            if len(self._queue) < self._max_waiting:
                self._queue.append(_Waiting(item, share))
            else:
                share.set_exception(Overloaded())
        # Many that came at once need not wait for others: where writes wait in line, the next one is asked for while
        # one runs, so that the database does not stand still until the loop has woken.
        if self._queue and (not self._running or self._database.writes_in_turn):
            self._ask()
        await together.all_there
        return together.outcomes

    async def drain(self) -> None:
        """Wait until nothing is waiting or being committed."""
        while self._running:
            await asyncio.wait(self._running)

    def _ask(self) -> None:
        """Ask for a transaction, unless one is asked for already that has not begun."""
        if self._is_due:
            return
        self._is_due = True
        # In no caller's context: what is logged about a batch is no one request's.
        self._running.add(asyncio.get_running_loop().create_task(self._run(), context=contextvars.Context()))

    async def _run(self) -> None:
        refused: list[tuple[_Waiting[Item, Outcome], DomainError]] = []
        try:
            await self._commit_batch(_Batch(lambda: self._take(refused)))
        finally:
            self._running.discard(cast("asyncio.Task[None]", asyncio.current_task()))
        for waiting, refusal in refused:
            _refuse(waiting, refusal)
        if self._queue and not self._running:
            self._ask()

    def _take(
        self, refused: list[tuple[_Waiting[Item, Outcome], DomainError]]
    ) -> list[_Waiting[Item, Outcome]]:
        """Take what is due of the queue, perhaps on a thread of the database's: nobody is answered here."""
        # Before looking: who comes from here on and is not seen asks for the next one.
        self._is_due = False
        taken: list[_Waiting[Item, Outcome]] = []
        while self._queue and len(taken) < self._max_batch:
            waiting = self._queue.popleft()
            # A caller that went away before its turn wants nothing done.
            if waiting.answer.done():
                continue
            refusal = self._refusal(waiting.item)
            if refusal is None:
                taken.append(waiting)
            else:
                refused.append((waiting, refusal))
        return taken

    async def _commit_batch(self, batch: "_Batch[Item, Outcome]") -> None:
        try:
            outcomes = await self._write(batch)
        except (DomainError, StoreCorrupt) as error:
            # The database refuses everybody: taking the batch apart would only ask it again.
            for waiting in batch.waiting:
                _refuse(waiting, self._told(waiting.item, error))
        except Exception as error:  # noqa: BLE001 - whatever one item does, its neighbours must be answered
            whole = batch.waiting
            if len(whole) <= 1:
                for waiting in whole:
                    _refuse(waiting, error)
                return
            log.warning("batch_split", items=len(whole), error=type(error).__name__)
            middle = len(whole) // 2
            await self._commit_batch(_Batch(lambda: whole[:middle]))
            await self._commit_batch(_Batch(lambda: whole[middle:]))
        else:
            for waiting, outcome in zip(batch.waiting, outcomes, strict=True):
                if isinstance(outcome, DomainError):
                    _refuse(waiting, outcome)
                elif not waiting.answer.done():
                    waiting.answer.set_result(outcome)

    async def _write(self, batch: "_Batch[Item, Outcome]") -> Sequence[Outcome | DomainError]:
        outcomes: Sequence[Outcome | DomainError] = ()

        async def work(tx: Transaction) -> Sequence[Outcome | DomainError]:
            nonlocal outcomes
            items = batch.items()
            outcomes = await self._commit(tx, items) if items else ()
            return outcomes

        look = self._landed
        if look is None:
            return await self._database.write(work)
        return await self._database.write(work, lambda tx: look(tx, batch.items(), outcomes))


class _Batch(Generic[Item, Outcome]):
    """The items of one transaction, taken when it begins: who comes while it waits for its turn is among them."""

    def __init__(self, take: Callable[[], list[_Waiting[Item, Outcome]]]) -> None:
        self._take = take
        self._taken: list[_Waiting[Item, Outcome]] | None = None

    @property
    def waiting(self) -> list[_Waiting[Item, Outcome]]:
        """Return them with those who wait for them, the same at every call."""
        if self._taken is None:
            self._taken = self._take()
        return self._taken

    def items(self) -> list[Item]:
        """Return them alone."""
        return [each.item for each in self.waiting]


def _refuse(waiting: _Waiting[Item, Outcome], error: Exception) -> None:
    if not waiting.answer.done():
        waiting.answer.set_exception(error)
