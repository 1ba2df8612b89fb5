"""All tables in one place: importing them is what registers them with the metadata."""

import sqlalchemy as sa

from hydrasms_billing import tables as _billing
from hydrasms_core.accounts import tables as _accounts
from hydrasms_core.carriers.simulator import tables as _simulator
from hydrasms_core.consent import tables as _consent
from hydrasms_core.db.metadata import COUNT, metadata
from hydrasms_core.events import tables as _events
from hydrasms_core.idempotency import tables as _idempotency
from hydrasms_core.inbound import tables as _inbound
from hydrasms_core.messaging import tables as _messaging
from hydrasms_core.sealing import tables as _sealing
from hydrasms_core.shortcodes import tables as _shortcodes
from hydrasms_core.webhooks import tables as _webhooks

__all__ = ["metadata", "schema_floor"]

TABLE_MODULES = (
    _accounts,
    _billing,
    _consent,
    _events,
    _idempotency,
    _inbound,
    _messaging,
    _sealing,
    _shortcodes,
    _simulator,
    _webhooks,
)

# The revision that code must know to be let near this database: the last that took something away. A missing row
# lets all code in.
schema_floor = sa.Table(
    "schema_floor",
    metadata,
    sa.Column("id", COUNT, nullable=False, autoincrement=False),
    sa.Column("revision", sa.String(32), nullable=False),
    sa.PrimaryKeyConstraint("id"),
    sa.CheckConstraint("id = 1", name="one_row"),
)
