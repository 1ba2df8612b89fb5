"""The dispatcher and the intake of receipts at work, over a real database."""

import asyncio
import random

import pytest

from hydrasms_base.clock import SystemClock
from hydrasms_base.metrics import Metrics
from hydrasms_core.carriers.base import (
    Answer,
    AnswerLost,
    Receipt,
    ReceiptStatus,
    Refused,
    Submitted,
    Throttled,
)
from hydrasms_core.carriers.registry import Carriers
from hydrasms_core.errors import StoreUnavailable
from hydrasms_core.messaging.dispatcher import Dispatcher
from hydrasms_core.messaging.model import Status
from hydrasms_core.messaging.tables import outbox, receipts
from hydrasms_core.settings import DeliverySettings
from tests.support.consent import consent_book
from tests.support.delivery import BOUND_S, PHONE, ToldCarrier, message_of, queue, queued_message, rows_of
from tests.support.world import NEVER_S, World, phone

LEASE_S = 30


# ---- claims and leases -------------------------------------------------------------------------------------


async def test_nothing_leaves_before_its_claim_is_durable(make_world, database):
    seen = []

    class Watching(ToldCarrier):
        async def submit(self, submissions):
            seen.extend([(await message_of(database, s.message_id)).status for s in submissions])
            return await super().submit(submissions)

    async with make_world(Watching()).running() as world:
        await world.until(await world.send(PHONE), Status.SUBMITTED)
    assert seen == [Status.SUBMITTING]


async def test_a_worker_that_comes_back_after_its_lease_changes_nothing(make_world):
    slow, quick = ToldCarrier(), ToldCarrier()
    slow.may_answer.clear()
    slow.answer = lambda submission: Refused("too late")
    async with make_world(slow).running() as stale:
        message_id = await stale.send(PHONE)
        await slow.until_batches(1)
        async with make_world(quick).running() as other:
            other.pass_time(LEASE_S)
            taken_over = await other.until(message_id, Status.SUBMITTED)
            assert (taken_over.attempts, taken_over.duplicate_risk) == (2, True)
            slow.may_answer.set()
            await other.database.until(
                lambda: counts(stale, "settlements", carrier="told", status="claim_lost")
            )
            assert await other.message(message_id) == taken_over
    assert await other.ledger.refunds() == {}


async def counts(world, name, **labels):
    return world.counted(name, **labels) > 0


async def test_a_slow_carriers_lease_is_renewed(make_world, clock):
    slow, quick = ToldCarrier(), ToldCarrier()
    slow.may_answer.clear()
    async with make_world(slow, lease_s=0.3).running() as world:
        message_id = await world.send(PHONE)
        await slow.until_batches(1)
        async with make_world(quick).running() as other:
            for _ in range(5):
                clock.advance(0.2)
                now_ms = clock.now_ms()

                async def renewed(now_ms=now_ms):
                    (row,) = await rows_of(world.database, outbox)
                    return row["due_at_ms"] == now_ms + 300

                await world.database.until(renewed)
                other.dispatcher.wake()
                await other.database.next_write()
            slow.may_answer.set()
            message = await world.until(message_id, Status.SUBMITTED)
    assert (message.attempts, message.duplicate_risk, quick.submitted) == (1, False, [])


async def test_a_clock_that_jumps_takes_no_message_from_its_own_worker(make_world):
    carrier = ToldCarrier()
    carrier.may_answer.clear()
    async with make_world(carrier).running() as world:
        message_id = await world.send(PHONE)
        await carrier.until_batches(1)
        world.pass_time(3600)
        second = await world.send(PHONE)
        await carrier.until_batches(2)
        assert [submission.message_id for submission in carrier.submitted] == [message_id, second]
        carrier.may_answer.set()
        message = await world.until(message_id, Status.SUBMITTED)
        assert (message.attempts, message.duplicate_risk) == (1, False)


async def test_a_predecessors_claims_are_taken_over_at_once_where_it_was_alone(make_world):
    dead, carrier = ToldCarrier(), ToldCarrier()
    dead.may_answer.clear()
    world = make_world(dead)
    dispatching = asyncio.create_task(world.dispatcher.run())
    message_id = await world.send(PHONE)
    await dead.until_batches(1)
    dispatching.cancel()
    await asyncio.wait([dispatching])
    successor = make_world(carrier)
    await successor.dispatcher.release_claims()
    async with successor.running():
        message = await successor.until(message_id, Status.SUBMITTED)
    assert (message.attempts, message.duplicate_risk) == (2, True)


async def test_several_batches_may_be_with_a_carrier_but_no_more_than_allowed(make_world):
    carrier = ToldCarrier()
    carrier.may_answer.clear()
    async with make_world(carrier, max_batch=2, max_in_flight=3).running() as world:
        ids = await world.send(*[PHONE] * 11)
        await carrier.until_batches(3)
        world.dispatcher.wake()
        assert carrier.batches == [2, 2, 2]
        carrier.may_answer.set()
        for message_id in ids:
            await world.until(message_id, Status.SUBMITTED)
    assert sum(carrier.batches) == 11
    assert max(carrier.batches) == 2


async def test_a_slow_carrier_holds_up_no_other_in_the_same_claim(observed, ledger, clock):
    slow, quick = ToldCarrier(name="slow"), ToldCarrier(name="quick")
    slow.may_answer.clear()

    class ByLastDigit(Carriers):
        def route(self, recipient):
            return self.named("slow" if recipient.endswith("1") else "quick")

    world = World(observed, ledger, clock)
    world.dispatcher = Dispatcher(
        observed,
        ledger,
        consent_book(),
        ByLastDigit([slow, quick]),
        clock,
        Metrics(),
        DeliverySettings(pace_s=0.0),
    )
    async with world.running():
        first, second = await world.send(phone("0551"), phone("0552"))
        assert (await world.until(second, Status.SUBMITTED)).carrier == "quick"
        assert (await world.message(first)).status is Status.SUBMITTING
        slow.may_answer.set()
        assert (await world.until(first, Status.SUBMITTED)).carrier == "slow"


# ---- waking, resting and stopping --------------------------------------------------------------------------


async def test_a_call_wakes_the_dispatcher_and_nothing_else_does(make_world):
    carrier = ToldCarrier()
    async with make_world(carrier).running() as world:
        await world.database.next_write()
        await queue(world.database, queued_message(world.clock.now_ms()))
        # Without the call nothing happens, however long.
        with pytest.raises(TimeoutError):
            await world.database.next_write(within_s=0.3)
        assert carrier.submitted == []
        world.dispatcher.wake()
        await carrier.until_batches(1)


async def test_an_idle_dispatcher_leaves_the_database_alone(make_world):
    async with make_world(ToldCarrier()).running() as world:
        await world.until(await world.send(PHONE), Status.SUBMITTED)
        with pytest.raises(TimeoutError):
            await world.database.next_write(within_s=1.0)


async def test_what_falls_due_later_needs_no_call(observed, ledger):
    answers: list[Answer] = [Throttled("busy", 50), AnswerLost("gone"), Submitted("r")]
    carrier = ToldCarrier(lambda submission: answers.pop(0))
    async with World(observed, ledger, SystemClock(), carrier).running() as world:
        message = await world.until(await world.send(PHONE), Status.SUBMITTED)
    assert (message.attempts, message.duplicate_risk) == (3, True)


async def test_what_comes_soon_after_a_claim_shares_the_next_one(make_world):
    carrier = ToldCarrier()
    async with make_world(carrier, pace_s=1.5).running() as world:
        await world.database.next_written()
        for _ in range(5):
            await world.send(PHONE)
        await carrier.until_batches(1)
    assert carrier.batches == [5]


async def test_a_backlog_is_not_paced(make_world):
    carrier = ToldCarrier()
    world = make_world(carrier, max_batch=2, pace_s=NEVER_S)
    await queue(world.database, *(queued_message(world.clock.now_ms()) for _ in range(7)))
    async with world.running():
        await carrier.until_batches(4)
    assert carrier.batches == [2, 2, 2, 1]


async def test_a_call_during_a_claim_is_not_lost(make_world):
    async with make_world(ToldCarrier()).running() as world:
        for _ in range(30):
            ids = await asyncio.gather(*(world.send(PHONE) for _ in range(3)))
            for message_id in ids:
                await world.until(message_id, Status.SUBMITTED)


async def test_stopping_waits_for_what_carriers_have_and_claims_no_more(make_world):
    carrier = ToldCarrier()
    carrier.may_answer.clear()
    world = make_world(carrier)
    dispatching = asyncio.create_task(world.dispatcher.run())
    first = await world.send(PHONE)
    await carrier.until_batches(1)
    # A claim that is under way would see what is sent next.
    for _ in range(2):
        world.dispatcher.wake()
        await world.database.next_written()
    stopping = asyncio.create_task(world.dispatcher.stop())
    second = await world.send(PHONE)
    assert not stopping.done()
    assert (await world.message(first)).status is Status.SUBMITTING
    carrier.may_answer.set()
    async with asyncio.timeout(BOUND_S):
        await stopping
        await dispatching
    assert (await world.message(first)).status is Status.SUBMITTED
    assert (await world.message(second)).status is Status.QUEUED


async def test_stopping_what_never_ran_or_only_just_began_returns(make_world):
    async with asyncio.timeout(BOUND_S):
        await make_world().dispatcher.stop()
        begun = make_world()
        dispatching = asyncio.create_task(begun.dispatcher.run())
        await begun.dispatcher.stop()
        await dispatching


# ---- what goes wrong ---------------------------------------------------------------------------------------


async def test_a_store_that_is_gone_is_waited_for(make_world):
    carrier = ToldCarrier()
    async with make_world(carrier).running() as world:
        await world.database.next_written()
        await queue(world.database, queued_message(world.clock.now_ms()))
        world.database.out_of_order = True
        world.dispatcher.wake()
        await world.database.next_write()
        await world.database.next_write()
        assert carrier.submitted == []
        world.database.out_of_order = False
        await carrier.until_batches(1)


async def test_answers_outlast_a_store_that_is_gone(make_world):
    carrier = ToldCarrier()
    carrier.may_answer.clear()
    async with make_world(carrier).running() as world:
        message_id = await world.send(PHONE)
        await carrier.until_batches(1)
        world.database.out_of_order = True
        carrier.may_answer.set()
        await world.database.next_write()
        world.clock.advance(LEASE_S * 2)
        await world.database.next_write()
        world.database.out_of_order = False
        message = await world.until(message_id, Status.SUBMITTED)
    assert (message.attempts, message.duplicate_risk, len(carrier.submitted)) == (1, False, 1)


async def test_stopping_does_not_wait_for_ever_for_a_store_that_is_gone(make_world):
    carrier = ToldCarrier()
    carrier.may_answer.clear()
    world = make_world(carrier)
    dispatching = asyncio.create_task(world.dispatcher.run())
    message_id = await world.send(PHONE)
    await carrier.until_batches(1)
    world.database.out_of_order = True
    carrier.may_answer.set()
    async with asyncio.timeout(BOUND_S):
        await world.dispatcher.stop()
        await dispatching
    # Nobody knows what the carrier has: the claim stays on it for whoever comes next.
    assert (await world.message(message_id)).status is Status.SUBMITTING
    (row,) = await rows_of(world.database, outbox)
    assert row["claim"]


@pytest.mark.parametrize("answers", [RuntimeError("a bug"), []], ids=["raises", "answers too little"])
async def test_a_carrier_that_breaks_its_contract_leaves_its_messages_uncertain(make_world, answers):
    class Broken(ToldCarrier):
        async def submit(self, submissions):
            await super().submit(submissions)
            if isinstance(answers, Exception):
                raise answers
            return answers

    async with make_world(Broken()).running() as world:
        message_id = await world.send(PHONE)
        await world.until_released(message_id, attempts=1)
        world.pass_time(1)
        message = await world.until(message_id, Status.UNKNOWN)
    assert (message.attempts, message.duplicate_risk) == (2, True)
    assert await world.ledger.refunds() == {}


async def test_a_fault_of_ours_ends_the_dispatcher_and_is_seen(make_world):
    world = make_world()

    async def fail(tx, charges, *, at_ms):
        raise ZeroDivisionError("a bug")

    world.ledger.refund = fail
    dispatching = asyncio.create_task(world.dispatcher.run())
    message_id = await world.send(phone("0901"))
    async with asyncio.timeout(BOUND_S):
        with pytest.raises(ExceptionGroup) as raised:
            await dispatching
        await world.dispatcher.stop()
    assert raised.value.subgroup(ZeroDivisionError) is not None
    assert (await world.message(message_id)).status is Status.SUBMITTING


# ---- receipts ----------------------------------------------------------------------------------------------


async def test_receipts_in_any_order_any_number_of_times_settle_each_message_once(make_world, clock):
    source = random.Random(12)
    carrier = ToldCarrier()
    carrier.may_answer.clear()
    async with make_world(carrier, max_batch=50, max_in_flight=4).running() as world:
        ids = await world.send(*[PHONE] * 200)
        final = {message_id: source.choice(list(ReceiptStatus)) for message_id in ids}
        told = [(message_id, final[message_id]) for message_id in ids] * 5
        told += [(f"stranger-{number}", ReceiptStatus.DELIVERED) for number in range(50)]
        source.shuffle(told)
        await carrier.until_batches(4)
        half = len(told) // 2
        await report(world, told[:half], source)
        carrier.may_answer.set()
        await report(world, told[half:], source)
        for message_id in ids:
            await world.until(message_id, Status(final[message_id].value))
        # Every one of them has been settled, so the opposite comes too late.
        opposite = {
            ReceiptStatus.DELIVERED: ReceiptStatus.UNDELIVERED,
            ReceiptStatus.UNDELIVERED: ReceiptStatus.DELIVERED,
            ReceiptStatus.EXPIRED: ReceiptStatus.DELIVERED,
        }
        await report(world, [(message_id, opposite[final[message_id]]) for message_id in ids], source)
        for message_id in ids:
            assert (await world.message(message_id)).status.value == final[message_id].value
    stored = await rows_of(world.database, receipts)
    assert len(stored) == 200 * 6 + 50
    assert sum(row["applied"] for row in stored) == 200
    assert sum(row["message_id"] == "" for row in stored) == 50
    assert await rows_of(world.database, outbox) == []
    assert await world.ledger.refunds() == {}


async def report(world, told, source):
    """Bring receipts in from several connections at once, in calls of different sizes."""
    calls = []
    while told:
        size = source.randint(1, 20)
        calls.append(told[:size])
        told = told[size:]
    await asyncio.gather(
        *(
            world.intake.receive(
                [
                    Receipt("told", name if name.startswith("stranger") else f"ref-{name}", status, 1)
                    for name, status in call
                ]
            )
            for call in calls
        )
    )


async def test_receipts_are_counted_by_what_they_did(make_world):
    async with make_world(ToldCarrier()).running() as world:
        message_id = await world.send(PHONE)
        await world.until(message_id, Status.SUBMITTED)
        one = Receipt("told", f"ref-{message_id}", ReceiptStatus.DELIVERED, 1)
        await world.intake.receive([one, one, Receipt("told", "stranger", ReceiptStatus.DELIVERED, 1)])
        await world.intake.receive([])
    for outcome in ("moved", "ignored", "parked"):
        assert world.counted("receipts", carrier="told", outcome=outcome) == 1
    assert world.counted("submissions", carrier="told") == 1
    assert world.counted("settlements", carrier="told", status="submitted") == 1


async def test_receipts_are_refused_while_the_store_is_gone(world):
    world.database.out_of_order = True
    with pytest.raises(StoreUnavailable):
        await world.intake.receive([Receipt("told", "r", ReceiptStatus.DELIVERED, 1)])
    world.database.out_of_order = False
    assert await rows_of(world.database, receipts) == []


def test_carriers_have_names_of_their_own():
    carrier = ToldCarrier()
    assert Carriers([carrier, ToldCarrier(name="other")]).named("other").name == "other"
    assert Carriers([carrier]).route(PHONE) is carrier
    for wrong in ([], [carrier, ToldCarrier()]):
        with pytest.raises(ValueError, match="its own name"):
            Carriers(wrong)
