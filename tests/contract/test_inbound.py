"""Taking texts in, over the real store: each once, all that follows from it with it, and nobody answered for ever."""

import asyncio

import pytest

from hydrasms_app.housekeeping import Housekeeping
from hydrasms_base.ids import is_id, new_id
from hydrasms_core.carriers.simulator.carrier import SimulatedCarrier
from hydrasms_core.errors import InvalidArgument, NotFound, Overloaded, StoreUnavailable
from hydrasms_core.inbound import replies_store
from hydrasms_core.inbound.intake import Item, Stored
from hydrasms_core.inbound.model import Outcome, checked
from hydrasms_core.messaging.model import InboundMessage
from hydrasms_core.messaging.tables import inbound_messages
from tests.support.inbound import ALICE, BOB, LAPSED, ORDER, SENDER, Reception, make_records, text_of

NOBODY = ""
UNKNOWN_REPLY = "The shortcode pizza does not exist. Please include it as the first word of your message."


@pytest.fixture
async def reception(database, clock):
    await make_records(database)
    return Reception(database, clock)


# ---- routing -----------------------------------------------------------------------------------------------


async def test_a_text_goes_to_the_holder_of_its_first_word_with_all_that_follows(reception):
    received = await reception.receive("ORDER  large\npepperoni ", reference="1")
    message = received.message
    assert (received.outcome, received.duplicate) == (Outcome.ROUTED, False)
    assert message == InboundMessage(
        message.id, ALICE, SENDER, "order", "large\npepperoni ", None, reception.clock.now_ms()
    )
    assert is_id(message.id)
    assert message.id[14] == "7"
    (row,) = await reception.messages()
    assert InboundMessage(**row) == message
    assert await reception.recorded("pushes") == [(ALICE, ORDER.shortcode_id, message.id)]
    assert await reception.recorded("happenings") == [(ALICE, "inbound_received", message.id)]
    assert await reception.replies() == []
    assert reception.wakes == 1


async def test_the_shortcode_alone_is_a_text_without_content(reception):
    message = (await reception.receive("Order")).message
    assert (message.account_id, message.shortcode, message.content) == (ALICE, "order", "")


async def test_a_text_of_a_lapsed_shortcode_is_stored_and_told_of_and_not_pushed(reception):
    received = await reception.receive("lapsed hello")
    assert (received.outcome, received.message.account_id) == (Outcome.ROUTED, BOB)
    assert await reception.recorded("pushes") == []
    assert len(await reception.recorded("happenings")) == 1
    assert reception.wakes == 0


async def test_a_message_keeps_the_shortcode_and_owner_that_it_had(reception):
    first = await reception.receive("order one", reference="1")
    reception.shortcodes.held["order"] = LAPSED
    second = await reception.receive("order two", reference="2")
    again = await reception.receive("order one", reference="1")
    assert (first.message.account_id, second.message.account_id) == (ALICE, BOB)
    assert again == first._replace(duplicate=True)


async def test_created_at_is_when_the_carrier_got_it_and_never_to_come(reception, clock):
    now_ms = clock.now_ms()
    times = [(now_ms - 5_000, now_ms - 5_000), (now_ms + 5_000, now_ms), (0, now_ms), (-7, now_ms)]
    for given, stored in times:
        received = await reception.receive("order", at_ms=given)
        assert received.message.created_at_ms == stored


# ---- once --------------------------------------------------------------------------------------------------


async def test_a_text_that_comes_again_is_answered_as_the_first_time_and_changes_nothing(reception):
    first = await reception.receive("pizza please", reference="1")
    again = await reception.receive("order something else", reference="1", sender="+447700900999")
    assert again == first._replace(duplicate=True)
    assert len(await reception.messages()) == len(await reception.replies()) == 1
    assert await reception.recorded("pushes") == []


async def test_one_name_of_two_carriers_is_two_texts(reception):
    one = text_of("order one", reference="same")
    await reception.inbound.receive(one)
    other = await reception.inbound.receive(one._replace(carrier="other", content="order two"))
    assert not other.duplicate
    assert len(await reception.messages()) == 2


async def test_texts_without_a_name_are_each_a_text(reception):
    for _ in range(3):
        assert not (await reception.receive("order same")).duplicate
    assert len(await reception.messages()) == 3


async def test_twins_of_one_batch_count_once_and_are_answered_alike(reception):
    texts = [text_of("order", reference=f"r{number % 20}") for number in range(100)]
    received = await asyncio.gather(*map(reception.inbound.receive, texts))
    assert len(await reception.messages()) == len(await reception.references()) == 20
    assert len(await reception.recorded("pushes")) == 20
    assert sum(not each.duplicate for each in received) == 20
    ids = {text.reference: each.message.id for text, each in zip(texts, received, strict=True)}
    assert all(ids[t.reference] == r.message.id for t, r in zip(texts, received, strict=True))


async def test_two_processes_that_get_the_same_texts_take_each_in_once(reception, database, clock):
    other = Reception(database, clock, shortcodes=reception.shortcodes)
    texts = [text_of("pizza", reference=f"r{n}", sender=f"+4477009{n:05}") for n in range(40)]
    received = await asyncio.gather(
        *(each.inbound.receive(text) for text in texts for each in (reception, other))
    )
    assert len(await reception.messages()) == 40
    assert len(await reception.replies()) == 40
    assert sum(each.duplicate for each in received) == 40


async def test_without_its_reference_a_repeat_would_be_another_text(reception, monkeypatch):
    # The control: where references are not taken, what comes three times is stored three times.
    async def take_all(tx, references):
        return {reference.message_id for reference in references}

    monkeypatch.setattr("hydrasms_core.inbound.store.take_references", take_all)
    for _ in range(3):
        await reception.receive("order", reference="1")
    assert len(await reception.messages()) == 3


async def test_a_repeat_is_answered_also_where_its_text_is_gone(reception, database):
    first = await reception.receive("order", reference="1")
    await database.write(lambda tx: tx.execute(inbound_messages.delete()))
    again = await reception.receive("order", reference="1")
    assert (again.duplicate, again.message.id, again.message.account_id) == (True, first.message.id, ALICE)


# ---- all or nothing ----------------------------------------------------------------------------------------


async def test_nothing_is_left_of_a_text_whose_push_could_not_be_queued(reception, monkeypatch):
    async def fail(*_, **__):
        raise StoreUnavailable

    monkeypatch.setattr("tests.support.inbound.RecordedPushes.enqueue", fail)
    with pytest.raises(StoreUnavailable):
        await reception.receive("order", reference="1")
    assert await reception.messages() == await reception.references() == []
    assert await reception.recorded("happenings") == []
    monkeypatch.undo()
    assert not (await reception.receive("order", reference="1")).duplicate


async def test_a_batch_that_landed_is_told_from_one_that_did_not(reception, database, clock):
    items = [Item(checked(text_of("order"), new_id(), now_ms=clock.now_ms())) for _ in range(3)]
    outcomes = await database.write(lambda tx: reception.intake.commit(tx, items))
    assert all(isinstance(outcome, Stored) for outcome in outcomes)
    assert await database.write(lambda tx: reception.intake.landed(tx, items, outcomes))

    others = [Item(checked(text_of("order"), new_id(), now_ms=clock.now_ms())) for _ in range(3)]
    undone = []

    async def undo(tx):
        undone.extend(await reception.intake.commit(tx, others))
        raise StoreUnavailable

    with pytest.raises(StoreUnavailable):
        await database.write(undo)
    assert not await database.write(lambda tx: reception.intake.landed(tx, others, undone))
    # The look itself leaves nothing behind.
    assert len(await reception.references()) == 3
    # A batch of nothing but repeats has nothing to land.
    assert await database.write(lambda tx: reception.intake.landed(tx, items, [None] * 3))


async def test_a_text_that_is_not_for_the_account_that_it_was_taken_for_is_left(reception, database, clock):
    arrival = checked(text_of("order"), new_id(), now_ms=clock.now_ms())
    outcomes = await database.write(
        lambda tx: reception.intake.commit(tx, [Item(arrival, BOB), Item(arrival, ALICE)])
    )
    # The second is the same text, taken for the right one.
    assert [outcome is not None for outcome in outcomes] == [True, True]
    other = checked(text_of("order"), new_id(), now_ms=clock.now_ms())
    assert await database.write(lambda tx: reception.intake.commit(tx, [Item(other, BOB)])) == [None]
    assert len(await reception.messages()) == 1


async def test_too_many_waiting_texts_are_refused_at_once(database, clock):
    await make_records(database)
    reception = Reception(database, clock, max_waiting=5)
    texts = [text_of("order") for _ in range(30)]
    outcomes = await asyncio.gather(*map(reception.inbound.receive, texts), return_exceptions=True)
    refused = [outcome for outcome in outcomes if isinstance(outcome, Overloaded)]
    assert refused
    assert len(await reception.messages()) == 30 - len(refused)


# ---- nobody's texts ----------------------------------------------------------------------------------------


async def test_a_text_for_nobody_is_stored_and_its_sender_is_told(reception):
    received = await reception.receive("Pizza now", reference="1")
    message = received.message
    assert (received.outcome, message.account_id, message.shortcode, message.content) == (
        Outcome.UNKNOWN_SHORTCODE,
        NOBODY,
        "pizza",
        "now",
    )
    (reply,) = await reception.replies()
    assert (reply["id"], reply["recipient"], reply["content"], reply["kind"], reply["status"]) == (
        message.id,
        SENDER,
        UNKNOWN_REPLY,
        "unknown",
        "queued",
    )
    assert await reception.recorded("happenings") == await reception.recorded("pushes") == []
    assert reception.wakes == 1


@pytest.mark.parametrize("sender", ["HEPGG", "84433", "447700900123", "+999123456", "+80012345678", "+1"])
async def test_no_name_and_no_short_number_is_answered(reception, sender):
    received = await reception.receive("pizza", sender=sender)
    assert received.message.sender == sender
    assert await reception.replies() == []
    assert reception.wakes == 0


async def test_our_own_number_is_not_answered(database, clock):
    await make_records(database)
    reception = Reception(database, clock, sent_from=SENDER)
    await reception.receive("pizza")
    assert await reception.replies() == []


async def test_a_text_without_a_word_is_stored_and_not_answered(reception):
    received = await reception.receive(" \n\t ")
    assert (received.outcome, received.message.shortcode) == (Outcome.UNKNOWN_SHORTCODE, "")
    assert len(await reception.messages()) == 1
    assert await reception.replies() == []


async def test_a_number_gets_so_many_replies_an_hour_and_no_more(reception, clock):
    await reception.sent(ALICE)
    # All at once, and of every kind.
    asked = ["pizza", "HELP", "STOP", "START", "pasta", "HELP", "STOP"]
    await asyncio.gather(*(reception.receive(text) for text in asked))
    assert len(await reception.replies()) == 3
    await reception.receive("pizza", sender="+447700900124")
    assert len(await reception.replies()) == 4
    clock.advance(3599)
    await reception.receive("pizza")
    assert len(await reception.replies()) == 4
    clock.advance(2)
    await reception.receive("pizza")
    assert len(await reception.replies()) == 5


async def test_two_processes_share_the_hour(reception, database, clock):
    other = Reception(database, clock)
    await asyncio.gather(*(each.receive(f"pizza {n}") for n in range(20) for each in (reception, other)))
    assert len(await reception.replies()) == 3


async def test_an_operator_may_want_no_replies(database, clock):
    await make_records(database)
    reception = Reception(database, clock, replies_per_hour=0)
    await reception.receive("pizza")
    assert await reception.replies() == []


async def test_a_reply_of_ours_is_never_answered(reception):
    await reception.sent(ALICE, "+447700900777")
    for text in ("pizza", "HELP", "STOP", "START"):
        await reception.receive(text, sender="+447700900777", reference=text)
        reception.clock.advance(3601)
    said = [reply["content"] for reply in await reception.replies()]
    assert len(said) == 4
    for content in (*said, said[0].upper(), f"  {said[1]}\n", said[0][:60]):
        await reception.receive(content, sender="+447700900778")
        reception.clock.advance(3601)
    assert len(await reception.replies()) == 4


async def test_operators_list_what_is_nobodys_and_give_it_to_an_account(reception):
    received = [await reception.receive(f"pizza {n}", reference=f"r{n}") for n in range(5)]
    await reception.receive("order mine")
    first = await reception.inbound.list_unowned(3, "")
    second = await reception.inbound.list_unowned(3, first.next_token)
    listed = [message.content for page in (first, second) for message in page.rows]
    assert listed == ["4", "3", "2", "1", "0"]
    chosen = received[2].message
    for _ in range(2):
        assert await reception.inbound.assign(chosen.id, ALICE) == chosen._replace(account_id=ALICE)
    assert len((await reception.inbound.list_unowned(0, "")).rows) == 4
    again = await reception.receive("pizza 2", reference="r2")
    assert (again.duplicate, again.message.account_id, again.message.id) == (True, ALICE, chosen.id)
    # It was never the account's to push or to be told of.
    assert len(await reception.recorded("pushes")) == len(await reception.recorded("happenings")) == 1


async def test_only_what_is_nobodys_can_be_given_and_only_to_an_account(reception):
    mine = (await reception.receive("order")).message
    for message_id in (mine.id, new_id(), "", "x"):
        with pytest.raises(NotFound, match="inbound message"):
            await reception.inbound.assign(message_id, BOB)
    unowned = (await reception.receive("pizza")).message
    reception.accounts.missing = NotFound("account")
    with pytest.raises(NotFound, match="account"):
        await reception.inbound.assign(unowned.id, new_id())
    assert len((await reception.inbound.list_unowned(0, "")).rows) == 1


# ---- what may come in --------------------------------------------------------------------------------------


async def test_what_no_database_can_hold_is_replaced(reception):
    received = await reception.receive("order a\0b\ud800c", sender="+4477\0")
    assert received.message.content == "a\ufffdb\ufffdc"
    assert received.message.sender == "+4477\ufffd"
    (row,) = await reception.messages()
    assert InboundMessage(**row) == received.message


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"carrier": ""}, "carrier"),
        ({"carrier": "x" * 33}, "carrier"),
        ({"carrier": "a b"}, "carrier"),
        ({"reference": "x" * 129}, "carrier_message_id"),
        ({"sender": ""}, "sender"),
        ({"sender": "x" * 33}, "sender"),
        ({"content": "x" * 10_001}, "text"),
    ],
)
async def test_what_is_out_of_bounds_is_refused_with_its_field(reception, changes, field):
    with pytest.raises(InvalidArgument) as refusal:
        await reception.inbound.receive(text_of("order")._replace(**changes))
    assert refusal.value.field == field
    assert await reception.messages() == []


async def test_what_is_just_within_bounds_is_taken(reception):
    text = text_of("order " + "😀" * 9_994, reference="r" * 128, sender="s" * 32)._replace(carrier="c" * 32)
    received = await reception.inbound.receive(text)
    assert len(received.message.content) == 9_994
    assert (await reception.inbound.receive(text)).duplicate
    long_word = await reception.receive("x" * 10_000)
    assert long_word.message.shortcode == "x" * 64


# ---- what is forgotten -------------------------------------------------------------------------------------


async def test_carriers_names_and_replies_that_are_done_are_forgotten_after_a_week(
    reception, database, clock
):
    await reception.receive("pizza one", reference="1")
    waiting = await reception.receive("pizza two", reference="2", sender="+447700900124")
    first, _ = await reception.replies()
    await database.write(lambda tx: replies_store.fail(tx, [first["id"]]))
    housekeeping = Housekeeping(database, SimulatedCarrier(database, clock), clock)
    clock.advance(7 * 24 * 3600)
    await housekeeping.purge()
    assert len(await reception.references()) == len(await reception.replies()) == 2
    clock.advance(1)
    await housekeeping.purge()
    assert await reception.references() == []
    # A reply that still waits is the worker's to give up.
    assert [reply["id"] for reply in await reception.replies()] == [waiting.message.id]
    assert len(await reception.messages()) == 2
