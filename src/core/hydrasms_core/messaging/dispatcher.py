"""The dispatcher: takes what is due out of the outbox and hands it to carriers."""

import asyncio
import contextlib
import math
from collections.abc import Collection, Sequence

from hydrasms_base.clock import Clock
from hydrasms_base.log import get_logger
from hydrasms_base.metrics import Metrics
from hydrasms_core.carriers.base import Answer, AnswerLost, Carrier
from hydrasms_core.carriers.registry import Carriers
from hydrasms_core.db.transaction import Database, Transaction
from hydrasms_core.errors import StoreUnavailable
from hydrasms_core.messaging.clock_jumps import ClockJumps
from hydrasms_core.messaging.handover import Batch, Claim, Handover, Settlement
from hydrasms_core.messaging.ports import Consent, Credits, Happenings
from hydrasms_core.settings import DeliverySettings
from hydrasms_core.work_loop import FRUITLESS_S, WorkLoop

# A claim is renewed so many times a lease, so that one renewal may fail.
_RENEWALS = 3

log = get_logger(__name__)


class Dispatcher:
    """Hands messages to carriers until it is stopped.

    It sleeps until `wake` is called or something falls due. Several batches may be with carriers at once, at most
    `max_in_flight`; any number of dispatchers may work on one database.
    """

    def __init__(
        self,
        database: Database,
        credits: Credits,
        consent: Consent,
        carriers: Carriers,
        clock: Clock,
        metrics: Metrics,
        settings: DeliverySettings | None = None,
        happenings: Happenings | None = None,
    ) -> None:
        self._database = database
        self._carriers = carriers
        self._clock = clock
        self._settings = settings or DeliverySettings()
        self._handover = Handover(credits, consent, carriers, clock, self._settings, happenings)
        self._slots = asyncio.Semaphore(self._settings.max_in_flight)
        self._living: set[str] = set()
        self._jumps = ClockJumps(clock)
        self._spares_until = -math.inf
        # How many jumps of the clock there were, and after how many of them what it left behind was brought forward.
        # The first may have come while nobody was there to notice.
        self._jumped = 1
        self._brought_forward = 0
        self._loop = WorkLoop("dispatcher", pace_s=self._settings.pace_s)
        self._submitted = metrics.counter("submissions", "Messages handed to a carrier.", ("carrier",))
        self._settled = metrics.counter(
            "settlements",
            "What came of handing messages to a carrier: their new statuses, or that the claim was lost.",
            ("carrier", "status"),
        )
        self._given_up = metrics.counter(
            "given_up", "Messages that were not handed to a carrier any more, by new status.", ("status",)
        )

    def wake(self) -> None:
        """Say that there may be something to hand on. Call it on the loop's thread, after the commit."""
        self._loop.wake()

    async def release_claims(self) -> None:
        """Let go of what a dead predecessor had claimed, so that nobody waits for its leases to run out.

        Only for a process that owns the database alone, before `run`.
        """
        released = await self._database.write(self._handover.release_claims)
        if released:
            log.warning("claims_released", messages=released)

    async def run(self) -> None:
        """Work until `stop`, then finish the batches that carriers have.

        A store that is gone for now is waited for. Whatever else goes wrong is a fault of ours, ends the work
        and is raised.
        """
        await self._loop.run(self._turn)

    async def stop(self) -> None:
        """Claim no more, and return when the batches that carriers have are settled."""
        await self._loop.stop()

    async def _turn(self, batches: asyncio.TaskGroup) -> float:
        """Send one claim on its way and return how long to rest, in seconds; 0 where more is due already."""
        await self._slots.acquire()
        claimed = False
        try:
            if self._loop.is_stopping:
                return 0.0
            self._loop.look()
            # As of now: the transaction may run on another thread.
            living, jumped = frozenset(self._living), self._jumped
            claim = await self._claimed(living, jumped)
            self._brought_forward = jumped
            claimed = bool(claim.batches)
        finally:
            if not claimed:
                self._slots.release()
        if claimed:
            self._living.add(claim.id)
            batches.create_task(self._deliver(claim))
        for status, number in claim.given_up.items():
            self._given_up.labels(status.value).inc(number)
        overdue = claim.next_receipt_ms is not None and claim.next_receipt_ms <= self._clock.now_ms()
        swept = await self._database.write(self._handover.give_up_receipts) if overdue else 0
        if max(claim.due, swept) >= self._settings.max_batch or self._jumped > jumped:
            return 0.0
        return self._rest_s(claim)

    def _mind_the_clock(self) -> None:
        """Keep a jump of the time of day from doing harm.

        Set on, it ends all leases at once, also those of other workers that live: they get one lease's time to renew
        them, as they do three times a lease, before anything is taken over. Set back, it leaves messages due in a
        future that was the past: they are due now.
        """
        jump_s = self._jumps.seconds()
        if jump_s:
            log.warning("clock_jumped", seconds=round(jump_s, 1))
            self._spares_until = self._clock.monotonic() + self._settings.lease_s
            self._jumped += 1

    async def _claimed(self, living: Collection[str], jumped: int) -> Claim:
        """Return what a claim took, also where the answer to its commit was lost: else it would lie until its lease
        has run out, and count as one of a worker that died.
        """
        claims: list[Claim] = []

        async def work(tx: Transaction) -> Claim:
            claims.append(await self._claim(tx, living, jumped))
            return claims[-1]

        return await self._database.write(work, lambda tx: self._handover.holds(tx, claims[-1]))

    async def _claim(self, tx: Transaction, living: Collection[str], jumped: int) -> Claim:
        if self._brought_forward < jumped:
            brought = await self._handover.bring_forward(tx)
            if brought:
                log.warning("brought_forward", messages=brought)
        # Just before the claim reads the clock: it may have waited long for its transaction.
        self._mind_the_clock()
        spare = self._clock.monotonic() < self._spares_until
        return await self._handover.claim(tx, living, spare=spare)

    def _rest_s(self, claim: Claim) -> float:
        now_ms = self._clock.now_ms()
        rest_s = self._settings.idle_s
        for next_ms in (claim.next_submit_ms, claim.next_receipt_ms):
            if next_ms is not None:
                fruitless = next_ms <= claim.at_ms and not claim.due
                rest_s = min(rest_s, FRUITLESS_S if fruitless else max(next_ms - now_ms, 1) / 1000)
        return rest_s

    async def _deliver(self, claim: Claim) -> None:
        """See one claim through: to its carriers, and their answers to the store.

        A process that was stopped for longer than its lease wakes up here with messages that others have taken
        over by then: it hands none of them on.
        """
        try:
            if self._clock.monotonic() - claim.taken_at >= self._settings.lease_s:
                log.warning("claim_outlived", messages=claim.due)
                return
            async with asyncio.TaskGroup() as carriers:
                for name, batch in claim.batches.items():
                    carriers.create_task(self._hand_over(claim, self._carriers.named(name), batch))
        finally:
            self._living.discard(claim.id)
            self._slots.release()

    async def _hand_over(self, claim: Claim, carrier: Carrier, batch: Batch) -> None:
        self._submitted.labels(carrier.name).inc(len(batch.held))
        answers = await self._answers(claim, carrier, batch)
        settlement = await self._settle(claim, carrier, batch, answers)
        for status, number in settlement.statuses.items():
            self._settled.labels(carrier.name, status.value).inc(number)
        if settlement.lost:
            log.warning("claim_lost", carrier=carrier.name, messages=settlement.lost)
            self._settled.labels(carrier.name, "claim_lost").inc(settlement.lost)
        if settlement.again:
            # They fall due before the loop expects anything to.
            self.wake()

    async def _answers(self, claim: Claim, carrier: Carrier, batch: Batch) -> Sequence[Answer]:
        """Return a carrier's answers, keeping the claim alive for as long as the carrier takes."""
        submitting = asyncio.ensure_future(_submit(carrier, batch))
        try:
            while not submitting.done():
                await asyncio.wait([submitting], timeout=self._settings.lease_s / _RENEWALS)
                if not submitting.done():
                    with contextlib.suppress(StoreUnavailable):
                        await self._database.write(lambda tx: self._handover.renew(tx, claim))
        finally:
            submitting.cancel()
        return submitting.result()

    async def _settle(
        self, claim: Claim, carrier: Carrier, batch: Batch, answers: Sequence[Answer]
    ) -> Settlement:
        """Commit answers, for as long as it takes: they are all that is known of what carriers have taken."""

        async def work(tx: Transaction) -> Settlement:
            return await self._handover.settle(tx, claim.id, carrier.name, batch, answers)

        settled = await self._loop.settle(
            lambda: self._database.write(work), carrier=carrier.name, messages=len(batch.held)
        )
        return settled if settled is not None else Settlement({}, 0, again=False)


async def _submit(carrier: Carrier, batch: Batch) -> Sequence[Answer]:
    """Hand a batch to a carrier. Where that breaks the contract, nobody knows what the carrier has."""
    try:
        answers = await carrier.submit(batch.submissions)
    except Exception:
        log.exception("carrier_failed", carrier=carrier.name, messages=len(batch.held))
        return [AnswerLost("The carrier failed.")] * len(batch.held)
    if len(answers) != len(batch.held):
        log.error(
            "carrier_answers_missing", carrier=carrier.name, messages=len(batch.held), answers=len(answers)
        )
        return [AnswerLost("The carrier did not answer for every message.")] * len(batch.held)
    return answers
