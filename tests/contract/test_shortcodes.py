"""Shortcodes on a database: claimed, found, changed, released, and followed through a change of plan."""

from dataclasses import replace

import pytest

from hydrasms_base.ids import new_id
from hydrasms_base.secret import Secret
from hydrasms_core.accounts.model import AccountChange, Plan
from hydrasms_core.errors import (
    AlreadyExists,
    IdempotencyMismatch,
    InvalidArgument,
    InvalidIdempotencyKey,
    InvalidPageToken,
    InvalidWebhookUrl,
    NotFound,
    ShortcodeLimitReached,
    ShortcodeReserved,
)
from hydrasms_core.inbound.ports import Holder
from hydrasms_core.shortcodes import store
from hydrasms_core.shortcodes.model import NewShortcode, RoutingReason, ShortcodeChange
from hydrasms_core.shortcodes.ports import Hook
from tests.support.shortcodes import MADE_AUTH, MADE_SIGNING, URL, FakeHooks, Keeper


@pytest.fixture
def keeper(database, clock):
    return Keeper(database, clock)


@pytest.fixture
def shortcodes(keeper):
    return keeper.shortcodes


@pytest.fixture
async def account(keeper):
    return await keeper.account()


def revealed(made):
    return tuple(None if secret is None else secret.reveal() for secret in made)


async def holders(database, *words):
    return await database.read(lambda tx: store.holders(tx, words))


# ---- claiming ------------------------------------------------------------------------------------------------


async def test_a_word_is_claimed_folded(shortcodes, account, clock):
    made = await shortcodes.create(NewShortcode(account, "ＯRDER\u200b"))
    shortcode = made.found.shortcode
    assert (shortcode.word, shortcode.account_id, shortcode.active) == ("order", account, True)
    assert shortcode.created_at_ms == shortcode.updated_at_ms == clock.now_ms()
    assert (made.found.hook, revealed(made.made), made.replayed) == (None, (None, None), False)
    assert await shortcodes.get(account, shortcode.id) == made.found


async def test_a_word_is_claimed_once_whoever_has_it_and_however_it_is_written(keeper, shortcodes, account):
    other = await keeper.account()
    await keeper.claim(account, "straße")
    for claimant in (account, other):
        for word in ("straße", "STRASSE", "ｓtraße"):
            with pytest.raises(AlreadyExists) as caught:
                await shortcodes.create(NewShortcode(claimant, word))
            assert caught.value.metadata == {"resource": "shortcode"}
            assert account not in caught.value.message
    assert await keeper.active(other) == {}


async def test_a_word_that_is_none_is_refused(shortcodes, account, keeper):
    with pytest.raises(InvalidArgument):
        await shortcodes.create(NewShortcode(account, "two words"))
    with pytest.raises(ShortcodeReserved):
        await shortcodes.create(NewShortcode(account, "Stop"))
    assert await keeper.active(account) == {}


@pytest.mark.parametrize("account_id", ["", "no id", "018f0000-0000-7000-8000-000000000001", "a\0b"])
async def test_nobody_claims_a_word_for_an_account_that_there_is_not(shortcodes, account_id):
    with pytest.raises(NotFound) as caught:
        await shortcodes.create(NewShortcode(account_id, "order"))
    assert caught.value.metadata == {"resource": "account"}


@pytest.mark.parametrize(("plan", "limit"), [(Plan.FREE, 1), (Plan.PREMIUM, 5)])
async def test_a_plan_covers_so_many(keeper, shortcodes, plan, limit):
    account = await keeper.account(plan)
    words = [f"word{number}" for number in range(limit)]
    await keeper.claim(account, *words)
    with pytest.raises(ShortcodeLimitReached) as caught:
        await shortcodes.create(NewShortcode(account, "another"))
    assert caught.value.metadata == {"limit": str(limit)}
    assert await keeper.active(account) == dict.fromkeys(words, True)
    # The word that it could not have is free.
    await keeper.claim(await keeper.account(), "another")


async def test_who_has_a_word_already_is_told_so_even_where_the_plan_covers_no_more(keeper, shortcodes):
    account = await keeper.account(Plan.FREE)
    await keeper.claim(account, "order")
    with pytest.raises(AlreadyExists):
        await shortcodes.create(NewShortcode(account, "Order"))


async def test_a_claim_gives_a_webhook_and_shows_its_secrets_once(keeper, shortcodes, account):
    made = await shortcodes.create(NewShortcode(account, "Order", URL))
    assert made.found.hook == Hook(URL, True, None, "")
    assert revealed(made.made) == (MADE_AUTH, MADE_SIGNING)
    key = account, made.found.shortcode.id
    assert keeper.hooks.words[key] == "order"

    own = await shortcodes.create(NewShortcode(account, "pizza", URL, Secret("my word"), False))
    assert own.found.hook == Hook(URL, False, None, "")
    assert revealed(own.made) == (None, MADE_SIGNING)
    assert keeper.hooks.auth[account, own.found.shortcode.id] == "my word"


async def test_a_webhook_that_is_refused_leaves_the_word_free(keeper, shortcodes, account):
    with pytest.raises(InvalidWebhookUrl):
        await shortcodes.create(NewShortcode(account, "order", FakeHooks.refused, idempotency_key="once"))
    assert await keeper.active(account) == {}
    assert not (await shortcodes.create(NewShortcode(account, "order", idempotency_key="once"))).replayed


async def test_a_claim_that_says_something_about_no_webhook_is_refused(shortcodes, account):
    for new, field in (
        (NewShortcode(account, "order", secret=Secret("x")), "secret"),
        (NewShortcode(account, "order", retries=True), "retries"),
    ):
        with pytest.raises(InvalidArgument) as caught:
            await shortcodes.create(new)
        assert caught.value.field == field


async def test_a_repeated_claim_is_answered_again_without_secrets(keeper, shortcodes, account):
    new = NewShortcode(account, "order", URL, Secret("mine"), idempotency_key="once")
    first, again = await shortcodes.create(new), await shortcodes.create(replace(new, word="ORDER"))
    assert (again.found, revealed(again.made), again.replayed) == (first.found, (None, None), True)
    for other in (
        replace(new, word="pizza"),
        replace(new, webhook_url=f"{URL}2"),
        replace(new, secret=None),
        replace(new, retries=True),
    ):
        with pytest.raises(IdempotencyMismatch):
            await shortcodes.create(other)
    assert await keeper.active(account) == {"order": True}


async def test_a_repeated_claim_is_answered_where_the_plan_covers_no_more(keeper, shortcodes):
    account = await keeper.account(Plan.FREE)
    new = NewShortcode(account, "order", idempotency_key="once")
    await shortcodes.create(new)
    assert (await shortcodes.create(new)).replayed


async def test_an_idempotency_key_has_the_form_of_all(shortcodes, account):
    with pytest.raises(InvalidIdempotencyKey):
        await shortcodes.create(NewShortcode(account, "order", idempotency_key=""))


async def test_a_claim_that_was_refused_can_be_repeated_under_its_key(keeper, shortcodes):
    account = await keeper.account(Plan.FREE)
    (held,) = await keeper.claim(account, "order")
    new = NewShortcode(account, "pizza", idempotency_key="once")
    with pytest.raises(ShortcodeLimitReached):
        await shortcodes.create(new)
    await shortcodes.delete(account, held)
    assert not (await shortcodes.create(new)).replayed


# ---- finding -------------------------------------------------------------------------------------------------


async def test_a_shortcode_is_found_by_its_id_and_by_its_word_however_written(keeper, shortcodes, account):
    (shortcode_id,) = await keeper.claim(account, "kalın")
    found = await shortcodes.get(account, shortcode_id)
    for word in ("kalın", "KALIN", "kalin", "ｋalİn"):
        assert await shortcodes.get(account, word) == found


async def test_anothers_shortcode_is_not_found_by_whatever_name(keeper, shortcodes, account):
    other = await keeper.account()
    (shortcode_id,) = await keeper.claim(other, "order")
    refusals = []
    for named in (shortcode_id, "order", new_id(), "pizza", "", "two words", "\0", "x" * 100, "é" * 30, "!"):
        for use in (
            shortcodes.get(account, named),
            shortcodes.update(account, named, ShortcodeChange(webhook_url=URL)),
            shortcodes.delete(account, named),
        ):
            with pytest.raises(NotFound) as caught:
                await use
            refusals.append((caught.value.message, caught.value.metadata, caught.value.field))
    assert len({str(refusal) for refusal in refusals}) == 1
    assert await keeper.active(other) == {"order": True}
    assert keeper.hooks.removed == []


async def test_shortcodes_are_listed_newest_first_with_their_webhooks(keeper, shortcodes, account):
    await keeper.claim(await keeper.account(), "elsewhere")
    ids = await keeper.claim(account, "one", "two", "three")
    await shortcodes.update(account, "two", ShortcodeChange(webhook_url=URL))
    first = await shortcodes.list_all(account, 2, "")
    rest = await shortcodes.list_all(account, 2, first.next_token)
    rows = [*first.rows, *rest.rows]
    assert [row.shortcode.id for row in rows] == ids[::-1]
    assert [row.hook and row.hook.url for row in rows] == [None, URL, None]
    assert rest.next_token == ""


async def test_a_list_is_an_accounts_own(keeper, shortcodes, account):
    other = await keeper.account()
    await keeper.claim(other, "one", "two")
    token = (await shortcodes.list_all(other, 1, "")).next_token
    assert (await shortcodes.list_all(account, 0, "")).rows == []
    with pytest.raises(InvalidPageToken):
        await shortcodes.list_all(account, 1, token)
    with pytest.raises(InvalidArgument):
        await shortcodes.list_all(account, 1_001, "")
    with pytest.raises(NotFound):
        await shortcodes.list_all(new_id(), 1, "")


async def test_holders_are_found_for_many_words_at_once(keeper, database, account):
    free = await keeper.account(Plan.FREE)
    order, pizza = await keeper.claim(account, "order", "пицца")
    (lapsed,) = await keeper.claim(free, "lapsed")
    await database.write(lambda tx: store.set_active(tx, free, {lapsed: False}, at_ms=1))
    found = await holders(database, "order", "пицца", "lapsed", "nobody", "order")
    assert found == {
        "order": Holder(account, order, True),
        "пицца": Holder(account, pizza, True),
        "lapsed": Holder(free, lapsed, False),
    }


async def test_words_that_no_database_could_hold_are_nobodys(keeper, database, account):
    await keeper.claim(account, "order")
    junk = ["", "\ud800", "a\0b", "x" * 64, "order!", " ", "\U0001f355", "e\u0301" * 30]
    assert set(await holders(database, *junk, "order")) == {"order"}
    assert await holders(database) == await holders(database, *junk) == {}


async def test_many_words_are_looked_for_in_one_go(keeper, database, account):
    await keeper.claim(account, "w4999")
    assert set(await holders(database, *(f"w{number}" for number in range(10_000)))) == {"w4999"}


# ---- changing ------------------------------------------------------------------------------------------------


async def test_a_change_changes_what_is_set_alone(keeper, shortcodes, account, clock):
    (shortcode_id,) = await keeper.claim(account, "order")
    clock.advance(1)
    given = await shortcodes.update(account, "Order", ShortcodeChange(webhook_url=URL))
    assert revealed(given.made) == (MADE_AUTH, MADE_SIGNING)
    assert given.found.hook == Hook(URL, True, None, "")
    assert given.found.shortcode.updated_at_ms == given.found.shortcode.created_at_ms + 1_000
    changed = await shortcodes.update(account, shortcode_id, ShortcodeChange(retries=False))
    assert (changed.found.hook, revealed(changed.made)) == (Hook(URL, False, None, ""), (None, None))
    await shortcodes.update(account, shortcode_id, ShortcodeChange(secret=Secret("other")))
    assert keeper.hooks.auth[account, shortcode_id] == "other"
    assert (await shortcodes.get(account, shortcode_id)).hook == Hook(URL, False, None, "")


async def test_a_change_of_nothing_changes_nothing(keeper, shortcodes, account, clock):
    (shortcode_id,) = await keeper.claim(account, "order")
    before = await shortcodes.get(account, shortcode_id)
    clock.advance(1)
    for change in (ShortcodeChange(), ShortcodeChange(webhook_url="")):
        assert (await shortcodes.update(account, shortcode_id, change)).found == before
    assert await shortcodes.get(account, shortcode_id) == before


async def test_an_empty_url_takes_the_webhook_away(keeper, shortcodes, account):
    made = await shortcodes.create(NewShortcode(account, "order", URL))
    assert (await shortcodes.update(account, "order", ShortcodeChange(webhook_url=""))).found.hook is None
    assert (await shortcodes.get(account, made.found.shortcode.id)).hook is None


async def test_setting_a_url_enables_a_webhook_that_was_disabled(keeper, shortcodes, account, clock):
    made = await shortcodes.create(NewShortcode(account, "order", URL))
    keeper.hooks.disable(account, made.found.shortcode.id, clock.now_ms(), "it answered 410")
    hook = (await shortcodes.get(account, "order")).hook
    assert (hook.disabled_at_ms, hook.disabled_reason) == (clock.now_ms(), "it answered 410")
    again = await shortcodes.update(account, "order", ShortcodeChange(webhook_url=URL))
    assert again.found.hook == Hook(URL, True, None, "")


@pytest.mark.parametrize(
    ("change", "field"),
    [
        (ShortcodeChange(secret=Secret("x")), "secret"),
        (ShortcodeChange(retries=False), "retries"),
        (ShortcodeChange(webhook_url="", secret=Secret("x")), "secret"),
        (ShortcodeChange(webhook_url="", retries=True), "retries"),
    ],
)
async def test_a_change_about_no_webhook_is_refused(keeper, shortcodes, account, change, field):
    await keeper.claim(account, "order")
    with pytest.raises(InvalidArgument) as caught:
        await shortcodes.update(account, "order", change)
    assert caught.value.field == field


async def test_a_webhook_that_is_refused_changes_nothing(keeper, shortcodes, account, clock):
    made = await shortcodes.create(NewShortcode(account, "order", URL))
    clock.advance(1)
    with pytest.raises(InvalidWebhookUrl):
        await shortcodes.update(account, "order", ShortcodeChange(webhook_url=FakeHooks.refused))
    assert await shortcodes.get(account, "order") == made.found


# ---- releasing -----------------------------------------------------------------------------------------------


async def test_a_released_word_is_anybodys(keeper, shortcodes, account):
    other = await keeper.account()
    made = await shortcodes.create(NewShortcode(account, "order", URL))
    await shortcodes.delete(account, "ORDER")
    assert keeper.hooks.removed == [(account, made.found.shortcode.id)]
    with pytest.raises(NotFound):
        await shortcodes.delete(account, "order")
    (shortcode_id,) = await keeper.claim(other, "order")
    assert shortcode_id != made.found.shortcode.id
    assert await keeper.active(account) == {}


async def test_releasing_makes_room(keeper, shortcodes):
    account = await keeper.account(Plan.FREE)
    (shortcode_id,) = await keeper.claim(account, "order")
    await shortcodes.delete(account, shortcode_id)
    await keeper.claim(account, "pizza")
    assert await keeper.active(account) == {"pizza": True}
    assert keeper.happenings.told() == []


# ---- plans ---------------------------------------------------------------------------------------------------


async def test_a_lapse_leaves_the_oldest_active_and_its_return_brings_the_others_back(
    keeper, account, database
):
    ids = await keeper.claim(account, "b", "a", "c")
    await keeper.change_plan(account, Plan.FREE)
    assert await keeper.active(account) == {"b": True, "a": False, "c": False}
    assert keeper.happenings.told() == [("deactivated", "a"), ("deactivated", "c")]
    assert (await holders(database, "a"))["a"] == Holder(account, ids[1], False)
    await keeper.change_plan(account, Plan.PREMIUM)
    assert await keeper.active(account) == {"b": True, "a": True, "c": True}
    assert keeper.happenings.told() == [("reactivated", "a"), ("reactivated", "c")]


async def test_a_change_of_plan_that_is_none_and_other_changes_touch_no_shortcode(keeper, account):
    await keeper.claim(account, "a", "b")
    await keeper.change_plan(account, Plan.PREMIUM)
    await keeper.accounts.update(account, AccountChange(name="Other", suspended=True))
    assert await keeper.active(account) == {"a": True, "b": True}
    assert keeper.happenings.told() == []


async def test_a_lapse_touches_no_other_account(keeper, account):
    other = await keeper.account()
    await keeper.claim(account, "a", "b")
    await keeper.claim(other, "c", "d")
    await keeper.change_plan(account, Plan.FREE)
    assert await keeper.active(other) == {"c": True, "d": True}


async def test_a_lapse_that_cannot_be_told_of_does_not_happen(keeper, account):
    await keeper.claim(account, "a", "b")
    keeper.happenings.failure = RuntimeError("no room for events")
    with pytest.raises(RuntimeError):
        await keeper.change_plan(account, Plan.FREE)
    assert await keeper.active(account) == {"a": True, "b": True}
    assert (await keeper.accounts.get(account)).plan is Plan.PREMIUM


async def test_beyond_its_plan_an_account_claims_nothing(keeper, shortcodes, account):
    await keeper.claim(account, "a", "b", "c")
    await keeper.change_plan(account, Plan.FREE)
    with pytest.raises(ShortcodeLimitReached):
        await keeper.claim(account, "d")
    await shortcodes.delete(account, "c")
    with pytest.raises(ShortcodeLimitReached):
        await keeper.claim(account, "d")


async def test_releasing_an_active_one_lets_the_next_oldest_take_its_place(keeper, shortcodes, account):
    await keeper.claim(account, "a", "b", "c")
    await keeper.change_plan(account, Plan.FREE)
    keeper.happenings.told()
    await shortcodes.delete(account, "a")
    assert await keeper.active(account) == {"b": True, "c": False}
    assert keeper.happenings.told() == [("reactivated", "b")]


async def test_releasing_an_inactive_one_activates_nothing(keeper, shortcodes, account):
    await keeper.claim(account, "a", "b", "c")
    await keeper.change_plan(account, Plan.FREE)
    keeper.happenings.told()
    await shortcodes.delete(account, "b")
    assert await keeper.active(account) == {"a": True, "c": False}
    assert keeper.happenings.told() == []


# ---- who gets ------------------------------------------------------------------------------------------------


async def test_who_gets_a_text_and_why(keeper, shortcodes, account, clock):
    pushed = (await shortcodes.create(NewShortcode(account, "pushed", URL))).found.shortcode.id
    disabled = (await shortcodes.create(NewShortcode(account, "disabled", URL))).found.shortcode.id
    await keeper.claim(account, "listed")
    lapsed = await keeper.account()
    await shortcodes.create(NewShortcode(lapsed, "first", URL))
    await shortcodes.create(NewShortcode(lapsed, "beyond", URL))
    await keeper.change_plan(lapsed, Plan.FREE)
    keeper.hooks.disable(account, disabled, clock.now_ms(), "it answered 410")
    for text, reason, word, content, holder in (
        ("ＰUSHED large  one", RoutingReason.PUSHED, "pushed", "large  one", account),
        ("Disabled", RoutingReason.LISTED, "disabled", "", account),
        ("listed x", RoutingReason.LISTED, "listed", "x", account),
        ("beyond x", RoutingReason.INACTIVE, "beyond", "x", lapsed),
        ("first x", RoutingReason.PUSHED, "first", "x", lapsed),
        ("nobody x", RoutingReason.UNKNOWN_SHORTCODE, "nobody", "x", None),
        ("pushed! x", RoutingReason.UNKNOWN_SHORTCODE, "pushed!", "x", None),
        ("yes", RoutingReason.UNKNOWN_SHORTCODE, "yes", "", None),
        (f"{'x' * 70} y", RoutingReason.UNKNOWN_SHORTCODE, "x" * 64, "y", None),
        (" \n\u200b", RoutingReason.NO_WORD, "", "", None),
        ("STOP it", RoutingReason.RESERVED_WORD, "stop", "it", None),
        ("Stop!", RoutingReason.RESERVED_WORD, "stop", "", None),
    ):
        routing = await shortcodes.who_gets(text)
        assert (routing.reason, routing.word, routing.content) == (reason, word, content), text
        assert (routing.found and routing.found.shortcode.account_id) == holder
    assert (await shortcodes.who_gets("pushed")).found == await shortcodes.get(account, pushed)


async def test_a_text_is_no_longer_than_a_phone_could_send(shortcodes):
    await shortcodes.who_gets("x" * 10_000)
    with pytest.raises(InvalidArgument) as caught:
        await shortcodes.who_gets("x" * 10_001)
    assert caught.value.field == "text"
