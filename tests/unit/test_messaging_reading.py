"""Reading messages and taking them back: the rules alone, with every port a fake."""

import pytest

from hydrasms_base.ids import new_id
from hydrasms_core.errors import (
    AccountSuspended,
    InvalidPageToken,
    NotCancellable,
    NotFound,
    SendingNotEnabled,
)
from hydrasms_core.messaging.model import Draft, InboundMessage, Status
from tests.support.accounts import NoDatabase
from tests.support.messaging import ALICE, BOB, PHONE, MessagingWorld, patch_store


@pytest.fixture
def store(monkeypatch):
    return patch_store(monkeypatch)


@pytest.fixture
def world(clock, store):
    return MessagingWorld(clock, store, NoDatabase())


async def test_a_message_is_found_by_its_account_alone(world):
    sent = (await world.send()).message
    assert await world.messaging.get(ALICE, sent.id) == sent
    with pytest.raises(NotFound, match="no such message"):
        await world.messaging.get(BOB, sent.id)


@pytest.mark.parametrize(
    "message_id", ["", "x", "' OR 1=1", "\0", new_id().upper(), new_id() + "\n", "\ud800"]
)
async def test_what_is_no_id_never_reaches_the_store(world, message_id):
    with pytest.raises(NotFound, match="no such message"):
        await world.messaging.get(ALICE, message_id)
    with pytest.raises(NotFound, match="no such message"):
        await world.messaging.cancel(ALICE, message_id, actor="account")
    assert world.store.asked_for == []


async def test_messages_are_listed_in_pages_newest_first(world):
    sent = [(await world.send(Draft(PHONE, str(number)))).message for number in range(5)]
    await world.send(account=BOB)
    listed, token = [], ""
    for size in (2, 2, 1):
        page = await world.messaging.list_sent(ALICE, size, token)
        assert len(page.rows) == size
        listed += page.rows
        token = page.next_token
    assert listed == sent[::-1]
    assert token == ""


async def test_what_phones_sent_is_listed_in_pages_for_accounts_that_may_send(world, clock):
    arrived = [InboundMessage(new_id(), ALICE, PHONE, "order", "", None, clock.now_ms()) for _ in range(3)]
    world.store.inbound = [*arrived, InboundMessage(new_id(), BOB, PHONE, "order", "", None, clock.now_ms())]
    first = await world.messaging.list_inbound(ALICE, 2, "")
    last = await world.messaging.list_inbound(ALICE, 2, first.next_token)
    assert [*first.rows, *last.rows] == arrived[::-1]
    world.accounts.refusal = SendingNotEnabled("no")
    with pytest.raises(SendingNotEnabled):
        await world.messaging.list_inbound(ALICE, -1, "nonsense")


async def test_an_account_that_may_not_send_still_sees_what_it_sent(world):
    sent = (await world.send()).message
    world.accounts.refusal = AccountSuspended("no")
    assert (await world.messaging.list_sent(ALICE, 0, "")).rows == [sent]
    assert await world.messaging.get(ALICE, sent.id) == sent


async def test_a_page_token_is_good_for_one_list_of_one_account(world, clock):
    for _ in range(2):
        await world.send()
        await world.send(account=BOB)
        world.store.inbound.append(InboundMessage(new_id(), ALICE, PHONE, "order", "", None, clock.now_ms()))
    token = (await world.messaging.list_sent(ALICE, 1, "")).next_token
    for refused in (
        world.messaging.list_sent(BOB, 1, token),
        world.messaging.list_inbound(ALICE, 1, token),
    ):
        with pytest.raises(InvalidPageToken):
            await refused
    assert len((await world.messaging.list_sent(ALICE, 1, token)).rows) == 1


# ---- taking back -------------------------------------------------------------------------------------------


async def test_a_queued_message_is_taken_back_and_refunded(world, clock):
    sent = (await world.send(Draft(PHONE, "x" * 25))).message
    clock.advance(5)
    cancelled = await world.messaging.cancel(ALICE, sent.id, actor="service")
    assert cancelled == sent._replace(status=Status.CANCELLED, updated_at_ms=clock.now_ms())
    assert [
        (each.account_id, each.message_id, each.credits, each.actor) for each in world.credits.refunded
    ] == [(ALICE, sent.id, 3, "service")]
    assert world.store.outbox == set()
    assert world.credits.balances[ALICE] == 100


async def test_a_message_that_is_taken_back_twice_is_refunded_once(world, clock):
    sent = (await world.send()).message
    first = await world.messaging.cancel(ALICE, sent.id, actor="account")
    clock.advance(5)
    assert await world.messaging.cancel(ALICE, sent.id, actor="account") == first
    assert len(world.credits.refunded) == 1


@pytest.mark.parametrize("status", sorted(set(Status) - {Status.QUEUED, Status.CANCELLED}))
async def test_a_message_that_has_left_the_queue_stays_as_it_is(world, status):
    sent = (await world.send()).message
    world.store.put(sent._replace(status=status))
    with pytest.raises(NotCancellable) as caught:
        await world.messaging.cancel(ALICE, sent.id, actor="account")
    assert caught.value.metadata == {"status": status.value}
    assert world.credits.refunded == []
    assert world.store.messages[ALICE, sent.id].status is status


async def test_anothers_message_cannot_be_taken_back(world):
    sent = (await world.send()).message
    with pytest.raises(NotFound):
        await world.messaging.cancel(BOB, sent.id, actor="account")
    assert world.store.messages[ALICE, sent.id].status is Status.QUEUED


async def test_a_suspended_account_may_take_back(world):
    sent = (await world.send()).message
    world.accounts.refusal = AccountSuspended("no")
    assert (await world.messaging.cancel(ALICE, sent.id, actor="account")).status is Status.CANCELLED
