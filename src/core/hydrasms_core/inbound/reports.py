"""Where carriers bring what they learn and what phones send."""

from hydrasms_core.carriers.base import InboundText
from hydrasms_core.inbound.service import Inbound
from hydrasms_core.messaging.receipts import ReceiptIntake


class CarrierReports:
    """Takes in receipts and texts; it implements `carriers.base.Reports`."""

    def __init__(self, receipts: ReceiptIntake, inbound: Inbound) -> None:
        self._inbound = inbound
        self.receive = receipts.receive

    async def receive_text(self, text: InboundText) -> None:
        """Take a text in; durable when this returns."""
        await self._inbound.receive(text)
