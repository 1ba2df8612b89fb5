"""The table of shortcodes."""

import sqlalchemy as sa

from hydrasms_core.db.metadata import COUNT, ID, MILLIS, metadata

shortcodes = sa.Table(
    "shortcodes",
    metadata,
    # Folded; the primary key is what keeps two accounts from having one word. Looked up without an account.
    sa.Column("word", sa.String(20), nullable=False),
    # Also names its webhook among the endpoints.
    sa.Column("id", ID, nullable=False),
    sa.Column("account_id", ID, nullable=False),
    # 0 where the account's plan does not cover it.
    sa.Column("active", COUNT, nullable=False, server_default="1"),
    sa.Column("created_at_ms", MILLIS, nullable=False),
    sa.Column("updated_at_ms", MILLIS, nullable=False),
    sa.PrimaryKeyConstraint("word"),
    sa.Index("uq_shortcodes_account_id_id", "account_id", "id", unique=True),
)
