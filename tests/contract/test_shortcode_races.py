"""Claims, changes and lapses that race, over two database objects as two processes have them."""

import asyncio
from collections import Counter
from contextlib import AsyncExitStack

import pytest
import sqlalchemy as sa

from hydrasms_core.accounts import store as accounts_store
from hydrasms_core.accounts.model import SHORTCODE_LIMITS, AccountChange, Plan
from hydrasms_core.db.transaction import IntegrityViolation
from hydrasms_core.errors import AlreadyExists, NotFound, ShortcodeLimitReached
from hydrasms_core.shortcodes import store
from hydrasms_core.shortcodes.model import NewShortcode, ShortcodeChange
from hydrasms_core.shortcodes.tables import shortcodes as table
from tests.support.databases import ON_POSTGRES, opened
from tests.support.gates import Gate
from tests.support.shortcodes import URL, Keeper
from tests.support.waiting import BOUND_S, eventually

ROUNDS = 10


@pytest.fixture
async def pair(database_target, clock):
    async with AsyncExitStack() as stack:
        databases = [await stack.enter_async_context(opened(database_target)) for _ in range(2)]
        one, other = (Keeper(database, clock) for database in databases)
        # What one tells of webhooks the other sees as well.
        other.hooks.hooks = one.hooks.hooks
        yield one, other


async def at_once(*steps):
    """Return what came of steps that run at the same time: their results, or the errors that are answers."""
    async with asyncio.timeout(BOUND_S):
        outcomes = await asyncio.gather(*steps, return_exceptions=True)
    for outcome in outcomes:
        if isinstance(outcome, BaseException) and not isinstance(
            outcome, (AlreadyExists, NotFound, ShortcodeLimitReached)
        ):
            raise outcome
    return outcomes


def claimed(outcomes):
    return [outcome for outcome in outcomes if not isinstance(outcome, Exception)]


async def words_of(keeper):
    query = sa.select(table.c.word, table.c.account_id)
    return [tuple(row) for row in await keeper.database.read(lambda tx: tx.execute(query))]


# ---- one word ------------------------------------------------------------------------------------------------


async def assert_one_claims(pair, word):
    accounts = [await pair[0].account(Plan.FREE) for _ in range(20)]
    spellings = [word, word.upper(), f"{word}\u200b", word.title()]
    outcomes = await at_once(
        *(
            pair[n % 2].shortcodes.create(NewShortcode(account, spellings[n % 4]))
            for n, account in enumerate(accounts)
        )
    )
    (won,) = claimed(outcomes)
    assert [type(each) for each in outcomes if isinstance(each, Exception)] == [AlreadyExists] * 19
    assert [owner for held, owner in await words_of(pair[0]) if held == word] == [
        won.found.shortcode.account_id
    ]


async def assert_one_claims_each_word(pair):
    for number in range(ROUNDS):
        await assert_one_claims(pair, f"word{number}")


async def test_of_many_who_claim_a_word_at_once_one_gets_it(pair):
    await assert_one_claims_each_word(pair)


@ON_POSTGRES
async def test_control_a_look_before_the_claim_alone_is_caught(pair, monkeypatch):
    async def claim_as_if_alone(tx, shortcode_id, account_id, word, *, at_ms):
        row = {"id": shortcode_id, "account_id": account_id, "word": word}
        await tx.execute(sa.insert(table).values(**row, created_at_ms=at_ms, updated_at_ms=at_ms))
        return True

    monkeypatch.setattr(store, "claim", claim_as_if_alone)
    with pytest.raises(IntegrityViolation):
        await assert_one_claims_each_word(pair)


async def test_one_key_claims_once(pair):
    account = await pair[0].account()
    for number in range(ROUNDS):
        new = NewShortcode(account, f"word{number}", idempotency_key=f"key{number}")
        outcomes = claimed(await at_once(*(pair[n % 2].shortcodes.create(new) for n in range(8))))
        assert Counter(each.replayed for each in outcomes) == {True: 7, False: 1}
        (shortcode,) = {each.found.shortcode for each in outcomes}
        await pair[0].shortcodes.delete(account, shortcode.id)


# ---- the plan's limit ----------------------------------------------------------------------------------------


class CarelessPlans:
    """The limit, with nobody kept waiting."""

    async def hold_limit(self, tx, account_id):
        account = await accounts_store.get_account(tx, account_id)
        assert account is not None
        return SHORTCODE_LIMITS[account.plan]


def be_careless(pair):
    for keeper in pair:
        keeper.shortcodes._plans = CarelessPlans()


async def assert_the_limit_holds(pair, plan, limit):
    for _ in range(ROUNDS):
        account = await pair[0].account(plan)
        outcomes = await at_once(
            *(pair[n % 2].shortcodes.create(NewShortcode(account, f"{account[-6:]}x{n}")) for n in range(20))
        )
        assert len(claimed(outcomes)) == limit
        assert {type(each) for each in outcomes if isinstance(each, Exception)} == {ShortcodeLimitReached}
        assert len(await pair[0].active(account)) == limit


@pytest.mark.parametrize(("plan", "limit"), [(Plan.FREE, 1), (Plan.PREMIUM, 5)])
async def test_of_many_claims_at_once_as_many_succeed_as_the_plan_covers(pair, plan, limit):
    await assert_the_limit_holds(pair, plan, limit)


@ON_POSTGRES
async def test_control_claims_that_do_not_hold_the_plan_are_caught(pair):
    be_careless(pair)
    with pytest.raises(AssertionError):
        await assert_the_limit_holds(pair, Plan.PREMIUM, 5)


async def assert_a_lapse_leaves_one(pair):
    """Of an account whose plan lapses while it claims, the oldest alone is active whoever comes first."""
    account = await pair[0].account()
    words = [f"{account[-6:]}y{number}" for number in range(4)]
    await pair[0].claim(account, words[0], words[1])
    await at_once(
        pair[0].claim(account, words[2]),
        pair[1].change_plan(account, Plan.FREE),
        pair[0].claim(account, words[3]),
    )
    active = await pair[0].active(account)
    assert [word for word, is_active in active.items() if is_active] == words[:1]


async def test_a_plan_that_lapses_while_claims_come_in_leaves_one_active(pair):
    for _ in range(ROUNDS):
        await assert_a_lapse_leaves_one(pair)


async def lapse_while_a_claim_is_open(pair, monkeypatch):
    account = await pair[0].account()
    await pair[0].claim(account, "first")
    gate, claim = Gate(), store.claim

    async def claim_and_wait(tx, *arguments, **options):
        done = await claim(tx, *arguments, **options)
        await gate.pass_through(tx)
        return done

    with monkeypatch.context() as patched:
        patched.setattr(store, "claim", claim_and_wait)
        claiming = asyncio.create_task(pair[0].claim(account, "second"))
        await gate.reached()
        lapsing = asyncio.create_task(pair[1].change_plan(account, Plan.FREE))
        await eventually(lambda: waits_or_is_done(pair[1], lapsing))
        gate.open()
        await at_once(claiming, lapsing)
    assert await pair[0].active(account) == {"first": True, "second": False}


async def waits_or_is_done(keeper, task):
    waiting = sa.text(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    )
    return task.done() or (await keeper.database.read(lambda tx: tx.execute(waiting))).scalar_one() > 0


@ON_POSTGRES
async def test_a_lapse_waits_for_a_claim_that_is_open(pair, monkeypatch):
    await lapse_while_a_claim_is_open(pair, monkeypatch)


@ON_POSTGRES
async def test_control_a_lapse_that_does_not_wait_is_caught(pair, monkeypatch):
    be_careless(pair)
    with pytest.raises(AssertionError):
        await lapse_while_a_claim_is_open(pair, monkeypatch)


# ---- changes of plan -----------------------------------------------------------------------------------------


async def plans_change_at_once(pair, monkeypatch):
    """A lapse is open while somebody else, for whom the account is premium still, changes it to premium."""
    account = await pair[0].account()
    await pair[0].claim(account, "first", "second")
    gate, update_account = Gate(), accounts_store.update_account

    async def update_and_wait(tx, account_id, change, **options):
        await update_account(tx, account_id, change, **options)
        if change.plan is Plan.FREE:
            await gate.pass_through(tx)

    with monkeypatch.context() as patched:
        patched.setattr(accounts_store, "update_account", update_and_wait)
        lapsing = asyncio.create_task(pair[0].change_plan(account, Plan.FREE))
        await gate.reached()
        renewal = AccountChange(name="Renewed", plan=Plan.PREMIUM)
        renewing = asyncio.create_task(pair[1].accounts.update(account, renewal))
        await eventually(lambda: waits_or_is_done(pair[1], renewing))
        gate.open()
        await at_once(lapsing, renewing)
    assert (await pair[0].accounts.get(account)).plan is Plan.PREMIUM
    assert await pair[0].active(account) == {"first": True, "second": True}


@ON_POSTGRES
async def test_the_last_change_of_plan_is_followed(pair, monkeypatch):
    await plans_change_at_once(pair, monkeypatch)


@ON_POSTGRES
async def test_control_a_plan_that_is_compared_without_a_lock_is_caught(pair, monkeypatch):
    monkeypatch.setattr(accounts_store, "hold_account", accounts_store.get_account)
    with pytest.raises(AssertionError):
        await plans_change_at_once(pair, monkeypatch)


# ---- releasing -----------------------------------------------------------------------------------------------


async def release_while_a_webhook_is_given(pair, monkeypatch):
    changer, releaser = pair
    account = await changer.account()
    await changer.claim(account, "order")
    gate, put = Gate(), changer.hooks.put

    async def wait_and_put(tx, *arguments, **options):
        await gate.pass_through(tx)
        return await put(tx, *arguments, **options)

    with monkeypatch.context() as patched:
        patched.setattr(changer.hooks, "put", wait_and_put)
        changing = asyncio.create_task(
            changer.shortcodes.update(account, "order", ShortcodeChange(webhook_url=URL))
        )
        await gate.reached()
        releasing = asyncio.create_task(releaser.shortcodes.delete(account, "order"))
        await eventually(lambda: waits_or_is_done(releaser, releasing))
        gate.open()
        await at_once(changing, releasing)
    assert changer.hooks.hooks == {}
    assert await changer.active(account) == {}


@ON_POSTGRES
async def test_a_shortcode_that_is_released_while_it_gets_a_webhook_leaves_none_behind(pair, monkeypatch):
    await release_while_a_webhook_is_given(pair, monkeypatch)


@ON_POSTGRES
async def test_control_without_holding_the_shortcode_its_webhook_stays_behind(pair, monkeypatch):
    async def hold_nothing(tx, account_id, shortcode_id):
        return True

    monkeypatch.setattr(store, "hold", hold_nothing)
    with pytest.raises(AssertionError):
        await release_while_a_webhook_is_given(pair, monkeypatch)


async def test_of_many_who_release_a_shortcode_one_does(pair):
    account = await pair[0].account()
    for _ in range(ROUNDS):
        (shortcode_id,) = await pair[0].claim(account, "order")
        outcomes = await at_once(*(pair[n % 2].shortcodes.delete(account, shortcode_id) for n in range(6)))
        assert len(claimed(outcomes)) == 1
    assert await pair[0].active(account) == {}


async def test_a_word_that_is_released_and_claimed_again_at_once_has_one_owner(pair):
    accounts = [await pair[0].account() for _ in range(6)]
    await pair[0].claim(accounts[0], "order")
    for _ in range(ROUNDS):
        ((_, holder),) = await words_of(pair[0])
        await at_once(
            pair[0].shortcodes.delete(holder, "order"),
            *(pair[n % 2].shortcodes.create(NewShortcode(each, "order")) for n, each in enumerate(accounts)),
        )
        rows = await words_of(pair[0])
        assert len(rows) <= 1
        if not rows:
            await pair[0].claim(accounts[0], "order")
