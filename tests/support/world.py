"""One process's delivery for tests, over a database that outlives it."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from typing import Any

from hydrasms_base.metrics import Metrics
from hydrasms_core.carriers.base import Carrier, InboundText, Receipt
from hydrasms_core.carriers.registry import Carriers
from hydrasms_core.carriers.simulator.carrier import SimulatedCarrier
from hydrasms_core.carriers.simulator.inbox import Inbox
from hydrasms_core.messaging.dispatcher import Dispatcher
from hydrasms_core.messaging.model import Message, Status
from hydrasms_core.messaging.receipts import ReceiptIntake
from hydrasms_core.messaging.tables import outbox, receipts
from hydrasms_core.settings import DeliverySettings
from tests.support.consent import consent_book
from tests.support.delivery import (
    BOUND_S,
    ObservedDatabase,
    RecordedCredits,
    message_of,
    queue,
    queued_message,
    rows_of,
)

# Far beyond what a test waits: whatever happens happens because somebody called.
NEVER_S = 3600.0


class World:
    """One process's delivery, over a database that outlives it."""

    def __init__(
        self,
        observed: ObservedDatabase,
        ledger: RecordedCredits,
        clock: Any,
        carrier: Carrier | None = None,
        **settings: Any,
    ) -> None:
        self.database = observed
        self.ledger = ledger
        self.clock = clock
        self.metrics = Metrics()
        self.simulator = SimulatedCarrier(observed, clock)
        self.intake = ReceiptIntake(observed, clock, self.metrics)
        self.texts: list[InboundText] = []
        self.dispatcher = Dispatcher(
            observed,
            ledger,
            consent_book(),
            Carriers([carrier or self.simulator]),
            clock,
            self.metrics,
            DeliverySettings(**({"idle_s": NEVER_S, "pace_s": 0.0} | settings)),
        )

    async def receive(self, receipts: Sequence[Receipt]) -> None:
        """Take in receipts, as a carrier's reports."""
        await self.intake.receive(receipts)

    async def receive_text(self, text: InboundText) -> None:
        """Keep a text, as a carrier's reports."""
        self.texts.append(text)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator["World"]:
        """Run dispatcher and simulator; on leaving, drain the one and cut the other off."""
        simulating = asyncio.create_task(self.simulator.run(self))
        dispatching = asyncio.create_task(self.dispatcher.run())
        try:
            yield self
        finally:
            async with asyncio.timeout(BOUND_S):
                await self.dispatcher.stop()
                await dispatching
            simulating.cancel()
            await asyncio.wait([simulating])
            assert simulating.cancelled(), simulating.exception()

    async def send(self, *recipients: str, **changes: Any) -> Any:
        """Queue messages and call the dispatcher; returns the one id, or all of them."""
        now_ms = self.clock.now_ms()
        ids = await queue(
            self.database, *(queued_message(now_ms, recipient, **changes) for recipient in recipients)
        )
        self.dispatcher.wake()
        return ids if len(ids) > 1 else ids[0]

    async def message(self, message_id: str) -> Message:
        return await message_of(self.database, message_id)

    async def until(self, message_id: str, status: Status, attempts: int | None = None) -> Message:
        """Wait until a message has a status, and has had so many attempts."""

        async def holds() -> bool:
            message = await self.message(message_id)
            return message.status is status and attempts in (None, message.attempts)

        await self.database.until(holds)
        return await self.message(message_id)

    async def until_released(self, message_id: str, attempts: int) -> None:
        """Wait until so many attempts are over and the message waits for another."""

        async def holds() -> bool:
            # In this order: an attempt that was begun before the look at the outbox is then over.
            if (await self.message(message_id)).attempts != attempts:
                return False
            (row,) = [row for row in await rows_of(self.database, outbox) if row["message_id"] == message_id]
            return bool(row["claim"] == "")

        await self.database.until(holds)

    async def reported(self, number: int) -> list[dict[str, Any]]:
        """Wait until so many receipts have been taken in; returns them."""

        async def holds() -> bool:
            return len(await rows_of(self.database, receipts)) >= number

        await self.database.until(holds)
        return await rows_of(self.database, receipts)

    def pass_time(self, seconds: float) -> None:
        """Let the clock of the test go on, and have the dispatcher look."""
        self.clock.advance(seconds)
        self.dispatcher.wake()

    async def inbox(self, recipient: str) -> list[str]:
        """Return what is on a simulated phone, newest first."""
        page = await Inbox(self.database).list_texts(recipient, 0, "")
        return [text.content for text in page.rows]

    def counted(self, name: str, **labels: str) -> float:
        """Return how far a counter has come."""
        return self.metrics.registry.get_sample_value(f"hydrasms_{name}_total", labels) or 0


def phone(script: str) -> str:
    """Return the number of a simulated phone by its last four digits."""
    return f"+44770090{script}"
