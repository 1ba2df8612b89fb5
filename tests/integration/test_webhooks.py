"""The deliverer at work, over a real database, with receivers that answer as they are told."""

import asyncio

import pytest
import sqlalchemy as sa

from hydrasms_core.errors import StoreUnavailable
from hydrasms_core.messaging.ports import Happening
from hydrasms_core.webhooks.delivery import FAILED_TOO_LONG, GONE, INTERRUPTED, SCHEDULE_S
from hydrasms_core.webhooks.handover import Handover
from hydrasms_core.webhooks.model import DeliveryStatus
from hydrasms_core.webhooks.tables import webhook_attempts, webhook_outbox
from tests.support.delivery import ACCOUNT, BOUND_S, rows_of
from tests.support.waiting import eventually
from tests.support.webhooks import NO_ANSWER, URL, PushWorld, ToldPoster, answered

LEASE_S = 60
DAY_S = 86_400


@pytest.fixture
def make_world(observed, clock):
    return lambda poster=None, **settings: PushWorld(observed, clock, poster, **settings)


# ---- one push ----------------------------------------------------------------------------------------------


async def test_a_text_is_pushed_as_the_contract_says(make_world):
    async with make_world().running() as world:
        endpoint_id, _ = await world.endpoint()
        await world.pushed(endpoint_id)
        await world.until_statuses(delivered=1)
    (posted,) = world.poster.posted
    assert posted.url == URL
    assert posted.json == {
        "sender": "+447700900000",
        "auth": "open sesame",
        "shortcode": "order",
        "messageContent": "large pepperoni",
    }
    assert list(posted.json) == ["sender", "auth", "shortcode", "messageContent"]
    assert posted.headers["Content-Type"] == "application/json"
    assert "authorization" not in {name.lower() for name in posted.headers}
    (delivery,) = await world.deliveries()
    assert (posted.webhook_id, delivery.last_status, delivery.next_attempt_at_ms) == (delivery.id, 200, None)
    (attempt,) = delivery.attempts
    assert (attempt.number, attempt.http_status, attempt.failure, attempt.answer) == (1, 200, "", "ok")
    assert (attempt.at_ms, attempt.duration_ms) == (world.clock.now_ms(), 12)
    assert await world.webhook_statuses() == [200]
    assert await rows_of(world.database, webhook_outbox) == []


async def test_nothing_leaves_before_its_claim_is_durable(make_world, database):
    seen = []

    class Watching(ToldPoster):
        async def post(self, url, headers, body):
            seen.extend([row["claim"] for row in await rows_of(database, webhook_outbox)])
            return await super().post(url, headers, body)

    async with make_world(Watching()).running() as world:
        endpoint_id, _ = await world.endpoint()
        await world.pushed(endpoint_id)
        await world.until_statuses(delivered=1)
    assert len(seen) == 1
    assert seen[0] != ""


async def test_what_an_account_wants_to_hear_of_its_messages_is_pushed_in_the_standards_shape(make_world):
    async with make_world().running() as world:
        await world.own_endpoint()
        happened = Happening(
            ACCOUNT, "message_status_changed", "018f0000-0000-7000-8000-00000000000f", {"status": "delivered"}
        )
        now_ms = world.clock.now_ms()
        assert await world.database.write(lambda tx: world.queue.status_pushes(tx, [happened], at_ms=now_ms))
        world.deliverer.wake()
        await world.until_statuses(delivered=1)
    (posted,) = world.poster.posted
    assert posted.json == {
        "type": "message.delivered",
        "timestamp": "2026-05-28T20:26:40.000Z",
        "data": {
            "id": "018f0000-0000-7000-8000-00000000000f",
            "status": "delivered",
            "refunded": False,
            "failure": "",
        },
    }


# ---- failures ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "http_status", "failure"),
    [
        (NO_ANSWER, None, "Connection refused."),
        (answered(500, b"oops"), 500, "The receiver answered 500."),
        (answered(302), 302, "The receiver answered 302: redirects are not followed."),
    ],
    ids=["no answer", "500", "a redirect"],
)
async def test_a_failure_is_tried_again_on_schedule_and_then_dead(make_world, answer, http_status, failure):
    world = make_world(ToldPoster(lambda posted: answer))
    endpoint_id, _ = await world.endpoint()
    begin_ms = world.clock.now_ms()
    async with world.running():
        await world.pushed(endpoint_id)
        await world.until_nothing_is_due()
        while await world.next_due() is not None:
            await world.pass_until_next()
    (delivery,) = await world.deliveries()
    assert (delivery.status, delivery.last_status) == (DeliveryStatus.DEAD, http_status)
    begun_s = [(attempt.at_ms - begin_ms) / 1000 for attempt in delivery.attempts]
    assert begun_s == [sum(SCHEDULE_S[: n + 1]) for n in range(len(SCHEDULE_S))]
    assert {(attempt.http_status, attempt.failure) for attempt in delivery.attempts} == {
        (http_status, failure)
    }
    assert await world.webhook_statuses() == [http_status]
    assert {posted.webhook_id for posted in world.poster.posted} == {delivery.id}
    assert world.happenings.happened == []


async def test_a_receiver_is_not_asked_again_before_it_says(make_world):
    answers = [answered(429, retry_after_s=3_600.0), answered(200)]
    world = make_world(ToldPoster(lambda posted: answers.pop(0)))
    endpoint_id, _ = await world.endpoint()
    async with world.running():
        await world.pushed(endpoint_id)
        await world.until_nothing_is_due()
        assert await world.due() == [world.clock.now_ms() + 3_600_000]
        world.pass_time(3_599)
        await world.observed.next_read()
        assert len(world.poster.posted) == 1
        world.pass_time(1)
        await world.until_statuses(delivered=1)


async def test_without_retries_one_failure_is_the_end(make_world):
    world = make_world(ToldPoster(lambda posted: answered(500)))
    endpoint_id, _ = await world.endpoint(retries=False)
    async with world.running():
        await world.pushed(endpoint_id)
        await world.until_statuses(dead=1)
    assert len(world.poster.posted) == 1


async def test_an_answer_is_kept_as_text_that_any_database_takes(make_world):
    body = b"a\0b\xff" + b"x" * 5_000
    async with make_world(ToldPoster(lambda posted: answered(200, body))).running() as world:
        endpoint_id, _ = await world.endpoint()
        await world.pushed(endpoint_id)
        await world.until_statuses(delivered=1)
    (row,) = await rows_of(world.database, webhook_attempts)
    assert row["answer"] == "ab�" + "x" * 1_996


async def test_secrets_that_cannot_be_read_fail_an_attempt_and_nothing_else(make_world):
    world = make_world()
    endpoint_id, _ = await world.endpoint()
    other_id, _ = await world.endpoint(word="pizza", url="https://other.example/")
    await world.database.write(
        lambda tx: tx.execute(
            sa.text("UPDATE webhook_endpoints SET signing_sealed = 'x' WHERE id = :id"), {"id": endpoint_id}
        )
    )
    async with world.running():
        await world.pushed(endpoint_id, other_id)
        await world.until_statuses(delivered=1, pending=1)
    assert [posted.url for posted in world.poster.posted] == ["https://other.example/"]


async def test_a_poster_that_breaks_its_contract_costs_one_attempt(make_world):
    faults = [RuntimeError("a bug")]

    class Faulty(ToldPoster):
        async def post(self, url, headers, body):
            if faults:
                raise faults.pop()
            return await super().post(url, headers, body)

    async with make_world(Faulty()).running() as world:
        endpoint_id, _ = await world.endpoint()
        await world.pushed(endpoint_id)
        await world.until_nothing_is_due()
        world.pass_time(5)
        await world.until_statuses(delivered=1)
    (delivery,) = await world.deliveries()
    assert [attempt.failure for attempt in delivery.attempts] == ["The attempt failed on our side.", ""]


# ---- endpoints that are disabled or gone --------------------------------------------------------------------


async def test_410_disables_at_once_and_what_waits_is_dead(make_world):
    world = make_world(ToldPoster(lambda posted: answered(410)), max_per_receiver=1)
    endpoint_id, _ = await world.endpoint()
    other_id, _ = await world.endpoint(word="pizza")
    async with world.running():
        await world.pushed(*[endpoint_id] * 5)
        await world.until_statuses(dead=5)
        assert len(world.poster.posted) == 1
        endpoint = await world.get(endpoint_id)
        assert (endpoint.disabled_at_ms, endpoint.disabled_reason) == (world.clock.now_ms(), GONE)
        assert (await world.get(other_id)).disabled_at_ms is None
        # What comes now is not queued, until the URL is set again.
        await world.pushed(endpoint_id)
        assert await world.statuses() == {"dead": 5}
        await world.database.write(
            lambda tx: world.endpoints.put(
                tx, ACCOUNT, endpoint_id, word="order", url=URL, auth=None, retries=None, at_ms=1
            )
        )
        world.poster.answer = lambda posted: answered(200)
        await world.pushed(endpoint_id)
        await world.until_statuses(dead=5, delivered=1)
    assert world.happenings.happened == [
        Happening(ACCOUNT, "webhook_disabled", endpoint_id, {"reason": GONE})
    ]


async def test_five_days_of_nothing_but_failures_disable_and_tell_the_owner(make_world):
    world = make_world(ToldPoster(lambda posted: answered(500)))
    endpoint_id, _ = await world.endpoint()
    async with world.running():
        await world.pushed(endpoint_id)
        since_ms = world.clock.now_ms()
        await world.until_nothing_is_due()
        for _ in range(5):
            assert (await world.get(endpoint_id)).failing_since_ms == since_ms
            assert (await world.get(endpoint_id)).disabled_at_ms is None
            world.pass_time(DAY_S)
            await world.pushed(endpoint_id)
            await world.until_nothing_is_due()
    endpoint = await world.get(endpoint_id)
    assert (endpoint.disabled_at_ms, endpoint.disabled_reason) == (world.clock.now_ms(), FAILED_TOO_LONG)
    assert [each.type for each in world.happenings.happened] == ["webhook_disabled"]
    assert await world.statuses() == {"dead": 6}


async def test_one_success_in_five_days_keeps_a_webhook_up(make_world):
    days = [500, 500, 200, 500, 500, 500, 500]
    world = make_world(ToldPoster(lambda posted: answered(days[0])), max_per_receiver=1)
    endpoint_id, _ = await world.endpoint(retries=False)
    async with world.running():
        while days:
            await world.pushed(endpoint_id)
            await world.until_nothing_is_due()
            days.pop(0)
            world.pass_time(DAY_S)
    assert (await world.get(endpoint_id)).disabled_at_ms is None


async def test_a_webhook_that_was_taken_away_gets_nothing_more_but_what_is_under_way_is_recorded(make_world):
    world = make_world(max_per_receiver=1)
    world.poster.may_answer.clear()
    endpoint_id, _ = await world.endpoint()
    async with world.running():
        await world.pushed(*[endpoint_id] * 3)
        await world.poster.until_posted(1)
        await world.database.write(
            lambda tx: world.endpoints.remove(tx, ACCOUNT, endpoint_id, at_ms=world.clock.now_ms())
        )
        assert await world.statuses() == {"pending": 1, "dead": 2}
        world.poster.may_answer.set()
        await world.until_statuses(delivered=1, dead=2)


async def test_a_failed_attempt_at_a_webhook_that_is_gone_is_the_last(make_world):
    world = make_world(ToldPoster(lambda posted: answered(500)))
    world.poster.may_answer.clear()
    endpoint_id, _ = await world.endpoint()
    async with world.running():
        await world.pushed(endpoint_id)
        await world.poster.until_posted(1)
        await world.database.write(lambda tx: world.endpoints.remove(tx, ACCOUNT, endpoint_id, at_ms=1))
        world.poster.may_answer.set()
        await world.until_nothing_is_due()
        world.pass_time(5)
        await world.until_statuses(dead=1)
    assert len(world.poster.posted) == 1
    assert world.counted("webhook_given_up") == 1


# ---- workers that die or outlive their leases ----------------------------------------------------------------


async def test_what_a_dead_worker_held_is_pushed_again_under_its_id_and_the_attempt_stays_visible(make_world):
    dead = make_world()
    dead.poster.may_answer.clear()
    endpoint_id, _ = await dead.endpoint()
    async with dead.killed():
        await dead.pushed(endpoint_id)
        await dead.poster.until_posted(1)
    async with make_world().running() as world:
        world.pass_time(LEASE_S)
        await world.until_statuses(delivered=1)
    (delivery,) = await world.deliveries()
    assert [(each.number, each.failure) for each in delivery.attempts] == [(1, INTERRUPTED), (2, "")]
    assert dead.poster.posted[0].webhook_id == world.poster.posted[0].webhook_id == delivery.id


async def test_without_retries_what_a_dead_worker_held_is_not_pushed_again(make_world):
    dead = make_world()
    dead.poster.may_answer.clear()
    endpoint_id, _ = await dead.endpoint(retries=False)
    async with dead.killed():
        await dead.pushed(endpoint_id)
        await dead.poster.until_posted(1)
    async with make_world().running() as world:
        world.pass_time(LEASE_S)
        await world.until_statuses(dead=1)
    (delivery,) = await world.deliveries()
    assert [each.failure for each in delivery.attempts] == [INTERRUPTED]
    assert world.poster.posted == []


async def test_a_predecessors_claims_are_taken_over_at_once_where_it_was_alone(make_world):
    dead = make_world()
    dead.poster.may_answer.clear()
    endpoint_id, _ = await dead.endpoint()
    async with dead.killed():
        await dead.pushed(endpoint_id)
        await dead.poster.until_posted(1)
    world = make_world()
    await world.deliverer.release_claims()
    async with world.running():
        await world.until_statuses(delivered=1)


async def test_a_worker_that_comes_back_after_its_lease_changes_nothing(make_world):
    stale = make_world(ToldPoster(lambda posted: answered(500)))
    stale.poster.may_answer.clear()
    endpoint_id, _ = await stale.endpoint()
    async with stale.running():
        await stale.pushed(endpoint_id)
        await stale.poster.until_posted(1)
        async with make_world().running() as other:
            other.pass_time(LEASE_S)
            await other.until_statuses(delivered=1)
            taken_over = await other.deliveries()
            stale.poster.may_answer.set()

            async def lost():
                return stale.counted("webhook_settlements", status="claim_lost") == 1

            await eventually(lost, what="the loss of the claim")
            assert await other.deliveries() == taken_over
    assert await other.webhook_statuses() == [200]


async def test_a_slow_receivers_lease_is_renewed(make_world, clock):
    slow, other = make_world(lease_s=0.3), make_world()
    slow.poster.may_answer.clear()
    endpoint_id, _ = await slow.endpoint()
    async with slow.running():
        await slow.pushed(endpoint_id)
        await slow.poster.until_posted(1)
        async with other.running():
            for _ in range(5):
                clock.advance(0.2)

                async def renewed():
                    return await slow.due() == [clock.now_ms() + 300]

                await slow.until(renewed)
                other.deliverer.wake()
                await slow.observed.next_read()
            slow.poster.may_answer.set()
            await slow.until_statuses(delivered=1)
    assert other.poster.posted == []


async def test_a_clock_that_jumps_takes_no_push_from_its_own_worker(make_world, clock):
    async with make_world().running() as world:
        world.poster.may_answer.clear()
        endpoint_id, _ = await world.endpoint()
        await world.pushed(endpoint_id)
        await world.poster.until_posted(1)
        clock.jump(3_600)
        await world.pushed(endpoint_id)
        await world.poster.until_posted(2)
        assert len({posted.webhook_id for posted in world.poster.posted}) == 2
        world.poster.may_answer.set()
        await world.until_statuses(delivered=2)
    assert [len(each.attempts) for each in await world.deliveries()] == [1, 1]


async def test_a_clock_that_was_set_back_holds_nothing_up(make_world, clock):
    clock.jump(10 * DAY_S)
    world = make_world()
    endpoint_id, _ = await world.endpoint()
    async with world.running():
        await world.observed.next_read()
        # Nobody calls for it before the clock is right again.
        await world.push(endpoint_id)
        clock.jump(-10 * DAY_S)
        world.deliverer.wake()
        await world.until_statuses(delivered=1)


# ---- waking, resting and stopping ----------------------------------------------------------------------------


async def test_an_idle_deliverer_leaves_the_database_alone(make_world):
    async with make_world().running() as world:
        endpoint_id, _ = await world.endpoint()
        await world.pushed(endpoint_id)
        await world.until_statuses(delivered=1)
        with pytest.raises(TimeoutError):
            await world.observed.next_write(within_s=1.0)


async def test_stopping_waits_for_what_is_under_way_and_claims_no_more(make_world):
    world = make_world()
    world.poster.may_answer.clear()
    endpoint_id, _ = await world.endpoint()
    delivering = asyncio.create_task(world.deliverer.run())
    await world.pushed(endpoint_id)
    await world.poster.until_posted(1)
    stopping = asyncio.create_task(world.deliverer.stop())
    await world.pushed(endpoint_id)
    assert not stopping.done()
    world.poster.may_answer.set()
    async with asyncio.timeout(BOUND_S):
        await stopping
        await delivering
    assert await world.statuses() == {"delivered": 1, "pending": 1}


async def test_a_store_that_is_gone_for_a_while_loses_nothing_and_repeats_nothing(make_world, observed):
    world = make_world()
    world.poster.may_answer.clear()
    endpoint_id, _ = await world.endpoint()
    async with world.running():
        await world.pushed(endpoint_id)
        await world.poster.until_posted(1)
        observed.out_of_order = True
        world.poster.may_answer.set()
        await observed.next_write()
        with pytest.raises(StoreUnavailable):
            await world.push(endpoint_id)
        observed.out_of_order = False
        await world.until_statuses(delivered=1)
    assert len(world.poster.posted) == 1


# ---- places ------------------------------------------------------------------------------------------------


@pytest.fixture
def may_settle(monkeypatch):
    """Whether the ends of attempts can be committed; while they cannot, claims still can."""
    gate, settle = asyncio.Event(), Handover.settle

    async def settle_if_it_may(self, tx, ended):
        if not gate.is_set():
            raise StoreUnavailable
        return await settle(self, tx, ended)

    monkeypatch.setattr(Handover, "settle", settle_if_it_may)
    return gate


async def looked(world):
    """Wait until the deliverer has looked at the queue, and has begun what it then found."""
    for _ in range(2):
        world.deliverer.wake()
        await world.observed.next_read()


async def test_what_was_answered_2xx_makes_room_before_it_is_committed_up_to_a_bound(make_world, may_settle):
    async with make_world(max_in_flight=2, max_per_receiver=2).running() as world:
        endpoint_id, _ = await world.endpoint()
        await world.pushed(*[endpoint_id] * 6)
        # As many as may be under way, and as many again that wait for their commits; another two would be too many.
        await world.poster.until_posted(4)
        await looked(world)
        assert len(world.poster.posted) == 4
        may_settle.set()
        await world.until_statuses(delivered=6)
    assert len(world.poster.posted) == 6
    assert max(world.poster.most_at_once.values()) <= 2


async def test_what_failed_makes_room_only_once_it_is_committed(make_world, may_settle):
    poster = ToldPoster(lambda posted: answered(410))
    async with make_world(poster, max_per_receiver=1).running() as world:
        endpoint_id, _ = await world.endpoint()
        await world.pushed(endpoint_id, endpoint_id)
        await poster.until_posted(1)
        await looked(world)
        may_settle.set()
        await world.until_statuses(dead=2)
    # The second never left: the answer to the first was the end of the webhook.
    assert len(poster.posted) == 1
