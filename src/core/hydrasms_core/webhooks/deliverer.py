"""The deliverer: takes what is due out of the queue of pushes and posts it to its receivers."""

import asyncio
import contextlib
import math
import random
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial

from hydrasms_base.clock import Clock
from hydrasms_base.log import get_logger
from hydrasms_base.metrics import Metrics
from hydrasms_base.sealing import Unsealable
from hydrasms_core.db.transaction import Database, Transaction
from hydrasms_core.errors import StoreUnavailable
from hydrasms_core.messaging.clock_jumps import ClockJumps
from hydrasms_core.messaging.lanes import OneLane
from hydrasms_core.messaging.ports import Happenings, Lanes
from hydrasms_core.settings import WebhookSettings
from hydrasms_core.webhooks.handover import Claim, Ended, Handover, Held
from hydrasms_core.webhooks.in_hand import InHand
from hydrasms_core.webhooks.ports import Answered, Poster, Refusal, Unanswered
from hydrasms_core.webhooks.posts import masked, post_of
from hydrasms_core.webhooks.sealed import EndpointSecrets
from hydrasms_core.webhooks.settling import Settler
from hydrasms_core.webhooks.sharing import Queue
from hydrasms_core.work_loop import FRUITLESS_S, WorkLoop

# What was claimed ahead and has waited for so long is given back: its endpoint may have been changed meanwhile.
_STALE_S = 1.0
# A claim is renewed so many times a lease, so that one renewal may fail.
_RENEWALS = 3

log = get_logger(__name__)


class Deliverer:
    """Posts pushes to their receivers until it is stopped.

    It sleeps until `wake` is called or something falls due. Attempts run side by side, a few to each receiver and
    more to all; their ends are committed together. Any number of deliverers may work on one database.
    """

    def __init__(
        self,
        database: Database,
        poster: Poster,
        secrets: EndpointSecrets,
        happenings: Happenings,
        clock: Clock,
        metrics: Metrics,
        settings: WebhookSettings | None = None,
        lanes: Lanes | None = None,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._database = database
        self._poster = poster
        self._secrets = secrets
        self._clock = clock
        self._settings = settings or WebhookSettings()
        self._lanes: Lanes = lanes or OneLane()
        self._handover = Handover(happenings, clock, self._settings, jitter)
        self._in_hand = InHand(self._settings)
        self._group: asyncio.TaskGroup
        # Whether there was more to do than could be begun, so that every end is a beginning.
        self._hungry = False
        self._jumps = ClockJumps(clock)
        self._spares_until = -math.inf
        # The clock may have been set back before anybody was there to notice.
        self._behind = True
        self._loop = WorkLoop("deliverer", pace_s=self._settings.pace_s)
        self._given_up = metrics.counter(
            "webhook_given_up", "Pushes that were not attempted any more, for they had no receiver."
        )
        self._settler = Settler(database, self._handover, self._lanes, self._loop, metrics, self._let_go)

    def wake(self) -> None:
        """Say that there may be something to push. Call it on the loop's thread, after the commit."""
        self._loop.wake()

    async def release_claims(self) -> None:
        """Let go of what a dead predecessor had claimed, so that nobody waits for its leases to run out.

        Only for a process that owns the database alone, before `run`.
        """
        released = await self._database.write(self._handover.release_claims)
        if released:
            log.warning("webhook_claims_released", deliveries=released)

    async def run(self) -> None:
        """Work until `stop`, then finish the attempts that are under way.

        A store that is gone for now is waited for. Whatever else goes wrong is a fault of ours, ends the work
        and is raised.
        """
        async with asyncio.TaskGroup() as beside:
            renewing = beside.create_task(self._keep_leases())
            await self._loop.run(self._turn)
            renewing.cancel()

    async def stop(self) -> None:
        """Begin no more, and return when the attempts that are under way are settled and what was not begun is given
        back.
        """
        await self._loop.stop()
        await self._give_back(self._in_hand.withdraw())

    async def _turn(self, attempts: asyncio.TaskGroup) -> float:
        """Begin what can be begun, and return how long to rest, in seconds, where nobody calls."""
        self._loop.look()
        self._mind_the_clock()
        if self._behind:
            brought = await self._database.write(self._handover.bring_forward)
            self._behind = False
            if brought:
                log.warning("webhooks_brought_forward", deliveries=brought)
        # Reading keeps nobody from writing: most looks find nothing.
        queues, next_ms = await self._database.read(self._handover.find_queues)
        shares = self._in_hand.shares(queues)
        self._hungry = bool(queues)
        self._group = attempts
        taken = 0
        for lane_shares in (await self._by_lane(shares)).values():
            claim = await self._claimed(lane_shares)
            taken += len(claim.held) + claim.given_up
            self._given_up.inc(claim.given_up)
            self._in_hand.take(claim.held)
            self._begin()
        rest_s = self._settings.idle_s
        if shares:
            if not taken:
                return min(rest_s, FRUITLESS_S)
            # What was not reached by this look, for it takes a few of each, is by the next.
            await self._loop.pause(self._settings.pace_s)
            return 0.0
        if next_ms is not None:
            rest_s = min(rest_s, max(next_ms - self._clock.now_ms(), 1) / 1000)
        return rest_s

    def _begin(self) -> None:
        """Begin as many attempts as may be under way."""
        while not self._loop.is_stopping and (held := self._in_hand.begin()):
            self._group.create_task(self._deliver(held))

    async def _by_lane(self, shares: Mapping[Queue, int]) -> Mapping[int, dict[Queue, int]]:
        lanes: defaultdict[int, dict[Queue, int]] = defaultdict(dict)
        for queue, share in shares.items():
            lanes[await self._lanes.of(queue.account_id)][queue] = share
        return lanes

    async def _claimed(self, shares: Mapping[Queue, int]) -> Claim:
        """Return what a claim took, also where the answer to its commit was lost: else it would lie until its lease
        has run out, and count as one of a worker that died.
        """
        claims: list[Claim] = []
        in_hand = frozenset(self._in_hand.ids)

        async def work(tx: Transaction) -> Claim:
            # It may have waited long for its transaction: told to stop meanwhile, it takes nothing.
            wanted = {} if self._loop.is_stopping else shares
            # Just before the claim reads the clock.
            self._mind_the_clock()
            spare = self._clock.monotonic() < self._spares_until
            claims.append(await self._handover.claim(tx, wanted, in_hand, spare=spare))
            return claims[-1]

        return await self._database.write(work, lambda tx: self._handover.holds(tx, claims[-1]))

    def _mind_the_clock(self) -> None:
        """Keep a jump of the time of day from doing harm.

        Set on, it ends all leases at once, also those of other workers that live: they get one lease's time to renew
        them before anything is taken over. Set back, it leaves pushes due in a future that was the past: they are due
        now.
        """
        jump_s = self._jumps.seconds()
        if jump_s:
            log.warning("clock_jumped", seconds=round(jump_s, 1))
            self._spares_until = self._clock.monotonic() + self._settings.lease_s
            self._behind = True
            self._hungry = True

    async def _keep_leases(self) -> None:
        """Renew the claims of what is under way, three times a lease, until cancelled."""
        while True:
            await asyncio.sleep(self._settings.lease_s / _RENEWALS)
            with contextlib.suppress(StoreUnavailable):
                for renewed in await self._held_by_lane(list(self._in_hand.held)):
                    await self._database.write(partial(self._handover.renew, held=renewed))

    async def _held_by_lane(self, held: Sequence[Held]) -> Collection[list[Held]]:
        lanes: defaultdict[int, list[Held]] = defaultdict(list)
        for each in held:
            lanes[await self._lanes.of(each.due.account_id)].append(each)
        return lanes.values()

    async def _give_back(self, held: Sequence[Held]) -> None:
        """Let go of what was not begun."""
        for given in await self._held_by_lane(held):
            back = partial(self._handover.give_back, held=given)
            await self._loop.settle(partial(self._database.write, back), given_back=len(given))
        for each in held:
            self._in_hand.let_go(each)
        self._begin()
        # It is due, and the loop does not know.
        self.wake()

    async def _deliver(self, held: Held) -> None:
        """See one push through: to its receiver, and the answer to the store.

        A process that was stopped for longer than its lease wakes up here with a push that others have taken over by
        then: it does not post it.
        """
        waited_s = self._clock.monotonic() - held.taken_at
        if waited_s >= self._settings.lease_s:
            log.warning("webhook_claim_outlived", delivery_id=held.due.id)
            self._in_hand.let_go(held)
            self._go_on()
            return
        if waited_s >= _STALE_S:
            await self._give_back([held])
            return
        began_at_ms = self._clock.now_ms()
        answer = await self._post(held, began_at_ms)
        await self._settler.add(Ended(held, answer, began_at_ms, self._clock.now_ms()), self._group)
        if isinstance(answer, Answered) and 200 <= answer.status <= 299:
            self._in_hand.leave_receiver(held)
            self._go_on()
        # One attempt at a time goes to a receiver that fails, and none to one that is disabled for it.
        elif withdrawn := self._in_hand.withdraw(held.due.endpoint_id):
            await self._give_back(withdrawn)

    def _let_go(self, ends: Sequence[Ended]) -> None:
        for ended in ends:
            self._in_hand.let_go(ended.held)
        self._go_on()

    def _go_on(self) -> None:
        """Begin others in the place of an attempt."""
        self._begin()
        if self._hungry:
            self.wake()

    async def _post(self, held: Held, at_ms: int) -> Answered | Unanswered:
        began = self._clock.monotonic()
        try:
            post = post_of(held.due, held.target, self._secrets, at_ms=at_ms)
            return masked(await self._poster.post(post.url, post.headers, post.body), post.auth)
        except Unsealable:
            log.error("webhook_secret_unreadable", endpoint_id=held.due.endpoint_id)
            failure = "The webhook's secrets cannot be read. Set its URL and secrets anew."
        except Exception:
            # A poster that breaks its contract; whatever it has sent, the push is tried again.
            log.exception("poster_failed", delivery_id=held.due.id)
            failure = "The attempt failed on our side."
        return Unanswered(Refusal.PROTOCOL, failure, self._clock.monotonic() - began)
