"""Shortcodes with their webhooks as they are stored: changed together, or not at all."""

import asyncio
from contextlib import AsyncExitStack

import pytest
import sqlalchemy as sa

from hydrasms_base.secret import Secret
from hydrasms_core.errors import InvalidArgument, InvalidWebhookUrl, NotFound
from hydrasms_core.shortcodes.model import NewShortcode, RoutingReason, ShortcodeChange
from hydrasms_core.webhooks.endpoints import Endpoints
from hydrasms_core.webhooks.sealed import EndpointSecrets
from hydrasms_core.webhooks.tables import webhook_endpoints
from tests.support.databases import opened
from tests.support.shortcodes import URL, Keeper
from tests.support.waiting import BOUND_S
from tests.support.webhooks import sealer

ROUNDS = 20


@pytest.fixture
async def pair(database_target, clock):
    """Two processes, each with a database object of its own."""
    async with AsyncExitStack() as stack:
        databases = [await stack.enter_async_context(opened(database_target)) for _ in range(2)]
        yield [Keeper(each, clock, hooks=Endpoints(EndpointSecrets(sealer()))) for each in databases]


async def endpoints_in(database):
    query = sa.select(webhook_endpoints.c.id, webhook_endpoints.c.shortcode)
    return [tuple(row) for row in await database.read(lambda tx: tx.execute(query))]


async def test_a_shortcode_and_its_webhook_are_one(pair):
    keeper = pair[0]
    account = await keeper.account()
    made = await keeper.shortcodes.create(NewShortcode(account, "Order", URL))
    assert made.made.auth is not None
    assert made.made.signing is not None
    assert made.made.signing.reveal().startswith("whsec_")
    assert await endpoints_in(keeper.database) == [(made.found.shortcode.id, "order")]
    changed = await keeper.shortcodes.update(account, "order", ShortcodeChange(retries=False))
    assert changed.found.hook == made.found.hook._replace(retries=False)
    assert (await keeper.shortcodes.who_gets("order")).reason is RoutingReason.PUSHED
    assert (await keeper.shortcodes.list_all(account, 0, "")).rows == [changed.found]
    await keeper.shortcodes.delete(account, "order")
    assert await endpoints_in(keeper.database) == []


async def test_a_webhook_that_is_taken_away_and_given_again_has_new_secrets(pair):
    keeper = pair[0]
    account = await keeper.account()
    first = await keeper.shortcodes.create(NewShortcode(account, "order", URL))
    await keeper.shortcodes.update(account, "order", ShortcodeChange(webhook_url=""))
    assert (await keeper.shortcodes.who_gets("order")).reason is RoutingReason.LISTED
    again = await keeper.shortcodes.update(account, "order", ShortcodeChange(webhook_url=URL))
    assert again.made.signing.reveal() != first.made.signing.reveal()


@pytest.mark.parametrize(
    ("new", "refusal"),
    [
        (NewShortcode("", "pizza", "ftp://example.com"), InvalidWebhookUrl),
        (NewShortcode("", "pizza", URL, Secret("")), InvalidArgument),
        (NewShortcode("", "pizza", URL, Secret("a\nb")), InvalidArgument),
    ],
)
async def test_a_webhook_that_is_refused_leaves_nothing(pair, new, refusal):
    keeper = pair[0]
    account = await keeper.account()
    with pytest.raises(refusal):
        await keeper.shortcodes.create(NewShortcode(account, new.word, new.webhook_url, new.secret))
    assert await keeper.active(account) == {}
    assert await endpoints_in(keeper.database) == []


async def test_webhooks_that_are_given_while_the_shortcode_is_released_leave_none_behind(pair):
    account = await pair[0].account()
    change = ShortcodeChange(webhook_url=URL)
    for _ in range(ROUNDS):
        await pair[0].claim(account, "order")
        giving = [pair[n % 2].shortcodes.update(account, "order", change) for n in range(6)]
        releasing = pair[1].shortcodes.delete(account, "order")
        async with asyncio.timeout(BOUND_S):
            outcomes = await asyncio.gather(*giving[:3], releasing, *giving[3:], return_exceptions=True)
        assert {type(each) for each in outcomes if isinstance(each, Exception)} <= {NotFound}
        assert await endpoints_in(pair[0].database) == []
