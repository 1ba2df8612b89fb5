"""Handing messages over to carriers: what each transaction of the dispatcher does with a batch.

`claim` commits that messages are on their way before any byte of them leaves, `settle` commits what came of it.
In between only the holder of the claim may change them: all that `settle` does is fenced by the claim, so that a
worker which has lost it changes nothing.
"""

from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from hydrasms_base.clock import Clock
from hydrasms_base.ids import new_id
from hydrasms_core.carriers.base import Answer, Submission, Submitted
from hydrasms_core.carriers.registry import Carriers
from hydrasms_core.db.transaction import Transaction
from hydrasms_core.messaging import delivery_store as store
from hydrasms_core.messaging.delivery import (
    MAX_BACK_OFF_MS,
    NO_RECEIPT,
    Change,
    Standing,
    Step,
    when_answered,
    when_due,
    when_unreported,
)
from hydrasms_core.messaging.delivery_store import Due, Key
from hydrasms_core.messaging.happening import Untold, status_changes
from hydrasms_core.messaging.model import Status
from hydrasms_core.messaging.ports import Charge, Consent, Credits, Happenings
from hydrasms_core.messaging.receipts import apply_parked
from hydrasms_core.settings import DeliverySettings

_CLOCKS_DIFFER_MS = 60_000
"""By how much the clocks of several hosts may differ, generously."""


class Held(NamedTuple):
    """A message that a claim holds, as it stands while its carrier has it."""

    key: Key
    credits: int
    standing: Standing


@dataclass(frozen=True, slots=True)
class Batch:
    """What goes to one carrier at once, of one lane, and beside it, in the same order, what it is to us."""

    submissions: list[Submission] = field(default_factory=list)
    held: list[Held] = field(default_factory=list)
    lane: int = 0


@dataclass(frozen=True, slots=True)
class Claim:
    """What one claim took, by carrier; how many messages were due; what it gave up; and when more is due.

    `at_ms` is when, by the time of day, and `taken_at` by the clock that never jumps.
    """

    id: str
    at_ms: int
    taken_at: float
    batches: Mapping[str, Batch]
    due: int
    given_up: Mapping[Status, int]
    next_submit_ms: int | None
    next_receipt_ms: int | None


@dataclass(frozen=True, slots=True)
class Settlement:
    """What came of a batch: how many of each status, how many were no longer held, whether any is to go again."""

    statuses: Mapping[Status, int]
    lost: int
    again: bool


class Handover:
    """Claims, settles and gives up messages, in as many statements for a thousand as for one."""

    def __init__(
        self,
        credits: Credits,
        consent: Consent,
        carriers: Carriers,
        clock: Clock,
        settings: DeliverySettings,
        happenings: Happenings | None = None,
    ) -> None:
        self._credits = credits
        self._consent = consent
        self._carriers = carriers
        self._clock = clock
        self._happenings: Happenings = happenings or Untold()
        self._most = settings.max_batch
        self._lease_ms = round(settings.lease_s * 1000)
        self._receipt_timeout_ms = round(settings.receipt_timeout_s * 1000)

    async def claim(self, tx: Transaction, living: Collection[str], *, spare: bool = False) -> Claim:
        """Take what is due, but for what this process's own living claims hold, and, to spare others, theirs too.

        Their leases may have run out by the clock all the same: it may jump, and the store may be gone for longer
        than a lease.
        """
        now_ms, taken_at, claim_id = self._clock.now_ms(), self._clock.monotonic(), new_id()
        due = await store.take_due(tx, now_ms=now_ms, most=self._most, living=living, spare=spare)
        batches: defaultdict[str, Batch] = defaultdict(lambda: Batch(lane=due[0].lane))
        given_up: list[tuple[Due, Change]] = []
        handed: list[tuple[str, str]] = []
        refusing = await self._refusing(tx, due)
        for message in due:
            opted_out = _pair(message) in refusing
            change = when_due(message.standing, now_ms=now_ms, lease_ms=self._lease_ms, opted_out=opted_out)
            if change.step is None:
                given_up.append((message, change))
            else:
                _add(batches[self._carriers.route(message.recipient).name], message, change)
                handed.append(_pair(message))
        await self._hand_out(tx, claim_id, batches, now_ms)
        await self._consent.sent(tx, handed, at_ms=now_ms)
        if given_up:
            await self._give_up(tx, given_up, now_ms)
        next_submit_ms, next_receipt_ms = await store.next_due(tx)
        statuses = Counter(change.status for _, change in given_up)
        return Claim(claim_id, now_ms, taken_at, batches, len(due), statuses, next_submit_ms, next_receipt_ms)

    async def holds(self, tx: Transaction, claim: Claim) -> bool:
        """Tell whether a claim is there, all of which came to be together; one that took nothing is not."""
        keys = [message.key for batch in claim.batches.values() for message in batch.held]
        return bool(keys) and await store.is_held(tx, claim.id, keys[0])

    async def renew(self, tx: Transaction, claim: Claim) -> None:
        """Let a claim's lease begin anew, because its carriers are still at work."""
        keys = [message.key for batch in claim.batches.values() for message in batch.held]
        await store.renew(tx, claim.id, keys, until_ms=self._clock.now_ms() + self._lease_ms)

    async def settle(
        self, tx: Transaction, claim_id: str, carrier: str, batch: Batch, answers: Sequence[Answer]
    ) -> Settlement:
        """Commit a carrier's answers, one a message, for those messages that the claim still holds."""
        now_ms, timeout_ms = self._clock.now_ms(), self._receipt_timeout_ms
        settled = [
            (
                message,
                answer,
                when_answered(message.standing, answer, now_ms=now_ms, receipt_timeout_ms=timeout_ms),
            )
            for message, answer in zip(batch.held, answers, strict=True)
        ]
        if any(isinstance(answer, Submitted) for answer in answers):
            await store.begin_adding(tx, carrier)
        held = await self._let_go(tx, claim_id, [(message.key, change) for message, _, change in settled])
        settled = [each for each in settled if each[0].key[1] in held]
        if settled:
            statuses = [(*message.key, change.status, change.failure) for message, _, change in settled]
            await store.set_status(tx, statuses, at_ms=now_ms)
            refunds = [_charge(message.key, message.credits) for message, _, c in settled if c.refund]
            await self._refund(tx, refunds, now_ms)
            told = status_changes((m.key, c.status, c.failure, c.refund) for m, _, c in settled)
            await self._happenings.record(tx, told, at_ms=now_ms)
            taken = [
                (*message.key, answer.reference)
                for message, answer, _ in settled
                if isinstance(answer, Submitted)
            ]
            if taken:
                await store.add_references(tx, carrier, taken, lane=batch.lane)
                references = [reference for _, _, reference in taken]
                await apply_parked(tx, carrier, references, at_ms=now_ms, happenings=self._happenings)
        return Settlement(
            Counter(change.status for _, _, change in settled),
            len(batch.held) - len(settled),
            any(change.step is Step.SUBMIT for _, _, change in settled),
        )

    async def give_up_receipts(self, tx: Transaction) -> int:
        """Stop waiting for receipts that are overdue; returns how many messages that were."""
        now_ms = self._clock.now_ms()
        overdue = await store.take_overdue_receipts(tx, now_ms=now_ms, most=self._most)
        if overdue:
            await store.set_status(
                tx,
                [(*key, when_unreported(status), NO_RECEIPT) for key, status in overdue],
                at_ms=now_ms,
            )
            await store.forget(tx, [key for key, _ in overdue])
            # One that was settled already stays as it was, and nothing is told of it again.
            told = status_changes(
                (key, becomes, NO_RECEIPT, False)
                for key, status in overdue
                if (becomes := when_unreported(status)) is not status
            )
            await self._happenings.record(tx, told, at_ms=now_ms)
        return len(overdue)

    async def bring_forward(self, tx: Transaction) -> int:
        """Let messages be due now that are due later than any pause between two attempts explains: the clock was set
        back since. Returns how many those were.
        """
        now_ms = self._clock.now_ms()
        return await store.bring_forward(
            tx, now_ms=now_ms, ahead_ms=now_ms + MAX_BACK_OFF_MS + _CLOCKS_DIFFER_MS
        )

    async def release_claims(self, tx: Transaction) -> int:
        """Let the claims of dead predecessors end at once; returns how many messages they held."""
        return await store.release_claims(tx, now_ms=self._clock.now_ms())

    async def _refusing(self, tx: Transaction, due: Sequence[Due]) -> set[tuple[str, str]]:
        """Return the (account, recipient) pairs of phones that want no more, and let no STOP come in between."""
        if not due:
            return set()
        await self._consent.hold(tx, {message.recipient for message in due})
        return await self._consent.refusing(tx, {_pair(message) for message in due})

    async def _hand_out(
        self, tx: Transaction, claim_id: str, batches: Mapping[str, Batch], now_ms: int
    ) -> None:
        for carrier, batch in batches.items():
            keys = [message.key for message in batch.held]
            await store.hand_out(tx, carrier, keys, at_ms=now_ms)
            await store.lease(tx, claim_id, keys, until_ms=now_ms + self._lease_ms)
            risky = [message.key for message in batch.held if message.standing.duplicate_risk]
            if risky:
                await store.mark_risk(tx, risky)

    async def _let_go(
        self, tx: Transaction, claim_id: str, changes: Sequence[tuple[Key, Change]]
    ) -> set[str]:
        """End the claim's hold on messages, and return the ids of those that it held."""
        going_on = [(*key, c.step, c.due_at_ms) for key, c in changes if c.step is not None]
        finished = [key for key, change in changes if change.step is None]
        held: set[str] = set()
        if going_on:
            held |= await store.schedule(tx, claim_id, going_on)
        if finished:
            held |= await store.finish(tx, claim_id, finished)
        return held

    async def _give_up(self, tx: Transaction, given_up: Sequence[tuple[Due, Change]], now_ms: int) -> None:
        await store.forget(tx, [(due.account_id, due.message_id) for due, _ in given_up])
        moved = [(due, change) for due, change in given_up if change.status is not due.standing.status]
        if moved:
            statuses = [(due.account_id, due.message_id, c.status, c.failure) for due, c in moved]
            await store.set_status(tx, statuses, at_ms=now_ms)
            refunds = [_charge((due.account_id, due.message_id), due.credits) for due, c in moved if c.refund]
            await self._refund(tx, refunds, now_ms)
            told = status_changes(
                ((due.account_id, due.message_id), c.status, c.failure, c.refund) for due, c in moved
            )
            await self._happenings.record(tx, told, at_ms=now_ms)

    async def _refund(self, tx: Transaction, charges: Sequence[Charge], now_ms: int) -> None:
        if charges:
            await self._credits.refund(tx, charges, at_ms=now_ms)


def _pair(due: Due) -> tuple[str, str]:
    return due.account_id, due.recipient


def _add(batch: Batch, due: Due, change: Change) -> None:
    attempt, expires_at_ms = due.standing.attempts + 1, due.standing.expires_at_ms
    batch.submissions.append(
        Submission(
            due.message_id,
            due.sender,
            due.recipient,
            due.content,
            due.encoding,
            due.segments,
            attempt,
            expires_at_ms,
        )
    )
    standing = Standing(change.status, attempt, change.duplicate_risk, expires_at_ms, True, change.failure)
    batch.held.append(Held((due.account_id, due.message_id), due.credits, standing))


def _charge(key: Key, credits: int) -> Charge:
    account_id, message_id = key
    return Charge(account_id, message_id, credits, "system")
