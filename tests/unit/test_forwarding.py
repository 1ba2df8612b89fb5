"""What an edge passes on: every send is answered as if it had come alone, whoever its neighbours are."""

import asyncio

import pytest
import structlog

from hydrasms_base.log import request_id
from hydrasms_core.errors import (
    AccountSuspended,
    ApiKeyDisabled,
    DeadlinePassed,
    DomainError,
    IdempotencyMismatch,
    InsufficientCredits,
    InternalError,
    InvalidArgument,
    InvalidContent,
    InvalidIdempotencyKey,
    InvalidRecipient,
    NotFound,
    Overloaded,
    SendingNotEnabled,
    StoreUnavailable,
    UnknownApiKey,
)
from hydrasms_core.messaging.forwarding import Forwarding
from hydrasms_core.messaging.model import Accepted, Draft, Forwarded
from hydrasms_core.rpc.errors import to_status
from tests.support.accounts import NoDatabase, within_bounds
from tests.support.messaging import ALICE, BOB, HELLO, PHONE, GatedDatabase, MessagingWorld, patch_store
from tests.support.waiting import eventually

LONG_MS = 60_000


class FakeSendingKeys:
    """Keys by digest: an account, or what its holder is refused with. Those in `unknown` must be looked up."""

    def __init__(self):
        self.senders = {"alice": ALICE, "bob": BOB}
        self.unknown = set()
        self.failure = None
        self.looked_up = []
        self.hold = None
        self.look_up_failure = None

    async def refresh(self):
        if self.failure is not None:
            raise self.failure

    def known_sender(self, digest):
        return None if digest in self.unknown or digest not in self.senders else self._judged(digest)

    async def senders_of(self, digests):
        self.looked_up.append(sorted(digests))
        if self.hold is not None:
            await within_bounds(self.hold.wait())
        if self.look_up_failure is not None:
            raise self.look_up_failure
        return {digest: self.sender_of(digest) for digest in digests}

    def sender_of(self, digest):
        return self.senders.get(digest, UnknownApiKey("This API key is unknown."))

    def _judged(self, digest):
        sender = self.senders[digest]
        if isinstance(sender, Exception):
            raise sender
        return sender


@pytest.fixture
def store(monkeypatch):
    return patch_store(monkeypatch)


@pytest.fixture
def keys():
    return FakeSendingKeys()


@pytest.fixture
def world(clock, store):
    return MessagingWorld(clock, store, NoDatabase())


@pytest.fixture
def forwarding(world, keys, clock):
    return Forwarding(world.messaging, keys, clock)


def item(draft=HELLO, *, of="alice", rid="r-1", timeout_ms=LONG_MS):
    return Forwarded(of, rid, draft, timeout_ms)


# ---- each on its own -----------------------------------------------------------------------------------------


async def test_sends_of_many_accounts_are_accepted_paid_and_stored(forwarding, world):
    outcomes = await forwarding.send_each(
        [item(Draft(PHONE, "one")), item(Draft(PHONE, "two"), of="bob"), item(Draft(PHONE, "three", "k"))]
    )
    assert [(each.message.account_id, each.message.content) for each in outcomes] == [
        (ALICE, "one"),
        (BOB, "two"),
        (ALICE, "three"),
    ]
    assert not any(each.replayed for each in outcomes)
    assert [(charge.account_id, charge.actor) for charge in world.credits.spent] == [
        (ALICE, "account"),
        (BOB, "account"),
        (ALICE, "account"),
    ]
    assert world.store.transactions == 1
    assert world.wakes == 1


EVERY_REFUSAL = [
    (item(of="nobody"), UnknownApiKey),
    (item(of="disabled"), ApiKeyDisabled),
    (item(of="gone"), NotFound),
    (item(of="suspended"), AccountSuspended),
    (item(of="new"), SendingNotEnabled),
    (item(Draft(PHONE, "Hello", "two words")), InvalidIdempotencyKey),
    (item(Draft("07700900000", "Hello")), InvalidRecipient),
    (item(Draft(PHONE, "")), InvalidContent),
    (item(timeout_ms=0), DeadlinePassed),
    (item(timeout_ms=-1), DeadlinePassed),
    (item(Draft(PHONE, "another", "used")), IdempotencyMismatch),
    (item(Draft(PHONE, "x" * 799)), InsufficientCredits),
]


def with_refusals(keys):
    keys.senders |= {
        "disabled": ApiKeyDisabled("This API key is disabled."),
        "gone": NotFound("account"),
        "suspended": AccountSuspended("This account is suspended."),
        "new": SendingNotEnabled("This account may not send messages yet."),
    }


@pytest.mark.parametrize("looked_up", [False, True])
async def test_every_refusal_is_its_items_own_and_changes_nothing_for_the_others(
    forwarding, keys, world, looked_up
):
    with_refusals(keys)
    world.credits.balances = {ALICE: 50, BOB: 50}
    await world.send(Draft(PHONE, "first", "used"))
    if looked_up:
        keys.unknown = set(keys.senders)
    mixed = [each for refused, _ in EVERY_REFUSAL for each in (refused, item(of="bob"))]
    outcomes = await forwarding.send_each(mixed)
    assert [type(each) for each in outcomes[::2]] == [refusal for _, refusal in EVERY_REFUSAL]
    assert all(isinstance(each, Accepted) for each in outcomes[1::2])
    assert len(world.store.messages) == 1 + len(EVERY_REFUSAL)
    assert world.credits.balances == {ALICE: 49, BOB: 50 - len(EVERY_REFUSAL)}


async def alone(world, keys, one):
    """Return what a single call's caller is refused with: the key is judged first, then `send` does the rest."""
    account_id = keys.sender_of(one.key_digest)
    if isinstance(account_id, DomainError):
        return account_id
    try:
        return await world.messaging.send(account_id, one.draft, actor="account")
    except DomainError as error:
        return error


@pytest.mark.parametrize(
    "refused", [each for each, refusal in EVERY_REFUSAL if refusal is not DeadlinePassed]
)
async def test_a_refusal_is_word_for_word_that_of_a_single_call(forwarding, keys, world, refused):
    with_refusals(keys)
    world.credits.balances = {ALICE: 50, BOB: 50}
    await world.send(Draft(PHONE, "first", "used"))
    expected = await alone(world, keys, refused)
    assert isinstance(expected, DomainError)
    (outcome,) = await forwarding.send_each([refused])
    assert to_status(outcome) == to_status(expected)


@pytest.mark.parametrize(
    ("draft", "of", "timeout_ms", "refusal"),
    [
        (Draft("", "", ""), "nobody", 0, UnknownApiKey),
        (Draft("", "", ""), "suspended", 0, AccountSuspended),
        (Draft("", "", ""), "alice", 0, InvalidIdempotencyKey),
        (Draft("", ""), "alice", 0, InvalidRecipient),
        (Draft(PHONE, ""), "alice", 0, InvalidContent),
        (Draft(PHONE, "another", "used"), "alice", 0, DeadlinePassed),
        (Draft(PHONE, "x" * 799, "used"), "alice", LONG_MS, IdempotencyMismatch),
    ],
)
async def test_which_of_several_refusals_is_told(forwarding, keys, world, draft, of, timeout_ms, refusal):
    with_refusals(keys)
    world.credits.balances = {ALICE: 50, BOB: 50}
    await world.send(Draft(PHONE, "first", "used"))
    (outcome,) = await forwarding.send_each([item(draft, of=of, timeout_ms=timeout_ms)])
    assert type(outcome) is refusal


async def test_one_key_many_times_is_one_message_and_all_others_replays(forwarding, world):
    outcomes = await forwarding.send_each([item(Draft(PHONE, "Hello", "k"))] * 50)
    assert len(world.store.messages) == len(world.credits.spent) == 1
    assert sorted(each.replayed for each in outcomes) == [False] + [True] * 49
    assert len({each.message for each in outcomes}) == 1
    replayed = await forwarding.send_each([item(Draft(PHONE, "Hello", "k"))])
    assert replayed[0].replayed
    # Nobody is woken for a message that was there already.
    assert world.wakes == 1


async def test_a_key_belongs_to_its_account(forwarding):
    first, other = await forwarding.send_each(
        [item(Draft(PHONE, "Hello", "k")), item(Draft(PHONE, "Bye", "k"), of="bob")]
    )
    assert not other.replayed
    assert other.message.id != first.message.id


@pytest.mark.parametrize("size", [0, 1_001])
async def test_it_holds_one_to_a_thousand_sends(forwarding, world, size):
    with pytest.raises(InvalidArgument) as caught:
        await forwarding.send_each([item()] * size)
    assert caught.value.field == "items"
    world.assert_nothing_happened()


# ---- who is known, and who must be looked up -------------------------------------------------------------------


async def test_where_all_are_known_no_task_is_made_but_the_writers(forwarding, keys):
    before = asyncio.all_tasks()
    made = set()
    loop = asyncio.get_running_loop()

    def remember(loop, coroutine, **options):
        task = asyncio.Task(coroutine, loop=loop, **options)
        made.add(task)
        return task

    loop.set_task_factory(remember)
    try:
        await forwarding.send_each([item() for _ in range(100)])
    finally:
        loop.set_task_factory(None)
    assert len(made - before) == 1
    assert keys.looked_up == []


async def test_who_is_not_known_is_looked_up_while_the_others_are_served(forwarding, keys, world):
    keys.unknown = {"bob"}
    keys.hold = asyncio.Event()
    sending = asyncio.create_task(forwarding.send_each([item(), item(of="bob"), item()]))
    await eventually(lambda: len(world.store.messages) == 2)
    assert keys.looked_up == [["bob"]]
    keys.hold.set()
    outcomes = await within_bounds(sending)
    assert [each.message.account_id for each in outcomes] == [ALICE, BOB, ALICE]


async def test_a_store_that_is_away_is_every_items_own_refusal(forwarding, keys, world):
    keys.failure = StoreUnavailable()
    outcomes = await forwarding.send_each([item(), item(of="nobody")])
    assert [type(each) for each in outcomes] == [StoreUnavailable, StoreUnavailable]
    world.assert_nothing_happened()


async def test_a_store_that_goes_away_at_the_commit_is_every_items_own_refusal(forwarding, world):
    world.credits.failure = StoreUnavailable()
    outcomes = await forwarding.send_each([item(), item(Draft("", "x")), item(of="bob")])
    assert [type(each) for each in outcomes] == [StoreUnavailable, InvalidRecipient, StoreUnavailable]
    assert world.store.messages == {}


async def test_all_who_are_not_known_are_looked_up_at_once(forwarding, keys):
    keys.unknown = {"alice", "bob"}
    outcomes = await forwarding.send_each([item(), item(of="bob"), item(), item(of="nobody"), item(of="bob")])
    assert keys.looked_up == [["alice", "bob", "nobody"]]
    assert [type(each) for each in outcomes] == [Accepted, Accepted, Accepted, UnknownApiKey, Accepted]


async def test_a_look_up_that_fails_refuses_those_who_were_looked_up_alone(forwarding, keys):
    keys.unknown, keys.look_up_failure = {"bob"}, StoreUnavailable()
    outcomes = await forwarding.send_each([item(), item(of="bob"), item(of="nobody"), item()])
    assert [type(each) for each in outcomes] == [Accepted, StoreUnavailable, StoreUnavailable, Accepted]


@pytest.mark.parametrize("looked_up", [False, True])
async def test_a_store_that_cannot_even_be_asked_is_every_items_own_refusal(
    forwarding, keys, world, monkeypatch, looked_up
):
    keys.unknown = {"bob"} if looked_up else set()

    async def accept_none(sends):
        raise StoreUnavailable

    monkeypatch.setattr(world.messaging, "accept_each", accept_none)
    outcomes = await forwarding.send_each([item(), item(Draft("", "x")), item(of="bob")])
    assert [type(each) for each in outcomes] == [StoreUnavailable, InvalidRecipient, StoreUnavailable]


# ---- our own faults --------------------------------------------------------------------------------------------


@pytest.fixture
def logged():
    """Every line that is logged, with the request id that it was logged under."""
    with structlog.testing.capture_logs() as lines:
        yield lines


BUG = ZeroDivisionError("a secret")


def break_the_key(world, keys):
    keys.senders["broken"] = BUG
    return item(of="broken", rid="r-broken")


def break_the_look_up(world, keys):
    keys.senders["broken"] = BUG
    keys.unknown = {"broken"}
    return item(of="broken", rid="r-broken")


def break_the_price(world, keys):
    price = world.credits.price

    def broken(content):
        if content == "break":
            raise BUG
        return price(content)

    world.credits.price = broken
    return item(Draft(PHONE, "break"), rid="r-broken")


def break_the_commit(world, keys):
    spend = world.credits.spend

    async def broken(tx, charges, **rest):
        if any(charge.credits == 7 for charge in charges):
            raise BUG
        return await spend(tx, charges, **rest)

    world.credits.spend = broken
    return item(Draft(PHONE, "x" * 70), rid="r-broken")


@pytest.mark.parametrize("fault", [break_the_key, break_the_look_up, break_the_price, break_the_commit])
async def test_a_fault_of_ours_in_one_send_is_internal_for_that_one_alone(
    forwarding, world, keys, logged, fault
):
    broken = fault(world, keys)
    outcomes = await forwarding.send_each([item(rid="r-1"), broken, item(of="bob", rid="r-3")])
    assert [type(each) for each in outcomes] == [Accepted, InternalError, Accepted]
    assert "secret" not in outcomes[1].message
    assert len(world.store.messages) == 2
    (line,) = [line for line in logged if line["event"] == "internal_error"]
    assert (line["request_id"], line["exc_info"], line["log_level"]) == ("r-broken", BUG, "error")
    assert request_id.get() == ""


async def test_a_refusal_is_no_fault_and_is_not_logged(forwarding, keys, logged):
    with_refusals(keys)
    await forwarding.send_each([each for each, _ in EVERY_REFUSAL])
    assert logged == []


# ---- deadlines and callers that leave --------------------------------------------------------------------------


async def begun(database, clock, store, keys, **settings):
    """Return a world whose writer is at work on a first send, what forwards to it, and that send."""
    world = MessagingWorld(clock, store, database, **settings)
    first = asyncio.create_task(world.send())
    await within_bounds(database.entered.wait())
    return world, Forwarding(world.messaging, keys, clock), first


async def test_a_send_whose_time_is_up_before_its_turn_is_refused_and_nothing_is_stored_for_it(
    clock, store, keys
):
    database = GatedDatabase()
    world, forwarding, first = await begun(database, clock, store, keys)
    sending = asyncio.create_task(
        forwarding.send_each(
            [item(timeout_ms=1_000), item(Draft(PHONE, "kept", "k"), timeout_ms=1_001), item(of="bob")]
        )
    )
    await asyncio.sleep(0)
    clock.advance(1.0)
    database.gate.set()
    late, kept, other = await within_bounds(sending)
    await within_bounds(first)
    assert [type(each) for each in (late, kept, other)] == [DeadlinePassed, Accepted, Accepted]
    assert len(world.store.messages) == len(world.credits.spent) == 3


async def test_a_send_whose_time_is_up_during_its_commit_is_answered_with_what_was_stored(clock, store, keys):
    database = GatedDatabase()
    world = MessagingWorld(clock, store, database)
    sending = asyncio.create_task(Forwarding(world.messaging, keys, clock).send_each([item(timeout_ms=1)]))
    await within_bounds(database.entered.wait())
    clock.advance(1.0)
    database.gate.set()
    (outcome,) = await within_bounds(sending)
    assert isinstance(outcome, Accepted)
    assert outcome.message.id in {message_id for _, message_id in world.store.messages}


async def test_an_edge_that_goes_away_takes_its_waiting_sends_back(clock, store, keys):
    database = GatedDatabase()
    keys.unknown = {"bob"}
    world, forwarding, first = await begun(database, clock, store, keys)
    leaving = asyncio.create_task(forwarding.send_each([item(), item(of="bob")]))
    staying = asyncio.create_task(forwarding.send_each([item(Draft(PHONE, "stays"))]))
    for _ in range(5):
        await asyncio.sleep(0)
    leaving.cancel()
    database.gate.set()
    await within_bounds(asyncio.gather(first, staying))
    with pytest.raises(asyncio.CancelledError):
        await leaving
    assert sorted(message.content for message in world.store.messages.values()) == ["Hello", "stays"]


async def test_sends_past_the_writers_bound_are_refused_and_the_rest_taken(clock, store, keys):
    database = GatedDatabase()
    world, forwarding, first = await begun(database, clock, store, keys, max_waiting=2)
    sending = asyncio.create_task(forwarding.send_each([item(), item(), item()]))
    await asyncio.sleep(0)
    database.gate.set()
    outcomes = await within_bounds(sending)
    await within_bounds(first)
    assert [type(each) for each in outcomes] == [Accepted, Accepted, Overloaded]
    assert len(world.store.messages) == 3
