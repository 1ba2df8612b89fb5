"""The table of idempotency keys."""

import sqlalchemy as sa

from hydrasms_core.db.metadata import ID, MILLIS, metadata

idempotency_keys = sa.Table(
    "idempotency_keys",
    metadata,
    # Whose key it is; empty for operations that belong to no account yet.
    sa.Column("account_id", ID, nullable=False),
    # What was asked for: one key may be used once an operation.
    sa.Column("operation", sa.String(32), nullable=False),
    sa.Column("key", sa.String(255), nullable=False),
    sa.Column("fingerprint", sa.String(64), nullable=False),
    # The id of what was made.
    sa.Column("subject_id", ID, nullable=False),
    sa.Column("created_at_ms", MILLIS, nullable=False),
    sa.PrimaryKeyConstraint("account_id", "operation", "key"),
    sa.Index(None, "created_at_ms"),
)
