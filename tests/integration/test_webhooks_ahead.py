"""Pushes that are claimed while others are under way: they begin at once when there is room, or are given back."""

import asyncio

import pytest

from hydrasms_base.secret import Secret
from hydrasms_core.webhooks.tables import webhook_outbox
from tests.support.delivery import ACCOUNT, rows_of
from tests.support.webhooks import URL, PushWorld, ToldPoster, answered

OTHER_URL = "https://receiver.example/other"


class OneByOne(ToldPoster):
    """Answers one post for every `let_answer`."""

    def __init__(self, answer=None):
        super().__init__(answer)
        self.allowed = asyncio.Semaphore(0)

    async def _take_time(self, url):
        await self.allowed.acquire()

    def let_answer(self, times=1):
        for _ in range(times):
            self.allowed.release()


@pytest.fixture
def make_world(observed, clock):
    def make(answer=None, **settings):
        # One attempt at a time, so that each that ends lets one be claimed ahead.
        return PushWorld(observed, clock, OneByOne(answer), **({"max_in_flight": 1} | settings))

    return make


async def claimed(world):
    return sum(row["claim"] != "" for row in await rows_of(world.database, webhook_outbox))


async def is_queued(world, number):
    return len(await rows_of(world.database, webhook_outbox)) == number


async def with_one_ahead(world):
    """Wait until the second of what is queued is under way and the third claimed."""
    queued = len(await rows_of(world.database, webhook_outbox))
    world.deliverer.wake()
    await world.poster.until_posted(1)
    assert await claimed(world) == 1
    world.poster.let_answer()
    await world.poster.until_posted(2)

    async def holds():
        left = len(await rows_of(world.database, webhook_outbox))
        return left == queued - 1 and await claimed(world) == 2

    await world.until(holds)


async def test_what_was_claimed_ahead_begins_when_its_turn_comes(make_world):
    async with make_world().running() as world:
        endpoint_id, _ = await world.endpoint()
        await world.push(*[endpoint_id] * 6)
        await with_one_ahead(world)
        assert len(world.poster.posted) == 2
        world.poster.let_answer(5)
        await world.until_statuses(delivered=6)
    assert len({posted.webhook_id for posted in world.poster.posted}) == len(world.poster.posted) == 6
    assert world.poster.most_at_once == {URL: 1}


async def test_a_stop_gives_back_what_is_not_begun(make_world):
    first = make_world()
    endpoint_id, _ = await first.endpoint()
    async with first.running():
        await first.push(*[endpoint_id] * 3)
        await with_one_ahead(first)
        stopping = asyncio.create_task(first.deliverer.stop())
        await asyncio.sleep(0)
        first.poster.let_answer(3)
        await stopping
        assert await claimed(first) == 0
    assert len(first.poster.posted) == 2
    assert await first.statuses() == {"delivered": 2, "pending": 1}
    # It was never attempted, and is due at once.
    second = make_world()
    async with second.running():
        second.poster.let_answer()
        await second.until_statuses(delivered=3)
    assert [[each.failure for each in delivery.attempts] for delivery in await first.deliveries()] == [
        [""]
    ] * 3


async def test_nothing_more_goes_to_a_receiver_that_has_said_that_it_is_gone(make_world):
    answers = [answered(200), answered(410)]
    async with make_world(lambda posted: answers.pop(0)).running() as world:
        endpoint_id, _ = await world.endpoint()
        await world.push(*[endpoint_id] * 4)
        await with_one_ahead(world)
        world.poster.let_answer(4)
        await world.until_statuses(delivered=1, dead=3)
    assert len(world.poster.posted) == 2


async def test_what_waits_for_one_receiver_is_left_alone_where_another_fails(make_world):
    answers = [answered(200), answered(500), answered(200)]
    async with make_world(lambda posted: answers.pop(0)).running() as world:
        failing, _ = await world.endpoint()
        working, _ = await world.endpoint(OTHER_URL, word="other")
        await world.push(failing, failing)
        # What has been due for longest goes first, and ahead is claimed for those that have the least under way.
        world.clock.advance(0.1)
        await world.push(working)
        await with_one_ahead(world)
        world.poster.let_answer(2)
        await world.until_statuses(delivered=2, pending=1)
    assert len(world.poster.posted) == 3


async def test_without_retries_nothing_is_claimed_before_it_begins(make_world):
    """A worker that dies would leave it dead, and it would have been attempted by nobody."""
    async with make_world().running() as world:
        endpoint_id, _ = await world.endpoint(retries=False)
        await world.pushed(*[endpoint_id] * 4)
        for number in range(1, 5):
            await world.poster.until_posted(number)
            await world.until(lambda number=number: is_queued(world, 5 - number))
            world.deliverer.wake()
            await world.observed.next_read()
            assert await claimed(world) == 1
            world.poster.let_answer()
        await world.until_statuses(delivered=4)


async def test_what_has_waited_for_long_is_claimed_anew_and_goes_where_its_endpoint_is_by_then(make_world):
    async with make_world().running() as world:
        endpoint_id, _ = await world.endpoint()
        await world.push(*[endpoint_id] * 3)
        await with_one_ahead(world)
        await world.database.write(
            lambda tx: world.endpoints.put(
                tx,
                ACCOUNT,
                endpoint_id,
                word="order",
                url=OTHER_URL,
                auth=Secret("open sesame"),
                retries=True,
                at_ms=world.clock.now_ms(),
            )
        )
        world.clock.advance(1.5)
        world.poster.let_answer(2)
        await world.until_statuses(delivered=3)
    assert [posted.url for posted in world.poster.posted] == [URL, URL, OTHER_URL]
    assert [[each.failure for each in delivery.attempts] for delivery in await world.deliveries()] == [
        [""]
    ] * 3


async def test_beside_receivers_that_take_their_time_nothing_is_claimed_ahead(make_world):
    async with make_world(max_in_flight=2).running() as world:
        endpoint_id, _ = await world.endpoint()
        await world.pushed(*[endpoint_id] * 6)
        await world.poster.until_posted(2)
        for _ in range(3):
            world.deliverer.wake()
            await world.observed.next_read()
        assert await claimed(world) == 2
        world.poster.let_answer(6)
        await world.until_statuses(delivered=6)
