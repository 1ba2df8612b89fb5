"""The tables of what phones send, beside `inbound_messages`, which messaging lists."""

import sqlalchemy as sa

from hydrasms_core.db.metadata import COUNT, ID, MILLIS, metadata

# What a carrier called a text, so that it is taken in once.
inbound_references = sa.Table(
    "inbound_references",
    metadata,
    sa.Column("carrier", sa.String(32), nullable=False),
    sa.Column("reference", sa.String(128), nullable=False),
    sa.Column("account_id", ID, nullable=False),
    sa.Column("message_id", ID, nullable=False),
    # What the caller was told became of it.
    sa.Column("outcome", sa.String(20), nullable=False),
    sa.Column("received_at_ms", MILLIS, nullable=False),
    sa.PrimaryKeyConstraint("carrier", "reference"),
    sa.Index(None, "received_at_ms"),
    # Those whose text may still be given to an account, a few at most.
    sa.Index(
        "ix_inbound_references_unowned",
        "message_id",
        sqlite_where=sa.text("account_id = ''"),
        postgresql_where=sa.text("account_id = ''"),
    ),
)

# Automatic replies, from when they are queued on: nobody pays for them, and no account has sent them.
replies = sa.Table(
    "replies",
    metadata,
    # The id of the text that is answered: one reply each.
    sa.Column("id", ID, nullable=False),
    sa.Column("recipient", sa.String(20), nullable=False),
    sa.Column("content", sa.Text, nullable=False),
    # unknown, stop, start or help
    sa.Column("kind", sa.String(10), nullable=False),
    # queued, sent or failed
    sa.Column("status", sa.String(10), nullable=False),
    sa.Column("attempts", COUNT, nullable=False, server_default="0"),
    # Whether a carrier may have it already; then there is no further attempt after the next one.
    sa.Column("duplicate_risk", COUNT, nullable=False, server_default="0"),
    sa.Column("due_at_ms", MILLIS, nullable=False),
    # As in the outbox.
    sa.Column("claim", ID, nullable=False, server_default=""),
    sa.Column("created_at_ms", MILLIS, nullable=False),
    sa.PrimaryKeyConstraint("id"),
    sa.Index(None, "status", "due_at_ms"),
    # How many a phone got lately.
    sa.Index(None, "recipient", "created_at_ms"),
)
