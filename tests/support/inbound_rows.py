"""Texts from phones as rows, for tests that do not receive them."""

from dataclasses import asdict

import sqlalchemy as sa

from hydrasms_core.db.transaction import Transaction
from hydrasms_core.messaging.model import InboundMessage
from hydrasms_core.messaging.tables import inbound_messages


async def insert_inbound(tx: Transaction, inbound: InboundMessage) -> None:
    """Store a text."""
    await tx.execute(sa.insert(inbound_messages).values(**asdict(inbound)))
