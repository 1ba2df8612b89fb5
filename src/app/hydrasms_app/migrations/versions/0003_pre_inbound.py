"""Inbound texts, shortcodes, consent, webhooks and events."""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_INT64 = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_ID = sa.String(length=36).with_variant(sa.String(length=36, collation="C"), "postgresql")
_PARTITIONED = (
    "opt_outs",
    "events",
    "webhook_endpoints",
    "webhook_deliveries",
    "webhook_outbox",
    "webhook_attempts",
)


def upgrade() -> None:
    """Add the tables, empty."""
    op.create_table(
        "opt_outs",
        sa.Column("account_id", _ID, nullable=False),
        sa.Column("number_hash", sa.String(length=43), nullable=False),
        sa.Column("created_at_ms", _INT64, nullable=False),
        sa.PrimaryKeyConstraint("account_id", "number_hash", name=op.f("pk_opt_outs")),
        **_partitioned(),
    )
    op.create_table(
        "last_senders",
        sa.Column("number_hash", sa.String(length=43), nullable=False),
        sa.Column("account_id", _ID, nullable=False),
        sa.Column("since_ms", _INT64, nullable=False),
        sa.PrimaryKeyConstraint("number_hash", name=op.f("pk_last_senders")),
    )
    op.create_table(
        "events",
        sa.Column("account_id", _ID, nullable=False),
        sa.Column("position", _INT64, nullable=False),
        sa.Column("id", _ID, nullable=False),
        sa.Column("type", sa.String(length=32), nullable=False),
        sa.Column("subject_id", _ID, nullable=False),
        sa.Column("detail", sa.Text(), server_default="", nullable=False),
        sa.Column("created_at_ms", _INT64, nullable=False),
        sa.PrimaryKeyConstraint("account_id", "position", "id", name=op.f("pk_events")),
        **_partitioned(),
    )
    op.create_index(op.f("ix_events_position_id"), "events", ["position", "id"], unique=False)
    op.create_index(op.f("ix_events_created_at_ms"), "events", ["created_at_ms"], unique=False)
    op.create_table(
        "inbound_references",
        sa.Column("carrier", sa.String(length=32), nullable=False),
        sa.Column("reference", sa.String(length=128), nullable=False),
        sa.Column("account_id", _ID, nullable=False),
        sa.Column("message_id", _ID, nullable=False),
        sa.Column("outcome", sa.String(length=20), nullable=False),
        sa.Column("received_at_ms", _INT64, nullable=False),
        sa.PrimaryKeyConstraint("carrier", "reference", name=op.f("pk_inbound_references")),
    )
    op.create_index(
        op.f("ix_inbound_references_received_at_ms"), "inbound_references", ["received_at_ms"], unique=False
    )
    op.create_index(
        "ix_inbound_references_unowned",
        "inbound_references",
        ["message_id"],
        unique=False,
        sqlite_where=sa.text("account_id = ''"),
        postgresql_where=sa.text("account_id = ''"),
    )
    op.create_table(
        "replies",
        sa.Column("id", _ID, nullable=False),
        sa.Column("recipient", sa.String(length=20), nullable=False),
        sa.Column("content", sa.Text(), nullable=False),
        sa.Column("kind", sa.String(length=10), nullable=False),
        sa.Column("status", sa.String(length=10), nullable=False),
        sa.Column("attempts", _INT64, server_default="0", nullable=False),
        sa.Column("duplicate_risk", _INT64, server_default="0", nullable=False),
        sa.Column("due_at_ms", _INT64, nullable=False),
        sa.Column("claim", _ID, server_default="", nullable=False),
        sa.Column("created_at_ms", _INT64, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_replies")),
    )
    op.create_index(op.f("ix_replies_status_due_at_ms"), "replies", ["status", "due_at_ms"], unique=False)
    op.create_index(
        op.f("ix_replies_recipient_created_at_ms"), "replies", ["recipient", "created_at_ms"], unique=False
    )
    op.create_table(
        "simulated_answers",
        sa.Column("due_at_ms", _INT64, nullable=False),
        sa.Column("reference", _ID, nullable=False),
        sa.Column("sender", sa.String(length=20), nullable=False),
        sa.Column("content", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("due_at_ms", "reference", name=op.f("pk_simulated_answers")),
    )
    op.create_table(
        "shortcodes",
        sa.Column("word", sa.String(length=20), nullable=False),
        sa.Column("id", _ID, nullable=False),
        sa.Column("account_id", _ID, nullable=False),
        sa.Column("active", _INT64, server_default="1", nullable=False),
        sa.Column("created_at_ms", _INT64, nullable=False),
        sa.Column("updated_at_ms", _INT64, nullable=False),
        sa.PrimaryKeyConstraint("word", name=op.f("pk_shortcodes")),
    )
    op.create_index("uq_shortcodes_account_id_id", "shortcodes", ["account_id", "id"], unique=True)
    op.create_table(
        "webhook_endpoints",
        sa.Column("account_id", _ID, nullable=False),
        sa.Column("id", _ID, nullable=False),
        sa.Column("shortcode", sa.String(length=20), server_default="", nullable=False),
        sa.Column("url", sa.String(length=2000), nullable=False),
        sa.Column("retries", _INT64, server_default="1", nullable=False),
        sa.Column("auth_sealed", sa.Text(), server_default="", nullable=False),
        sa.Column("signing_sealed", sa.Text(), nullable=False),
        sa.Column("previous_sealed", sa.Text(), server_default="", nullable=False),
        sa.Column("previous_until_ms", _INT64, nullable=True),
        sa.Column("failing_since_ms", _INT64, nullable=True),
        sa.Column("disabled_at_ms", _INT64, nullable=True),
        sa.Column("disabled_reason", sa.String(length=200), server_default="", nullable=False),
        sa.Column("created_at_ms", _INT64, nullable=False),
        sa.Column("updated_at_ms", _INT64, nullable=False),
        sa.PrimaryKeyConstraint("account_id", "id", name=op.f("pk_webhook_endpoints")),
        **_partitioned(),
    )
    op.create_table(
        "webhook_deliveries",
        sa.Column("account_id", _ID, nullable=False),
        sa.Column("id", _ID, nullable=False),
        sa.Column("endpoint_id", _ID, nullable=False),
        sa.Column("type", sa.String(length=16), nullable=False),
        sa.Column("subject_id", _ID, server_default="", nullable=False),
        sa.Column("payload", sa.Text(), server_default="", nullable=False),
        sa.Column("status", sa.String(length=10), nullable=False),
        sa.Column("attempts", _INT64, server_default="0", nullable=False),
        sa.Column("step", _INT64, server_default="0", nullable=False),
        sa.Column("last_status", _INT64, nullable=True),
        sa.Column("created_at_ms", _INT64, nullable=False),
        sa.Column("updated_at_ms", _INT64, nullable=False),
        sa.PrimaryKeyConstraint("account_id", "id", name=op.f("pk_webhook_deliveries")),
        **_partitioned(),
    )
    op.create_index(op.f("ix_webhook_deliveries_id"), "webhook_deliveries", ["id"], unique=False)
    op.create_index(
        "ix_webhook_deliveries_undelivered",
        "webhook_deliveries",
        ["account_id", "status", "id"],
        unique=False,
        sqlite_where=sa.text("status <> 'delivered'"),
        postgresql_where=sa.text("status <> 'delivered'"),
    )
    op.create_table(
        "webhook_outbox",
        sa.Column("account_id", _ID, nullable=False),
        sa.Column("delivery_id", _ID, nullable=False),
        sa.Column("endpoint_id", _ID, nullable=False),
        sa.Column("due_at_ms", _INT64, nullable=False),
        sa.Column("claim", _ID, server_default="", nullable=False),
        sa.PrimaryKeyConstraint("delivery_id", "account_id", name=op.f("pk_webhook_outbox")),
        **_partitioned(),
    )
    op.create_index(
        "ix_webhook_outbox_queues",
        "webhook_outbox",
        ["endpoint_id", "due_at_ms", "delivery_id"],
        unique=False,
    )
    op.create_table(
        "webhook_attempts",
        sa.Column("account_id", _ID, nullable=False),
        sa.Column("delivery_id", _ID, nullable=False),
        sa.Column("number", _INT64, nullable=False),
        sa.Column("at_ms", _INT64, nullable=False),
        sa.Column("duration_ms", _INT64, nullable=False),
        sa.Column("http_status", _INT64, nullable=True),
        sa.Column("failure", sa.String(length=200), server_default="", nullable=False),
        sa.Column("answer", sa.Text(), server_default="", nullable=False),
        sa.PrimaryKeyConstraint("account_id", "delivery_id", "number", name=op.f("pk_webhook_attempts")),
        **_partitioned(),
    )
    op.create_table(
        "sealing_checks",
        sa.Column("id", _INT64, autoincrement=False, nullable=False),
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.CheckConstraint("id = 1", name=op.f("ck_sealing_checks_one_row")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_sealing_checks")),
    )
    for table in _PARTITIONED:
        for lane in range(_lanes()):
            op.execute(
                f"CREATE TABLE {table}_p{lane} PARTITION OF {table}"
                f" FOR VALUES WITH (MODULUS {_lanes()}, REMAINDER {lane})"
            )


def downgrade() -> None:
    """Take them away."""
    for table in (
        "sealing_checks",
        "webhook_attempts",
        "webhook_outbox",
        "webhook_deliveries",
        "webhook_endpoints",
        "shortcodes",
        "simulated_answers",
        "replies",
        "inbound_references",
        "events",
        "last_senders",
        "opt_outs",
    ):
        op.drop_table(table)


def _lanes() -> int:
    """Return how many partitions the tables before these have; 0 where they have none."""
    if op.get_bind().dialect.name != "postgresql":
        return 0
    counted = sa.text("SELECT count(*) FROM pg_inherits WHERE inhparent = CAST('messages' AS regclass)")
    return int(op.get_bind().execute(counted).scalar_one())


def _partitioned() -> dict[str, Any]:
    return {"postgresql_partition_by": "HASH (account_id)"} if _lanes() else {}
