"""Refunds: a fifth refused for good, everything reported five times and in any order (bars, money, 4)."""

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

import pytest
import sqlalchemy as sa

from hydrasms_base.metrics import Metrics
from hydrasms_billing.credits import LedgerCredits
from hydrasms_billing.model import DiscrepancyKind
from hydrasms_billing.tables import transfers
from hydrasms_billing.verify import verify_ledger
from hydrasms_core.carriers.base import Answer, Receipt, ReceiptStatus, Refused, Submission, Submitted
from hydrasms_core.carriers.registry import Carriers
from hydrasms_core.db.transaction import Database, IntegrityViolation
from hydrasms_core.messaging.handover import Batch, Claim, Handover
from hydrasms_core.messaging.model import Accepted, Draft, Status
from hydrasms_core.messaging.receipts import ReceiptIntake
from hydrasms_core.messaging.service import Messaging
from hydrasms_core.messaging.tables import messages, receipts
from hydrasms_core.settings import DeliverySettings, MessagingSettings
from tests.support.broken import UnfencedHandover
from tests.support.clock import FakeClock
from tests.support.consent import consent_book
from tests.support.delivery import PHONE, ToldCarrier
from tests.support.ledger import open_account
from tests.support.messaging import FakeSendingAccounts
from tests.support.tampering import run

CARRIER = "told"
ACCOUNTS = 10
REPORTS = 5
LEASE_S = 30.0
CLAIM_SIZE = 20
SENT_AT_ONCE = 500
AT_ONCE = 16

Event = Callable[[], Awaitable[object]]


@dataclass(frozen=True)
class Sent:
    """A message as its sender knows it."""

    id: str
    account_id: str
    cost: int


class Outage:
    """Messages that are with a carrier whose answers and receipts come in any order, any number of times."""

    def __init__(self, database: Database, clock: FakeClock, handover: type[Handover], seed: int) -> None:
        self.database = database
        self.clock = clock
        self.source = random.Random(seed)
        ledger = LedgerCredits()
        self.messaging = Messaging(
            database, ledger, consent_book(), FakeSendingAccounts(), clock, MessagingSettings(), lambda: None
        )
        self.handover = handover(
            ledger,
            consent_book(),
            Carriers([ToldCarrier(name=CARRIER)]),
            clock,
            DeliverySettings(lease_s=LEASE_S, max_batch=CLAIM_SIZE),
        )
        self.intake = ReceiptIntake(database, clock, Metrics())
        self.sent: dict[str, Sent] = {}
        self.refused: set[str] = set()

    async def send(self, number: int) -> None:
        """Send messages from a few accounts, and choose the fifth of them that will be refused."""
        for _ in range(ACCOUNTS):
            account_id = await open_account(self.database, 5 * number)
            left = number // ACCOUNTS
            while left:
                drafts = [
                    Draft(PHONE, "x" * self.source.randint(1, 799)) for _ in range(min(left, SENT_AT_ONCE))
                ]
                for outcome in await self.messaging.send_batch(account_id, drafts, actor="account"):
                    assert isinstance(outcome, Accepted)
                    message = outcome.message
                    self.sent[message.id] = Sent(message.id, account_id, message.credits)
                left -= len(drafts)
        assert len(self.sent) == number
        self.refused = set(self.source.sample(sorted(self.sent), number // 5))

    async def claim_all(self, living: Sequence[Claim]) -> list[Claim]:
        """Claim all that is due and that no living claim holds."""
        claims: list[Claim] = []
        while True:
            names = {claim.id for claim in (*living, *claims)}
            claim = await self.database.write(lambda tx: self.handover.claim(tx, names))  # noqa: B023 - awaited here
            if not claim.due:
                return claims
            claims.append(claim)

    async def report_everything(self) -> None:
        """Have a quarter of the workers lose their claims; then let all be told five times, shuffled."""
        first = await self.claim_all([])
        assert sum(claim.due for claim in first) == len(self.sent)
        lost = self.source.sample(first, len(first) // 4)
        alive = [claim for claim in first if claim not in lost]
        self.clock.advance(LEASE_S + 1)
        second = await self.claim_all(alive)
        assert sum(claim.due for claim in second) == sum(claim.due for claim in lost) > 0
        events = [self._answers(claim, self._answer) for claim in (*alive, *second)]
        # A worker that has lost its claim is told of nothing but refusals, also of what others have handed on.
        events += [self._answers(claim, lambda _: Refused("gone")) for claim in lost]
        events = events * REPORTS + self._receipts()
        self.source.shuffle(events)
        for start in range(0, len(events), AT_ONCE):
            await asyncio.gather(*(event() for event in events[start : start + AT_ONCE]))

    def _answer(self, submission: Submission) -> Answer:
        if submission.message_id in self.refused:
            return Refused("no such number")
        return Submitted(f"ref-{submission.message_id}")

    def _answers(self, claim: Claim, answer: Callable[[Submission], Answer]) -> Event:
        (batch,) = claim.batches.values()
        answers = [answer(submission) for submission in batch.submissions]
        return lambda: self._settle(claim, batch, answers)

    async def _settle(self, claim: Claim, batch: Batch, answers: Sequence[Answer]) -> None:
        await self.database.write(lambda tx: self.handover.settle(tx, claim.id, CARRIER, batch, answers))

    def _receipts(self) -> list[Event]:
        """Return the calls that bring five receipts a message: four alike, and one that says delivered.

        Those of refused messages stand for a carrier that says both: it will not take it, and it is delivered.
        """
        told = []
        for message_id in self.sent:
            usual = self.source.choice((ReceiptStatus.DELIVERED, ReceiptStatus.UNDELIVERED))
            told += [(message_id, usual)] * (REPORTS - 1) + [(message_id, ReceiptStatus.DELIVERED)]
        self.source.shuffle(told)
        calls = [told[start : start + CLAIM_SIZE] for start in range(0, len(told), CLAIM_SIZE)]
        return [self._receive(call) for call in calls]

    def _receive(self, told: Sequence[tuple[str, ReceiptStatus]]) -> Event:
        now_ms = self.clock.now_ms()
        reports = [Receipt(CARRIER, f"ref-{message_id}", status, now_ms) for message_id, status in told]
        return lambda: self.intake.receive(reports)

    async def unmatched(self) -> set[str]:
        """Return the messages whose refunds are not as they must be: one of all it cost if refused, else none."""
        rows = await self.database.read(
            lambda tx: tx.execute(
                sa.select(transfers.c.message_id, transfers.c.account_id, transfers.c.amount).where(
                    transfers.c.kind == "refund"
                )
            )
        )
        found: dict[str, list[tuple[str, int]]] = {}
        for row in rows:
            found.setdefault(row.message_id, []).append((row.account_id, row.amount))
        expected = {name: [(self.sent[name].account_id, self.sent[name].cost)] for name in self.refused}
        return {name for name in found.keys() | expected.keys() if found.get(name) != expected.get(name)}

    async def statuses(self) -> dict[str, Status]:
        rows = await self.database.read(lambda tx: tx.execute(sa.select(messages.c.id, messages.c.status)))
        return {row.id: Status(row.status) for row in rows}


async def refund(database: Database, clock: FakeClock, number: int, seed: int) -> None:
    outage = Outage(database, clock, Handover, seed)
    await outage.send(number)
    await outage.report_everything()
    assert await outage.unmatched() == set()
    report = await verify_ledger(database)
    assert report.ok, report.discrepancies
    assert (report.messages, report.transfers) == (number, ACCOUNTS + number + number // 5)
    statuses = await outage.statuses()
    assert {name for name, status in statuses.items() if status is Status.REJECTED} == outage.refused
    assert {statuses[name] for name in outage.sent.keys() - outage.refused} == {
        Status.DELIVERED,
        Status.UNDELIVERED,
    }
    await assert_receipts_are_all_kept(outage)


async def assert_receipts_are_all_kept(outage: Outage) -> None:
    """Every receipt is stored, one a message has moved it, and those of a refused message wait for ever."""
    rows = await outage.database.read(
        lambda tx: tx.execute(sa.select(receipts.c.message_id, receipts.c.applied))
    )
    stored = [(row.message_id, row.applied) for row in rows]
    assert len(stored) == REPORTS * len(outage.sent)
    assert sorted(name for name, applied in stored if applied) == sorted(outage.sent.keys() - outage.refused)
    assert sum(name == "" for name, _ in stored) == REPORTS * len(outage.refused)


async def test_every_refused_message_is_refunded_once_and_no_other(database, clock):
    await refund(database, clock, 500, seed=4)


@pytest.mark.faults
async def test_every_refused_message_of_10000_is_refunded_once_and_no_other(database, clock):
    await refund(database, clock, 10_000, seed=5)


async def test_without_the_fence_of_claims_a_second_refund_breaks_the_ledgers_constraint(database, clock):
    outage = Outage(database, clock, UnfencedHandover, seed=4)
    await outage.send(100)
    with pytest.raises(IntegrityViolation):
        await outage.report_everything()


async def test_without_fence_and_constraint_the_check_finds_what_is_refunded_too_often(database, clock):
    await database.write(lambda tx: run(tx, "DROP INDEX uq_transfers_message"))
    outage = Outage(database, clock, UnfencedHandover, seed=4)
    await outage.send(100)
    await outage.report_everything()
    unmatched = await outage.unmatched()
    assert outage.refused <= unmatched
    # And what only a worker said that no longer held it.
    assert unmatched - outage.refused
    report = await verify_ledger(database)
    assert DiscrepancyKind.TRANSFER in {found.kind for found in report.discrepancies}
