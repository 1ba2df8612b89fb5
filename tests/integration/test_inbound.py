"""Texts through the whole product: each once, STOP before the next send, and no two machines talking for ever."""

import asyncio
import contextlib
import random

import pytest

from hydrasms.carriers.v1 import simulator_service_pb2 as simulator_pb
from hydrasms.messaging.v1 import message_pb2, shortcode_service_pb2
from hydrasms.messaging.v1 import messaging_service_pb2 as pb
from hydrasms_base.ids import new_id
from hydrasms_base.metrics import Metrics
from hydrasms_core.carriers.base import InboundText, Submitted
from hydrasms_core.carriers.registry import Carriers
from hydrasms_core.inbound import replies
from hydrasms_core.inbound.responder import Responder
from hydrasms_core.settings import ReplySettings
from tests.support import databases
from tests.support.delivery import BOUND_S
from tests.support.inbound import Reception, make_records, text_of
from tests.support.product import TIMEOUT_S, product_in
from tests.support.waiting import eventually

OPTED_OUT = pb.INBOUND_OUTCOME_OPTED_OUT


async def claim(product, account, word):
    """Give an account a shortcode."""
    await product.loopback.shortcodes.CreateShortcode(
        shortcode_service_pb2.CreateShortcodeRequest(word=word),
        metadata=product.with_key(account.key),
        timeout=TIMEOUT_S,
    )


async def text(product, sender, content, reference=""):
    """Let a phone text."""
    return await product.loopback.messaging.ReceiveInbound(
        pb.ReceiveInboundRequest(
            carrier="simulator", carrier_message_id=reference or new_id(), sender=sender, text=content
        ),
        metadata=product.service,
        timeout=TIMEOUT_S,
    )


async def inbox(product, phone):
    """Return what is on a simulated phone, newest first."""
    listed = await product.loopback.simulator.ListInbox(
        simulator_pb.ListInboxRequest(recipient=phone), metadata=product.service, timeout=TIMEOUT_S
    )
    return [each.content for each in listed.texts]


async def listed(product, account):
    """Return an account's texts as a REST client lists them."""
    return await product.http.get("/api/messages", headers={"Authorization": account.key})


# ---- once --------------------------------------------------------------------------------------------------


async def test_texts_that_come_three_times_and_shuffled_are_taken_in_once_each(database, clock):
    # The short form of 5,000 texts; the carrier brings each three times, at once, to two processes.
    await make_records(database)
    receptions = [Reception(database, clock) for _ in range(2)]
    texts = [
        text_of(f"{'order' if n % 2 else 'pizza'} {n}", reference=f"r{n}", sender=f"+4477009{n:05}")
        for n in range(200)
    ]
    brought = texts * 3
    random.Random(27).shuffle(brought)
    received = await asyncio.gather(
        *(receptions[place % 2].inbound.receive(each) for place, each in enumerate(brought))
    )
    first = receptions[0]
    messages, replies = await first.messages(), await first.replies()
    pushed = [message_id for _, _, message_id in await first.recorded("pushes")]
    happened = [message_id for _, _, message_id in await first.recorded("happenings")]
    assert len(messages) == 200
    routed = sorted(message["id"] for message in messages if message["account_id"])
    assert len(routed) == 100
    assert sorted(pushed) == sorted(happened) == routed
    assert sorted(reply["id"] for reply in replies) == sorted(
        m["id"] for m in messages if not m["account_id"]
    )
    assert sum(not each.duplicate for each in received) == 200


# ---- over REST ---------------------------------------------------------------------------------------------


async def test_the_newest_hundred_are_listed_newest_first_as_the_contract_has_it(product):
    account = await product.account()
    await claim(product, account, "order")
    assert (await listed(product, account)).status_code == 404
    for number in range(3):
        await asyncio.gather(*(text(product, "+447700900123", f"Order {number} {n}") for n in range(35)))
    answer = await listed(product, account)
    assert answer.status_code == 200
    rows = answer.json()
    assert len(rows) == 100
    assert [row["id"] for row in rows] == sorted((row["id"] for row in rows), reverse=True)
    assert rows[0]["content"].startswith("2 ")
    assert [set(row) for row in rows] == [
        {"id", "userID", "sender", "shortcode", "content", "webhook_status", "created_at"}
    ] * 100
    newest = rows[0]
    assert (newest["userID"], newest["sender"], newest["shortcode"], newest["webhook_status"]) == (
        account.id,
        "+447700900123",
        "order",
        None,
    )
    assert newest["created_at"].endswith("Z")
    assert len(newest["created_at"]) == len("2026-05-29T10:15:00.000Z")


async def test_a_suspended_accounts_texts_are_kept_for_it(product):
    account = await product.account(suspended=True)
    await product.loopback.shortcodes.CreateShortcode(
        shortcode_service_pb2.CreateShortcodeRequest(account_id=account.id, word="later"),
        metadata=product.service,
        timeout=TIMEOUT_S,
    )
    received = await text(product, "+447700900123", "later hello")
    assert received.message.account_id == account.id
    assert (await listed(product, account)).status_code == 403


async def test_a_phone_is_told_that_nobody_has_its_word(product):
    phone = "+447700900123"
    await text(product, phone, "Unheardof thing")

    async def told():
        return await inbox(product, phone)

    await eventually(told, what="the reply")
    assert await inbox(product, phone) == [
        "The shortcode unheardof does not exist. Please include it as the first word of your message."
    ]


# ---- STOP --------------------------------------------------------------------------------------------------


async def test_a_phone_that_texts_stop_gets_nothing_more_and_costs_nothing_more(product):
    # 0911 texts STOP back to whatever it gets.
    phone, account, other = (
        "+447700900911",
        await product.account(credits=10),
        await product.account(credits=10),
    )
    assert (await product.post(account, "Hello", recipient=phone)).status_code == 200

    async def refused():
        return (await product.post(account, "Hello again", recipient=phone)).status_code == 403

    await eventually(refused, what="the opt-out")
    balance, on_the_phone = await product.balance(account.id), len(await product.messages(account.id))
    answer = await product.post(account, "Hello again", recipient=phone)
    assert (answer.status_code, answer.json()["code"]) == (403, "RECIPIENT_OPTED_OUT")
    assert await product.balance(account.id) == balance
    assert len(await product.messages(account.id)) == on_the_phone
    # Of another account, and on another phone, nothing has changed.
    assert (await product.post(other, "Hello", recipient="+447700900912")).status_code == 200
    assert (await product.post(account, "Hello", recipient="+447700900912")).status_code == 200
    row = (await listed(product, account)).json()[0]
    assert (row["sender"], row["shortcode"], row["content"]) == (phone, "stop", "")


async def test_stop_is_confirmed_once_and_start_once(product):
    phone, account = "+447700900124", await product.account(credits=10)
    sent = await product.send(account, "Hello", recipient=phone)

    async def delivered():
        return (await product.message(account.id, sent.id)).status == message_pb2.MESSAGE_STATUS_DELIVERED

    await eventually(delivered, what="the delivery")
    assert (await text(product, phone, "STOP")).outcome == OPTED_OUT
    await text(product, phone, "stop")
    assert (await product.post(account, recipient=phone)).status_code == 403
    await text(product, phone, "START")
    await text(product, phone, "START")
    assert (await product.post(account, "Back", recipient=phone)).status_code == 200

    async def all_there():
        return len(await inbox(product, phone)) >= 4

    await eventually(all_there, what="both confirmations and both messages")
    texts = await inbox(product, phone)
    assert sum("no more messages from this sender" in each for each in texts) == 1
    assert sum("messages from this sender again" in each for each in texts) == 1
    assert len(texts) == 4


async def test_what_was_queued_before_a_stop_is_refunded_and_never_arrives(
    database_kind, database_template, tmp_path
):
    phone = "+447700900125"
    async with databases.copy_of(database_kind, database_template, tmp_path) as target:
        async with product_in(tmp_path / "data", target) as product:
            account = await product.account(credits=10)
            sent = await product.send(account, "first", recipient=phone)

            async def delivered():
                message = await product.message(account.id, sent.id)
                return message.status == message_pb2.MESSAGE_STATUS_DELIVERED

            await eventually(delivered, what="the delivery")
        async with product_in(tmp_path / "data", target, dispatcher=False) as product:
            queued = [await product.send(account, f"later {n}", recipient=phone) for n in range(3)]
            assert (await text(product, phone, "STOP")).outcome == OPTED_OUT
            assert await product.balance(account.id) == 6
        async with product_in(tmp_path / "data", target) as product:

            async def rejected():
                messages = [await product.message(account.id, each.id) for each in queued]
                return all(m.status == message_pb2.MESSAGE_STATUS_REJECTED for m in messages)

            await eventually(rejected, what="the queued messages to be rejected")
            message = await product.message(account.id, queued[0].id)
            assert message.failure == "The recipient has opted out."
            assert await product.balance(account.id) == 9
            assert not [each for each in await inbox(product, phone) if each.startswith("later")]


# ---- loops -------------------------------------------------------------------------------------------------


class Joint:
    """A carrier that hands everything to another instance, as a text from a phone."""

    name = "joint"

    def __init__(self):
        self.other: Reception | None = None
        self.carried: list[str] = []

    async def submit(self, submissions):
        assert self.other is not None
        answers = []
        for each in submissions:
            self.carried.append(each.content)
            reference = new_id()
            await self.other.inbound.receive(InboundText("joint", reference, each.sender, each.content, 0))
            answers.append(Submitted(reference))
        return answers

    async def run(self, reports):
        raise AssertionError("this carrier reports nothing by itself")


class Instance:
    """An instance of the product, as far as it takes texts and answers them."""

    def __init__(self, database, clock, number, **settings):
        self.number = number
        self.carrier = Joint()
        self.reception = Reception(database, clock, sent_from=number, **settings)
        self.responder = Responder(
            database,
            Carriers([self.carrier]),
            clock,
            Metrics(),
            ReplySettings(sent_from=number, pace_s=0.0, idle_s=0.01),
        )


@pytest.fixture
async def back_to_back(database_kind, database_template, tmp_path, clock):
    """Make two instances whose every message is a text to the other, and let them answer each other."""
    async with contextlib.AsyncExitStack() as stack:
        targets = []
        for name in ("one", "two"):
            folder = tmp_path / name
            folder.mkdir()
            target = await stack.enter_async_context(
                databases.copy_of(database_kind, database_template, folder)
            )
            targets.append(await stack.enter_async_context(databases.opened(target)))

        async def join(**settings):
            instances = []
            for database, number in zip(targets, ("+447700900001", "+447700900002"), strict=True):
                await make_records(database)
                instances.append(Instance(database, clock, number, **settings))
            one, two = instances
            one.carrier.other, two.carrier.other = two.reception, one.reception
            return one, two

        yield join


async def talk(one, two, first):
    """Let the first instance get a text from the other's number, and return all that is said until nobody answers."""
    await one.reception.receive(first, sender=two.number, reference="first")
    working = [asyncio.create_task(each.responder.run()) for each in (one, two)]

    async def silent():
        waiting = [row for each in (one, two) for row in await each.reception.replies()]
        return all(row["status"] != "queued" for row in waiting)

    # A reply is done only after the other instance has taken it in, and has queued its own where it has one.
    await eventually(silent, what="silence")
    async with asyncio.timeout(BOUND_S):
        for each in (one, two):
            await each.responder.stop()
        await asyncio.gather(*working)
    return one.carrier.carried + two.carrier.carried


@pytest.mark.parametrize("first", ["pizza", "HELP", "STOP", "START", "The shortcode x does not exist."])
async def test_two_instances_joined_back_to_back_answer_each_other_twice_at_most(back_to_back, first):
    one, two = await back_to_back(replies_per_hour=1_000)
    await one.reception.sent(new_id(), two.number)
    assert len(await talk(one, two, first)) <= 2


@pytest.mark.parametrize(
    "wording",
    [
        "You have been unsubscribed and will get nothing more.",
        "STOP received: you have been unsubscribed, reply START to come back.",
        "HELP is on its way, please wait for somebody to answer you.",
        "Thank you!",
    ],
)
@pytest.mark.parametrize("first", ["STOP", "HELP"])
async def test_also_where_the_other_words_its_confirmations_differently(
    back_to_back, monkeypatch, wording, first
):
    one, two = await back_to_back(replies_per_hour=1_000)
    await one.reception.sent(new_id(), two.number)
    await two.reception.sent(new_id(), one.number)
    # Both speak so, and neither knows the words for its own.
    for kind in (replies.ReplyKind.STOP, replies.ReplyKind.START, replies.ReplyKind.HELP):
        monkeypatch.setitem(replies._TEXTS, kind, wording)
    said = await talk(one, two, first)
    assert said[0] == wording
    assert len(said) <= 2


async def test_without_the_guard_they_would_talk_until_the_hour_is_up(back_to_back, monkeypatch):
    # The control: where no text is taken for a reply, only the limit an hour ends it.
    monkeypatch.setattr("hydrasms_core.inbound.replies.is_automatic", lambda text: False)
    one, two = await back_to_back(replies_per_hour=5)
    assert len(await talk(one, two, "pizza")) == 10
