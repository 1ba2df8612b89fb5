"""The tables of accounts and API keys."""

import sqlalchemy as sa

from hydrasms_core.db.metadata import COUNT, ID, MILLIS, metadata

accounts = sa.Table(
    "accounts",
    metadata,
    sa.Column("id", ID, nullable=False),
    sa.Column("name", sa.String(200), nullable=False),
    sa.Column("plan", sa.String(16), nullable=False),
    sa.Column("sending_enabled", sa.Boolean, nullable=False),
    sa.Column("suspended", sa.Boolean, nullable=False),
    sa.Column("created_at_ms", MILLIS, nullable=False),
    sa.Column("updated_at_ms", MILLIS, nullable=False),
    sa.PrimaryKeyConstraint("id"),
    sa.CheckConstraint("plan IN ('free', 'premium')", name="plan"),
)

api_keys = sa.Table(
    "api_keys",
    metadata,
    sa.Column("id", ID, nullable=False),
    sa.Column("account_id", ID, sa.ForeignKey("accounts.id"), nullable=False),
    sa.Column("name", sa.String(200), nullable=False),
    # The first characters, for display alone.
    sa.Column("prefix", sa.String(9), nullable=False),
    # SHA-256, lower-case hexadecimal: all that is kept of a key.
    sa.Column("digest", sa.CHAR(64), nullable=False),
    sa.Column("enabled", sa.Boolean, nullable=False),
    sa.Column("imported", sa.Boolean, nullable=False),
    sa.Column("created_at_ms", MILLIS, nullable=False),
    sa.Column("expires_at_ms", MILLIS),
    sa.PrimaryKeyConstraint("id"),
    sa.UniqueConstraint("digest"),
    sa.Index(None, "account_id", "id"),
)

# One row that counts the changes of what is above, each in the transaction of the change: whoever remembers an
# account or a key has to ask for no more than this number to know whether it still holds. What is new counts as no
# change, because nobody can have remembered it. A missing row is version 0.
access_changes = sa.Table(
    "access_changes",
    metadata,
    sa.Column("id", COUNT, nullable=False, autoincrement=False),
    sa.Column("version", COUNT, nullable=False),
    sa.PrimaryKeyConstraint("id"),
    sa.CheckConstraint("id = 1", name="one_row"),
)
