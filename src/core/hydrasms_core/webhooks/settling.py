"""What came of attempts goes to the store, many at a time."""

import asyncio
import collections
from collections.abc import Callable, Sequence

from hydrasms_base.log import get_logger
from hydrasms_base.metrics import Metrics
from hydrasms_core.db.group_commit import GroupCommit
from hydrasms_core.db.transaction import Database
from hydrasms_core.errors import Overloaded, StoreUnavailable
from hydrasms_core.messaging.ports import Lanes
from hydrasms_core.webhooks.handover import Ended, Handover, Settled
from hydrasms_core.webhooks.model import DeliveryStatus
from hydrasms_core.webhooks.ports import Answered, Unanswered
from hydrasms_core.work_loop import WorkLoop

_MAX_SETTLED = 256

log = get_logger(__name__)


class Settler:
    """Commits the ends of attempts, for as long as it takes: they are all that is known of what receivers have.

    Those that come while others are committed are committed next, together: a task for each would cost more than
    what is done for it. `over` is called with those that are settled, or abandoned because the store is still gone
    after a stop.
    """

    def __init__(
        self,
        database: Database,
        handover: Handover,
        lanes: Lanes,
        loop: WorkLoop,
        metrics: Metrics,
        over: Callable[[Sequence[Ended]], None],
    ) -> None:
        self._lanes = lanes
        self._loop = loop
        self._over = over
        self._writers: list[GroupCommit[Ended, Settled]] = [
            GroupCommit(database, handover.settle, max_batch=_MAX_SETTLED) for _ in range(lanes.number)
        ]
        # Of the lanes that are at work: what is to be committed next.
        self._next: dict[int, list[Ended]] = {}
        self._attempts = metrics.counter(
            "webhook_attempts", "Attempts to push to a webhook, by how they ended.", ("outcome",)
        )
        self._settled = metrics.counter(
            "webhook_settlements",
            "What attempts made of their pushes: their new statuses, or that the claim was lost.",
            ("status",),
        )
        self._disabled = metrics.counter(
            "webhooks_disabled", "Webhooks that were disabled for their failures."
        )

    async def add(self, ended: Ended, tasks: asyncio.TaskGroup) -> None:
        """Have an end committed soon, by a task of these."""
        # It was found for the claim, and an account never moves.
        lane = await self._lanes.of(ended.held.due.account_id)
        if lane not in self._next:
            self._next[lane] = []
            tasks.create_task(self._work(lane))
        self._next[lane].append(ended)

    async def _work(self, lane: int) -> None:
        while ends := self._next[lane]:
            self._next[lane] = []
            for outcome, number in collections.Counter(_outcome(each.answer) for each in ends).items():
                self._attempts.labels(outcome).inc(number)
            await self._commit(lane, ends)
            self._over(ends)
        del self._next[lane]

    async def _commit(self, lane: int, ends: Sequence[Ended]) -> None:
        left = ends

        async def commit() -> None:
            nonlocal left
            outcomes = await self._writers[lane].submit_each(left)
            postponed: list[Ended] = []
            settled: list[tuple[Ended, Settled]] = []
            faults: list[Exception] = []
            for ended, outcome in zip(left, outcomes, strict=True):
                if isinstance(outcome, Settled):
                    settled.append((ended, outcome))
                elif isinstance(outcome, StoreUnavailable | Overloaded):
                    postponed.append(ended)
                else:
                    faults.append(outcome)
            self._tell(settled)
            if faults:
                raise faults[0]
            if postponed:
                left = postponed
                raise StoreUnavailable

        await self._loop.settle(commit, attempts=len(ends))

    def _tell(self, settled: Sequence[tuple[Ended, Settled]]) -> None:
        statuses = collections.Counter(outcome.status for _, outcome in settled)
        for status, number in statuses.items():
            self._settled.labels("claim_lost" if status is None else status.value).inc(number)
        for ended, outcome in settled:
            if outcome.status is None:
                log.warning("webhook_claim_lost", delivery_id=ended.held.due.id)
            if outcome.disabled:
                log.warning("webhook_disabled", endpoint_id=ended.held.due.endpoint_id)
                self._disabled.inc()
        if DeliveryStatus.PENDING in statuses:
            # They fall due before the loop expects anything to.
            self._loop.wake()


def _outcome(answer: Answered | Unanswered) -> str:
    """Return how an attempt ended, in few words for a counter: the class of an answer's status, or why none came."""
    return f"{answer.status // 100}xx" if isinstance(answer, Answered) else answer.refusal.value
