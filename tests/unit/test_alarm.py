"""A block of code that may take only so long."""

import asyncio

import pytest

from hydrasms_base.alarm import Alarm

SOON_S = 0.01
NEVER_S = 60.0


async def for_ever():
    await asyncio.get_running_loop().create_future()


async def test_what_takes_too_long_is_cancelled_and_the_task_goes_on():
    alarm = Alarm(SOON_S)
    with pytest.raises(TimeoutError), alarm:
        await for_ever()
    assert alarm.has_rung
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0
    await asyncio.sleep(0)


async def test_what_ends_in_time_leaves_nothing_behind():
    alarm = Alarm(SOON_S)
    with alarm:
        await asyncio.sleep(0)
    later = Alarm(2 * SOON_S)
    with pytest.raises(TimeoutError), later:
        await for_ever()
    assert not alarm.has_rung


async def test_what_is_raised_within_passes():
    alarm = Alarm(NEVER_S)
    with pytest.raises(KeyError), alarm:
        raise KeyError("x")
    assert not alarm.has_rung


async def test_a_caller_who_cancels_is_obeyed():
    begun = asyncio.Event()

    async def work():
        with Alarm(NEVER_S):
            begun.set()
            await for_ever()

    task = asyncio.create_task(work())
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert task.cancelled()


async def test_a_caller_who_cancels_when_the_time_is_up_is_obeyed_as_well():
    alarm = Alarm(SOON_S)

    async def work():
        with alarm:
            try:
                await for_ever()
            except asyncio.CancelledError:
                task.cancel()
                raise

    task = asyncio.create_task(work())
    with pytest.raises(asyncio.CancelledError):
        await task
    assert alarm.has_rung


async def test_the_inner_of_two_alarms_ends_its_own_block_alone():
    outer, inner = Alarm(NEVER_S), Alarm(SOON_S)
    with outer:
        with pytest.raises(TimeoutError), inner:
            await for_ever()
        await asyncio.sleep(0)
    assert inner.has_rung
    assert not outer.has_rung


async def test_the_outer_of_two_alarms_passes_through_the_inner():
    outer, inner = Alarm(SOON_S), Alarm(NEVER_S)
    with pytest.raises(TimeoutError), outer:
        with inner:
            await for_ever()
    assert outer.has_rung
    assert not inner.has_rung
