"""The state machine of the ledger: every step is done by the product and by a model of it."""

import asyncio
import contextlib
import shutil
from collections import Counter
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    multiple,
    rule,
)

from hydrasms_base.ids import new_id
from hydrasms_base.metrics import Metrics
from hydrasms_billing.credits import LedgerCredits
from hydrasms_billing.service import Billing
from hydrasms_billing.verify import verify_ledger
from hydrasms_core.accounts import store as accounts_store
from hydrasms_core.accounts.directory import AccessDirectory
from hydrasms_core.accounts.model import NewAccount
from hydrasms_core.accounts.service import Accounts
from hydrasms_core.carriers.base import (
    Answer,
    AnswerLost,
    Receipt,
    ReceiptStatus,
    Refused,
    Submission,
    Submitted,
    Throttled,
)
from hydrasms_core.carriers.registry import Carriers
from hydrasms_core.db.transaction import Database, IntegrityViolation, Transaction
from hydrasms_core.errors import DomainError, IdempotencyMismatch, InsufficientCredits, NotCancellable
from hydrasms_core.messaging.handover import Claim, Handover
from hydrasms_core.messaging.model import Accepted, Draft
from hydrasms_core.messaging.receipts import ReceiptIntake
from hydrasms_core.messaging.service import Messaging
from hydrasms_core.settings import DeliverySettings, MessagingSettings
from tests.support import ledger_rows
from tests.support.clock import FakeClock
from tests.support.consent import consent_book
from tests.support.databases import copy_of, opened
from tests.support.delivery import PHONE, ToldCarrier
from tests.support.ledger_model import (
    LEASE_MS,
    RECEIPT_TIMEOUT_MS,
    RETRY_AFTER_MS,
    VALIDITY_MS,
    LedgerModel,
    ModelMessage,
    reference_of,
)

CARRIER = "told"
ANSWERS = st.lists(
    st.sampled_from(["taken", "taken", "refused", "throttled", "lost"]), min_size=1, max_size=4
)
# No time, a pause, a lease.
AFTER_S = st.sampled_from([0, 0, 0, 2, 2, 2, 31, 31])
REPORTED = st.lists(st.sampled_from(ReceiptStatus), min_size=1, max_size=3)


@dataclass(frozen=True)
class Parts:
    """What the machine is built of; a control breaks one of them."""

    kind: str
    """Which database it runs on."""
    template: Path | str
    folder: Path
    credits: Callable[[], LedgerCredits] = LedgerCredits
    handover: type[Handover] = Handover
    reached: Counter[str] = field(default_factory=Counter)
    """How often the machine came to what it is to look at: a run that never does proves nothing."""


class LedgerMachine(RuleBasedStateMachine):
    """Two accounts, one carrier, workers that die: every step is done by the product and by the model."""

    accounts = Bundle("accounts")
    sent = Bundle("sent")
    keyed = Bundle("keyed")
    claims = Bundle("claims")

    def __init__(self, parts: Parts) -> None:
        super().__init__()
        self.folder = parts.folder / new_id()
        self.folder.mkdir()
        self.runner = asyncio.Runner()
        self.stack = contextlib.AsyncExitStack()
        self.clock = FakeClock()
        self.model = LedgerModel()
        self.living: set[str] = set()
        self.reached = parts.reached
        self.database = self.runner.run(self.open(parts.kind, parts.template))
        ledger = parts.credits()
        directory = AccessDirectory(self.database, accounts_store, self.clock)
        self.opening = Accounts(self.database, ledger, self.clock, directory.recheck)
        self.billing = Billing(self.database, self.clock)
        self.messaging = Messaging(
            self.database,
            ledger,
            consent_book(),
            directory,
            self.clock,
            MessagingSettings(validity_s=VALIDITY_MS // 1000),
            lambda: None,
        )
        self.intake = ReceiptIntake(self.database, self.clock, Metrics())
        self.handover = parts.handover(
            ledger,
            consent_book(),
            Carriers([ToldCarrier(name=CARRIER)]),
            self.clock,
            DeliverySettings(lease_s=LEASE_MS / 1000, receipt_timeout_s=RECEIPT_TIMEOUT_MS / 1000),
        )

    async def open(self, kind: str, template: Path | str) -> Database:
        target = await self.stack.enter_async_context(copy_of(kind, template, self.folder))
        return await self.stack.enter_async_context(opened(target))

    def teardown(self) -> None:
        try:
            report = self.runner.run(verify_ledger(self.database))
            assert report.ok, report.discrepancies
            self.count_ends()
        finally:
            self.runner.run(self.stack.aclose())
            self.runner.close()
            shutil.rmtree(self.folder)

    def count_ends(self) -> None:
        """Count how messages have ended, and how receipts were matched."""
        for message in self.model.messages.values():
            self.reached[f"{message.status}{', refunded' if message.refunded else ''}"] += 1
        for row in self.runner.run(self.database.read(ledger_rows.receipts_kept)):
            matched = "a receipt that moved" if row.applied else "a receipt too late or too often"
            self.reached[matched if row.message_id else "a receipt without a message"] += 1

    # ---- credits -------------------------------------------------------------------------------------------

    @initialize(target=accounts, first=st.integers(10, 60), second=st.integers(0, 10))
    def open_accounts(self, first: int, second: int) -> Any:
        opened = []
        for amount in (first, second):
            created = self.done(
                self.opening.create(NewAccount("an account", initial_credits=amount), actor="service")
            )
            self.model.balances[created.account.id] = 0
            if amount:
                self.model.grant(created.account.id, amount)
            opened.append(created.account.id)
        return multiple(*opened)

    @rule(account_id=accounts, amount=st.integers(1, 8), key=st.sampled_from([None, None, "g1", "g2"]))
    def grant(self, account_id: str, amount: int, key: str | None) -> None:
        granting = self.billing.grant(account_id, amount, "a test", actor="service", idempotency_key=key)
        earlier = None if key is None else self.model.grants.get((account_id, key))
        if earlier is None:
            assert not self.done(granting).replayed
            self.model.grant(account_id, amount)
            if key is not None:
                self.model.grants[account_id, key] = amount
        elif earlier == amount:
            assert self.without_effect(granting).replayed
        else:
            self.refused(granting, IdempotencyMismatch)

    # ---- sending -------------------------------------------------------------------------------------------

    @rule(
        targets=(sent, keyed),
        account_id=accounts,
        cost=st.integers(1, 5),
        key=st.sampled_from([None, None, "k1", "k2", "k3"]),
    )
    def send(self, account_id: str, cost: int, key: str | None) -> Any:
        content = text_of(cost)
        sending = self.messaging.send(account_id, Draft(PHONE, content, key), actor="account")
        earlier = None if key is None else self.model.sends.get((account_id, key))
        if earlier is not None:
            self.repeated(sending, earlier, same=content == earlier.content)
            return multiple()
        if cost > self.model.balances[account_id]:
            error = self.refused(sending, InsufficientCredits)
            assert (error.balance, error.cost) == (self.model.balances[account_id], cost)
            return multiple()
        return self.accepted(self.done(sending), content, key)

    @rule(target=sent, account_id=accounts, costs=st.lists(st.integers(1, 5), min_size=2, max_size=5))
    def send_batch(self, account_id: str, costs: list[int]) -> Any:
        drafts = [Draft(PHONE, text_of(cost)) for cost in costs]
        outcomes = self.done(self.messaging.send_batch(account_id, drafts, actor="account"))
        assert len(outcomes) == len(costs)
        found = []
        for cost, draft, outcome in zip(costs, drafts, outcomes, strict=True):
            if cost > self.model.balances[account_id]:
                assert isinstance(outcome, InsufficientCredits)
            else:
                assert isinstance(outcome, Accepted)
                found.append(self.accepted(outcome, draft.content, None))
        return multiple(*found)

    @rule(message=keyed, same=st.booleans())
    def replay(self, message: ModelMessage, same: bool) -> None:
        if message.key is not None:
            draft = Draft(PHONE, message.content if same else message.content + "!", message.key)
            sending = self.messaging.send(message.account_id, draft, actor="account")
            self.repeated(sending, message, same=same)

    @rule(message=sent)
    def cancel(self, message: ModelMessage) -> None:
        cancelling = self.messaging.cancel(message.account_id, message.id, actor="account")
        if message.status == "queued":
            assert self.done(cancelling).status == "cancelled"
            self.model.cancel(message)
        elif message.status == "cancelled":
            assert self.without_effect(cancelling).status == "cancelled"
        else:
            self.refused(cancelling, NotCancellable)

    # ---- the carrier ---------------------------------------------------------------------------------------

    @rule(target=claims, after_s=AFTER_S)
    def claim(self, after_s: int) -> Any:
        self.clock.advance(after_s)
        claim = self.written(lambda tx: self.handover.claim(tx, self.living))
        taken = self.model.claim(claim.id, self.living, self.clock.now_ms())
        assert {held.key[1] for batch in claim.batches.values() for held in batch.held} == taken
        if not taken:
            return multiple()
        self.living.add(claim.id)
        return claim

    @rule(target=claims, after_s=AFTER_S, answers=ANSWERS, times=st.integers(1, 3))
    def deliver(self, after_s: int, answers: list[str], times: int) -> Any:
        """Claim and answer at once, as a worker does that nothing happens to."""
        claim = self.claim(after_s)
        if isinstance(claim, Claim):
            self.answer(claim, answers, times)
        return claim

    @rule(target=claims)
    def expire(self) -> Any:
        """Claim after so long that whatever waits is too late."""
        return self.claim(VALIDITY_MS // 1000)

    @rule(claim=claims, answers=ANSWERS, times=st.integers(1, 3))
    def answer_late(self, claim: Claim, answers: list[str], times: int) -> None:
        """Let answers come to a claim that may have been answered or lost long ago."""
        self.answer(claim, answers, times)

    @rule(claim=claims)
    def worker_dies(self, claim: Claim) -> None:
        self.living.discard(claim.id)

    @rule()
    def restart(self) -> None:
        self.living.clear()
        self.written(self.handover.release_claims)
        self.model.restart(self.clock.now_ms())

    @rule(which=st.integers(0, 30), statuses=REPORTED)
    def report(self, which: int, statuses: list[ReceiptStatus]) -> None:
        """Let receipts of a message that the carrier took come: late, repeated, contradictory."""
        if self.model.references:
            self.bring(list(self.model.references)[which % len(self.model.references)], statuses)

    @rule(message=sent, later=st.integers(0, 1), statuses=REPORTED)
    def report_early(self, message: ModelMessage, later: int, statuses: list[ReceiptStatus]) -> None:
        """Let receipts come of the last attempt or of the next one, whatever its answer is or was."""
        self.bring(reference_of(message.id, message.attempts + later), statuses)

    @rule(after_s=st.sampled_from([0, 121]))
    def give_up_receipts(self, after_s: int) -> None:
        self.clock.advance(after_s)
        given_up = self.written(self.handover.give_up_receipts)
        assert given_up == self.model.give_up_receipts(self.clock.now_ms())

    # ---- after every step ----------------------------------------------------------------------------------

    @invariant()
    def the_ledger_is_what_the_model_says(self) -> None:
        sums, fates, counted = self.done(self.database.read(ledger_rows.sums_and_fates))
        assert {row.account_id: row.balance for row in sums} == self.model.balances
        for row in sums:
            assert row.balance == row.total >= 0
            assert self.done(self.billing.balance(row.account_id)) == row.balance
        expected = {
            (m.id, m.account_id, m.status, m.cost, 1, m.cost, int(m.refunded), m.cost * m.refunded)
            for m in self.model.messages.values()
        }
        assert {tuple(row) for row in fates} == expected
        assert counted == {
            "transfers": self.model.transfers,
            "receipts": self.model.received,
            "carrier_references": len(self.model.references),
            "outbox": sum(message.step is not None for message in self.model.messages.values()),
        }

    # ---- how steps are done --------------------------------------------------------------------------------

    def done(self, step: Coroutine[Any, Any, Any]) -> Any:
        """Do a step that must succeed, and without a constraint as the one that keeps the ledger right."""
        try:
            return self.runner.run(step)
        except (DomainError, IntegrityViolation) as error:
            raise AssertionError(f"a step that is right was refused: {error!r}") from error

    def written(self, work: Callable[[Transaction], Any]) -> Any:
        return self.done(self.database.write(work))

    def without_effect(self, step: Coroutine[Any, Any, Any]) -> Any:
        """Do a step that must succeed and change no row."""
        before = self.runner.run(self.database.read(ledger_rows.all_rows))
        result = self.done(step)
        assert self.runner.run(self.database.read(ledger_rows.all_rows)) == before
        return result

    def refused(self, step: Coroutine[Any, Any, Any], kind: type[DomainError]) -> Any:
        """Do a step that must be refused and change no row; returns the error."""
        before = self.runner.run(self.database.read(ledger_rows.all_rows))
        try:
            self.runner.run(step)
        except kind as error:
            assert self.runner.run(self.database.read(ledger_rows.all_rows)) == before
            self.reached[kind.__name__] += 1
            return error
        except (DomainError, IntegrityViolation) as error:
            raise AssertionError(f"refused for another reason: {error!r}") from error
        raise AssertionError(f"{kind.__name__} was not raised")

    def repeated(self, sending: Coroutine[Any, Any, Any], earlier: ModelMessage, *, same: bool) -> None:
        if same:
            self.reached["a replay"] += 1
            again = self.without_effect(sending)
            assert (again.replayed, again.message.id) == (True, earlier.id)
        else:
            self.refused(sending, IdempotencyMismatch)

    def accepted(self, accepted: Accepted, content: str, key: str | None) -> ModelMessage:
        assert not accepted.replayed
        now_ms = self.clock.now_ms()
        message = ModelMessage(
            accepted.message.id,
            accepted.message.account_id,
            content,
            cost_of(content),
            now_ms,
            now_ms + VALIDITY_MS,
            key,
        )
        self.model.accept(message)
        return message

    def answer(self, claim: Claim, answers: list[str], times: int) -> None:
        """Settle a claim so many times with a carrier's answers; only what the claim still holds may change."""
        (batch,) = claim.batches.values()
        told = [answers[number % len(answers)] for number in range(len(batch.held))]
        real = [answer_of(word, submission) for word, submission in zip(told, batch.submissions, strict=True)]
        for _ in range(times):
            held = self.model.held(claim.id)
            settling = self.database.write(
                lambda tx: self.handover.settle(tx, claim.id, CARRIER, batch, real)
            )
            settlement = self.done(settling) if held else self.without_effect(settling)
            assert settlement.lost == len(batch.held) - len(held)
            self.reached["an answer to nobody"] += settlement.lost
            for word, submission in zip(told, batch.submissions, strict=True):
                if submission.message_id in held:
                    self.model.answer(self.model.messages[submission.message_id], word, self.clock.now_ms())
        self.living.discard(claim.id)

    def bring(self, reference: str, statuses: list[ReceiptStatus]) -> None:
        now_ms = self.clock.now_ms()
        self.done(self.intake.receive([Receipt(CARRIER, reference, status, now_ms) for status in statuses]))
        self.model.report(reference, [status.value for status in statuses])


def text_of(cost: int) -> str:
    """Return the shortest text that costs so many credits."""
    return "x" * (160 * (cost - 1) + 1)


def cost_of(content: str) -> int:
    return (len(content) + 159) // 160


def answer_of(word: str, submission: Submission) -> Answer:
    answers: dict[str, Answer] = {
        "taken": Submitted(reference_of(submission.message_id, submission.attempt)),
        "refused": Refused("no such number"),
        "throttled": Throttled("busy", RETRY_AFTER_MS),
        "lost": AnswerLost("the link broke"),
    }
    return answers[word]
