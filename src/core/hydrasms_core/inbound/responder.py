"""The responder: hands automatic replies to carriers."""

import asyncio
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hydrasms_base.clock import Clock
from hydrasms_base.ids import new_id
from hydrasms_base.log import get_logger
from hydrasms_base.metrics import Metrics
from hydrasms_core.carriers.base import Answer, AnswerLost, Carrier, Submission, Submitted
from hydrasms_core.carriers.registry import Carriers
from hydrasms_core.db.transaction import Database, Transaction
from hydrasms_core.inbound import replies_store as store
from hydrasms_core.inbound.replies_store import DueReply
from hydrasms_core.inbound.responding import ReplyStatus, may_go, when_answered
from hydrasms_core.messaging import delivery_store
from hydrasms_core.messaging.delivery import MAX_BACK_OFF_MS
from hydrasms_core.messaging.receipts import apply_parked
from hydrasms_core.messaging.text import measure
from hydrasms_core.settings import ReplySettings
from hydrasms_core.work_loop import FRUITLESS_S, WorkLoop

_CLOCKS_DIFFER_MS = 60_000
_NOBODY = ""

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Claim:
    """What one claim took, by carrier; `given_up` counts what is not handed on any more."""

    id: str
    batches: Mapping[str, Sequence[DueReply]]
    given_up: int


class Responder:
    """Hands automatic replies on until it is stopped, one batch after the other.

    It sleeps until `wake` is called or something falls due. Any number may work on one database. A reply goes to a
    carrier once, and once more at most where nobody knows whether the carrier has it.
    """

    def __init__(
        self,
        database: Database,
        carriers: Carriers,
        clock: Clock,
        metrics: Metrics,
        settings: ReplySettings | None = None,
    ) -> None:
        self._database = database
        self._carriers = carriers
        self._clock = clock
        self._settings = settings or ReplySettings()
        self._loop = WorkLoop("responder", pace_s=self._settings.pace_s)
        self._settled = metrics.counter(
            "replies", "Automatic replies, by what came of handing them to a carrier.", ("status",)
        )

    def wake(self) -> None:
        """Say that there may be a reply to hand on. Call it on the loop's thread, after the commit."""
        self._loop.wake()

    async def release_claims(self) -> None:
        """Let go of what a dead predecessor had claimed. Only for whoever owns the database alone, before `run`."""
        now_ms = self._clock.now_ms()
        await self._database.write(lambda tx: store.release_claims(tx, now_ms=now_ms))

    async def run(self) -> None:
        """Work until `stop`; a store that is gone for now is waited for."""
        await self._loop.run(self._turn)

    async def stop(self) -> None:
        """Take nothing more, and wait until the batch in flight is settled."""
        await self._loop.stop()

    async def _turn(self, _: asyncio.TaskGroup) -> float:
        """Hand on what is due, and return how long there is nothing to do, in seconds."""
        self._loop.look()
        next_ms = await self._database.read(store.next_due)
        wait_s = self._settings.idle_s if next_ms is None else (next_ms - self._clock.now_ms()) / 1000
        if next_ms is None or 0 < wait_s <= self._longest_wait_s:
            return min(wait_s, self._settings.idle_s)
        claim = await self._claimed()
        self._settled.labels(ReplyStatus.FAILED.value).inc(claim.given_up)
        for name, batch in claim.batches.items():
            await self._hand_over(claim, self._carriers.named(name), batch)
        return 0.0 if claim.batches or claim.given_up else FRUITLESS_S

    @property
    def _longest_wait_s(self) -> float:
        """How far off a reply may be due; one that is due later was queued before the clock was set back."""
        return (MAX_BACK_OFF_MS + _CLOCKS_DIFFER_MS) / 1000

    async def _claimed(self) -> _Claim:
        claims: list[_Claim] = []

        async def work(tx: Transaction) -> _Claim:
            claims.append(await self._claim(tx))
            return claims[-1]

        return await self._database.write(work, lambda tx: _holds(tx, claims[-1]))

    async def _claim(self, tx: Transaction) -> _Claim:
        """Commit that replies are on their way before any byte of them leaves."""
        now_ms, claim_id = self._clock.now_ms(), new_id()
        due = await store.take_due(
            tx,
            now_ms=now_ms,
            ahead_ms=now_ms + round(self._longest_wait_s * 1000),
            most=self._settings.max_batch,
        )
        oldest_ms = now_ms - self._settings.validity_s * 1000
        going = [reply for reply in due if may_go(reply.standing, expired=reply.created_at_ms < oldest_ms)]
        if going:
            marked = [(r.id, int(r.standing.duplicate_risk or r.standing.held)) for r in going]
            until_ms = now_ms + round(self._settings.lease_s * 1000)
            await store.lease(tx, claim_id, marked, until_ms=until_ms)
        stopped = {reply.id for reply in due} - {reply.id for reply in going}
        if stopped:
            await store.fail(tx, stopped)
        batches: defaultdict[str, list[DueReply]] = defaultdict(list)
        for reply in going:
            batches[self._carriers.route(reply.recipient).name].append(_begun(reply))
        return _Claim(claim_id, batches, len(stopped))

    async def _hand_over(self, claim: _Claim, carrier: Carrier, batch: Sequence[DueReply]) -> None:
        answers = await self._answers(carrier, batch)

        async def work(tx: Transaction) -> list[ReplyStatus]:
            return await self._settle(tx, claim.id, carrier.name, batch, answers)

        settled = await self._loop.settle(
            lambda: self._database.write(work), carrier=carrier.name, replies=len(batch)
        )
        for status in settled or ():
            self._settled.labels(status.value).inc()

    async def _answers(self, carrier: Carrier, batch: Sequence[DueReply]) -> Sequence[Answer]:
        """Hand replies to a carrier. One that takes longer than the lease has them perhaps, or not."""
        submissions = [self._submission(reply) for reply in batch]
        try:
            async with asyncio.timeout(self._settings.lease_s):
                answers = await carrier.submit(submissions)
        except Exception as error:  # noqa: BLE001 - whatever the carrier does, nobody knows what it has
            log.error("carrier_failed", carrier=carrier.name, replies=len(batch), error=type(error).__name__)
            return [AnswerLost("The carrier failed.")] * len(batch)
        if len(answers) != len(batch):
            log.error("carrier_answers_missing", carrier=carrier.name, replies=len(batch))
            return [AnswerLost("The carrier did not answer for every reply.")] * len(batch)
        return answers

    def _submission(self, reply: DueReply) -> Submission:
        shape = measure(reply.content)
        return Submission(
            reply.id,
            self._settings.sent_from,
            reply.recipient,
            reply.content,
            shape.encoding,
            shape.segments,
            reply.standing.attempts,
            reply.created_at_ms + self._settings.validity_s * 1000,
        )

    async def _settle(
        self,
        tx: Transaction,
        claim_id: str,
        carrier: str,
        batch: Sequence[DueReply],
        answers: Sequence[Answer],
    ) -> list[ReplyStatus]:
        """Commit a carrier's answers for those replies that the claim still holds; returns their new statuses."""
        now_ms = self._clock.now_ms()
        if any(isinstance(answer, Submitted) for answer in answers):
            await delivery_store.begin_adding(tx, carrier)
        changes = [
            (reply.id, when_answered(reply.standing, answer, now_ms=now_ms))
            for reply, answer in zip(batch, answers, strict=True)
        ]
        held = await store.settle(tx, claim_id, changes)
        # Carriers report on replies as well: their reports are to be known, and to move nothing.
        taken = [
            (_NOBODY, reply.id, answer.reference)
            for reply, answer in zip(batch, answers, strict=True)
            if isinstance(answer, Submitted) and reply.id in held
        ]
        if taken:
            await delivery_store.add_references(tx, carrier, taken, lane=0)
            await apply_parked(tx, carrier, [reference for _, _, reference in taken], at_ms=now_ms)
        return [change.status for reply_id, change in changes if reply_id in held]


def _begun(reply: DueReply) -> DueReply:
    at = reply.standing
    return reply._replace(
        standing=at._replace(attempts=at.attempts + 1, duplicate_risk=at.duplicate_risk or at.held, held=True)
    )


async def _holds(tx: Transaction, claim: _Claim) -> bool:
    ids = [reply.id for batch in claim.batches.values() for reply in batch]
    return bool(ids) and await store.is_held(tx, claim.id, ids[0])
