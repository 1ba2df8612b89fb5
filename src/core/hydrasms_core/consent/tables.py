"""The tables of consent. Numbers stand in them as keyed hashes alone (hydrasms_base.sealing)."""

import sqlalchemy as sa

from hydrasms_core.db.metadata import ID, MILLIS, metadata

NUMBER_HASH = sa.String(43)

# Phones that want no messages of an account.
opt_outs = sa.Table(
    "opt_outs",
    metadata,
    sa.Column("account_id", ID, nullable=False),
    sa.Column("number_hash", NUMBER_HASH, nullable=False),
    sa.Column("created_at_ms", MILLIS, nullable=False),
    sa.PrimaryKeyConstraint("account_id", "number_hash"),
)

# Whose message was handed on last to a phone: that is whom its STOP is for. Looked up without an account.
last_senders = sa.Table(
    "last_senders",
    metadata,
    sa.Column("number_hash", NUMBER_HASH, nullable=False),
    sa.Column("account_id", ID, nullable=False),
    # Since when it has been that account.
    sa.Column("since_ms", MILLIS, nullable=False),
    sa.PrimaryKeyConstraint("number_hash"),
)
