"""Forgets what need not be kept."""

import asyncio
from functools import partial

from hydrasms_base.clock import Clock
from hydrasms_base.ids import first_id_at
from hydrasms_base.log import get_logger
from hydrasms_core.carriers.simulator.carrier import SimulatedCarrier
from hydrasms_core.db.transaction import Database
from hydrasms_core.errors import StoreUnavailable
from hydrasms_core.events import store as events
from hydrasms_core.idempotency import store as idempotency
from hydrasms_core.inbound import store as inbound
from hydrasms_core.webhooks import queue_store as webhooks

_EVERY_S = 60.0
_CLOCK_MAY_JUMP_MS = 2 * 3_600_000
"""Keys are kept for so much longer than is promised, so that a clock that is set on shortens nobody's."""
_INBOUND_KEPT_MS = 7 * 24 * 3_600_000
"""How long what a carrier called a text is known, so that it is taken in once, and what was replied."""

log = get_logger(__name__)


class Housekeeping:
    """Purges what is past its time, a little at once: idempotency keys, events, simulated texts, carriers' names of
    what phones sent, replies to that, and webhook deliveries.
    """

    def __init__(
        self,
        database: Database,
        simulator: SimulatedCarrier,
        clock: Clock,
        *,
        deliveries_kept_days: int = 30,
    ) -> None:
        self._database = database
        self._simulator = simulator
        self._clock = clock
        self._deliveries_kept_ms = deliveries_kept_days * 86_400_000

    async def run(self) -> None:
        """Purge once a minute until cancelled."""
        while True:
            try:
                await self.purge()
            except StoreUnavailable:
                log.warning("purge_postponed")
            await asyncio.sleep(_EVERY_S)

    async def purge(self) -> None:
        """Purge all that is past its time, in small transactions, so that nobody waits long for the writer."""
        now_ms = self._clock.now_ms()
        while await self._database.write(
            lambda tx: idempotency.purge(tx, now_ms=now_ms - _CLOCK_MAY_JUMP_MS)
        ):
            pass
        while await self._database.write(lambda tx: events.purge(tx, now_ms=now_ms - _CLOCK_MAY_JUMP_MS)):
            pass
        await self._simulator.purge(now_ms)
        for forget in (inbound.purge_references, inbound.purge_replies):
            while await self._database.write(partial(forget, before_ms=now_ms - _INBOUND_KEPT_MS)):
                pass
        oldest_kept = first_id_at(now_ms - self._deliveries_kept_ms)
        while await self._database.write(lambda tx: webhooks.purge(tx, before_id=oldest_kept)):
            pass
