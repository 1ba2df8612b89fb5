"""The table of events."""

import sqlalchemy as sa

from hydrasms_core.db.lists import AccountKey
from hydrasms_core.db.metadata import ID, MILLIS, metadata

# What happened. (position, id) is the order in which it is read: nobody who has read up to a place ever misses what
# is committed before that place later. On SQLite the position counts up in the one writer's transaction; on
# PostgreSQL it is the transaction's own number, and only what is older than every transaction still open is read.
events = sa.Table(
    "events",
    metadata,
    sa.Column("account_id", ID, nullable=False),
    sa.Column("position", MILLIS, nullable=False),
    sa.Column("id", ID, nullable=False),
    sa.Column("type", sa.String(32), nullable=False),
    # What it is about, by type: an inbound message, a message, an endpoint, or a shortcode's word.
    sa.Column("subject_id", ID, nullable=False),
    # More about it, as JSON; no number and no body.
    sa.Column("detail", sa.Text, nullable=False, server_default=""),
    sa.Column("created_at_ms", MILLIS, nullable=False),
    AccountKey("position", "id"),
    # On SQLite that is how the primary key begins.
    sa.Index(None, "position", "id").ddl_if(dialect="postgresql"),
    sa.Index(None, "created_at_ms"),
)
