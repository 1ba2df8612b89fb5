"""Texts from phones as rows, for tests that do not receive them."""

import sqlalchemy as sa

from hydrasms_base.ids import new_id
from hydrasms_core.db.transaction import Transaction
from hydrasms_core.events import store as events_store
from hydrasms_core.messaging.model import InboundMessage
from hydrasms_core.messaging.ports import Happening
from hydrasms_core.messaging.tables import inbound_messages

AT_MS = 1_780_000_000_000
"""When all of them came."""


def a_text(account_id: str) -> InboundMessage:
    """Return a text of an account, or of nobody where that is empty."""
    return InboundMessage(new_id(), account_id, "+447700900000", "order", "pizza", None, AT_MS)


async def insert_inbound(tx: Transaction, inbound: InboundMessage) -> None:
    """Store a text."""
    await tx.execute(sa.insert(inbound_messages).values(**inbound._asdict()))


async def receive(tx: Transaction, account_id: str) -> InboundMessage:
    """Store a text and that it came."""
    text = a_text(account_id)
    await insert_inbound(tx, text)
    await events_store.add(tx, [Happening(account_id, "inbound_received", text.id)], at_ms=AT_MS)
    return text
