"""What every database promises to delivery: claims, their fence, answers and receipts."""

import re
import sqlite3
from collections import defaultdict

import pytest

from hydrasms_base.ids import new_id
from hydrasms_core.carriers.base import AnswerLost, Receipt, ReceiptStatus, Refused, Submitted, Throttled
from hydrasms_core.carriers.registry import Carriers
from hydrasms_core.carriers.simulator import store as simulator_store
from hydrasms_core.db.dialect import MAX_BOUND_VALUES, SetStatement
from hydrasms_core.db.transaction import IntegrityViolation
from hydrasms_core.messaging import delivery_store
from hydrasms_core.messaging.delivery import MAX_INTERRUPTED
from hydrasms_core.messaging.handover import Handover
from hydrasms_core.messaging.model import Status
from hydrasms_core.messaging.receipts import take_in
from hydrasms_core.messaging.tables import carrier_references, outbox, receipts
from hydrasms_core.settings import DeliverySettings
from tests.support.consent import consent_book
from tests.support.delivery import (
    ObservedDatabase,
    RecordedCredits,
    ToldCarrier,
    everything,
    message_of,
    queue,
    queued_message,
    rows_of,
)

LEASE_S = 30
# However SQLite calls the batch; in a statement that names it in a WITH, by that name.
BATCH_SCAN = re.compile(r"SCAN (json_each |[0-9]+ CONSTANT ROWS|\(subquery-[0-9]+\)|CONSTANT ROW|living$)")
TIMEOUT_S = 72 * 3600


class Desk:
    """A worker's transactions, each on its own."""

    def __init__(self, database, ledger, clock, **settings):
        self.database = database
        self.clock = clock
        self.handover = Handover(
            ledger, consent_book(), Carriers([ToldCarrier()]), clock, DeliverySettings(**settings)
        )

    async def claim(self, *living):
        return await self.database.write(lambda tx: self.handover.claim(tx, living))

    async def settle(self, claim, answers):
        batch = claim.batches["told"]
        return await self.database.write(
            lambda tx: self.handover.settle(tx, claim.id, "told", batch, answers)
        )

    async def report(self, *reports):
        taken = [
            Receipt("told", reference, status, self.clock.now_ms(), failure)
            for reference, status, failure in reports
        ]
        return await self.database.write(lambda tx: take_in(tx, taken, at_ms=self.clock.now_ms()))

    async def submitted(self, *references):
        """Queue, claim and settle messages that the carrier took; returns their ids."""
        ids = await queue(self.database, *(queued_message(self.clock.now_ms()) for _ in references))
        claim = await self.claim()
        assert [submission.message_id for submission in claim.batches["told"].submissions] == ids
        await self.settle(claim, [Submitted(reference) for reference in references])
        return ids


@pytest.fixture
async def ledger(database):
    return await RecordedCredits(database).open()


@pytest.fixture
def desk(database, ledger, clock):
    return Desk(database, ledger, clock)


def ids_in(claim):
    return [submission.message_id for batch in claim.batches.values() for submission in batch.submissions]


async def test_a_claim_is_on_record_before_anything_leaves(desk, database, clock):
    (message_id,) = await queue(database, queued_message(clock.now_ms(), content="Hi", credits=3))
    clock.advance(1)
    claim = await desk.claim()
    message = await message_of(database, message_id)
    assert (message.status, message.attempts, message.carrier) == (Status.SUBMITTING, 1, "told")
    assert (message.updated_at_ms, message.duplicate_risk) == (clock.now_ms(), False)
    (row,) = await rows_of(database, outbox)
    assert (row["claim"], row["due_at_ms"]) == (claim.id, clock.now_ms() + LEASE_S * 1000)
    (submission,) = claim.batches["told"].submissions
    assert (submission.message_id, submission.sender, submission.recipient) == (
        message.id,
        message.sender,
        message.recipient.e164,
    )
    assert (submission.content, submission.encoding, submission.segments) == ("Hi", message.encoding, 1)
    assert (submission.attempt, submission.expires_at_ms) == (1, message.expires_at_ms)


async def test_a_claim_takes_the_longest_due_first_and_no_more_than_a_batch(database, ledger, clock):
    desk = Desk(database, ledger, clock, max_batch=3)
    later = [queued_message(clock.now_ms() + 10 - number) for number in range(5)]
    ids = await queue(database, *later)
    assert ids_in(await desk.claim()) == []
    clock.advance(0.1)
    assert ids_in(await desk.claim()) == [ids[4], ids[3], ids[2]]
    assert ids_in(await desk.claim()) == [ids[1], ids[0]]


async def test_a_claim_says_when_the_next_message_is_due(desk, database, clock):
    assert (await desk.claim()).next_submit_ms is None
    await queue(database, queued_message(clock.now_ms() + 700))
    claim = await desk.claim()
    assert (claim.next_submit_ms, claim.next_receipt_ms) == (clock.now_ms() + 700, None)
    clock.advance(1)
    await desk.settle(await desk.claim(), [Submitted("r")])
    assert (await desk.claim()).next_receipt_ms == clock.now_ms() + TIMEOUT_S * 1000


async def test_what_is_claimed_is_nobody_elses_until_the_lease_runs_out(desk, database, clock):
    (message_id,) = await queue(database, queued_message(clock.now_ms()))
    first = await desk.claim()
    assert ids_in(await desk.claim()) == []
    clock.advance(LEASE_S)
    assert ids_in(await desk.claim(first.id)) == [], "a living claim's lease does not run out on itself"
    assert ids_in(await desk.claim()) == [message_id]


async def test_a_renewed_lease_runs_out_later(desk, database, clock):
    (message_id,) = await queue(database, queued_message(clock.now_ms()))
    claim = await desk.claim()
    clock.advance(LEASE_S - 1)
    await database.write(lambda tx: desk.handover.renew(tx, claim))
    clock.advance(LEASE_S - 1)
    assert ids_in(await desk.claim()) == []
    clock.advance(1)
    assert ids_in(await desk.claim()) == [message_id]


async def test_a_claim_that_was_lost_cannot_be_renewed(desk, database, clock):
    await queue(database, queued_message(clock.now_ms()))
    lost = await desk.claim()
    clock.advance(LEASE_S)
    await desk.claim()
    before = await rows_of(database, outbox)
    clock.advance(1)
    await database.write(lambda tx: desk.handover.renew(tx, lost))
    assert await rows_of(database, outbox) == before


async def test_after_a_restart_claims_need_not_run_out(desk, database, clock):
    ids = await queue(database, queued_message(clock.now_ms()), queued_message(clock.now_ms()))
    throttled, held = ids
    await desk.settle(await Desk(database, None, clock, max_batch=1).claim(), [Throttled("busy", 60_000)])
    await desk.claim()
    clock.advance(1)
    assert await database.write(desk.handover.release_claims) == 1
    claim = await desk.claim()
    assert ids_in(claim) == [held]
    assert (await message_of(database, held)).duplicate_risk
    assert (await message_of(database, throttled)).status is Status.QUEUED


async def test_a_takeover_is_marked_and_stops_after_so_many_attempts(desk, database, ledger, clock):
    (message_id,) = await queue(database, queued_message(clock.now_ms()))
    await desk.claim()
    clock.advance(LEASE_S)
    extra = await desk.claim()
    assert extra.batches["told"].submissions[0].attempt == 2
    message = await message_of(database, message_id)
    assert (message.status, message.attempts, message.duplicate_risk) == (Status.SUBMITTING, 2, True)
    for _ in range(MAX_INTERRUPTED - 2):
        clock.advance(LEASE_S)
        assert ids_in(await desk.claim()) == [message_id]
    clock.advance(LEASE_S)
    last = await desk.claim()
    assert (ids_in(last), last.given_up) == ([], {Status.UNKNOWN: 1})
    message = await message_of(database, message_id)
    assert (message.status, message.attempts, message.duplicate_risk) == (
        Status.UNKNOWN,
        MAX_INTERRUPTED,
        True,
    )
    assert message.failure
    assert await rows_of(database, outbox) == []
    assert await ledger.refunds() == {}


async def stale_and_current(desk, database, clock):
    """Return a claim that was lost to another, with the state that the other one left."""
    await queue(database, queued_message(clock.now_ms()))
    stale = await desk.claim()
    clock.advance(LEASE_S)
    await desk.claim()
    return stale, await everything(database)


@pytest.mark.parametrize(
    "answer",
    [Submitted("late"), Refused("no"), Throttled("busy"), AnswerLost("gone")],
    ids=lambda a: type(a).__name__,
)
async def test_a_worker_that_lost_its_lease_changes_nothing(desk, database, ledger, clock, answer):
    stale, before = await stale_and_current(desk, database, clock)
    settlement = await desk.settle(stale, [answer])
    assert (settlement.lost, settlement.statuses) == (1, {})
    assert await everything(database) == before
    assert await ledger.refunds() == {}


async def believe_every_claim(tx, claim, rows):
    return {row[1] for row in rows}


@pytest.mark.parametrize("answer", [Submitted("late"), Refused("no"), Throttled("busy"), AnswerLost("gone")])
async def test_without_the_fence_it_would(desk, database, clock, answer, monkeypatch):
    stale, before = await stale_and_current(desk, database, clock)
    monkeypatch.setattr(delivery_store, "schedule", believe_every_claim)
    monkeypatch.setattr(delivery_store, "finish", believe_every_claim)
    clock.advance(1)
    assert (await desk.settle(stale, [answer])).lost == 0
    assert await everything(database) != before


async def test_a_refusal_that_is_told_five_times_is_refunded_once(desk, database, ledger, clock):
    ids = await queue(database, *(queued_message(clock.now_ms(), credits=number) for number in (1, 2, 3)))
    claim = await desk.claim()
    for told in range(5):
        settlement = await desk.settle(claim, [Refused("no"), Submitted("r"), Refused("never")])
        assert settlement.lost == (0 if told == 0 else 3)
    assert await ledger.refunds() == {ids[0]: 1, ids[2]: 3}
    assert [(await message_of(database, message_id)).failure for message_id in ids] == ["no", "", "never"]


async def test_without_the_fence_it_would_be_refunded_again(desk, database, ledger, clock, monkeypatch):
    await queue(database, queued_message(clock.now_ms()))
    claim = await desk.claim()
    monkeypatch.setattr(delivery_store, "finish", believe_every_claim)
    await desk.settle(claim, [Refused("no")])
    with pytest.raises(IntegrityViolation):
        await desk.settle(claim, [Refused("no")])


async def test_each_answer_of_a_batch_has_its_own_effect(desk, database, ledger, clock):
    ids = await queue(database, *(queued_message(clock.now_ms(), credits=2) for _ in range(6)))
    answers = [
        Submitted("r1"),
        Refused("no"),
        Throttled("busy", 2_000),
        AnswerLost("gone"),
        Submitted("r2"),
        Refused("never"),
    ]
    settlement = await desk.settle(await desk.claim(), answers)
    assert (settlement.lost, settlement.again) == (0, True)
    found = [await message_of(database, message_id) for message_id in ids]
    assert [(message.status, message.failure) for message in found] == [
        (Status.SUBMITTED, ""),
        (Status.REJECTED, "no"),
        (Status.QUEUED, "busy"),
        (Status.SUBMITTING, "gone"),
        (Status.SUBMITTED, ""),
        (Status.REJECTED, "never"),
    ]
    left = {row["message_id"]: row for row in await rows_of(database, outbox)}
    now_ms = clock.now_ms()
    assert {key: (row["step"], row["due_at_ms"] - now_ms, row["claim"]) for key, row in left.items()} == {
        ids[0]: ("receipt", TIMEOUT_S * 1000, ""),
        ids[2]: ("submit", 2_000, ""),
        ids[3]: ("submit", 1_000, ""),
        ids[4]: ("receipt", TIMEOUT_S * 1000, ""),
    }
    known = {row["reference"]: row["message_id"] for row in await rows_of(database, carrier_references)}
    assert known == {"r1": ids[0], "r2": ids[4]}
    assert await ledger.refunds() == {ids[1]: 2, ids[5]: 2}


async def test_what_grows_old_in_the_queue_expires_and_is_refunded_once(desk, database, ledger, clock):
    now_ms = clock.now_ms()
    ids = await queue(
        database, *(queued_message(now_ms, expires_at_ms=now_ms + 1_000, credits=4) for _ in "ab")
    )
    fresh, *_ = await queue(database, queued_message(now_ms))
    clock.advance(1)
    claim = await desk.claim()
    assert (ids_in(claim), claim.due, claim.given_up) == ([fresh], 3, {Status.EXPIRED: 2})
    for message_id in ids:
        message = await message_of(database, message_id)
        assert (message.status, message.attempts, message.carrier) == (Status.EXPIRED, 0, "")
    assert [row["message_id"] for row in await rows_of(database, outbox)] == [fresh]
    clock.advance(LEASE_S)
    await desk.claim()
    assert await ledger.refunds() == dict.fromkeys(ids, 4)


async def test_a_failing_refund_undoes_the_whole_claim(desk, database, ledger, clock):
    now_ms = clock.now_ms()
    (message_id,) = await queue(database, queued_message(now_ms, expires_at_ms=now_ms))
    before = await everything(database)

    async def fail(tx, charges, *, at_ms):
        raise IntegrityViolation("refunded before")

    ledger.refund = fail
    with pytest.raises(IntegrityViolation):
        await desk.claim()
    assert await everything(database) == before
    assert (await message_of(database, message_id)).status is Status.QUEUED


async def test_a_reference_that_a_carrier_gives_twice_stays_with_the_first(desk, database):
    first, second = await desk.submitted("same", "same")
    await desk.report(("same", ReceiptStatus.DELIVERED, ""))
    assert (await message_of(database, first)).status is Status.DELIVERED
    assert (await message_of(database, second)).status is Status.SUBMITTED


async def test_a_receipt_moves_its_message_once_whatever_follows(desk, database, ledger, clock):
    (message_id,) = await desk.submitted("r")
    clock.advance(5)
    await desk.report(("r", ReceiptStatus.UNDELIVERED, "switched off"))
    moved = await message_of(database, message_id)
    assert (moved.status, moved.failure) == (Status.UNDELIVERED, "switched off")
    assert moved.updated_at_ms == clock.now_ms()
    clock.advance(3600)
    await desk.report(
        ("r", ReceiptStatus.UNDELIVERED, "again"),
        ("r", ReceiptStatus.DELIVERED, ""),
        ("r", ReceiptStatus.EXPIRED, "too old"),
    )
    assert await message_of(database, message_id) == moved
    stored = await rows_of(database, receipts)
    assert [(row["status"], row["applied"], row["message_id"]) for row in stored] == [
        ("undelivered", 1, message_id),
        ("undelivered", 0, message_id),
        ("delivered", 0, message_id),
        ("expired", 0, message_id),
    ]
    assert await rows_of(database, outbox) == []
    assert await ledger.refunds() == {}


async def test_contradictions_in_one_batch_are_settled_by_the_first(desk, database):
    (message_id,) = await desk.submitted("r")
    await desk.report(("r", ReceiptStatus.DELIVERED, ""), ("r", ReceiptStatus.UNDELIVERED, "off"))
    message = await message_of(database, message_id)
    assert (message.status, message.failure) == (Status.DELIVERED, "")
    assert [row["applied"] for row in await rows_of(database, receipts)] == [1, 0]


async def test_receipts_that_come_before_the_answer_wait_for_it(desk, database, clock):
    ids = await queue(database, queued_message(clock.now_ms()), queued_message(clock.now_ms()))
    claim = await desk.claim()
    await desk.report(("r0", ReceiptStatus.DELIVERED, ""), ("elsewhere", ReceiptStatus.DELIVERED, ""))
    await desk.report(("r0", ReceiptStatus.UNDELIVERED, "off"))
    assert {row["message_id"] for row in await rows_of(database, receipts)} == {""}
    assert (await message_of(database, ids[0])).status is Status.SUBMITTING
    await desk.settle(claim, [Submitted("r0"), Submitted("r1")])
    assert (await message_of(database, ids[0])).status is Status.DELIVERED
    assert (await message_of(database, ids[1])).status is Status.SUBMITTED
    stored = [(r["reference"], r["message_id"], r["applied"]) for r in await rows_of(database, receipts)]
    assert stored == [("r0", ids[0], 1), ("elsewhere", "", 0), ("r0", ids[0], 0)]
    assert [row["message_id"] for row in await rows_of(database, outbox)] == [ids[1]]


async def test_a_parked_receipt_of_another_carrier_is_not_taken(desk, database, clock):
    (message_id,) = await queue(database, queued_message(clock.now_ms()))
    claim = await desk.claim()
    other = Receipt("other", "r", ReceiptStatus.DELIVERED, clock.now_ms())
    await database.write(lambda tx: take_in(tx, [other], at_ms=clock.now_ms()))
    await desk.settle(claim, [Submitted("r")])
    assert (await message_of(database, message_id)).status is Status.SUBMITTED


async def test_a_receipt_that_does_not_come_leaves_a_message_unknown_until_it_does(
    desk, database, ledger, clock
):
    (message_id,) = await desk.submitted("r")
    clock.advance(TIMEOUT_S - 1)
    assert await database.write(desk.handover.give_up_receipts) == 0
    clock.advance(1)
    assert await database.write(desk.handover.give_up_receipts) == 1
    unknown = await message_of(database, message_id)
    assert (unknown.status, unknown.updated_at_ms) == (Status.UNKNOWN, clock.now_ms())
    assert unknown.failure
    assert await rows_of(database, outbox) == []
    clock.advance(3600)
    await desk.report(("r", ReceiptStatus.DELIVERED, ""))
    late = await message_of(database, message_id)
    assert (late.status, late.failure) == (Status.DELIVERED, "")
    assert await ledger.refunds() == {}


async def test_the_number_of_statements_does_not_depend_on_the_size_of_a_batch(database, ledger, clock):
    observed = ObservedDatabase(database)
    desk = Desk(observed, ledger, clock)
    kinds = [
        lambda n: Submitted(new_id()),
        lambda n: Throttled(f"busy {n}", n),
        lambda n: AnswerLost(f"{n}"),
    ]

    async def statements(work):
        before = observed.statements
        result = await work
        return observed.statements - before, result

    counts = []
    for size in (12, 300):
        await queue(database, *(queued_message(clock.now_ms()) for _ in range(size)))
        claiming, claim = await statements(desk.claim())
        assert len(ids_in(claim)) == size
        answers = [kinds[number % 3](number) for number in range(size)]
        await desk.report(
            *((a.reference, ReceiptStatus.DELIVERED, "") for a in answers[:3] if isinstance(a, Submitted))
        )
        settling, _ = await statements(desk.settle(claim, answers))
        references = [answer.reference for answer in answers if isinstance(answer, Submitted)]
        reporting, _ = await statements(
            desk.report(*((reference, ReceiptStatus.UNDELIVERED, reference) for reference in references))
        )
        counts.append((claiming, settling, reporting))
        await database.write(lambda tx: tx.execute(outbox.delete()))
    assert counts[0] == counts[1]


async def test_a_statement_a_message_would_be_counted(database, ledger, clock):
    observed = ObservedDatabase(database)
    desk = Desk(observed, ledger, clock)
    counts = []
    for size in (2, 4):
        await queue(database, *(queued_message(clock.now_ms()) for _ in range(size)))
        claim = await desk.claim()
        before = observed.statements
        # The recorded ledger of these tests writes each refund by itself.
        await desk.settle(claim, [Refused("no")] * size)
        counts.append(observed.statements - before)
    assert counts[1] - counts[0] == 2


@pytest.mark.parametrize("rows", [3, MAX_BOUND_VALUES + 1])
@pytest.mark.parametrize(
    "statement",
    [
        pytest.param(statement, id=name)
        for module in (delivery_store, simulator_store)
        for name, statement in vars(module).items()
        if isinstance(statement, SetStatement)
    ],
)
def test_no_statement_reads_a_whole_table_of_sqlite(database_path, statement, rows):
    batch = [["x"] * len(statement._columns)] * rows
    text, values = statement.for_sqlite(batch, defaultdict(int))
    plan = explained(database_path, text, values)
    # The batch itself is read from end to end, and nothing else is.
    assert plan
    assert [line for line in plan if line.startswith("SCAN") and BATCH_SCAN.match(line) is None] == []


def test_a_statement_without_an_index_would_be_caught(database_path):
    plan = explained(database_path, "DELETE FROM outbox WHERE claim = ?", ["x"])
    assert plan == ["SCAN outbox"]
    assert BATCH_SCAN.match(plan[0]) is None


def explained(path, text, values):
    connection = sqlite3.connect(path)
    try:
        return [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {text}", values)]
    finally:
        connection.close()


async def test_messages_of_many_accounts_share_a_batch(desk, database, ledger, clock):
    accounts = [new_id() for _ in range(5)]
    ids = await queue(
        database, *(queued_message(clock.now_ms(), account_id=account_id) for account_id in accounts)
    )
    await desk.settle(await desk.claim(), [Refused("no")] * 2 + [Submitted(f"r{n}") for n in range(3)])
    await desk.report(*((f"r{n}", ReceiptStatus.DELIVERED, "") for n in range(3)))
    found = [
        (await message_of(database, message_id, account_id)).status
        for message_id, account_id in zip(ids, accounts, strict=True)
    ]
    assert found == [Status.REJECTED] * 2 + [Status.DELIVERED] * 3
    assert set(await ledger.refunds()) == set(ids[:2])
