"""All tables in one place: importing them is what registers them with the metadata."""

from hydrasms_billing import tables as _billing
from hydrasms_core.accounts import tables as _accounts
from hydrasms_core.carriers.simulator import tables as _simulator
from hydrasms_core.db.metadata import metadata
from hydrasms_core.idempotency import tables as _idempotency
from hydrasms_core.messaging import tables as _messaging

__all__ = ["metadata"]

TABLE_MODULES = (_accounts, _billing, _idempotency, _messaging, _simulator)
