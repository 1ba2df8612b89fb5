"""Every final status of a message is told once, in the transaction that sets it."""

import pytest

from hydrasms_core.carriers.base import AnswerLost, Receipt, ReceiptStatus, Refused, Submitted, Throttled
from hydrasms_core.carriers.registry import Carriers
from hydrasms_core.events import store as events_store
from hydrasms_core.events.bell import Bell
from hydrasms_core.events.model import BEGINNING
from hydrasms_core.events.recording import RecordedHappenings
from hydrasms_core.messaging.delivery import NO_RECEIPT
from hydrasms_core.messaging.handover import Handover
from hydrasms_core.messaging.receipts import take_in
from hydrasms_core.messaging.service import Messaging
from hydrasms_core.settings import DeliverySettings, MessagingSettings
from tests.support.consent import FakeConsent
from tests.support.delivery import (
    ACCOUNT,
    VALIDITY_MS,
    ObservedDatabase,
    RecordedCredits,
    ToldCarrier,
    queue,
    queued_message,
)
from tests.support.messaging import FakeCredits, FakeSendingAccounts


class Desk:
    """A worker's transactions, each on its own, whose events are kept."""

    def __init__(self, database, ledger, clock):
        self.database = database
        self.clock = clock
        self.happenings = RecordedHappenings(Bell())
        self.handover = Handover(
            ledger,
            FakeConsent(),
            Carriers([ToldCarrier()]),
            clock,
            DeliverySettings(),
            happenings=self.happenings,
        )

    async def queue(self, number=1, **changes):
        return await queue(
            self.database, *(queued_message(self.clock.now_ms(), **changes) for _ in range(number))
        )

    async def claim(self):
        return await self.database.write(lambda tx: self.handover.claim(tx, ()))

    async def answer(self, *answers):
        claim = await self.claim()
        batch = claim.batches["told"]
        await self.database.write(lambda tx: self.handover.settle(tx, claim.id, "told", batch, answers))

    async def report(self, *reports):
        taken = [
            Receipt("told", reference, status, self.clock.now_ms(), "gone") for reference, status in reports
        ]
        await self.database.write(
            lambda tx: take_in(tx, taken, at_ms=self.clock.now_ms(), happenings=self.happenings)
        )

    async def told(self):
        """Return what was told: message, status, whether refunded, failure."""
        found = await self.database.read(
            lambda tx: events_store.read_after(tx, ACCOUNT, BEGINNING, most=1_000)
        )
        assert all(event.type == "message_status_changed" for event in found)
        return [
            (event.subject_id, event.detail["status"], event.detail["refunded"], event.detail["failure"])
            for event in found
        ]


@pytest.fixture
async def desk(database, clock):
    return Desk(database, await RecordedCredits(database).open(), clock)


async def test_being_on_the_way_is_not_told(desk):
    await desk.queue(2)
    await desk.answer(Submitted("r"), Throttled("slow down", 1))
    assert await desk.told() == []


async def test_a_refusal_is_told_with_its_refund(desk):
    (message_id,) = await desk.queue()
    await desk.answer(Refused("no such phone"))
    assert await desk.told() == [(message_id, "rejected", True, "no such phone")]


async def test_a_receipt_is_told_once_however_often_it_comes(desk):
    delivered, undelivered = await desk.queue(2)
    await desk.answer(Submitted("r1"), Submitted("r2"))
    await desk.report(("r1", ReceiptStatus.DELIVERED), ("r2", ReceiptStatus.UNDELIVERED))
    await desk.report(
        ("r1", ReceiptStatus.DELIVERED), ("r2", ReceiptStatus.DELIVERED), ("r9", ReceiptStatus.EXPIRED)
    )
    assert sorted(await desk.told()) == sorted(
        [(delivered, "delivered", False, "gone"), (undelivered, "undelivered", False, "gone")]
    )


async def test_a_receipt_that_came_before_the_answer_is_told_with_it(desk):
    (message_id,) = await desk.queue()
    await desk.report(("r", ReceiptStatus.EXPIRED))
    assert await desk.told() == []
    await desk.answer(Submitted("r"))
    assert await desk.told() == [(message_id, "expired", False, "gone")]


async def test_the_end_of_a_messages_validity_is_told_with_its_refund(desk):
    (message_id,) = await desk.queue()
    desk.clock.advance(VALIDITY_MS / 1000 + 1)
    await desk.claim()
    assert await desk.told() == [(message_id, "expired", True, "")]


async def test_an_answer_lost_twice_is_told_as_unknown(desk):
    (message_id,) = await desk.queue()
    await desk.answer(AnswerLost("gone"))
    assert await desk.told() == []
    desk.clock.advance(2)
    await desk.answer(AnswerLost("gone"))
    assert await desk.told() == [(message_id, "unknown", False, "gone")]


async def test_a_receipt_that_never_comes_is_told_as_unknown(desk):
    (message_id,) = await desk.queue()
    await desk.answer(Submitted("r"))
    desk.clock.advance(100 * 3600)
    assert await desk.database.write(desk.handover.give_up_receipts) == 1
    assert await desk.database.write(desk.handover.give_up_receipts) == 0
    await desk.report(("r", ReceiptStatus.DELIVERED))
    assert await desk.told() == [
        (message_id, "unknown", False, NO_RECEIPT),
        (message_id, "delivered", False, "gone"),
    ]


async def test_what_is_not_committed_is_not_told(desk):
    await desk.queue()
    claim = await desk.claim()

    async def undone(tx):
        await desk.handover.settle(tx, claim.id, "told", claim.batches["told"], [Refused("no")])
        raise RuntimeError("undone")

    with pytest.raises(RuntimeError):
        await desk.database.write(undone)
    assert await desk.told() == []


async def test_a_message_that_was_taken_back_is_told_once_with_its_refund(desk, database):
    (message_id,) = await desk.queue()
    credits = FakeCredits()
    credits.balances[ACCOUNT] = 0
    messaging = Messaging(
        database,
        credits,
        FakeConsent(),
        FakeSendingAccounts(),
        desk.clock,
        MessagingSettings(),
        lambda: None,
        happenings=desk.happenings,
    )
    for _ in range(2):
        await messaging.cancel(ACCOUNT, message_id, actor="account")
    assert await desk.told() == [(message_id, "cancelled", True, "")]


async def test_a_batch_is_told_in_one_statement(database, clock):
    observed = ObservedDatabase(database)
    desk = Desk(observed, await RecordedCredits(database).open(), clock)

    async def statements(number):
        await desk.queue(number)
        claim = await desk.claim()
        before = observed.statements
        batch = claim.batches["told"]
        answers = [Submitted(f"{claim.id}-{place}") for place in range(number)]
        await observed.write(lambda tx: desk.handover.settle(tx, claim.id, "told", batch, answers))
        await desk.report(*((answer.reference, ReceiptStatus.DELIVERED) for answer in answers))
        return observed.statements - before

    assert await statements(1) == await statements(300)
    assert len(await desk.told()) == 301
