"""A worker's loop."""

import asyncio

from hydrasms_core.errors import StoreUnavailable
from hydrasms_core.work_loop import WorkLoop

BOUND_S = 20.0
NEVER_S = 3_600.0


class Turns:
    """What a loop does: each turn returns, or raises, what it was told."""

    def __init__(self, *told: float | Exception) -> None:
        self.loop = WorkLoop("test", pace_s=0.0)
        self.taken = 0
        self._told = list(told)
        self._changed = asyncio.Event()

    async def turn(self, _: asyncio.TaskGroup) -> float:
        self.loop.look()
        self.taken += 1
        self._changed.set()
        told = self._told.pop(0) if self._told else NEVER_S
        if isinstance(told, Exception):
            raise told
        return told

    async def until(self, taken: int) -> None:
        async with asyncio.timeout(BOUND_S):
            while self.taken < taken:
                self._changed.clear()
                await self._changed.wait()


async def stopped(turns: Turns, running: "asyncio.Task[None]") -> None:
    async with asyncio.timeout(BOUND_S):
        await turns.loop.stop()
        await running


async def test_it_rests_until_it_is_called():
    turns = Turns()
    running = asyncio.create_task(turns.loop.run(turns.turn))
    await turns.until(1)
    turns.loop.wake()
    await turns.until(2)
    await stopped(turns, running)
    assert turns.taken == 2


async def test_a_store_that_is_gone_is_waited_for():
    turns = Turns(StoreUnavailable(), StoreUnavailable())
    running = asyncio.create_task(turns.loop.run(turns.turn))
    await turns.until(3)
    await stopped(turns, running)


async def test_stopping_waits_for_what_turns_have_begun():
    loop, may_end, begun = WorkLoop("test", pace_s=0.0), asyncio.Event(), asyncio.Event()

    async def turn(tasks: asyncio.TaskGroup) -> float:
        tasks.create_task(may_end.wait())
        begun.set()
        return NEVER_S

    running = asyncio.create_task(loop.run(turn))
    async with asyncio.timeout(BOUND_S):
        await begun.wait()
        stopping = asyncio.create_task(loop.stop())
        await asyncio.wait([stopping], timeout=0.05)
        assert not stopping.done()
        may_end.set()
        await stopping
        await running


async def test_what_never_ran_is_stopped_at_once():
    async with asyncio.timeout(BOUND_S):
        await WorkLoop("test", pace_s=0.0).stop()


async def test_settling_goes_on_until_the_store_is_back():
    told = [StoreUnavailable(), None]

    async def write() -> str:
        failure = told.pop(0)
        if failure is not None:
            raise failure
        return "settled"

    assert await WorkLoop("test", pace_s=0.0).settle(write) == "settled"


async def test_settling_does_not_outlast_the_stop_for_ever():
    loop, tries = WorkLoop("test", pace_s=0.0), 0

    async def write() -> str:
        nonlocal tries
        tries += 1
        raise StoreUnavailable

    await loop.stop()
    async with asyncio.timeout(BOUND_S):
        assert await loop.settle(write) is None
    assert tries == 3
