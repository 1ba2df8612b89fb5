"""Endpoints at work, over a real database, beside a deliverer: tests, secrets, accounts' own webhooks, disabling."""

import asyncio
import time

import pytest
from standardwebhooks import Webhook, WebhookVerificationError

from hydrasms_core.errors import InvalidArgument, InvalidWebhookUrl, NotFound
from hydrasms_core.messaging.happening import status_changes
from hydrasms_core.messaging.model import Status
from hydrasms_core.messaging.ports import Happening
from hydrasms_core.shortcodes.model import NewShortcode, ShortcodeChange
from hydrasms_core.webhooks.delivery import GONE
from hydrasms_core.webhooks.model import (
    DEFAULT_OVERLAP_MS,
    MAX_OVERLAP_MS,
    DeliveryStatus,
    DeliveryType,
    Redelivered,
)
from hydrasms_core.webhooks.tables import webhook_endpoints
from tests.support.clock import FakeClock
from tests.support.delivery import ACCOUNT, BOUND_S, rows_of
from tests.support.shortcodes import Keeper
from tests.support.webhooks import OTHER_ACCOUNT, URL, ServiceWorld, ToldPoster, answered

OTHER_URL = "https://other.example/"
MESSAGE = "018f0000-0000-7000-8000-00000000000f"


@pytest.fixture
def clock():
    # Verifying a signature asks for a timestamp of these minutes.
    return FakeClock(time.time_ns() // 1_000_000)


@pytest.fixture
def make_world(observed, clock):
    return lambda poster=None, **settings: ServiceWorld(observed, clock, poster, **settings)


def verify(posted, secret):
    """Check a signature as receivers do; raises WebhookVerificationError."""
    return Webhook(secret.reveal()).verify(posted.body, posted.headers)


def refuse(posted, secret):
    with pytest.raises(WebhookVerificationError):
        verify(posted, secret)


async def posted_next(world, endpoint_id):
    """Have a test pushed to an endpoint; returns the request."""
    number = len(world.poster.posted)
    await world.webhooks.send_test(ACCOUNT, endpoint_id)
    await world.until_statuses(delivered=number + 1)
    return world.poster.posted[number]


# ---- tests of an endpoint ------------------------------------------------------------------------------------


async def test_a_test_of_a_shortcodes_webhook_looks_like_a_text_and_is_none(make_world):
    async with make_world().running() as world:
        endpoint_id, signing = await world.endpoint()
        delivery = await world.webhooks.send_test(ACCOUNT, endpoint_id)
        assert (delivery.type, delivery.subject_id) == (DeliveryType.TEST, "")
        assert (delivery.status, delivery.next_attempt_at_ms) == (
            DeliveryStatus.PENDING,
            world.clock.now_ms(),
        )
        assert world.wakes == 1
        await world.until_statuses(delivered=1)
    (posted,) = world.poster.posted
    assert posted.webhook_id == delivery.id
    assert verify(posted, signing) == {
        "sender": "+447700900000",
        "auth": "open sesame",
        "shortcode": "order",
        "messageContent": "This is a test of your webhook.",
    }
    assert await world.webhook_statuses() == []


async def test_a_test_of_an_accounts_own_webhook_says_that_it_is_one(make_world):
    async with make_world().running() as world:
        signing = await world.own_endpoint()
        posted = await posted_next(world, ACCOUNT)
    event = verify(posted, signing)
    assert (event["type"], event["data"]) == ("webhook.test", {})


async def test_a_test_goes_to_an_endpoint_of_the_account_that_works(make_world):
    async with make_world(ToldPoster(lambda posted: answered(410))).running() as world:
        endpoint_id, _ = await world.endpoint()
        with pytest.raises(NotFound):
            await world.webhooks.send_test(OTHER_ACCOUNT, endpoint_id)
        await world.webhooks.send_test(ACCOUNT, endpoint_id)
        await world.until_statuses(dead=1)
        with pytest.raises(InvalidArgument) as refusal:
            await world.webhooks.send_test(ACCOUNT, endpoint_id)
        assert refusal.value.field == "endpoint_id"
        assert world.wakes == 1
    assert len(await world.deliveries()) == 1


# ---- secrets -------------------------------------------------------------------------------------------------


async def test_during_the_overlap_both_secrets_verify_and_afterwards_the_new_one_alone(make_world):
    async with make_world().running() as world:
        endpoint_id, old = await world.endpoint()
        before = await posted_next(world, endpoint_id)
        rotated = await world.webhooks.rotate_secret(ACCOUNT, endpoint_id, overlap_ms=60_000)
        new = rotated.signing
        assert rotated.endpoint == await world.webhooks.get_endpoint(ACCOUNT, endpoint_id)
        assert rotated.endpoint.previous_until_ms == world.clock.now_ms() + 60_000
        during = [await posted_next(world, endpoint_id)]
        world.clock.advance(59.999)
        during.append(await posted_next(world, endpoint_id))
        world.clock.advance(0.001)
        after = await posted_next(world, endpoint_id)
    verify(before, old)
    refuse(before, new)
    for posted in during:
        verify(posted, old)
        verify(posted, new)
        first, _ = posted.headers["webhook-signature"].split(" ")
        Webhook(new.reveal()).verify(posted.body, posted.headers | {"webhook-signature": first})
    verify(after, new)
    refuse(after, old)


async def test_a_rotation_within_the_overlap_of_another_ends_the_oldest_secret(make_world):
    async with make_world().running() as world:
        endpoint_id, first = await world.endpoint()
        second = (await world.webhooks.rotate_secret(ACCOUNT, endpoint_id)).signing
        third = (await world.webhooks.rotate_secret(ACCOUNT, endpoint_id)).signing
        posted = await posted_next(world, endpoint_id)
    refuse(posted, first)
    verify(posted, second)
    verify(posted, third)


async def test_without_an_overlap_the_old_secret_is_over_at_once(make_world):
    async with make_world().running() as world:
        endpoint_id, old = await world.endpoint()
        new = (await world.webhooks.rotate_secret(ACCOUNT, endpoint_id, overlap_ms=0)).signing
        posted = await posted_next(world, endpoint_id)
    refuse(posted, old)
    verify(posted, new)


async def test_what_was_queued_before_a_rotation_is_signed_as_of_its_attempt(make_world):
    async with make_world(ToldPoster(lambda posted: answered(500))).running() as world:
        endpoint_id, old = await world.endpoint()
        await world.webhooks.send_test(ACCOUNT, endpoint_id)
        await world.until_attempts(1)
        new = (await world.webhooks.rotate_secret(ACCOUNT, endpoint_id, overlap_ms=0)).signing
        world.pass_time(5)
        await world.until_attempts(2)
    first, second = world.poster.posted
    verify(first, old)
    refuse(second, old)
    verify(second, new)


async def test_secrets_are_stored_sealed_alone(make_world):
    world = make_world()
    endpoint_id, old = await world.endpoint()
    new = (await world.webhooks.rotate_secret(ACCOUNT, endpoint_id)).signing
    (row,) = await rows_of(world.database, webhook_endpoints)
    for secret in (old.reveal(), new.reveal(), "open sesame"):
        assert secret not in str(row)
        assert secret.removeprefix("whsec_") not in str(row)
    assert row["signing_sealed"] not in (row["previous_sealed"], "")


async def test_an_overlap_is_a_day_unless_said_and_has_bounds(make_world):
    world = make_world()
    endpoint_id, _ = await world.endpoint()
    now_ms = world.clock.now_ms()
    for said, overlap_ms in ((None, DEFAULT_OVERLAP_MS), (MAX_OVERLAP_MS, MAX_OVERLAP_MS)):
        rotated = await world.webhooks.rotate_secret(ACCOUNT, endpoint_id, overlap_ms=said)
        assert rotated.endpoint.previous_until_ms == now_ms + overlap_ms
    (stored,) = await rows_of(world.database, webhook_endpoints)
    for said in (-1, MAX_OVERLAP_MS + 1):
        with pytest.raises(InvalidArgument) as refusal:
            await world.webhooks.rotate_secret(ACCOUNT, endpoint_id, overlap_ms=said)
        assert refusal.value.field == "overlap"
    with pytest.raises(NotFound):
        await world.webhooks.rotate_secret(OTHER_ACCOUNT, endpoint_id)
    assert await rows_of(world.database, webhook_endpoints) == [stored]


# ---- an account's own webhook ----------------------------------------------------------------------------------


def changed(status, *, refunded=False, failure="", account_id=ACCOUNT):
    """What messaging tells of a message that has a new status."""
    return status_changes([((account_id, MESSAGE), status, failure, refunded)])


@pytest.mark.parametrize(
    ("status", "refunded", "failure", "expected"),
    [
        (Status.DELIVERED, False, "", "message.delivered"),
        (Status.UNDELIVERED, False, "switched off", "message.undelivered"),
        (Status.UNDELIVERED, True, "switched off", "message.undelivered"),
        (Status.REJECTED, True, "no such number", "message.refunded"),
        (Status.EXPIRED, True, "too late", "message.refunded"),
        (Status.CANCELLED, True, "", "message.refunded"),
    ],
)
async def test_an_account_hears_of_its_messages(make_world, status, refunded, failure, expected):
    async with make_world().running() as world:
        signing = (await world.webhooks.set_own(ACCOUNT, URL)).signing
        assert await world.happen(*changed(status, refunded=refunded, failure=failure))
        await world.until_statuses(delivered=1)
    (posted,) = world.poster.posted
    event = verify(posted, signing)
    assert (posted.url, event["type"]) == (URL, expected)
    assert event["data"] == {
        "id": MESSAGE,
        "status": status.value,
        "refunded": refunded,
        "failure": failure,
    }
    delivery = await world.one()
    assert (delivery.type, delivery.subject_id) == (DeliveryType.MESSAGE_STATUS, MESSAGE)
    assert (delivery.endpoint_id, delivery.id) == (ACCOUNT, posted.webhook_id)


async def test_an_account_hears_of_nothing_else_and_of_nobody_elses_messages(make_world):
    async with make_world().running() as world:
        await world.own_endpoint()
        assert not await world.happen(
            *changed(Status.UNKNOWN),
            *changed(Status.EXPIRED),
            *changed(Status.DELIVERED, account_id=OTHER_ACCOUNT),
            Happening(ACCOUNT, "webhook_disabled", MESSAGE, {"status": "delivered", "refunded": True}),
        )
        assert not await world.happen()
        assert await world.deliveries() == await world.deliveries(OTHER_ACCOUNT) == []
        # Among what is not, what is to be pushed is.
        assert await world.happen(*changed(Status.UNKNOWN), *changed(Status.DELIVERED))
        await world.until_statuses(delivered=1)
    assert [posted.json["type"] for posted in world.poster.posted] == ["message.delivered"]


async def test_a_status_push_is_tried_again_with_the_same_body_under_the_same_id(make_world):
    answers = [answered(500), answered(200)]
    async with make_world(ToldPoster(lambda posted: answers.pop(0))).running() as world:
        await world.own_endpoint()
        await world.happen(*changed(Status.DELIVERED))
        await world.until_attempts(1)
        world.pass_time(5)
        await world.until_statuses(delivered=1)
    first, second = world.poster.posted
    assert (first.webhook_id, first.body) == (second.webhook_id, second.body)
    assert first.headers["webhook-timestamp"] != second.headers["webhook-timestamp"]


async def test_an_account_changes_its_own_webhook_keeps_its_secret_and_takes_it_away(make_world):
    async with make_world().running() as world:
        made = await world.webhooks.set_own(ACCOUNT, URL)
        assert made.endpoint == await world.webhooks.get_endpoint(ACCOUNT, ACCOUNT)
        again = await world.webhooks.set_own(ACCOUNT, OTHER_URL)
        assert again.signing is None
        assert again.endpoint == await world.webhooks.get_endpoint(ACCOUNT, ACCOUNT)
        await world.happen(*changed(Status.DELIVERED))
        await world.until_statuses(delivered=1)
        gone = await world.webhooks.set_own(ACCOUNT, "")
        assert (gone.endpoint, gone.signing) == (None, None)
        assert not await world.happen(*changed(Status.DELIVERED))
        with pytest.raises(NotFound):
            await world.webhooks.get_endpoint(ACCOUNT, ACCOUNT)
        anew = await world.webhooks.set_own(ACCOUNT, URL)
    (posted,) = world.poster.posted
    assert posted.url == OTHER_URL
    verify(posted, made.signing)
    refuse(posted, anew.signing)


async def test_what_waits_is_dead_when_an_account_takes_its_webhook_away(make_world):
    async with make_world(ToldPoster(lambda posted: answered(500))).running() as world:
        await world.own_endpoint()
        await world.happen(*changed(Status.DELIVERED))
        await world.until_attempts(1)
        await world.webhooks.set_own(ACCOUNT, "")
        assert await world.statuses() == {"dead": 1}
        world.poster.answer = lambda posted: answered(200)
        await world.webhooks.set_own(ACCOUNT, OTHER_URL)
        await world.webhooks.redeliver(ACCOUNT, (await world.one()).id)
        await world.until_statuses(delivered=1)
    assert [posted.url for posted in world.poster.posted] == [URL, OTHER_URL]
    assert len({(posted.webhook_id, posted.body) for posted in world.poster.posted}) == 1


async def test_an_own_webhook_that_many_set_at_once_for_the_first_time_has_one_secret(make_world):
    world = make_world()
    async with asyncio.timeout(BOUND_S):
        made = await asyncio.gather(*[world.webhooks.set_own(ACCOUNT, f"{URL}/{n}") for n in range(6)])
    (row,) = await rows_of(world.database, webhook_endpoints)
    (signing,) = [each.signing for each in made if each.signing is not None]
    assert world.secrets.signing(ACCOUNT, row["signing_sealed"]).reveal() == signing.reveal()
    assert row["url"] in {each.endpoint.url for each in made}


async def test_an_own_webhook_is_of_an_account_that_there_is_and_has_a_url_to_post_to(make_world):
    world = make_world()
    with pytest.raises(NotFound):
        await world.webhooks.set_own(MESSAGE, URL)
    with pytest.raises(InvalidWebhookUrl) as refusal:
        await world.webhooks.set_own(ACCOUNT, "ftp://receiver.example/")
    assert refusal.value.field == "url"
    assert await rows_of(world.database, webhook_endpoints) == []


# ---- disabled and enabled again --------------------------------------------------------------------------------


async def test_an_own_webhook_that_was_disabled_is_enabled_by_setting_it(make_world):
    async with make_world(ToldPoster(lambda posted: answered(410))).running() as world:
        await world.own_endpoint()
        await world.happen(*changed(Status.DELIVERED))
        await world.until_statuses(dead=1)
        disabled = await world.webhooks.get_endpoint(ACCOUNT, ACCOUNT)
        assert (disabled.disabled_at_ms, disabled.disabled_reason) == (world.clock.now_ms(), GONE)
        assert not await world.happen(*changed(Status.DELIVERED))
        world.poster.answer = lambda posted: answered(200)
        enabled = (await world.webhooks.set_own(ACCOUNT, URL)).endpoint
        assert (enabled.disabled_at_ms, enabled.disabled_reason, enabled.failing_since_ms) == (None, "", None)
        assert enabled == await world.webhooks.get_endpoint(ACCOUNT, ACCOUNT)
        assert await world.webhooks.redeliver_dead(ACCOUNT) == Redelivered(1, more=False)
        await world.until_statuses(delivered=1)


async def test_a_shortcodes_webhook_that_was_disabled_is_enabled_by_setting_its_url(make_world, database):
    async with make_world(ToldPoster(lambda posted: answered(410))).running() as world:
        keeper = Keeper(database, world.clock, hooks=world.endpoints)
        account_id = await keeper.account()
        made = await keeper.shortcodes.create(NewShortcode(account_id, "order", URL))
        endpoint_id = made.found.shortcode.id
        await world.pushed(endpoint_id, account_id=account_id)

        async def ends_as(status):
            async def holds():
                return await world.statuses(account_id) == {status: 1}

            await world.until(holds)

        await ends_as("dead")
        found = await keeper.shortcodes.get(account_id, "order")
        assert found.hook is not None
        assert (found.hook.disabled_at_ms, found.hook.disabled_reason) == (world.clock.now_ms(), GONE)
        # No other change enables it.
        changed = await keeper.shortcodes.update(account_id, "order", ShortcodeChange(retries=False))
        assert changed.found.hook is not None
        assert changed.found.hook.disabled_at_ms is not None
        with pytest.raises(InvalidArgument):
            await world.webhooks.send_test(account_id, endpoint_id)
        enabled = await keeper.shortcodes.update(account_id, "order", ShortcodeChange(webhook_url=URL))
        assert enabled.made.signing is None
        assert enabled.found.hook == (URL, False, None, "")
        world.poster.answer = lambda posted: answered(200)
        await world.webhooks.redeliver(account_id, (await world.one(account_id)).id)
        await ends_as("delivered")
    assert made.made.auth is not None
    for posted in world.poster.posted:
        assert verify(posted, made.made.signing)["auth"] == made.made.auth.reveal()
