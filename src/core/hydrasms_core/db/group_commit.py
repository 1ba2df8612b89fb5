"""Group commit: many callers, one transaction.

While one transaction runs, whatever arrives gathers for the next: under load batches grow by themselves and with
one caller each batch is one item. There is no timer, so nobody waits for a batch to fill.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, NamedTuple, TypeVar

from hydrasms_base.log import get_logger
from hydrasms_core.db.transaction import Database, StoreCorrupt, Transaction
from hydrasms_core.errors import DomainError, Overloaded

Item = TypeVar("Item")
Outcome = TypeVar("Outcome")

Commit = Callable[[Transaction, Sequence[Item]], Awaitable[Sequence[Outcome | DomainError]]]
"""Works on a batch inside one transaction and returns one outcome an item, in the same order. An item's own
failure is an outcome; only what dooms the whole transaction is raised."""

Landed = Callable[[Transaction, Sequence[Item], Sequence[Outcome | DomainError]], Awaitable[bool]]
"""Tells of a batch and its outcomes, in a later transaction, whether it was committed; see `Database.write`."""

log = get_logger(__name__)


class _Waiting(NamedTuple, Generic[Item, Outcome]):
    item: Item
    answer: "asyncio.Future[Outcome]"


class GroupCommit(Generic[Item, Outcome]):
    """Gathers items into transactions and hands every caller its own outcome.

    `max_batch` bounds a transaction, `max_waiting` the queue: past it callers get Overloaded at once. No outcome
    is handed out before its transaction is durable.
    """

    def __init__(
        self,
        database: Database,
        commit: Commit[Item, Outcome],
        landed: Landed[Item, Outcome] | None = None,
        *,
        max_batch: int = 256,
        max_waiting: int = 10_000,
    ) -> None:
        self._database = database
        self._commit = commit
        self._landed = landed
        self._max_batch = max_batch
        self._max_waiting = max_waiting
        self._queue: deque[_Waiting[Item, Outcome]] = deque()
        self._running: asyncio.Task[None] | None = None

    async def submit(self, item: Item) -> Outcome:
        """Have one item committed and return its outcome.

        Raises the item's own DomainError, Overloaded where too many wait, and StoreUnavailable where the
        database refuses. A caller that is cancelled while its item waits takes the item back.
        """
        answer = self._enqueue([item])[0]
        return await answer

    async def submit_all(self, items: Sequence[Item]) -> list[Outcome | DomainError]:
        """Have many items committed and return their outcomes in order, each its own."""
        answers = self._enqueue(items)
        settled = await asyncio.gather(*answers, return_exceptions=True)
        outcomes: list[Outcome | DomainError] = []
        for outcome in settled:
            if isinstance(outcome, BaseException) and not isinstance(outcome, DomainError):
                raise outcome
            outcomes.append(outcome)
        return outcomes

    async def drain(self) -> None:
        """Wait until nothing is waiting or being committed."""
        while self._running is not None:
            await asyncio.wait([self._running])

    def _enqueue(self, items: Sequence[Item]) -> list["asyncio.Future[Outcome]"]:
        if len(self._queue) + len(items) > self._max_waiting:
            raise Overloaded
        loop = asyncio.get_running_loop()
        waiting: list[_Waiting[Item, Outcome]] = [_Waiting(item, loop.create_future()) for item in items]
        self._queue.extend(waiting)
        if self._running is None:
            self._running = loop.create_task(self._run())
        return [each.answer for each in waiting]

    async def _run(self) -> None:
        try:
            while self._queue:
                batch: list[_Waiting[Item, Outcome]] = []
                while self._queue and len(batch) < self._max_batch:
                    waiting = self._queue.popleft()
                    # A caller that went away before its turn wants nothing done.
                    if not waiting.answer.done():
                        batch.append(waiting)
                if batch:
                    await self._commit_batch(batch)
        finally:
            self._running = None

    async def _commit_batch(self, batch: list[_Waiting[Item, Outcome]]) -> None:
        try:
            outcomes = await self._write([waiting.item for waiting in batch])
        except (DomainError, StoreCorrupt) as error:
            # The database refuses everybody: taking the batch apart would only ask it again.
            for waiting in batch:
                _refuse(waiting, error)
        except Exception as error:  # noqa: BLE001 - whatever one item does, its neighbours must be answered
            if len(batch) == 1:
                _refuse(batch[0], error)
                return
            log.warning("batch_split", items=len(batch), error=type(error).__name__)
            middle = len(batch) // 2
            await self._commit_batch(batch[:middle])
            await self._commit_batch(batch[middle:])
        else:
            for waiting, outcome in zip(batch, outcomes, strict=True):
                if isinstance(outcome, DomainError):
                    _refuse(waiting, outcome)
                elif not waiting.answer.done():
                    waiting.answer.set_result(outcome)

    async def _write(self, items: Sequence[Item]) -> Sequence[Outcome | DomainError]:
        outcomes: Sequence[Outcome | DomainError] = ()

        async def work(tx: Transaction) -> Sequence[Outcome | DomainError]:
            nonlocal outcomes
            outcomes = await self._commit(tx, items)
            return outcomes

        look = self._landed
        if look is None:
            return await self._database.write(work)
        return await self._database.write(work, lambda tx: look(tx, items, outcomes))


def _refuse(waiting: _Waiting[Item, Outcome], error: Exception) -> None:
    if not waiting.answer.done():
        waiting.answer.set_exception(error)
