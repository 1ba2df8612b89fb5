"""Handing pushes over to receivers: what each transaction of the deliverer does with a batch.

`claim` commits that attempts are about to begin before any byte of them leaves, `settle` commits what came of them.
In between only the holder of the claim may change a delivery: all that `settle` does is fenced by the claim, so that
a worker which has lost it changes nothing.

An attempt whose worker died may have arrived. It is made again under the same webhook-id, by which a receiver drops
it (at least once), unless the endpoint wants no retries: then it is dead (at most once).
"""

from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from hydrasms_base.clock import Clock
from hydrasms_base.ids import new_id
from hydrasms_core.db.transaction import Transaction
from hydrasms_core.messaging.ports import Happening, Happenings
from hydrasms_core.settings import WebhookSettings
from hydrasms_core.webhooks import delivery_store, queue_store, store
from hydrasms_core.webhooks.delivery import (
    FAILED_TOO_LONG,
    GONE,
    INTERRUPTED,
    MAX_PAUSE_MS,
    Change,
    Standing,
    health_after,
    is_to_be_disabled,
    when_answered,
)
from hydrasms_core.webhooks.delivery_store import Due, Made, Recorded, Target
from hydrasms_core.webhooks.model import DeliveryStatus, DeliveryType
from hydrasms_core.webhooks.ports import Answered, Unanswered
from hydrasms_core.webhooks.sharing import Queue
from hydrasms_core.webhooks.store import EndpointKey

_CLOCKS_DIFFER_MS = 60_000
"""By how much the clocks of several hosts may differ, generously."""


class Held(NamedTuple):
    """A push that a claim holds, and since when, by the clock that never jumps; `attempt` counts the one that the
    claim is for.
    """

    claim: str
    due: Due
    target: Target
    attempt: int
    taken_at: float


@dataclass(frozen=True, slots=True)
class Claim:
    """What one claim took, and how many pushes it gave up."""

    id: str
    held: Sequence[Held]
    given_up: int


class Ended(NamedTuple):
    """An attempt that is over, and when it began and ended by the time of day."""

    held: Held
    answer: Answered | Unanswered
    began_at_ms: int
    ended_at_ms: int


class Settled(NamedTuple):
    """What an attempt made of its push; None where the claim was lost and nothing was changed."""

    status: DeliveryStatus | None
    disabled: bool = False
    """Whether it was this attempt's batch that disabled the endpoint."""


class Handover:
    """Claims and settles pushes, in as many statements for a hundred as for one."""

    def __init__(
        self, happenings: Happenings, clock: Clock, settings: WebhookSettings, jitter: Callable[[], float]
    ) -> None:
        self._happenings = happenings
        self._clock = clock
        self._jitter = jitter
        self._lease_ms = round(settings.lease_s * 1000)
        self._most = settings.max_per_receiver

    async def find_queues(self, tx: Transaction) -> tuple[list[Queue], int | None]:
        """Return the endpoints where something is due, and when something is at any other."""
        return await delivery_store.find_queues(tx, now_ms=self._clock.now_ms())

    async def claim(
        self,
        tx: Transaction,
        shares: Mapping[Queue, int],
        in_flight: Collection[str],
        *,
        spare: bool = False,
    ) -> Claim:
        """Take so many of what is due at each of these endpoints, but for what this process has in flight itself.

        `spare` leaves out what others hold, though their leases seem to have run out. What has no receiver any more
        is given up.
        """
        now_ms, taken_at, claim_id = self._clock.now_ms(), self._clock.monotonic(), new_id()
        keys = await self._heads(tx, shares, in_flight, now_ms, spare=spare)
        taken = await delivery_store.take(tx, keys, now_ms=now_ms, spare=spare) if keys else []
        dead = [due for due in taken if _is_hopeless(due)]
        held = [
            Held(claim_id, due, due.target, due.attempts + due.interrupted + 1, taken_at)
            for due in taken
            if due.target is not None and not _is_hopeless(due)
        ]
        if held:
            until_ms = now_ms + self._lease_ms
            going = delivery_store.keys_of(each.due for each in held)
            await delivery_store.lease(tx, claim_id, going, until_ms=until_ms)
        if dead:
            await queue_store.give_up(tx, delivery_store.keys_of(dead), at_ms=now_ms)
        interrupted = [due for due in taken if due.interrupted]
        if interrupted:
            await self._record_interrupted(tx, interrupted, now_ms)
        return Claim(claim_id, held, len(dead))

    async def holds(self, tx: Transaction, claim: Claim) -> bool:
        """Tell whether a claim is there, all of which came to be together; one that took nothing is not."""
        keys = delivery_store.keys_of(each.due for each in claim.held)
        return bool(keys) and await delivery_store.is_held(tx, claim.id, keys[0])

    async def renew(self, tx: Transaction, held: Sequence[Held]) -> None:
        """Let the leases of pushes begin anew, because their receivers still take their time."""
        await delivery_store.renew(
            tx,
            [(each.due.account_id, each.due.id, each.claim) for each in held],
            until_ms=self._clock.now_ms() + self._lease_ms,
        )

    async def give_back(self, tx: Transaction, held: Sequence[Held]) -> None:
        """Let go of pushes that were not attempted: they are due, as early as they have been."""
        now_ms = self._clock.now_ms()
        due = [
            (each.due.account_id, each.due.id, each.claim, min(each.due.created_at_ms, now_ms))
            for each in held
        ]
        await delivery_store.schedule(tx, due)

    async def settle(self, tx: Transaction, ended: Sequence[Ended]) -> list[Settled]:
        """Commit what came of attempts, in the order of their ends, for those that their claims still hold."""
        now_ms = self._clock.now_ms()
        changes = [(each, self._change(each, now_ms)) for each in ended]
        still = await self._let_go(tx, changes)
        told = [(each, change) for each, change in changes if each.held.due.id in still]
        disabled: set[EndpointKey] = set()
        if told:
            await delivery_store.add_attempts(tx, [_made(each, change) for each, change in told])
            await delivery_store.record(tx, [_recorded(each, change) for each, change in told], at_ms=now_ms)
            answered = [
                (each.held.due.account_id, each.held.due.subject_id, change.http_status)
                for each, change in told
                if change.http_status is not None and each.held.due.type is DeliveryType.INBOUND
            ]
            if answered:
                await delivery_store.set_webhook_status(tx, answered)
            disabled = await self._judge(tx, told, now_ms)
        return [
            Settled(change.status, _endpoint_of(each) in disabled)
            if each.held.due.id in still
            else Settled(None)
            for each, change in changes
        ]

    async def bring_forward(self, tx: Transaction) -> int:
        """Let pushes be due now that are due later than any pause between two attempts explains: the clock was set
        back since. Returns how many those were.
        """
        now_ms = self._clock.now_ms()
        ahead_ms = now_ms + MAX_PAUSE_MS + _CLOCKS_DIFFER_MS
        return await delivery_store.bring_forward(tx, now_ms=now_ms, ahead_ms=ahead_ms)

    async def release_claims(self, tx: Transaction) -> int:
        """Let the claims of dead predecessors end at once; returns how many pushes they held."""
        return await delivery_store.release_claims(tx, now_ms=self._clock.now_ms())

    async def _heads(
        self,
        tx: Transaction,
        shares: Mapping[Queue, int],
        in_flight: Collection[str],
        now_ms: int,
        *,
        spare: bool,
    ) -> list[tuple[str, str]]:
        """Return the deliveries to take.

        As many of each endpoint are looked at as may be in flight there: where a clock was set on, those that are
        seem to be due as well.
        """
        endpoints = [(queue.account_id, queue.endpoint_id) for queue in shares]
        left = {queue.endpoint_id: share for queue, share in shares.items()}
        found = await delivery_store.find_heads(tx, endpoints, now_ms=now_ms, each=self._most, spare=spare)
        keys = []
        for account_id, endpoint_id, delivery_id in found:
            if left[endpoint_id] and delivery_id not in in_flight:
                left[endpoint_id] -= 1
                keys.append((account_id, delivery_id))
        return keys

    async def _record_interrupted(self, tx: Transaction, interrupted: Sequence[Due], now_ms: int) -> None:
        attempts = [
            Made(due.account_id, due.id, due.attempts + 1, now_ms, 0, None, INTERRUPTED, "")
            for due in interrupted
        ]
        await delivery_store.add_attempts(tx, attempts)
        recorded = [
            Recorded(
                due.account_id,
                due.id,
                DeliveryStatus.DEAD if _is_hopeless(due) else DeliveryStatus.PENDING,
                due.attempts + 1,
                due.step,
                None,
            )
            for due in interrupted
        ]
        await delivery_store.record(tx, recorded, at_ms=now_ms)

    def _change(self, ended: Ended, now_ms: int) -> Change:
        standing = Standing(ended.held.due.step + 1, ended.held.target.retries)
        return when_answered(standing, ended.answer, now_ms=now_ms, jitter=self._jitter())

    async def _let_go(self, tx: Transaction, changes: Sequence[tuple[Ended, Change]]) -> set[str]:
        """End the claims' hold on pushes, and return the ids of those that they held."""
        again, over = [], []
        for each, change in changes:
            key = (each.held.due.account_id, each.held.due.id, each.held.claim)
            if change.status is DeliveryStatus.PENDING:
                again.append((*key, change.due_at_ms))
            else:
                over.append(key)
        held = await delivery_store.schedule(tx, again) if again else set()
        return held | (await delivery_store.finish(tx, over) if over else set())

    async def _judge(
        self, tx: Transaction, told: Sequence[tuple[Ended, Change]], now_ms: int
    ) -> set[EndpointKey]:
        """Record how the endpoints do, and disable those that failed for too long or want no more; returns these."""
        ends: defaultdict[EndpointKey, list[tuple[bool, int]]] = defaultdict(list)
        reasons: dict[EndpointKey, str] = {}
        for each, change in told:
            ends[_endpoint_of(each)].append((change.delivered, each.ended_at_ms))
            if change.gone:
                reasons[_endpoint_of(each)] = GONE
        health = {endpoint: health_after(ends[endpoint]) for endpoint in sorted(ends)}
        well = [endpoint for endpoint, seen in health.items() if seen.succeeded]
        if well:
            await store.clear_failing(tx, well)
        ill = [
            (*endpoint, seen.failing_since_ms)
            for endpoint, seen in health.items()
            if seen.failing_since_ms is not None
        ]
        since = await store.set_failing(tx, ill) if ill else {}
        for endpoint, failing_since_ms in since.items():
            if is_to_be_disabled(failing_since_ms, now_ms=now_ms):
                reasons.setdefault(endpoint, FAILED_TOO_LONG)
        return await self._disable(tx, reasons, now_ms) if reasons else set()

    async def _disable(
        self, tx: Transaction, reasons: Mapping[EndpointKey, str], now_ms: int
    ) -> set[EndpointKey]:
        wanted = [(*endpoint, reason) for endpoint, reason in sorted(reasons.items())]
        disabled = await store.disable(tx, wanted, at_ms=now_ms)
        for account_id, endpoint_id in disabled:
            await queue_store.give_up_all(tx, account_id, endpoint_id, at_ms=now_ms)
        if disabled:
            happened = [
                Happening(
                    account_id, "webhook_disabled", endpoint_id, {"reason": reasons[account_id, endpoint_id]}
                )
                for account_id, endpoint_id in disabled
            ]
            await self._happenings.record(tx, happened, at_ms=now_ms)
        return set(disabled)


def _is_hopeless(due: Due) -> bool:
    """Tell whether there is nothing to attempt: no receiver, nothing to say, or nobody who wants it twice."""
    if due.target is None or due.target.disabled:
        return True
    if due.type is DeliveryType.INBOUND and due.text is None:
        return True
    return due.interrupted and not due.target.retries


def _endpoint_of(ended: Ended) -> EndpointKey:
    return ended.held.due.account_id, ended.held.due.endpoint_id


def _made(ended: Ended, change: Change) -> Made:
    due, duration_ms = ended.held.due, round(ended.answer.duration_s * 1000)
    return Made(
        due.account_id,
        due.id,
        ended.held.attempt,
        ended.began_at_ms,
        duration_ms,
        change.http_status,
        change.failure,
        change.answer,
    )


def _recorded(ended: Ended, change: Change) -> Recorded:
    due = ended.held.due
    return Recorded(
        due.account_id, due.id, change.status, ended.held.attempt, due.step + 1, change.http_status
    )
