"""One idempotency key, many requests at once: one message, one debit, identical answers (bars 3).

All of it over one process, and over an edge apart that passes sends on together.
"""

import asyncio
import collections

import pytest

from hydrasms_core.messaging import store
from tests.support.product import PHONE, product_in
from tests.support.split import split_edge

AT_ONCE = 100
KEY = {"Idempotency-Key": "order-1"}


@pytest.fixture(params=["one process", "an edge apart"])
async def product(request, product):
    if request.param == "one process":
        yield product
    else:
        async with split_edge(product) as split:
            yield split


def as_json(content):
    return {"json": {"recipient": PHONE, "content": content}}


def as_form(content):
    return {"data": {"recipient": PHONE, "content": content}}


async def post(product, account, body, headers=KEY):
    return await product.http.post("/api/messages", headers={"Authorization": account.key, **headers}, **body)


async def post_at_once(product, account, bodies, headers=KEY):
    """Post all together; most of them are then taken by one transaction."""
    return await asyncio.gather(*(post(product, account, body, headers) for body in bodies))


async def post_in_two_waves(product, account, bodies, headers=KEY):
    """Post the second half as soon as one of the first is answered, so that transactions follow each other."""
    half = len(bodies) // 2
    waves = [asyncio.create_task(post(product, account, body, headers)) for body in bodies[:half]]
    await asyncio.wait(waves, return_when=asyncio.FIRST_COMPLETED)
    waves += [asyncio.create_task(post(product, account, body, headers)) for body in bodies[half:]]
    return await asyncio.gather(*waves)


together = pytest.mark.parametrize("post_all", [post_at_once, post_in_two_waves])


def assert_one_answer(answers):
    """Every answer is the same 200, one of them the first and all others replays."""
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.content for answer in answers}) == 1
    replayed = [answer.headers.get("idempotent-replayed") for answer in answers]
    assert collections.Counter(replayed) == {None: 1, "true": len(answers) - 1}


async def assert_one_effect(product, account, *, granted):
    assert len(await product.messages(account.id)) == 1
    assert await product.balance(account.id) == granted - 1
    spends = [row for row in await product.transactions(account.id) if row.amount < 0]
    assert [(row.amount, row.message_id) for row in spends] == [
        (-1, (await product.messages(account.id))[0].id)
    ]


@together
async def test_a_hundred_equal_requests_at_once_are_one_message(product, post_all):
    account = await product.account(credits=AT_ONCE)
    assert_one_answer(await post_all(product, account, [as_json("Hello")] * AT_ONCE))
    await assert_one_effect(product, account, granted=AT_ONCE)


@together
async def test_form_and_json_at_once_are_one_message(product, post_all):
    account = await product.account(credits=AT_ONCE)
    bodies = [as_form("Grüße"), as_json("Grüße")] * (AT_ONCE // 2)
    assert_one_answer(await post_all(product, account, bodies))
    await assert_one_effect(product, account, granted=AT_ONCE)


async def test_equal_requests_with_keys_of_their_own_are_messages_of_their_own(product):
    """The control: what makes them one is the key."""
    account = await product.account(credits=AT_ONCE)
    answers = await asyncio.gather(
        *(post(product, account, as_json("Hello"), {"Idempotency-Key": str(n)}) for n in range(AT_ONCE))
    )
    with pytest.raises(AssertionError):
        assert_one_answer(answers)
    assert len(await product.messages(account.id)) == AT_ONCE
    assert await product.balance(account.id) == 0


async def test_the_check_fails_where_keys_are_not_looked_up(product, monkeypatch):
    """The control: with the look-up broken the test above fails, though even then nobody pays twice."""

    async def find_nothing(tx, keys):
        return {}

    monkeypatch.setattr(store, "find_keyed", find_nothing)
    account = await product.account(credits=AT_ONCE)
    answers = await post_in_two_waves(product, account, [as_json("Hello")] * 10)
    with pytest.raises(AssertionError):
        assert_one_answer(answers)
    await assert_one_effect(product, account, granted=AT_ONCE)


@together
async def test_of_two_requests_that_race_for_one_key_one_wins(product, post_all):
    account = await product.account(credits=AT_ONCE)
    bodies = [as_json("Hello"), as_json("Bye")] * (AT_ONCE // 2)
    answers = await post_all(product, account, bodies)
    won = [answer for answer in answers if answer.status_code == 200]
    lost = [answer for answer in answers if answer.status_code != 200]
    assert len(won) == len(lost) == AT_ONCE // 2
    assert_one_answer(won)
    assert {(answer.status_code, answer.json()["code"]) for answer in lost} == {(409, "IDEMPOTENCY_MISMATCH")}
    await assert_one_effect(product, account, granted=AT_ONCE)


async def test_a_key_whose_send_was_refused_works_once_there_are_credits(product):
    account = await product.account(credits=0)
    refused = await post_at_once(product, account, [as_json("Hello")] * AT_ONCE)
    assert {answer.status_code for answer in refused} == {400}
    assert {answer.json()["code"] for answer in refused} == {"INSUFFICIENT_CREDITS"}
    assert await product.messages(account.id) == []
    await product.grant(account.id, 2)
    assert_one_answer(await post_at_once(product, account, [as_json("Hello")] * AT_ONCE))
    await assert_one_effect(product, account, granted=2)


@together
async def test_the_last_credit_is_enough_for_a_hundred_equal_requests(product, post_all):
    account = await product.account(credits=1)
    assert_one_answer(await post_all(product, account, [as_json("Hello")] * AT_ONCE))
    await assert_one_effect(product, account, granted=1)


async def test_another_request_with_the_key_is_409_and_has_no_effect(product):
    account = await product.account(credits=AT_ONCE)
    first = await post(product, account, as_json("Hello"))
    answers = await post_at_once(product, account, [as_form("Bye")] * AT_ONCE)
    assert {(answer.status_code, answer.json()["code"]) for answer in answers} == {
        (409, "IDEMPOTENCY_MISMATCH")
    }
    again = await post(product, account, as_form("Hello"))
    assert (again.content, again.headers["idempotent-replayed"]) == (first.content, "true")
    await assert_one_effect(product, account, granted=AT_ONCE)


async def test_two_accounts_that_use_one_key_at_once_do_not_meet(product):
    alice, bob = await product.account(credits=AT_ONCE), await product.account(credits=AT_ONCE)
    for_alice, for_bob = await asyncio.gather(
        post_at_once(product, alice, [as_json("Hello")] * AT_ONCE),
        post_at_once(product, bob, [as_json("Hello")] * AT_ONCE),
    )
    assert_one_answer(for_alice)
    assert_one_answer(for_bob)
    assert for_alice[0].json()["ID"] != for_bob[0].json()["ID"]
    await assert_one_effect(product, alice, granted=AT_ONCE)
    await assert_one_effect(product, bob, granted=AT_ONCE)


async def test_a_key_is_kept_over_a_restart(database_target, tmp_path):
    data_dir = tmp_path / "data"
    async with product_in(data_dir, database_target) as product:
        account = await product.account(credits=AT_ONCE)
        first = await post(product, account, as_json("Hello"))
    async with product_in(data_dir, database_target) as product:
        answers = await post_at_once(product, account, [as_form("Hello")] * AT_ONCE)
        assert {answer.content for answer in answers} == {first.content}
        assert {answer.headers.get("idempotent-replayed") for answer in answers} == {"true"}
        await assert_one_effect(product, account, granted=AT_ONCE)
