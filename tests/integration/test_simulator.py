"""The simulated carrier: every script of docs/howto/simulator.md, and what the network promises."""

import asyncio
import random
import re
from pathlib import Path

import pytest

from hydrasms_core.carriers.base import Refused, Submission, Throttled
from hydrasms_core.carriers.simulator import store
from hydrasms_core.carriers.simulator.carrier import RECEIPT_LEASE_MS, SimulatedCarrier
from hydrasms_core.carriers.simulator.inbox import Inbox
from hydrasms_core.carriers.simulator.scripts import SCRIPTS
from hydrasms_core.carriers.simulator.store import Owed
from hydrasms_core.carriers.simulator.tables import simulated_answers, simulated_receipts, simulated_texts
from hydrasms_core.errors import InvalidPageToken, InvalidRecipient, StoreUnavailable
from hydrasms_core.messaging.model import Status
from hydrasms_core.messaging.tables import outbox, receipts
from hydrasms_core.messaging.text import Encoding
from tests.support.delivery import BOUND_S, PHONE, rows_of
from tests.support.world import phone

NOTHING = Owed()

# ---- the scripts of docs/howto/simulator.md ----------------------------------------------------------------


def test_every_script_is_in_the_users_table_and_no_other_is():
    page = Path(__file__).parents[2] / "docs/howto/simulator.md"
    assert re.findall(r"^\| `([0-9]{4})` \|", page.read_text(), re.MULTILINE) == sorted(SCRIPTS)


async def test_any_other_phone_gets_the_text_at_once(world):
    async with world.running():
        message_id = await world.send(PHONE, content="Hello")
        message = await world.until(message_id, Status.DELIVERED)
        assert (message.attempts, message.carrier, message.failure) == (1, "simulator", "")
        assert not message.duplicate_risk
        assert await world.inbox(PHONE) == ["Hello"]
        assert await rows_of(world.database, outbox) == []
    assert await world.ledger.refunds() == {}


async def test_0901_is_refused_for_good_and_refunded(world):
    async with world.running():
        message = await world.until(await world.send(phone("0901"), credits=3), Status.REJECTED)
        assert message.failure
        assert await world.inbox(phone("0901")) == []
    assert await world.ledger.refunds() == {message.id: 3}


async def test_0902_is_not_delivered_and_not_refunded(world):
    async with world.running():
        message = await world.until(await world.send(phone("0902")), Status.UNDELIVERED)
        assert message.failure
        assert await world.inbox(phone("0902")) == []
    assert await world.ledger.refunds() == {}


async def test_0903_reports_five_seconds_later_also_after_a_restart(world, make_world):
    async with world.running():
        message_id = await world.send(phone("0903"))
        await world.until(message_id, Status.SUBMITTED)
        assert await world.inbox(phone("0903")) == ["Hello from Hep.gg"]
    (owed,) = await rows_of(world.database, simulated_receipts)
    assert owed["due_at_ms"] == world.clock.now_ms() + 5_000
    world.clock.advance(5)
    async with make_world().running() as restarted:
        await restarted.until(message_id, Status.DELIVERED)


async def test_0904_is_throttled_twice_and_then_delivered_also_over_a_restart(world, make_world):
    async with world.running():
        message_id = await world.send(phone("0904"))
        await world.until(message_id, Status.QUEUED, attempts=1)
        assert (await world.message(message_id)).failure
    async with make_world().running() as restarted:
        restarted.pass_time(1)
        await restarted.until(message_id, Status.QUEUED, attempts=2)
        restarted.pass_time(2)
        message = await restarted.until(message_id, Status.DELIVERED)
        assert (message.attempts, message.duplicate_risk, message.failure) == (3, False, "")
        assert await restarted.inbox(phone("0904")) == ["Hello from Hep.gg"]
    assert await world.ledger.refunds() == {}


@pytest.mark.parametrize(("script", "arrived"), [("0905", 0), ("0906", 2)])
async def test_0905_and_0906_lose_the_answer_twice_so_that_nobody_knows(world, script, arrived):
    async with world.running():
        message_id = await world.send(phone(script))
        await world.until_released(message_id, attempts=1)
        assert not (await world.message(message_id)).duplicate_risk
        world.pass_time(1)
        message = await world.until(message_id, Status.UNKNOWN)
        assert (message.attempts, message.duplicate_risk) == (2, True)
        assert message.failure
        assert len(await world.inbox(phone(script))) == arrived
        # A phone that has it says so, under a reference that was lost with the answer.
        assert [row["message_id"] for row in await world.reported(arrived)] == [""] * arrived
        assert await rows_of(world.database, outbox) == []
    assert await world.ledger.refunds() == {}


@pytest.mark.parametrize(
    ("script", "statuses"), [("0907", ["delivered"] * 3), ("0908", ["delivered", "undelivered"])]
)
async def test_0907_and_0908_report_too_much_and_the_first_word_counts(world, script, statuses):
    async with world.running():
        message_id = await world.send(phone(script))
        rows = await world.reported(len(statuses))
        assert [row["status"] for row in rows] == statuses
        assert [row["applied"] for row in rows] == [1] + [0] * (len(statuses) - 1)
        message = await world.message(message_id)
        assert (message.status, message.failure) == (Status.DELIVERED, "")


async def test_0909_never_reports_so_that_it_ends_unknown(world):
    async with world.running():
        message_id = await world.send(phone("0909"))
        await world.until(message_id, Status.SUBMITTED)
        world.pass_time(72 * 3600)
        await world.until(message_id, Status.UNKNOWN)
        assert await world.inbox(phone("0909")) == ["Hello from Hep.gg"]
        assert await rows_of(world.database, receipts) == []


async def test_0910_is_throttled_until_it_expires_and_is_refunded(world):
    async with world.running():
        message_id = await world.send(phone("0910"), credits=2)
        for attempt, pause_s in enumerate((1, 2, 4, 8), start=1):
            await world.until(message_id, Status.QUEUED, attempts=attempt)
            world.pass_time(pause_s)
        await world.until(message_id, Status.QUEUED, attempts=5)
        world.pass_time(48 * 3600)
        message = await world.until(message_id, Status.EXPIRED)
        assert (message.attempts, bool(message.failure)) == (5, True)
        assert await world.inbox(phone("0910")) == []
    assert await world.ledger.refunds() == {message_id: 2}


async def test_a_mixture_of_scripts_ends_right_for_everybody(make_world):
    expected = {
        "0555": Status.DELIVERED,
        "0901": Status.REJECTED,
        "0902": Status.UNDELIVERED,
        "0907": Status.DELIVERED,
        "0908": Status.DELIVERED,
        "0909": Status.SUBMITTED,
    }
    scripts = [random.Random(7).choice(sorted(expected)) for _ in range(2_000)]
    async with make_world(max_batch=100).running() as world:
        ids = await world.send(*(phone(script) for script in scripts))
        for message_id, script in zip(ids, scripts, strict=True):
            await world.until(message_id, expected[script])
    refused = {message_id for message_id, script in zip(ids, scripts, strict=True) if script == "0901"}
    assert set(await world.ledger.refunds()) == refused
    assert len(await rows_of(world.database, outbox)) == scripts.count("0909")


# ---- the simulated network ---------------------------------------------------------------------------------


def submission(recipient=PHONE, attempt=1):
    return Submission("m", "+2899682626", recipient, "Hello", Encoding.GSM7, 1, attempt, 10**14)


async def test_a_receipt_that_was_not_acknowledged_is_sent_again_after_a_restart(world):
    await world.simulator.submit([submission()])
    taken = []

    class Forgetful:
        """Takes receipts, and is killed before it can say so."""

        async def receive(self, receipts):
            taken.extend(receipts)
            raise asyncio.CancelledError

        async def receive_text(self, text):
            raise AssertionError("no phone texts here")

    async with asyncio.timeout(BOUND_S):
        for _ in range(2):
            simulating = asyncio.create_task(SimulatedCarrier(world.database, world.clock).run(Forgetful()))
            await asyncio.wait([simulating])
            world.clock.advance(RECEIPT_LEASE_MS / 1000)
    assert len(taken) == 2
    assert taken[0].reference == taken[1].reference
    async with world.running():
        await world.reported(1)

        async def settled():
            return await rows_of(world.database, simulated_receipts) == []

        await world.database.until(settled)


async def test_receipts_that_one_process_took_to_send_no_other_gets_before_its_lease_ends(world):
    await world.simulator.submit([submission() for _ in range(20)])

    async def take(now_ms, acknowledged=NOTHING):
        until_ms = now_ms + RECEIPT_LEASE_MS
        return await world.database.write(
            lambda tx: store.next_owed(tx, acknowledged, now_ms=now_ms, until_ms=until_ms, most=15)
        )

    began_ms = world.clock.now_ms()
    first = await take(began_ms)
    second = await take(began_ms + 1)
    lease_ms = began_ms + RECEIPT_LEASE_MS
    assert (len(first.receipts), len(second.receipts), second.next_ms) == (15, 5, lease_ms)
    assert len({receipt.reference for receipt in (*first.receipts, *second.receipts)}) == 20
    assert await take(began_ms + 2, second) == Owed([], [], lease_ms)
    again = await take(lease_ms)
    assert {receipt.reference for receipt in again.receipts} == {r.reference for r in first.receipts}
    assert again.next_ms is None


TEXTING = {
    "0911": "STOP",
    "0912": "I am away and will read your message when I am back.",
    "0913": "Hello",
}


@pytest.mark.parametrize(("script", "answer"), TEXTING.items())
async def test_phones_that_text_back_do_so_once_for_each_text(world, script, answer):
    async with world.running():
        message_id = await world.send(phone(script))
        await world.until(message_id, Status.DELIVERED)

        async def texted():
            return world.texts and await rows_of(world.database, simulated_answers) == []

        await world.database.until(texted)
    (text,) = world.texts
    (on_the_phone,) = await rows_of(world.database, simulated_texts)
    assert (text.carrier, text.sender, text.content) == ("simulator", phone(script), answer)
    assert text.reference == on_the_phone["id"]


async def test_what_a_phone_texts_back_is_sent_again_under_the_same_reference_until_it_is_taken(world):
    await world.simulator.submit([submission(phone("0911"))])
    brought = []

    class Refusing:
        """Takes receipts, and has no room for the first of the texts."""

        async def receive(self, receipts):
            return None

        async def receive_text(self, text):
            brought.append(text)
            raise StoreUnavailable if len(brought) == 1 else asyncio.CancelledError

    simulating = asyncio.create_task(SimulatedCarrier(world.database, world.clock).run(Refusing()))
    async with asyncio.timeout(BOUND_S):
        await asyncio.wait([simulating])
    # What was brought twice is still owed, for nobody has said that it was taken in.
    assert [text.reference for text in brought] == [brought[0].reference] * 2
    assert len(await rows_of(world.database, simulated_answers)) == 1
    world.clock.advance(RECEIPT_LEASE_MS / 1000)
    async with world.running():

        async def settled():
            return await rows_of(world.database, simulated_answers) == []

        await world.database.until(settled)
    assert [text.reference for text in world.texts] == [brought[0].reference]


async def test_receipts_are_sent_again_until_they_are_taken(world):
    await world.simulator.submit([submission()])
    world.database.out_of_order = True
    async with world.running():
        await world.database.next_write()
        world.database.out_of_order = False
        assert len(await world.reported(1)) == 1


async def test_a_network_without_its_store_takes_nothing_and_says_later(world):
    world.database.out_of_order = True
    answers = await world.simulator.submit(
        [submission(), submission(phone("0901")), submission(phone("0905"))]
    )
    assert [type(answer) for answer in answers] == [Throttled, Refused, Throttled]
    world.database.out_of_order = False
    assert await rows_of(world.database, simulated_texts) == []


async def test_texts_are_forgotten_after_a_day(world):
    await world.simulator.submit([submission() for _ in range(1_500)])
    world.clock.advance(24 * 3600)
    await world.simulator.submit([submission()])
    await world.simulator.purge(world.clock.now_ms())
    assert len(await rows_of(world.database, simulated_texts)) == 1_501
    world.clock.advance(0.001)
    await world.simulator.purge(world.clock.now_ms())
    assert len(await rows_of(world.database, simulated_texts)) == 1


async def test_an_inbox_is_listed_newest_first_in_pages_of_its_own(world):
    for number in range(5):
        text = submission()
        await world.simulator.submit(
            [Submission(f"m{number}", text.sender, PHONE, f"text {number}", Encoding.GSM7, 1, 1, 10**14)]
        )
    await world.simulator.submit([submission(phone("0777"))])
    inbox = Inbox(world.database)
    first = await inbox.list_texts(PHONE, 2, "")
    second = await inbox.list_texts(PHONE, 2, first.next_token)
    last = await inbox.list_texts(PHONE, 2, second.next_token)
    contents = [row.content for page in (first, second, last) for row in page.rows]
    assert contents == [f"text {number}" for number in (4, 3, 2, 1, 0)]
    assert last.next_token == ""
    assert first.rows[0].received_at_ms == world.clock.now_ms()
    with pytest.raises(InvalidPageToken):
        await inbox.list_texts(phone("0777"), 2, first.next_token)
    for nobody in ("", "07700 900000"):
        with pytest.raises(InvalidRecipient):
            await inbox.list_texts(nobody, 0, "")
