"""Sending, in batches too, and estimating: the rules alone, with every port a fake."""

import asyncio

import pytest

from hydrasms_core.errors import (
    AccountSuspended,
    DomainError,
    IdempotencyMismatch,
    InsufficientCredits,
    InvalidArgument,
    InvalidContent,
    InvalidIdempotencyKey,
    InvalidRecipient,
    NotFound,
    Overloaded,
    SendingNotEnabled,
    StoreUnavailable,
)
from hydrasms_core.messaging.model import Accepted, Draft, Status
from hydrasms_core.messaging.text import Encoding
from tests.support.accounts import NoDatabase, within_bounds
from tests.support.messaging import ALICE, BOB, HELLO, PHONE, GatedDatabase, MessagingWorld, patch_store


@pytest.fixture
def store(monkeypatch):
    return patch_store(monkeypatch)


@pytest.fixture
def world(clock, store):
    return MessagingWorld(clock, store, NoDatabase())


# ---- sending -----------------------------------------------------------------------------------------------


async def test_an_accepted_message_is_paid_stored_and_queued(world, clock):
    accepted = await world.send(Draft(PHONE, "Hello from Hep.gg"))
    message = accepted.message
    assert not accepted.replayed
    assert (message.account_id, message.content, message.status) == (
        ALICE,
        "Hello from Hep.gg",
        Status.QUEUED,
    )
    assert (message.recipient.e164, message.recipient.country_iso3) == (PHONE, "GBR")
    assert (message.created_at_ms, message.updated_at_ms) == (clock.now_ms(), clock.now_ms())
    assert world.store.messages[ALICE, message.id] == message
    assert world.store.outbox == {message.id}


async def test_the_price_is_that_of_the_credits_port_and_the_actor_is_who_asked(world):
    accepted = await world.send(Draft(PHONE, "x" * 31), actor="service")
    assert accepted.message.credits == 4
    assert [(each.account_id, each.message_id, each.credits, each.actor) for each in world.credits.spent] == [
        (ALICE, accepted.message.id, 4, "service")
    ]


async def test_sender_and_validity_are_the_operators(clock, store):
    world = MessagingWorld(clock, store, NoDatabase(), sent_from="Hydra", validity_s=3_600)
    message = (await world.send()).message
    assert message.sender == "Hydra"
    assert message.expires_at_ms == clock.now_ms() + 3_600_000


async def test_a_message_knows_how_it_travels(world):
    message = (await world.send(Draft(PHONE, "ж" * 71))).message
    assert (message.encoding, message.segments) == (Encoding.UCS2, 2)


async def test_the_dispatcher_is_called_when_the_message_is_committed_and_not_before(clock, store):
    database = GatedDatabase()
    world = MessagingWorld(clock, store, database)
    sending = asyncio.create_task(world.send())
    await within_bounds(database.entered.wait())
    assert world.wakes == 0
    database.gate.set()
    await within_bounds(sending)
    assert world.wakes == 1


REFUSED = [
    (Draft("", "Hello"), InvalidRecipient, "recipient"),
    (Draft("07700900000", "Hello"), InvalidRecipient, "recipient"),
    (Draft(PHONE, ""), InvalidContent, "content"),
    (Draft(PHONE, "x" * 800), InvalidContent, "content"),
    (Draft(PHONE, "a\0b"), InvalidContent, "content"),
    (Draft(PHONE, "\ud800"), InvalidContent, "content"),
    (Draft(PHONE, "Hello", ""), InvalidIdempotencyKey, "idempotency_key"),
    (Draft(PHONE, "Hello", "two words"), InvalidIdempotencyKey, "idempotency_key"),
    (Draft(PHONE, "Hello", "k" * 256), InvalidIdempotencyKey, "idempotency_key"),
    # Which of several faults is told.
    (Draft("", ""), InvalidRecipient, "recipient"),
    (Draft("", "", ""), InvalidIdempotencyKey, "idempotency_key"),
]


@pytest.mark.parametrize(("draft", "refusal", "field"), REFUSED)
async def test_a_draft_out_of_bounds_is_refused_and_nothing_happens(world, draft, refusal, field):
    with pytest.raises(refusal) as caught:
        await world.send(draft)
    assert type(caught.value) is refusal
    assert caught.value.field == field
    world.assert_nothing_happened()


@pytest.mark.parametrize("draft", [draft for draft, _, _ in REFUSED])
async def test_no_refusal_repeats_what_was_sent(world, draft):
    with pytest.raises(DomainError) as caught:
        await world.send(draft)
    for text in (draft.recipient, draft.content, draft.idempotency_key):
        assert not text or text == "Hello" or text not in caught.value.message


@pytest.mark.parametrize(
    "refusal", [AccountSuspended("no"), SendingNotEnabled("no"), NotFound("account"), StoreUnavailable()]
)
async def test_the_account_is_asked_before_the_fields(world, refusal):
    world.accounts.refusal = refusal
    with pytest.raises(type(refusal)):
        await world.send(Draft("", "", ""))
    assert world.accounts.asked == [ALICE]
    world.assert_nothing_happened()


async def test_too_few_credits_refuse_and_nothing_is_stored(world):
    world.credits.balances[ALICE] = 1
    with pytest.raises(InsufficientCredits) as caught:
        await world.send(Draft(PHONE, "x" * 11, "k"))
    assert (caught.value.balance, caught.value.cost) == (1, 2)
    world.assert_nothing_happened()


async def test_a_store_that_is_away_is_told_and_the_dispatcher_is_not_called(world):
    world.credits.failure = StoreUnavailable()
    with pytest.raises(StoreUnavailable):
        await world.send()
    world.assert_nothing_happened()


async def test_a_repeated_key_answers_the_first_message_and_calls_nobody(world):
    first = await world.send(Draft(PHONE, "Hello", "k"))
    again = await world.send(Draft(PHONE, "Hello", "k"))
    assert again == Accepted(first.message, replayed=True)
    assert len(world.credits.spent) == 1
    assert world.wakes == 1


@pytest.mark.parametrize("other", [Draft(PHONE, "Hello!", "k"), Draft("+447700900001", "Hello", "k")])
async def test_a_repeated_key_with_another_request_is_a_mismatch(world, other):
    await world.send(Draft(PHONE, "Hello", "k"))
    with pytest.raises(IdempotencyMismatch):
        await world.send(other)
    assert len(world.store.messages) == 1


async def test_a_key_belongs_to_its_account(world):
    first = await world.send(Draft(PHONE, "Hello", "k"))
    other = await world.send(Draft(PHONE, "Bye", "k"), account=BOB)
    assert not other.replayed
    assert other.message.id != first.message.id


async def test_sends_that_wait_together_share_a_transaction(clock, store):
    database = GatedDatabase()
    world = MessagingWorld(clock, store, database)
    first = asyncio.create_task(world.send())
    await within_bounds(database.entered.wait())
    others = [asyncio.create_task(world.send()) for _ in range(10)]
    draining = asyncio.create_task(world.messaging.drain())
    # Every task reaches the queue before the gate opens.
    await asyncio.sleep(0)
    assert not draining.done()
    database.gate.set()
    await within_bounds(asyncio.gather(first, *others, draining))
    assert world.store.transactions == 2
    assert world.wakes == 11


async def test_past_the_bound_sends_are_refused_at_once(clock, store):
    database = GatedDatabase()
    world = MessagingWorld(clock, store, database, max_waiting=2)
    first = asyncio.create_task(world.send())
    await within_bounds(database.entered.wait())
    waiting = [asyncio.create_task(world.send()) for _ in range(2)]
    await asyncio.sleep(0)
    with pytest.raises(Overloaded):
        await within_bounds(world.send())
    database.gate.set()
    await within_bounds(asyncio.gather(first, *waiting))
    assert len(world.store.messages) == 3


# ---- batches -----------------------------------------------------------------------------------------------


async def test_a_batch_has_one_outcome_an_item_in_order(world):
    outcomes = await world.messaging.send_batch(
        ALICE,
        [Draft(PHONE, "one"), Draft("", "two"), Draft(PHONE, "three", "k"), Draft(PHONE, "", "k")],
        actor="service",
    )
    assert [type(each) for each in outcomes] == [Accepted, InvalidRecipient, Accepted, InvalidContent]
    assert [each.message.content for each in outcomes if isinstance(each, Accepted)] == ["one", "three"]
    assert {charge.actor for charge in world.credits.spent} == {"service"}
    assert world.wakes == 1


async def test_a_batch_of_nothing_but_refusals_touches_no_store(world):
    outcomes = await world.messaging.send_batch(ALICE, [Draft("", "x"), Draft(PHONE, "")], actor="account")
    assert [type(each) for each in outcomes] == [InvalidRecipient, InvalidContent]
    assert world.store.transactions == 0


@pytest.mark.parametrize("size", [0, 1_001])
async def test_a_batch_holds_one_to_a_thousand_items(world, size):
    with pytest.raises(InvalidArgument) as caught:
        await world.messaging.send_batch(ALICE, [HELLO] * size, actor="account")
    assert caught.value.field == "items"
    world.assert_nothing_happened()


async def test_a_batch_of_a_thousand_is_taken(world):
    world.credits.balances[ALICE] = 1_000
    outcomes = await world.messaging.send_batch(ALICE, [HELLO] * 1_000, actor="account")
    assert len({each.message.id for each in outcomes if isinstance(each, Accepted)}) == 1_000


async def test_a_batch_asks_for_the_account_before_it_looks_at_anything(world):
    world.accounts.refusal = AccountSuspended("no")
    with pytest.raises(AccountSuspended):
        await world.messaging.send_batch(ALICE, [], actor="account")


async def test_what_dooms_the_transaction_dooms_the_whole_batch(world):
    world.credits.failure = StoreUnavailable()
    outcomes = await world.messaging.send_batch(ALICE, [HELLO, Draft("", "x")], actor="account")
    assert [type(each) for each in outcomes] == [StoreUnavailable, InvalidRecipient]
    assert world.store.messages == {}


# ---- estimates ---------------------------------------------------------------------------------------------


async def test_an_estimate_says_price_and_shape(world):
    estimate = await world.messaging.estimate(ALICE, "abc ж" + "x" * 70)
    assert (estimate.credits, estimate.encoding, estimate.segments, estimate.units) == (
        8,
        Encoding.UCS2,
        2,
        75,
    )
    assert (estimate.non_gsm_index, estimate.non_gsm_character) == (4, "ж")


async def test_an_estimate_of_a_plain_text_names_no_character(world):
    estimate = await world.messaging.estimate(ALICE, "Hello")
    assert (estimate.encoding, estimate.non_gsm_index, estimate.non_gsm_character) == (
        Encoding.GSM7,
        None,
        "",
    )


@pytest.mark.parametrize("content", ["", "x" * 800, "\0"])
async def test_an_estimate_is_for_what_could_be_sent(world, content):
    with pytest.raises(InvalidContent):
        await world.messaging.estimate(ALICE, content)
