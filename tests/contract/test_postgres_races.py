"""What several processes do to the same rows of PostgreSQL at once: each has a database object of its own."""

import asyncio
import random
from collections import Counter
from functools import partial

import pytest
import sqlalchemy as sa

from hydrasms_base.metrics import Metrics
from hydrasms_billing import store as billing_store
from hydrasms_billing.credits import LedgerCredits
from hydrasms_billing.verify import verify_ledger
from hydrasms_core.carriers.base import Receipt, ReceiptStatus, Submitted
from hydrasms_core.carriers.registry import Carriers
from hydrasms_core.db.dialect import SetStatement
from hydrasms_core.db.postgres import PostgresDatabase, PostgresTransaction
from hydrasms_core.db.transaction import IntegrityViolation
from hydrasms_core.errors import IdempotencyMismatch, NotCancellable
from hydrasms_core.messaging import delivery_store, store
from hydrasms_core.messaging.accept import Acceptance
from hydrasms_core.messaging.handover import Handover
from hydrasms_core.messaging.model import Accepted, Draft, Status
from hydrasms_core.messaging.receipts import ReceiptIntake
from hydrasms_core.messaging.service import Messaging
from hydrasms_core.messaging.tables import receipts
from hydrasms_core.settings import DeliverySettings, MessagingSettings
from tests.support.consent import consent_book
from tests.support.delivery import ToldCarrier
from tests.support.gates import Gate
from tests.support.ledger import open_account
from tests.support.messaging import FakeSendingAccounts
from tests.support.sends import a_send
from tests.support.waiting import BOUND_S, eventually

pytestmark = pytest.mark.postgresql

ROUNDS = 30
MOST = 20
CREDITS = 10_000
PHONE = "+447700900000"
FINAL = tuple(ReceiptStatus)


class Process:
    """What one process has of the database."""

    def __init__(self, url, clock):
        self.database = PostgresDatabase(url)
        ledger = LedgerCredits()
        self.acceptance = Acceptance(ledger, consent_book())
        self.messaging = Messaging(
            self.database,
            ledger,
            consent_book(),
            FakeSendingAccounts(),
            clock,
            MessagingSettings(),
            lambda: None,
        )
        self.handover = Handover(
            ledger, consent_book(), Carriers([ToldCarrier()]), clock, DeliverySettings(max_batch=MOST)
        )
        self.intake = ReceiptIntake(self.database, clock, Metrics())
        self.clock = clock

    async def send(self, account, number=1):
        """Send messages; returns their ids."""
        drafts = [Draft(PHONE, f"Hello {n}") for n in range(number)]
        outcomes = await self.messaging.send_batch(account, drafts, actor="account")
        return [outcome.message.id for outcome in outcomes if isinstance(outcome, Accepted)]

    async def accept(self, *sends):
        """Commit a batch of sends; returns their outcomes."""
        return await self.database.write(lambda tx: self.acceptance.commit(tx, sends))

    async def claim(self):
        return await self.database.write(lambda tx: self.handover.claim(tx, ()))

    async def settle(self, claim):
        """Let the carrier take what a claim has; the reference of each message is its id."""
        for name, batch in claim.batches.items():
            answers = [Submitted(held.key[1]) for held in batch.held]
            settling = partial(
                self.handover.settle, claim_id=claim.id, carrier=name, batch=batch, answers=answers
            )
            await self.database.write(settling)

    async def cancel(self, account, message_id):
        """Take a message back; tells whether it could."""
        try:
            await self.messaging.cancel(account, message_id, actor="account")
        except NotCancellable:
            return False
        return True

    async def report(self, message_id, status=ReceiptStatus.DELIVERED):
        await self.intake.receive([Receipt("told", message_id, status, self.clock.now_ms())])


@pytest.fixture
async def pair(postgres_url, clock):
    processes = Process(postgres_url, clock), Process(postgres_url, clock)
    yield processes
    for process in processes:
        await process.database.close()


@pytest.fixture
async def account(pair):
    return await open_account(pair[0].database, CREDITS)


async def balance_of(process, account):
    return await process.database.read(lambda tx: billing_store.find_balance(tx, account))


async def assert_the_ledger_is_right(process):
    report = await verify_ledger(process.database)
    assert report.ok, report.discrepancies


def ids_in(claim):
    return {held.key[1] for batch in claim.batches.values() for held in batch.held}


def at_once(*steps):
    async def bounded():
        async with asyncio.timeout(BOUND_S):
            return await asyncio.gather(*steps)

    return bounded()


# ---- one idempotency key --------------------------------------------------------------------------------------


async def assert_one_key_is_one_message(pair, account):
    for number in range(ROUNDS):
        sends = [[a_send(account, key=f"key {number}") for _ in range(3)] for _ in pair]
        outcomes = await at_once(*(each.accept(*own) for each, own in zip(pair, sends, strict=True)))
        flat = [outcome for own in outcomes for outcome in own]
        assert Counter(outcome.replayed for outcome in flat) == {False: 1, True: 5}
        assert len({outcome.message.id for outcome in flat}) == 1
    assert await balance_of(pair[0], account) == CREDITS - ROUNDS
    await assert_the_ledger_is_right(pair[0])


async def test_one_key_in_two_processes_at_once_is_one_message(pair, account):
    await assert_one_key_is_one_message(pair, account)


class UnheldCredits(LedgerCredits):
    """Holds nothing before keys are looked up."""

    async def hold(self, tx, account_ids):
        return


async def test_control_keys_that_are_looked_up_without_holding_the_account_are_caught(pair, account):
    for process in pair:
        process.acceptance = Acceptance(UnheldCredits(), consent_book())
    with pytest.raises((IntegrityViolation, AssertionError)):
        await assert_one_key_is_one_message(pair, account)


async def test_one_key_for_two_requests_at_once_is_one_message_and_a_mismatch(pair, account):
    for number in range(ROUNDS):
        sends = [a_send(account, text, key=f"key {number}") for text in ("Hello", "Bye")]
        outcomes = await at_once(*(each.accept(send) for each, send in zip(pair, sends, strict=True)))
        assert Counter(type(outcome) for (outcome,) in outcomes) == {Accepted: 1, IdempotencyMismatch: 1}
    assert await balance_of(pair[0], account) == CREDITS - ROUNDS


async def test_batches_that_mix_accounts_and_keys_never_wait_for_each_other(pair, account, monkeypatch):
    """Each holds all its accounts before it looks for keys, so that neither meets the other there."""
    other = await open_account(pair[0].database, CREDITS)
    meeting, met = asyncio.Barrier(2), []
    find_keyed = store.find_keyed

    async def find_and_meet(tx, keys):
        found = await find_keyed(tx, keys)
        try:
            async with asyncio.timeout(0.2):
                met.append(await meeting.wait())
        except TimeoutError:
            await meeting.reset()
        return found

    monkeypatch.setattr(store, "find_keyed", find_and_meet)
    batches = [[a_send(account, key="k"), a_send(other)], [a_send(other, key="k"), a_send(account)]]
    outcomes = await at_once(*(each.accept(*batch) for each, batch in zip(pair, batches, strict=True)))
    assert all(isinstance(outcome, Accepted) for own in outcomes for outcome in own)
    assert met == []


# ---- claims ---------------------------------------------------------------------------------------------------


async def assert_claims_never_overlap(pair, account):
    for _ in range(ROUNDS):
        sent = set(await pair[0].send(account, 2 * MOST))
        claims = await at_once(*(each.claim() for each in pair))
        taken = [ids_in(claim) for claim in claims]
        assert taken[0] & taken[1] == set()
        assert taken[0] | taken[1] == sent
        await at_once(*(each.settle(claim) for each, claim in zip(pair, claims, strict=True)))
        statuses = {message.status for message in await listed(pair[0], account)}
        assert statuses == {Status.SUBMITTED}


async def listed(process, account):
    return (await process.messaging.list_sent(account, 2 * MOST, "")).rows


async def test_claims_of_two_workers_never_overlap(pair, account):
    await assert_claims_never_overlap(pair, account)


async def test_a_worker_passes_over_what_another_is_just_taking(pair, account, monkeypatch):
    sent = await pair[0].send(account, MOST + 5)
    gate, take_due = Gate(), delivery_store.take_due

    async def take_and_wait(tx, **options):
        taken = await take_due(tx, **options)
        if len(taken) == MOST:
            await gate.pass_through(tx)
        return taken

    monkeypatch.setattr(delivery_store, "take_due", take_and_wait)
    first = asyncio.create_task(pair[0].claim())
    await gate.reached()
    second = await asyncio.wait_for(pair[1].claim(), BOUND_S)
    gate.open()
    assert ids_in(await first) == set(sent[:MOST])
    assert ids_in(second) == set(sent[MOST:])


async def test_control_claims_that_lock_nothing_overlap_and_are_caught(pair, account, monkeypatch):
    sound = delivery_store._TAKE_DUE
    text = "".join(
        piece + ("" if token.startswith("{claim:") else token)
        for piece, token in zip(sound._pieces, [*sound._tokens, ""], strict=True)
    )
    careless = SetStatement(text, sound._columns)
    assert len(careless._tokens) == len(sound._tokens) - 1
    monkeypatch.setattr(delivery_store, "_TAKE_DUE", careless)
    meeting, take_due = asyncio.Barrier(2), delivery_store.take_due

    async def take_and_meet(tx, **options):
        taken = await take_due(tx, **options)
        await meeting.wait()
        return taken

    monkeypatch.setattr(delivery_store, "take_due", take_and_meet)
    with pytest.raises(AssertionError):
        await assert_claims_never_overlap(pair, account)


# ---- taking back while a worker claims ---------------------------------------------------------------------------


async def assert_one_wins(pair, account, message_id, *, cancelled, claim):
    """A message is cancelled and refunded, or a worker has it; never both, never neither."""
    message = await pair[0].messaging.get(account, message_id)
    assert cancelled != (message_id in ids_in(claim))
    assert message.status is (Status.CANCELLED if cancelled else Status.SUBMITTING)
    await assert_the_ledger_is_right(pair[0])


async def test_of_taking_back_and_claiming_exactly_one_wins(pair, account):
    canceller, worker = pair
    source = random.Random(1)
    won: Counter[bool] = Counter()
    for _ in range(2 * ROUNDS):
        (message_id,) = await canceller.send(account)
        delays_s = [source.choice([0, 0, 0.001, 0.002, 0.004]) for _ in range(2)]

        async def later(delay_s, step):
            await asyncio.sleep(delay_s)
            return await step

        cancelled, claim = await at_once(
            later(delays_s[0], canceller.cancel(account, message_id)), later(delays_s[1], worker.claim())
        )
        await assert_one_wins(pair, account, message_id, cancelled=cancelled, claim=claim)
        won[cancelled] += 1
    assert set(won) == {True, False}


async def test_whoever_takes_back_while_a_worker_claims_waits_and_is_refused(pair, account, monkeypatch):
    await claim_first(pair, account, monkeypatch)


async def claim_first(pair, account, monkeypatch):
    canceller, worker = pair
    (message_id,) = await canceller.send(account)
    gate, take_due = Gate(), delivery_store.take_due

    async def take_and_wait(tx, **options):
        taken = await take_due(tx, **options)
        await gate.pass_through(tx)
        return taken

    with monkeypatch.context() as patched:
        patched.setattr(delivery_store, "take_due", take_and_wait)
        claiming = asyncio.create_task(worker.claim())
        await gate.reached()
        cancelling = asyncio.create_task(canceller.cancel(account, message_id))
        await eventually(lambda: waits_or_is_done(canceller, cancelling))
        gate.open()
        cancelled, claim = await at_once(cancelling, claiming)
    await assert_one_wins(pair, account, message_id, cancelled=cancelled, claim=claim)


async def waits_or_is_done(process, task):
    waiting = sa.text(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    )
    return task.done() or (await process.database.read(lambda tx: tx.execute(waiting))).scalar_one() > 0


async def test_a_worker_passes_over_what_is_just_being_taken_back(pair, account, monkeypatch):
    canceller, worker = pair
    (message_id,) = await canceller.send(account)
    gate, cancel_queued = Gate(), store.cancel_queued

    async def cancel_and_wait(tx, *arguments, **options):
        cancelled = await cancel_queued(tx, *arguments, **options)
        await gate.pass_through(tx)
        return cancelled

    monkeypatch.setattr(store, "cancel_queued", cancel_and_wait)
    cancelling = asyncio.create_task(canceller.cancel(account, message_id))
    await gate.reached()
    claim = await asyncio.wait_for(worker.claim(), BOUND_S)
    assert claim.due == 0
    gate.open()
    await assert_one_wins(pair, account, message_id, cancelled=await cancelling, claim=claim)


async def test_control_taking_back_what_the_status_alone_allows_is_caught(pair, account, monkeypatch):
    async def cancel_by_its_status(tx, account_id, message_id, *, at_ms):
        message = await store.get_message(tx, account_id, message_id)
        if message is None or message.status is not Status.QUEUED:
            return False
        await delivery_store.set_status(tx, [(account_id, message_id, Status.CANCELLED, "")], at_ms=at_ms)
        return True

    monkeypatch.setattr(store, "cancel_queued", cancel_by_its_status)
    with pytest.raises(AssertionError):
        await claim_first(pair, account, monkeypatch)


# ---- receipts ------------------------------------------------------------------------------------------------------


async def submitted(pair, account, number=1):
    sent = await pair[0].send(account, number)
    await pair[0].settle(await pair[0].claim())
    return sent


async def applied_to(process, message_id):
    """Return the statuses of the receipts that have moved a message."""
    query = sa.select(receipts.c.status).where(receipts.c.message_id == message_id, receipts.c.applied == 1)
    return [row.status for row in await process.database.read(lambda tx: tx.execute(query))]


async def assert_the_first_final_state_stays(pair, account):
    source = random.Random(2)
    for _ in range(ROUNDS):
        (message_id,) = await submitted(pair, account)
        statuses = [source.choice(FINAL) for _ in range(6)]
        await at_once(*(pair[n % 2].report(message_id, status) for n, status in enumerate(statuses)))
        (moved_by,) = await applied_to(pair[0], message_id)
        message = await pair[0].messaging.get(account, message_id)
        assert message.status.value == moved_by
        # Whatever is said later changes nothing.
        await at_once(*(each.report(message_id, status) for each in pair for status in FINAL))
        assert await pair[0].messaging.get(account, message_id) == message
        assert await applied_to(pair[0], message_id) == [moved_by]
    await assert_the_ledger_is_right(pair[0])


async def test_of_receipts_that_race_the_first_final_state_stays(pair, account):
    await assert_the_first_final_state_stays(pair, account)


async def test_control_statuses_that_are_read_without_a_lock_are_caught(pair, account, monkeypatch):
    sound = delivery_store._HOLD_STATUSES
    monkeypatch.setattr(
        delivery_store,
        "_HOLD_STATUSES",
        SetStatement(
            "SELECT m.account_id, m.id, m.status FROM {rows}"
            " JOIN messages AS m ON m.account_id = r.account_id AND m.id = r.message_id WHERE {accounts:m}",
            sound._columns,
        ),
    )
    meeting, add_receipts = asyncio.Barrier(2), delivery_store.add_receipts

    async def meet_and_add(tx, rows):
        await meeting.wait()
        await add_receipts(tx, rows)

    monkeypatch.setattr(delivery_store, "add_receipts", meet_and_add)
    (message_id,) = await submitted(pair, account)
    await at_once(*(each.report(message_id, status) for each, status in zip(pair, FINAL, strict=False)))
    with pytest.raises(AssertionError):
        assert len(await applied_to(pair[0], message_id)) == 1


async def report_while_its_reference_is_stored(pair, account, monkeypatch):
    """A receipt comes after the settling has looked for receipts that wait, and before it commits."""
    worker, receiver = pair
    (message_id,) = await worker.send(account)
    claim = await worker.claim()
    gate, find_parked = Gate(), delivery_store.find_parked

    async def find_and_wait(tx, *arguments):
        parked = await find_parked(tx, *arguments)
        await gate.pass_through(tx)
        return parked

    with monkeypatch.context() as patched:
        patched.setattr(delivery_store, "find_parked", find_and_wait)
        settling = asyncio.create_task(worker.settle(claim))
        await gate.reached()
        reporting = asyncio.create_task(receiver.report(message_id))
        await eventually(lambda: waits_or_is_done(receiver, reporting))
        gate.open()
        await at_once(settling, reporting)
    assert (await worker.messaging.get(account, message_id)).status is Status.DELIVERED


async def test_a_receipt_that_comes_while_its_reference_is_stored_is_not_parked_for_ever(
    pair, account, monkeypatch
):
    await report_while_its_reference_is_stored(pair, account, monkeypatch)


async def test_control_without_holding_a_name_that_receipt_is_parked_for_ever(pair, account, monkeypatch):
    async def hold_nothing(tx, name, *, alone):
        return True

    monkeypatch.setattr(PostgresTransaction, "hold", hold_nothing)
    with pytest.raises(AssertionError):
        await report_while_its_reference_is_stored(pair, account, monkeypatch)


async def test_a_worker_waits_for_a_receipt_that_is_just_being_parked(pair, account, monkeypatch):
    worker, receiver = pair
    (message_id,) = await worker.send(account)
    claim = await worker.claim()
    gate, add_receipts = Gate(), delivery_store.add_receipts

    async def wait_and_add(tx, rows):
        await gate.pass_through(tx)
        await add_receipts(tx, rows)

    monkeypatch.setattr(delivery_store, "add_receipts", wait_and_add)
    reporting = asyncio.create_task(receiver.report(message_id))
    await gate.reached()
    settling = asyncio.create_task(worker.settle(claim))
    await eventually(lambda: waits_or_is_done(receiver, settling))
    assert not settling.done()
    gate.open()
    await at_once(settling, reporting)
    assert (await worker.messaging.get(account, message_id)).status is Status.DELIVERED
