"""What one may ask about pushes, over a real database, beside a deliverer at work: listing them and pushing again.
And when they are forgotten.
"""

import asyncio
import time
from collections import Counter

import pytest
import sqlalchemy as sa

from hydrasms_app.housekeeping import Housekeeping
from hydrasms_base.ids import new_id
from hydrasms_core.carriers.simulator.carrier import SimulatedCarrier
from hydrasms_core.errors import AlreadyDelivered, InvalidArgument, InvalidPageToken, NotFound
from hydrasms_core.webhooks import service
from hydrasms_core.webhooks.delivery import SCHEDULE_S
from hydrasms_core.webhooks.model import MAX_REDELIVERED, SHOWN_ATTEMPTS, DeliveryStatus, Redelivered
from hydrasms_core.webhooks.tables import webhook_attempts, webhook_deliveries, webhook_outbox
from tests.support.clock import FakeClock
from tests.support.delivery import ACCOUNT, BOUND_S, rows_of
from tests.support.webhooks import OTHER_ACCOUNT, ServiceWorld, ToldPoster, answered

OTHER_URL = "https://other.example/"
DAY_S = 86_400


@pytest.fixture
def make_world(observed, clock):
    return lambda poster=None, **settings: ServiceWorld(observed, clock, poster, **settings)


@pytest.fixture
def failing(make_world):
    """A world whose receivers answer 500, until told otherwise."""
    return make_world(ToldPoster(lambda posted: answered(500)))


def succeed(world):
    world.poster.answer = lambda posted: answered(200)


async def dead_in(world, number=1, **options):
    """Have so many texts given up after one attempt each; returns their endpoint's id."""
    endpoint_id, _ = await world.endpoint(retries=False, **options)
    account_id = options.get("account_id", ACCOUNT)
    await world.pushed(*[endpoint_id] * number, account_id=account_id)

    async def all_dead():
        found = [each for each in await world.deliveries(account_id) if each.endpoint_id == endpoint_id]
        return [each.status for each in found] == [DeliveryStatus.DEAD] * number

    await world.until(all_dead)
    return endpoint_id


# ---- one delivery again ------------------------------------------------------------------------------------


async def test_a_dead_delivery_is_pushed_again_under_its_id_with_its_schedule_from_the_beginning(failing):
    endpoint_id, _ = await failing.endpoint()
    async with failing.running():
        await failing.pushed(endpoint_id)
        await failing.until_nothing_is_due()
        while await failing.next_due() is not None:
            await failing.pass_until_next()
        dead = await failing.one()
        assert dead.status is DeliveryStatus.DEAD
        again = await failing.webhooks.redeliver(ACCOUNT, dead.id)
        assert (again.id, again.status) == (dead.id, DeliveryStatus.PENDING)
        assert again.next_attempt_at_ms == failing.clock.now_ms()
        assert again.attempts == dead.attempts
        await failing.until_attempts(len(SCHEDULE_S) + 1)
        assert await failing.due() == [failing.clock.now_ms() + SCHEDULE_S[1] * 1_000]
        succeed(failing)
        failing.pass_time(SCHEDULE_S[1])
        await failing.until_statuses(delivered=1)
    assert {posted.webhook_id for posted in failing.poster.posted} == {dead.id}
    numbers = [attempt.number for attempt in (await failing.one()).attempts]
    assert numbers == list(range(1, len(SCHEDULE_S) + 3))
    assert await failing.webhook_statuses() == [200]


async def test_a_delivery_that_waits_is_pushed_at_once_with_its_schedule_from_the_beginning(failing):
    endpoint_id, _ = await failing.endpoint()
    async with failing.running():
        await failing.pushed(endpoint_id)
        await failing.until_attempts(1)
        for number in (2, 3):
            failing.pass_time(SCHEDULE_S[number - 1])
            await failing.until_attempts(number)
        assert await failing.due() == [failing.clock.now_ms() + SCHEDULE_S[3] * 1_000]
        again = await failing.webhooks.redeliver(ACCOUNT, (await failing.one()).id)
        assert again.next_attempt_at_ms == failing.clock.now_ms()
        await failing.until_attempts(4)
        assert await failing.due() == [failing.clock.now_ms() + SCHEDULE_S[1] * 1_000]


async def test_a_delivery_that_is_being_tried_goes_on_with_that(make_world):
    async with make_world().running() as world:
        world.poster.may_answer.clear()
        endpoint_id, _ = await world.endpoint()
        await world.pushed(endpoint_id)
        await world.poster.until_posted(1)
        leased = await world.due()
        again = await world.webhooks.redeliver(ACCOUNT, (await world.one()).id)
        assert (again.status, again.next_attempt_at_ms) == (DeliveryStatus.PENDING, None)
        # Nor does another worker, which begins only now and so has not been first, take it over.
        assert await world.due() == leased
        async with make_world().running() as other:
            await other.observed.next_read()
            world.poster.may_answer.set()
            await world.until_statuses(delivered=1)
    assert len(world.poster.posted) == 1
    assert other.poster.posted == []


async def test_what_was_answered_2xx_is_never_repeated(make_world):
    async with make_world().running() as world:
        endpoint_id, _ = await world.endpoint()
        await world.pushed(endpoint_id)
        await world.until_statuses(delivered=1)
        delivered = await world.one()
        for account_id in (ACCOUNT, None):
            with pytest.raises(AlreadyDelivered) as refusal:
                await world.webhooks.redeliver(account_id, delivered.id)
            assert refusal.value.reason == "ALREADY_DELIVERED"
        assert await world.webhooks.redeliver_dead(ACCOUNT) == Redelivered(0, more=False)
    assert await world.one() == delivered
    assert await rows_of(world.database, webhook_outbox) == []
    assert len(world.poster.posted) == 1


async def test_an_operator_need_not_know_whose_a_delivery_is_and_an_account_has_its_own_alone(failing):
    async with failing.running():
        await dead_in(failing, account_id=OTHER_ACCOUNT)
        dead = await failing.one(OTHER_ACCOUNT)
        woken = failing.wakes
        with pytest.raises(NotFound):
            await failing.webhooks.redeliver(ACCOUNT, dead.id)
        assert failing.wakes == woken
        assert await failing.one(OTHER_ACCOUNT) == dead
        succeed(failing)
        again = await failing.webhooks.redeliver(None, dead.id)
        assert (again.account_id, again.status) == (OTHER_ACCOUNT, DeliveryStatus.PENDING)
        assert failing.wakes == woken + 1

        async def delivered():
            return await failing.statuses(OTHER_ACCOUNT) == {"delivered": 1}

        await failing.until(delivered)


async def test_a_delivery_that_two_have_pushed_again_at_once_is_pushed_once(failing):
    async with failing.running():
        await dead_in(failing)
        delivery_id = (await failing.one()).id
        succeed(failing)
        failing.poster.may_answer.clear()
        async with asyncio.timeout(BOUND_S):
            again = await asyncio.gather(
                *[failing.webhooks.redeliver(ACCOUNT, delivery_id) for _ in range(6)],
                failing.webhooks.redeliver_dead(ACCOUNT),
            )
        assert {each.status for each in again[:6]} == {DeliveryStatus.PENDING}
        failing.poster.may_answer.set()
        await failing.until_statuses(delivered=1)
    assert [posted.webhook_id for posted in failing.poster.posted] == [delivery_id] * 2


@pytest.mark.parametrize("taken_away", [False, True], ids=["disabled", "taken away"])
async def test_what_has_no_receiver_is_not_pushed_again(make_world, taken_away):
    async with make_world(ToldPoster(lambda posted: answered(410))).running() as world:
        endpoint_id = await dead_in(world)
        if taken_away:
            await world.database.write(
                lambda tx: world.endpoints.remove(tx, ACCOUNT, endpoint_id, at_ms=world.clock.now_ms())
            )
        dead = await world.one()
        with pytest.raises(InvalidArgument) as refusal:
            await world.webhooks.redeliver(ACCOUNT, dead.id)
        assert refusal.value.field == "delivery_id"
        assert await world.webhooks.redeliver_dead(ACCOUNT) == Redelivered(0, more=False)
        with pytest.raises(NotFound if taken_away else InvalidArgument):
            await world.webhooks.redeliver_dead(ACCOUNT, endpoint_id)
    assert await world.one() == dead
    assert await rows_of(world.database, webhook_outbox) == []


# ---- all that was given up -----------------------------------------------------------------------------------


async def test_all_that_an_outage_left_dead_is_pushed_again_once_each(failing):
    async with failing.running():
        await dead_in(failing, 5)
        await dead_in(failing, 3, word="pizza", url=OTHER_URL, account_id=ACCOUNT)
        await dead_in(failing, 2, word="taxi", account_id=OTHER_ACCOUNT)
        first = Counter(posted.webhook_id for posted in failing.poster.posted)
        succeed(failing)
        woken = failing.wakes
        assert await failing.webhooks.redeliver_dead(ACCOUNT) == Redelivered(8, more=False)
        assert failing.wakes == woken + 1
        await failing.until_statuses(delivered=8)
        assert await failing.statuses(OTHER_ACCOUNT) == {"dead": 2}
    ids = [each.id for each in await failing.deliveries()]
    again = Counter(posted.webhook_id for posted in failing.poster.posted) - first
    assert again == Counter(ids)


async def test_what_was_given_up_is_pushed_again_to_one_endpoint_alone(failing):
    async with failing.running():
        endpoint_id = await dead_in(failing, 2)
        other_id = await dead_in(failing, 3, word="pizza", url=OTHER_URL)
        succeed(failing)
        assert await failing.webhooks.redeliver_dead(ACCOUNT, endpoint_id) == Redelivered(2, more=False)
        await failing.until_statuses(delivered=2, dead=3)
    found = await failing.deliveries()
    assert {each.endpoint_id for each in found if each.status is DeliveryStatus.DEAD} == {other_id}


async def test_an_endpoint_that_is_disabled_holds_up_no_other(failing):
    async with failing.running():
        endpoint_id = await dead_in(failing, 2)
        await dead_in(failing, 3, word="pizza", url=OTHER_URL)
        failing.poster.answer = lambda posted: answered(410 if posted.url == OTHER_URL else 200)
        assert await failing.webhooks.redeliver_dead(ACCOUNT) == Redelivered(5, more=False)
        await failing.until_statuses(delivered=2, dead=3)
        # The other one is disabled now, and what it left is not what can be pushed again.
        assert await failing.webhooks.redeliver_dead(ACCOUNT) == Redelivered(0, more=False)
        assert (await failing.get(endpoint_id)).disabled_at_ms is None


async def test_one_call_pushes_ten_thousand_again_the_oldest_first_and_says_that_there_are_more(make_world):
    world = make_world()
    endpoint_id, _ = await world.endpoint()
    ids = await world.bury(endpoint_id, MAX_REDELIVERED + 1)
    assert await world.webhooks.redeliver_dead(ACCOUNT) == Redelivered(MAX_REDELIVERED, more=True)
    page = await world.webhooks.list_deliveries(ACCOUNT, 2, "", status=DeliveryStatus.DEAD)
    assert [each.id for each in page.rows] == ids[-1:]
    queued = await world.database.read(
        lambda tx: tx.execute(sa.select(webhook_outbox.c.delivery_id, webhook_outbox.c.due_at_ms))
    )
    assert {tuple(row) for row in queued} == {(each, world.clock.now_ms()) for each in ids[:-1]}
    assert await world.webhooks.redeliver_dead(ACCOUNT) == Redelivered(1, more=False)
    assert await world.webhooks.redeliver_dead(ACCOUNT) == Redelivered(0, more=False)


@pytest.mark.parametrize(("dead", "number", "more"), [(2, 2, False), (3, 3, False), (4, 3, True)])
async def test_there_are_more_only_where_they_could_be_pushed(make_world, monkeypatch, dead, number, more):
    monkeypatch.setattr(service, "MAX_REDELIVERED", 3)
    world = make_world()
    endpoint_id, _ = await world.endpoint()
    other_id, _ = await world.endpoint(word="pizza")
    await world.bury(endpoint_id, dead)
    # Neither what goes elsewhere nor what has nowhere to go is more of it.
    await world.bury(other_id, 1)
    await world.bury(new_id(), 1)
    assert await world.webhooks.redeliver_dead(ACCOUNT, endpoint_id) == Redelivered(number, more)


# ---- listing -------------------------------------------------------------------------------------------------


async def test_deliveries_are_listed_by_status_and_endpoint_page_by_page(failing):
    async with failing.running():
        endpoint_id = await dead_in(failing, 5)
        other_id = await dead_in(failing, 2, word="pizza", url=OTHER_URL)
        succeed(failing)
        await failing.pushed(endpoint_id, other_id, endpoint_id)
        await failing.until_statuses(dead=7, delivered=3)
    # Nobody is there to push these.
    await failing.push(other_id, endpoint_id)
    newest_first = (await failing.deliveries())[::-1]
    assert len({each.status for each in newest_first}) == len(DeliveryStatus)
    for status in (None, *DeliveryStatus):
        for endpoint in ("", endpoint_id, other_id, new_id(), "\0"):
            expected = [
                each
                for each in newest_first
                if status in (None, each.status) and endpoint in ("", each.endpoint_id)
            ]
            for size in (1, 2, 10):
                assert await walked(failing, size, status, endpoint) == expected
    assert (await failing.webhooks.list_deliveries(OTHER_ACCOUNT, 10, "")).rows == []


async def walked(world, size, status, endpoint_id):
    """Return what all pages hold, after checking that each is as long as it can be."""
    found, token = [], ""
    while True:
        page = await world.webhooks.list_deliveries(
            ACCOUNT, size, token, status=status, endpoint_id=endpoint_id
        )
        found += page.rows
        assert len(page.rows) == size or page.next_token == ""
        if not page.next_token:
            return found
        token = page.next_token


async def test_a_page_token_is_of_one_account_and_one_filter(make_world):
    world = make_world()
    endpoint_id, _ = await world.endpoint()
    await world.bury(endpoint_id, 3)
    token = (await world.webhooks.list_deliveries(ACCOUNT, 1, "")).next_token
    for account_id, filters in (
        (OTHER_ACCOUNT, {}),
        (ACCOUNT, {"status": DeliveryStatus.DEAD}),
        (ACCOUNT, {"endpoint_id": endpoint_id}),
    ):
        with pytest.raises(InvalidPageToken):
            await world.webhooks.list_deliveries(account_id, 1, token, **filters)
    assert len((await world.webhooks.list_deliveries(ACCOUNT, 5, token)).rows) == 2


async def test_a_delivery_is_listed_with_its_last_attempts_oldest_first(failing):
    made = SHOWN_ATTEMPTS + 3
    endpoint_id, _ = await failing.endpoint()
    async with failing.running():
        await failing.pushed(endpoint_id)
        for number in range(1, made):
            await failing.until_attempts(number)
            await failing.webhooks.redeliver(ACCOUNT, (await failing.one()).id)
        await failing.until_attempts(made)
    (listed,) = (await failing.webhooks.list_deliveries(ACCOUNT, 10, "")).rows
    assert [each.number for each in listed.attempts] == list(range(4, made + 1))
    assert {(each.http_status, each.failure) for each in listed.attempts} == {
        (500, "The receiver answered 500.")
    }


async def test_an_account_that_there_is_not_has_nothing(make_world):
    world = make_world()
    for asked in (world.webhooks.list_deliveries(new_id(), 1, ""), world.webhooks.redeliver_dead(new_id())):
        with pytest.raises(NotFound):
            await asked


# ---- what is forgotten -------------------------------------------------------------------------------------------


async def test_deliveries_that_are_over_are_forgotten_with_their_attempts_after_their_days(
    observed, database
):
    # Ids have the machine's own time in them.
    clock = FakeClock(time.time_ns() // 1_000_000)
    async with ServiceWorld(observed, clock).running() as world:
        endpoint_id, _ = await world.endpoint()
        await world.pushed(endpoint_id)
        await world.until_statuses(delivered=1)
        world.poster.answer = lambda posted: answered(500)
        await world.pushed(endpoint_id)
        await world.until_nothing_is_due()
        once_id, _ = await world.endpoint(word="pizza", retries=False)
        await world.pushed(once_id)
        await world.until_statuses(delivered=1, pending=1, dead=1)
    # More than one transaction takes.
    await world.bury(once_id, 1_200)
    before = await world.deliveries()
    carrier = SimulatedCarrier(database, clock)
    housekeeping = Housekeeping(database, carrier, clock, deliveries_kept_days=2)
    clock.advance(2 * DAY_S - 1)
    await housekeeping.purge()
    assert await world.deliveries() == before
    clock.advance(3_600)
    await housekeeping.purge()
    # What still waits is not forgotten, however old it is.
    waiting = await world.one()
    assert waiting in before
    assert waiting.status is DeliveryStatus.PENDING
    for table in (webhook_deliveries, webhook_attempts, webhook_outbox):
        assert len(await rows_of(database, table)) == 1
