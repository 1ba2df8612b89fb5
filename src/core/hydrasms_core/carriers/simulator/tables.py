"""The tables of the simulated phone network."""

import sqlalchemy as sa

from hydrasms_core.db.metadata import COUNT, ID, MILLIS, metadata

# What is on simulated phones, a day long.
simulated_texts = sa.Table(
    "simulated_texts",
    metadata,
    # The carrier's reference as well.
    sa.Column("id", ID, nullable=False),
    sa.Column("message_id", ID, nullable=False),
    sa.Column("sender", sa.String(20), nullable=False),
    sa.Column("recipient", sa.String(20), nullable=False),
    sa.Column("content", sa.Text, nullable=False),
    sa.Column("received_at_ms", MILLIS, nullable=False),
    sa.PrimaryKeyConstraint("id"),
    sa.Index(None, "recipient", "id"),
)

# What phones still text back; a row goes when the text is acknowledged.
simulated_answers = sa.Table(
    "simulated_answers",
    metadata,
    sa.Column("due_at_ms", MILLIS, nullable=False),
    # Of the text that is answered, and of the answer as well: one each.
    sa.Column("reference", ID, nullable=False),
    sa.Column("sender", sa.String(20), nullable=False),
    sa.Column("content", sa.Text, nullable=False),
    sa.PrimaryKeyConstraint("due_at_ms", "reference"),
)

# Receipts that the network still owes; a row goes when its receipt is acknowledged.
simulated_receipts = sa.Table(
    "simulated_receipts",
    metadata,
    sa.Column("due_at_ms", MILLIS, nullable=False),
    sa.Column("reference", ID, nullable=False),
    # A message may have several receipts.
    sa.Column("ordinal", COUNT, nullable=False),
    sa.Column("status", sa.String(16), nullable=False),
    sa.Column("failure", sa.String(200), nullable=False),
    sa.PrimaryKeyConstraint("due_at_ms", "reference", "ordinal"),
)
