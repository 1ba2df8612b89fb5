"""A receiver that is gone for 72 hours, and workers that are killed: everything arrives, under one id each."""

import random
from collections import Counter

import pytest

from hydrasms_core.webhooks import delivery
from hydrasms_core.webhooks.delivery import INTERRUPTED
from hydrasms_core.webhooks.tables import webhook_attempts, webhook_deliveries, webhook_outbox
from tests.support.delivery import BOUND_S, rows_of
from tests.support.webhooks import NO_ANSWER, PushWorld, ToldPoster, answered

OUTAGE_S = 72 * 3_600
KILLS = 20
LEASE_S = 60


class Receiver(ToldPoster):
    """Answers nothing until a time, and 200 from then on."""

    def __init__(self, clock, back_at_ms):
        super().__init__(lambda posted: answered(200) if clock.now_ms() >= back_at_ms else NO_ANSWER)


async def outage(observed, clock, number):
    """Push so many texts while the receiver is gone, kill the worker on the way, and let time pass until all is over.

    Returns the world with what became of it.
    """
    rng = random.Random(7)
    begin_ms = clock.now_ms()
    receiver = Receiver(clock, begin_ms + OUTAGE_S * 1000)
    kills_left, hours = KILLS, OUTAGE_S / 3_600

    def world():
        return PushWorld(observed, clock, receiver, jitter=rng.random)

    first = world()
    endpoint_id, _ = await first.endpoint()
    await first.push(*[endpoint_id] * number)
    # Some of the kills come while the receiver is back, where an answer is lost that was a success.
    kill_hours = sorted([rng.uniform(0, hours) for _ in range(KILLS // 2)] + [hours + 0.1] * (KILLS // 2))
    while (next_ms := await first.next_due()) is not None:
        # A minute at least, so that jitter does not spread them over as many looks as there are pushes.
        clock.advance(max((next_ms - clock.now_ms()) / 1000, 60))
        passed_h = (clock.now_ms() - begin_ms) / 3_600_000
        current = world()
        if kills_left and passed_h >= kill_hours[KILLS - kills_left]:
            kills_left -= 1
            await _kill_in_flight(current, receiver)
            clock.advance(LEASE_S)
            continue
        async with current.running():
            # A receiver that fails is tried with one push at a time.
            await current.until_nothing_is_due(bound_s=BOUND_S + number / 20)
    assert kills_left == 0
    return first, receiver


async def _kill_in_flight(world, receiver):
    """Run a worker until it has a post under way, whose answer nobody hears."""
    receiver.may_answer.clear()
    before = len(receiver.posted)
    async with world.killed():
        await receiver.until_posted(before + 1)
    receiver.may_answer.set()


async def check(world, receiver, number):
    deliveries = await rows_of(world.database, webhook_deliveries)
    assert Counter(row["status"] for row in deliveries) == {"delivered": number}
    ids = {row["id"] for row in deliveries}
    assert set(receiver.accepted) == ids == {posted.webhook_id for posted in receiver.posted}
    attempts = await rows_of(world.database, webhook_attempts)
    interrupted = [row for row in attempts if row["failure"] == INTERRUPTED]
    # A kill may repeat what was under way, at most as much as there may be at one receiver.
    repeated = sum(receiver.accepted.values()) - number
    assert 0 < repeated <= len(interrupted) <= KILLS * 4
    assert await rows_of(world.database, webhook_outbox) == []
    assert await world.webhook_statuses() == [200] * number


async def test_all_of_200_pushes_arrive_after_72_hours_and_20_kills(observed, clock):
    world, receiver = await outage(observed, clock, 200)
    await check(world, receiver, 200)


async def test_a_schedule_that_is_one_attempt_shorter_would_lose_them(observed, clock, monkeypatch):
    monkeypatch.setattr(delivery, "SCHEDULE_S", delivery.SCHEDULE_S[:-1])
    world, receiver = await outage_without_kills(observed, clock, 5)
    assert await world.statuses() == {"dead": 5}
    assert receiver.accepted == {}


async def outage_without_kills(observed, clock, number):
    receiver = Receiver(clock, clock.now_ms() + OUTAGE_S * 1000)
    world = PushWorld(observed, clock, receiver)
    endpoint_id, _ = await world.endpoint()
    async with world.running():
        await world.pushed(*[endpoint_id] * number)
        await world.until_nothing_is_due()
        while await world.next_due() is not None:
            await world.pass_until_next()
    return world, receiver


@pytest.mark.faults
async def test_all_of_10_000_pushes_arrive_after_72_hours_and_20_kills(observed, clock):
    world, receiver = await outage(observed, clock, 10_000)
    await check(world, receiver, 10_000)
