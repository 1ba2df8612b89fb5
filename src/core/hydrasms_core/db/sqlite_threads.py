"""The threads that SQLite's transactions run on, each with a connection of its own."""

import asyncio
import queue
import sqlite3
import threading
from collections.abc import Callable
from typing import Any, Generic, TypeVar, cast

import sqlalchemy as sa
from sqlalchemy import exc

from hydrasms_base.log import get_logger
from hydrasms_core.db.sqlite_errors import SqliteErrors
from hydrasms_core.db.transaction import Work
from hydrasms_core.db.turns import Turnstile

T = TypeVar("T")

Connect = Callable[[], sa.Connection]
Transact = Callable[[sa.Connection, Work[Any]], Any]
"""Runs work in one transaction of a connection."""

log = get_logger(__name__)


class Job(Generic[T]):
    """One transaction, and the future of whoever asked for it; made and awaited on the loop's thread."""

    def __init__(self, work: Work[T]) -> None:
        self.work = work
        self.done: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self.timer: asyncio.TimerHandle | None = None
        self._loop = self.done.get_loop()
        self._claimed = threading.Lock()

    def claim(self) -> bool:
        """Tell the first who asks that the job is theirs to do."""
        return self._claimed.acquire(blocking=False)

    def tell(self, result: T | None, error: Exception | None) -> None:
        """Hand over what came of it, from the thread that did it."""
        self._loop.call_soon_threadsafe(self._settle, result, error)

    def _settle(self, result: T | None, error: Exception | None) -> None:
        if self.done.cancelled():
            return
        if error is not None:
            self.done.set_exception(error)
        else:
            self.done.set_result(cast("T", result))


class Threads:
    """Runs transactions in the order in which they were asked for."""

    def __init__(self, name: str, engine: sa.Engine, transact: Transact, number: int) -> None:
        self._engine = engine
        self._transact = transact
        self._errors = SqliteErrors()
        self._jobs: queue.SimpleQueue[Job[Any] | None] = queue.SimpleQueue()
        self._threads = [threading.Thread(target=self._loop, name=name, daemon=True) for _ in range(number)]
        for thread in self._threads:
            thread.start()

    async def run(self, work: Work[T]) -> T:
        """Run one transaction and return what its work does."""
        job = Job(work)
        self.put(job)
        return await job.done

    def put(self, job: Job[Any]) -> None:
        """Have a job done."""
        self._jobs.put(job)

    def stop(self) -> None:
        """Finish the jobs that are there, and end."""
        for _ in self._threads:
            self._jobs.put(None)
        for thread in self._threads:
            self._join(thread)

    def _join(self, thread: threading.Thread) -> None:
        thread.join()

    def _loop(self) -> None:
        connection: sa.Connection | None = None

        def connect() -> sa.Connection:
            nonlocal connection
            # Opened by the first who asks: most threads of a process that only looks something up are never
            # asked. Where it cannot be opened whoever asks is told, and the next who asks tries again.
            connection = connection or self._engine.connect()
            return connection

        while (job := self._jobs.get()) is not None:
            self._do(job, connect)
        if connection is not None:
            connection.close()

    def _do(self, job: Job[Any], connect: Connect) -> None:
        job.tell(*self._outcome(job, connect))

    def _outcome(self, job: Job[Any], connect: Connect) -> tuple[Any, Exception | None]:
        """Run a job's transaction and return its result, or what it failed of."""
        try:
            return self._transact(connect(), job.work), None
        except (sqlite3.Error, exc.DBAPIError, UnicodeDecodeError) as caught:
            error = self._errors.translated(caught)
            error.__cause__ = caught
            return None, error
        except Exception as caught:  # noqa: BLE001 - it belongs to whoever awaits the result
            return None, caught


class Writer(Threads):
    """One thread that writes in its turn, and another for when its turn does not come.

    Whoever has the turn may be stopped. A thread that waits for a turn cannot be called back, so that the loop keeps
    the time: what has waited for too long goes to the other thread, which asks for none. There SQLite's own lock
    decides, as it does without a queue.
    """

    def __init__(
        self, engine: sa.Engine, transact: Transact, turnstile: Turnstile, patience_s: float
    ) -> None:
        self._turnstile = turnstile
        self._patience_s = patience_s
        self._without_turns = Threads("hydrasms-writer-without-turns", engine, transact, 1)
        super().__init__("hydrasms-writer", engine, transact, 1)

    async def run(self, work: Work[T]) -> T:
        """Run one transaction and return what its work does."""
        job = Job(work)
        if self._left_s <= 0:
            self._without_turns.put(job)
            return await job.done
        job.timer = asyncio.get_running_loop().call_later(self._patience_s, self._look_at, job)
        self.put(job)
        try:
            return await job.done
        finally:
            job.timer.cancel()

    def stop(self) -> None:
        """Finish the jobs that are there, and end."""
        super().stop()
        self._without_turns.stop()

    @property
    def _left_s(self) -> float:
        """How much longer the thread may wait for the turn that it waits for."""
        return self._patience_s - self._turnstile.waited_s

    def _look_at(self, job: Job[Any]) -> None:
        # It may have waited for those before it in our own queue, which is no reason to go past the others.
        if (left_s := self._left_s) > 0:
            job.timer = asyncio.get_running_loop().call_later(left_s, self._look_at, job)
        elif job.claim():
            log.warning("turn_not_awaited", waited_s=round(self._turnstile.waited_s, 1))
            self._without_turns.put(job)

    def _do(self, job: Job[Any], connect: Connect) -> None:
        self._turnstile.take()
        try:
            if not job.claim():
                return
            outcome = self._outcome(job, connect)
        finally:
            self._turnstile.give_back()
        job.tell(*outcome)

    def _loop(self) -> None:
        super()._loop()
        self._turnstile.close()

    def _join(self, thread: threading.Thread) -> None:
        # A thread whose turn never comes ends with its process.
        while thread.is_alive() and self._left_s > 0:
            thread.join(self._left_s)
