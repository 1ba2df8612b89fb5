"""A worker's loop: turn after turn, with rests in between, until it is told to stop."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from hydrasms_base.log import get_logger
from hydrasms_core.errors import Overloaded, StoreUnavailable

T = TypeVar("T")

FRUITLESS_S = 1.0
"""Where something is due and nothing could be taken, somebody else is at it: look again after this long."""
_FIRST_BACK_OFF_S = 0.1
_MAX_BACK_OFF_S = 2.0
_TRIES_AFTER_STOP = 3

log = get_logger(__name__)


class WorkLoop:
    """Keeps taking turns; between two it sleeps until `wake` is called or the time is up that the turn has said.

    `name` says in the log whose loop it is. `pace_s` is the least time between two turns where the first took all
    that was due, in seconds: a moment in which the next batch gathers.
    """

    def __init__(self, name: str, *, pace_s: float) -> None:
        self._name = name
        self._pace_s = pace_s
        self._wakened = asyncio.Event()
        self._stopping = asyncio.Event()
        self._ended = asyncio.Event()
        self._ended.set()

    @property
    def is_stopping(self) -> bool:
        """Whether nothing more is to be begun; any thread may ask."""
        return self._stopping.is_set()

    def wake(self) -> None:
        """Say that there may be something to do. Call it on the loop's thread, after the commit."""
        self._wakened.set()

    def look(self) -> None:
        """Say that a look begins: whoever calls from here on has not been seen by it."""
        self._wakened.clear()

    async def run(self, turn: Callable[[asyncio.TaskGroup], Awaitable[float]]) -> None:
        """Take turns until `stop`, then wait for the tasks that turns have begun in the group that they are given.

        A turn returns how long to rest, in seconds; 0 where there is more to do already. A store that is gone for now
        is waited for. Whatever else goes wrong is a fault of ours, ends the work and is raised.
        """
        self._ended.clear()
        back_off_s = _FIRST_BACK_OFF_S
        try:
            async with asyncio.TaskGroup() as tasks:
                while not self.is_stopping:
                    try:
                        rest_s = await turn(tasks)
                    except StoreUnavailable:
                        log.warning("work_postponed", loop=self._name, retry_s=back_off_s)
                        await self.pause(back_off_s)
                        back_off_s = min(back_off_s * 2, _MAX_BACK_OFF_S)
                    else:
                        back_off_s = _FIRST_BACK_OFF_S
                        await self._rest(rest_s)
        finally:
            self._ended.set()

    async def stop(self) -> None:
        """Begin nothing more, and return when what is under way has ended."""
        self._stopping.set()
        self._wakened.set()
        await self._ended.wait()

    async def pause(self, seconds: float) -> None:
        """Wait, unless it is time to stop."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stopping.wait()

    async def settle(self, write: Callable[[], Awaitable[T]], **about: Any) -> T | None:
        """Commit what came of something, for as long as it takes: it is all that is known of what others have.

        None, where the store is still gone after `stop`: the claim then stands, and whoever comes next finds that
        nobody knows. `about` is for the log.
        """
        back_off_s, tries_left = _FIRST_BACK_OFF_S, _TRIES_AFTER_STOP
        while True:
            try:
                return await write()
            except (StoreUnavailable, Overloaded):
                tries_left -= self.is_stopping
                if not tries_left:
                    log.error("settling_abandoned", loop=self._name, **about)
                    return None
                log.warning("settling_postponed", loop=self._name, **about)
            await asyncio.sleep(back_off_s)
            back_off_s = min(back_off_s * 2, _MAX_BACK_OFF_S)

    async def _rest(self, seconds: float) -> None:
        """Wait for a call or for the time to pass, but a moment at least, in which the next batch gathers."""
        if seconds <= 0 or self.is_stopping:
            return
        await self.pause(self._pace_s)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._wakened.wait()
