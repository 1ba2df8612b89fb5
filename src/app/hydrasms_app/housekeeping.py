"""Forgets what need not be kept."""

import asyncio

from hydrasms_base.clock import Clock
from hydrasms_base.ids import first_id_at
from hydrasms_base.log import get_logger
from hydrasms_core.carriers.simulator.carrier import SimulatedCarrier
from hydrasms_core.db.transaction import Database
from hydrasms_core.errors import StoreUnavailable
from hydrasms_core.idempotency import store as idempotency
from hydrasms_core.webhooks import queue_store as webhooks

_EVERY_S = 60.0
_CLOCK_MAY_JUMP_MS = 2 * 3_600_000
"""Keys are kept for so much longer than is promised, so that a clock that is set on shortens nobody's."""

log = get_logger(__name__)


class Housekeeping:
    """Purges idempotency keys, simulated texts and webhook deliveries that are past their time, a little at once."""

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
        await self._simulator.purge(now_ms)
        oldest_kept = first_id_at(now_ms - self._deliveries_kept_ms)
        while await self._database.write(lambda tx: webhooks.purge(tx, before_id=oldest_kept)):
            pass
