"""The time of day is set on or back by an hour: nothing ends early, nobody is robbed, nothing storms or sticks."""

import asyncio
import contextlib
from typing import Any

import pytest

from hydrasms_app.housekeeping import Housekeeping
from hydrasms_core.accounts.directory import AccessDirectory
from hydrasms_core.carriers.base import Receipt, ReceiptStatus, Submitted, Throttled
from hydrasms_core.idempotency import store as idempotency
from hydrasms_core.idempotency.model import KEPT_MS
from hydrasms_core.messaging.clock_jumps import ClockJumps
from hydrasms_core.messaging.model import Status
from tests.support.delivery import ACCOUNT, PHONE, ToldCarrier

HOUR_S = 3600
LEASE_S = 30
BOTH_WAYS = pytest.mark.parametrize("jump_s", [HOUR_S, -HOUR_S], ids=["on", "back"])


async def look(world):
    """Have a dispatcher look, and wait until it has: the second look begins after this was called."""
    for _ in range(2):
        world.dispatcher.wake()
        await world.database.next_written()


@contextlib.asynccontextmanager
async def holding(world, carrier):
    """Run a worker whose carrier has one message and does not answer."""
    carrier.may_answer.clear()
    async with world.running():
        message_id = await world.send(PHONE)
        await carrier.until_batches(1)
        yield world, message_id


# ---- leases ------------------------------------------------------------------------------------------------


@BOTH_WAYS
async def test_another_workers_lease_survives_a_jump(make_world, clock, jump_s):
    slow, quick = ToldCarrier(), ToldCarrier()
    async with holding(make_world(slow), slow) as (world, message_id), make_world(quick).running() as other:
        await look(other)
        clock.jump(jump_s)
        for _ in range(3):
            await look(other)
        slow.may_answer.set()
        message = await world.until(message_id, Status.SUBMITTED)
        assert (message.attempts, message.duplicate_risk, quick.submitted) == (1, False, [])


async def test_a_dead_workers_messages_are_taken_over_one_lease_after_a_jump(make_world, clock):
    dead, quick = ToldCarrier(), ToldCarrier()
    dead.may_answer.clear()
    world = make_world(dead)
    dispatching = asyncio.create_task(world.dispatcher.run())
    message_id = await world.send(PHONE)
    await dead.until_batches(1)
    dispatching.cancel()
    await asyncio.wait([dispatching])
    async with make_world(quick).running() as other:
        await look(other)
        clock.jump(HOUR_S)
        await look(other)
        assert quick.submitted == []
        other.pass_time(LEASE_S)
        message = await other.until(message_id, Status.SUBMITTED)
        assert (message.attempts, message.duplicate_risk) == (2, True)


async def test_the_control_robs_a_living_worker(make_world, clock, monkeypatch):
    """Without an eye on the clock the message is handed on a second time."""
    monkeypatch.setattr(ClockJumps, "seconds", lambda _: 0.0)
    slow, quick = ToldCarrier(), ToldCarrier()
    async with holding(make_world(slow), slow), make_world(quick).running() as other:
        await look(other)
        clock.jump(HOUR_S)
        other.dispatcher.wake()
        await quick.until_batches(1)
        slow.may_answer.set()


# ---- due times ---------------------------------------------------------------------------------------------


async def test_what_was_queued_before_the_clock_was_set_back_is_sent_all_the_same(make_world, clock):
    carrier = ToldCarrier()
    async with make_world(carrier).running() as world:
        await look(world)
        ids = [await world.send(PHONE) for _ in range(2)]
        clock.jump(-HOUR_S)
        ids.append(await world.send(PHONE))
        for message_id in ids:
            await world.until(message_id, Status.SUBMITTED)


async def test_a_dispatcher_that_starts_after_the_clock_was_set_back_finds_what_is_queued(make_world, clock):
    world = make_world(ToldCarrier())
    message_id = await world.send(PHONE)
    clock.jump(-HOUR_S)
    async with world.running():
        await world.until(message_id, Status.SUBMITTED)


@BOTH_WAYS
async def test_throttled_messages_are_tried_once_more_and_no_oftener_when_the_clock_jumps(
    make_world, clock, jump_s
):
    carrier = ToldCarrier(lambda submission: Throttled("busy", retry_after_ms=60_000))
    async with make_world(carrier).running() as world:
        ids = await world.send(*[PHONE] * 20)
        for message_id in ids:
            await world.until_released(message_id, 1)
        clock.jump(jump_s)
        world.dispatcher.wake()
        for message_id in ids:
            await world.until_released(message_id, 2)
        for _ in range(5):
            await look(world)
        assert len(carrier.submitted) == 40


# ---- what ends by the clock --------------------------------------------------------------------------------


@BOTH_WAYS
async def test_a_message_does_not_expire_early(make_world, clock, jump_s):
    carrier = ToldCarrier(lambda submission: Throttled("busy") if submission.attempt == 1 else Submitted("r"))
    async with make_world(carrier).running() as world:
        message_id = await world.send(PHONE)
        await world.until_released(message_id, 1)
        clock.jump(jump_s)
        world.dispatcher.wake()
        assert (await world.until(message_id, Status.SUBMITTED)).attempts == 2
    assert await world.ledger.refunds() == {}


@BOTH_WAYS
async def test_a_receipt_is_waited_for_over_a_jump(make_world, clock, jump_s):
    async with make_world(ToldCarrier()).running() as world:
        message_id = await world.send(PHONE)
        await world.until(message_id, Status.SUBMITTED)
        clock.jump(jump_s)
        await look(world)
        assert (await world.message(message_id)).status is Status.SUBMITTED
        await world.intake.receive(
            [Receipt("told", f"ref-{message_id}", ReceiptStatus.DELIVERED, clock.now_ms(), "")]
        )
        await world.until(message_id, Status.DELIVERED)


@BOTH_WAYS
async def test_an_idempotency_key_is_kept_for_24_hours_whatever_the_clock_does(make_world, clock, jump_s):
    world = make_world(ToldCarrier())
    made_at_ms = clock.now_ms()
    await world.database.write(
        lambda tx: idempotency.remember(tx, ACCOUNT, "send", "key", "print", "id", at_ms=made_at_ms)
    )

    async def known():
        return await world.database.read(lambda tx: idempotency.recall(tx, ACCOUNT, "send", "key", "print"))

    housekeeping = Housekeeping(world.database, world.simulator, clock)
    clock.advance(KEPT_MS / 1000 - 60)
    clock.jump(jump_s)
    await housekeeping.purge()
    assert await known() == "id"
    clock.advance(4 * HOUR_S)
    await housekeeping.purge()
    assert await known() is None


class Unchanged:
    """An accounts' store that nothing changes."""

    def __init__(self):
        self.versions_read = 0

    async def access_version(self, tx):
        self.versions_read += 1
        return 1


@BOTH_WAYS
async def test_the_memory_of_who_may_call_ages_by_the_other_clock(database, clock, jump_s):
    store: Any = Unchanged()
    directory = AccessDirectory(database, store, clock)
    await directory._check_version(clock.monotonic() - 0.1)
    assert store.versions_read == 1
    clock.jump(jump_s)
    await directory._check_version(clock.monotonic() - 0.1)
    assert store.versions_read == 1
    clock.advance(0.6)
    await directory._check_version(clock.monotonic() - 0.1)
    assert store.versions_read == 2


# ---- what is a jump ----------------------------------------------------------------------------------------


def test_time_that_passes_is_no_jump_and_one_jump_is_told_once(clock):
    jumps = ClockJumps(clock)
    clock.advance(10 * HOUR_S)
    assert jumps.seconds() == 0
    clock.jump(-HOUR_S)
    assert jumps.seconds() == pytest.approx(-HOUR_S)
    assert jumps.seconds() == 0


def test_a_clock_that_is_corrected_little_by_little_does_not_jump(clock):
    jumps = ClockJumps(clock)
    for _ in range(100):
        clock.jump(0.5)
        assert jumps.seconds() == 0
