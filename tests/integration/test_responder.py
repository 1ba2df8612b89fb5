"""Automatic replies on their way out: each once, once more at most where nobody knows, and never for ever."""

import asyncio
import contextlib
from typing import Any

import pytest

from hydrasms_base.ids import new_id
from hydrasms_base.metrics import Metrics
from hydrasms_core.carriers.base import AnswerLost, Receipt, ReceiptStatus, Refused, Submitted, Throttled
from hydrasms_core.carriers.registry import Carriers
from hydrasms_core.inbound import replies_store, store
from hydrasms_core.inbound.replies import Reply, ReplyKind
from hydrasms_core.inbound.responder import Responder
from hydrasms_core.inbound.responding import ReplyStatus
from hydrasms_core.inbound.tables import replies
from hydrasms_core.messaging import delivery_store
from hydrasms_core.messaging.receipts import ReceiptIntake
from hydrasms_core.messaging.tables import carrier_references, receipts
from hydrasms_core.settings import ReplySettings
from tests.support.delivery import BOUND_S, ObservedDatabase, ToldCarrier, rows_of

PHONE = "+447700900123"
SENT_FROM = "+447700900000"


class Desk:
    """One process's responder, over a database that outlives it."""

    def __init__(self, database, clock, carrier=None, **settings):
        self.database = database
        self.clock = clock
        self.carrier = carrier or ToldCarrier()
        self.responder = Responder(
            database,
            Carriers([self.carrier]),
            clock,
            Metrics(),
            ReplySettings(sent_from=SENT_FROM, idle_s=3600.0, pace_s=0.0, **settings),
        )

    @contextlib.asynccontextmanager
    async def running(self):
        working = asyncio.create_task(self.responder.run())
        try:
            yield self
        finally:
            async with asyncio.timeout(BOUND_S):
                await self.responder.stop()
                await working

    async def queue(self, number=1):
        now_ms = self.clock.now_ms()
        queued = [Reply(new_id(), PHONE, f"Hello {n}", ReplyKind.UNKNOWN, now_ms) for n in range(number)]
        await self.database.write(lambda tx: store.queue_replies(tx, queued))
        self.responder.wake()
        return [reply.id for reply in queued]

    async def until(self, status, number=1, attempts=None):
        """Wait until so many replies have a status, and let go of; returns the first of them."""
        found: list[dict[str, Any]] = []

        async def holds():
            found[:] = [
                row
                for row in await rows_of(self.database, replies)
                if row["status"] == status and row["claim"] == "" and attempts in (None, row["attempts"])
            ]
            return len(found) >= number

        await self.database.until(holds)
        return found[0]

    def pass_time(self, seconds):
        self.clock.advance(seconds)
        self.responder.wake()


@pytest.fixture
async def observed(database):
    return ObservedDatabase(database)


@pytest.fixture
def desk(observed, clock):
    return Desk(observed, clock)


async def test_a_reply_goes_to_the_carrier_once_from_the_platforms_number(desk):
    async with desk.running():
        (reply_id,) = await desk.queue()
        row = await desk.until("sent")
    (submission,) = desk.carrier.submitted
    assert (submission.message_id, submission.sender, submission.recipient, submission.content) == (
        reply_id,
        SENT_FROM,
        PHONE,
        "Hello 0",
    )
    assert (submission.attempt, row["attempts"], row["duplicate_risk"]) == (1, 1, 0)


async def test_many_replies_go_in_batches_none_twice(observed, clock):
    desk = Desk(observed, clock, max_batch=7)
    ids = await desk.queue(30)
    async with desk.running():
        await desk.until("sent", 30)
    assert sorted(submission.message_id for submission in desk.carrier.submitted) == sorted(ids)
    assert max(desk.carrier.batches) <= 7


async def test_two_responders_share_the_replies(observed, clock):
    carrier = ToldCarrier()
    first, second = Desk(observed, clock, carrier, max_batch=5), Desk(observed, clock, carrier, max_batch=5)
    ids = await first.queue(60)
    async with first.running(), second.running():
        await first.until("sent", 60)
    assert sorted(submission.message_id for submission in carrier.submitted) == sorted(ids)


async def test_a_refused_reply_is_given_up(desk):
    desk.carrier.answer = lambda _: Refused("no")
    async with desk.running():
        await desk.queue()
        await desk.until("failed")
        desk.pass_time(3000)
    assert len(desk.carrier.submitted) == 1


async def test_a_throttled_reply_goes_later_and_not_after_its_hour(desk):
    desk.carrier.answer = lambda _: Throttled("busy", 1_000)
    async with desk.running():
        await desk.queue()
        for attempt in range(1, 4):
            row = await desk.until("queued", attempts=attempt)
            assert row["due_at_ms"] > desk.clock.now_ms()
            if attempt == 3:
                break
            desk.pass_time(300)
        desk.pass_time(3601)
        await desk.until("failed")
    assert [submission.attempt for submission in desk.carrier.submitted] == [1, 2, 3]


async def test_a_reply_whose_answer_was_lost_goes_once_more_and_never_again(desk):
    desk.carrier.answer = lambda _: AnswerLost("silence")
    async with desk.running():
        await desk.queue()
        row = await desk.until("queued", attempts=1)
        assert row["duplicate_risk"] == 1
        desk.pass_time(2)
        await desk.until("failed")
        desk.pass_time(300)
    assert len(desk.carrier.submitted) == 2


async def test_a_carrier_that_breaks_counts_as_a_lost_answer(observed, clock):
    class Broken(ToldCarrier):
        async def submit(self, submissions):
            await super().submit(submissions)
            raise RuntimeError("a bug of the carrier's")

    desk = Desk(observed, clock, Broken())
    async with desk.running():
        await desk.queue()
        await desk.until("queued", attempts=1)
        desk.pass_time(2)
        await desk.until("failed")
    assert len(desk.carrier.submitted) == 2


async def die_with_it(desk):
    """Let a worker take a reply, hand it on, and die before it can say what came of it."""
    desk.carrier.may_answer.clear()
    working = asyncio.create_task(desk.responder.run())
    await desk.carrier.until_batches(len(desk.carrier.batches) + 1)
    working.cancel()
    await asyncio.wait([working])
    desk.carrier.may_answer.set()


async def test_a_reply_of_a_worker_that_died_goes_once_more_and_never_again(observed, clock):
    first = Desk(observed, clock)
    await first.queue()
    await die_with_it(first)
    clock.advance(31)
    await die_with_it(Desk(observed, clock, first.carrier))
    assert len(first.carrier.submitted) == 2
    clock.advance(31)
    third = Desk(observed, clock, first.carrier)
    async with third.running():
        await third.until("failed")
    assert len(first.carrier.submitted) == 2


async def test_whoever_owns_the_database_alone_need_not_wait_for_a_dead_workers_lease(observed, clock):
    first = Desk(observed, clock)
    await first.queue()
    await die_with_it(first)
    second = Desk(observed, clock, first.carrier)
    await second.responder.release_claims()
    async with second.running():
        row = await second.until("sent")
    assert (row["attempts"], row["duplicate_risk"]) == (2, 1)


async def test_a_worker_that_has_lost_its_claim_changes_nothing(observed, clock):
    desk = Desk(observed, clock)
    (reply_id,) = await desk.queue()
    desk.carrier.may_answer.clear()
    async with desk.running():
        await desk.carrier.until_batches(1)
        await observed.write(lambda tx: replies_store.fail(tx, [reply_id]))
        desk.carrier.may_answer.set()
        await observed.next_written()
    (row,) = await rows_of(observed, replies)
    assert row["status"] == ReplyStatus.FAILED
    assert await rows_of(observed, carrier_references) == []


async def test_a_store_that_is_gone_for_a_while_is_waited_for(observed, clock):
    desk = Desk(observed, clock)
    await desk.queue()
    desk.carrier.may_answer.clear()
    async with desk.running():
        await desk.carrier.until_batches(1)
        observed.out_of_order = True
        desk.carrier.may_answer.set()
        await observed.next_write()
        observed.out_of_order = False
        await desk.until("sent")
    assert len(desk.carrier.submitted) == 1


async def test_a_reply_that_was_queued_before_the_clock_was_set_back_goes_at_once(desk):
    await desk.queue()
    desk.clock.jump(-3600)
    async with desk.running():
        await desk.until("sent")


@pytest.mark.parametrize("first", [True, False], ids=["before its answer", "after it"])
async def test_receipts_of_replies_are_kept_and_move_nothing(observed, clock, first):
    desk = Desk(observed, clock)
    intake = ReceiptIntake(observed, clock, Metrics())
    (reply_id,) = await desk.queue()
    receipt = Receipt("told", f"ref-{reply_id}", ReceiptStatus.DELIVERED, clock.now_ms())
    if first:
        await intake.receive([receipt])
    async with desk.running():
        await desk.until("sent")
    if not first:
        await intake.receive([receipt, receipt])
    rows = await rows_of(observed, receipts)
    assert {(row["message_id"], row["account_id"], row["applied"]) for row in rows} == {(reply_id, "", 0)}


async def test_a_receipt_for_a_message_that_is_gone_is_kept_and_moves_nothing(observed, clock):
    gone = new_id()
    await observed.write(
        lambda tx: delivery_store.add_references(tx, "told", [(new_id(), gone, "r1")], lane=0)
    )
    receipt = Receipt("told", "r1", ReceiptStatus.UNDELIVERED, clock.now_ms())
    await ReceiptIntake(observed, clock, Metrics()).receive([receipt])
    (row,) = await rows_of(observed, receipts)
    assert (row["message_id"], row["applied"]) == (gone, 0)


async def test_the_carrier_has_it_and_the_reply_is_done_only_together(observed, clock):
    # What is sent has its reference, so that no report on it is ever one of an unknown message.
    desk = Desk(observed, clock)
    ids = await desk.queue(5)
    desk.carrier.answer = lambda submission: (
        Submitted(f"ref-{submission.message_id}") if submission.message_id == ids[0] else Refused("no")
    )
    async with desk.running():
        await desk.until("failed", 4)
    (reference,) = await rows_of(observed, carrier_references)
    assert (reference["reference"], reference["message_id"]) == (f"ref-{ids[0]}", ids[0])
