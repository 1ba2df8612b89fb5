"""The tables of webhooks: endpoints, deliveries, what is due, and attempts."""

import sqlalchemy as sa

from hydrasms_core.db.lists import AccountKey
from hydrasms_core.db.metadata import COUNT, ID, MILLIS, metadata

# Where pushes go. Secrets are sealed (hydrasms_base.sealing), never plain.
webhook_endpoints = sa.Table(
    "webhook_endpoints",
    metadata,
    sa.Column("account_id", ID, nullable=False),
    # The shortcode's id, or the account's for its own webhook.
    sa.Column("id", ID, nullable=False),
    # The shortcode's word; empty for the account's own webhook.
    sa.Column("shortcode", sa.String(20), nullable=False, server_default=""),
    sa.Column("url", sa.String(2000), nullable=False),
    sa.Column("retries", COUNT, nullable=False, server_default="1"),
    # The word that goes into the body as "auth"; empty for the account's own webhook.
    sa.Column("auth_sealed", sa.Text, nullable=False, server_default=""),
    sa.Column("signing_sealed", sa.Text, nullable=False),
    # The signing secret before the last rotation, and until when it is used beside the new one.
    sa.Column("previous_sealed", sa.Text, nullable=False, server_default=""),
    sa.Column("previous_until_ms", MILLIS),
    # Since when every attempt has failed; null while the last one succeeded or none was made.
    sa.Column("failing_since_ms", MILLIS),
    # Null while it works.
    sa.Column("disabled_at_ms", MILLIS),
    sa.Column("disabled_reason", sa.String(200), nullable=False, server_default=""),
    sa.Column("created_at_ms", MILLIS, nullable=False),
    sa.Column("updated_at_ms", MILLIS, nullable=False),
    sa.PrimaryKeyConstraint("account_id", "id"),
)

# A push, from when it is queued on; its id is the webhook-id, the same on every attempt.
webhook_deliveries = sa.Table(
    "webhook_deliveries",
    metadata,
    sa.Column("account_id", ID, nullable=False),
    sa.Column("id", ID, nullable=False),
    sa.Column("endpoint_id", ID, nullable=False),
    # inbound, message_status or test
    sa.Column("type", sa.String(16), nullable=False),
    # The text or message that it is about; empty for a test.
    sa.Column("subject_id", ID, nullable=False, server_default=""),
    # What is pushed, as JSON, where the subject's row does not say it all; no body of a text.
    sa.Column("payload", sa.Text, nullable=False, server_default=""),
    # pending, delivered or dead
    sa.Column("status", sa.String(10), nullable=False),
    sa.Column("attempts", COUNT, nullable=False, server_default="0"),
    # Attempts since it was queued or redelivered: its place in the schedule.
    sa.Column("step", COUNT, nullable=False, server_default="0"),
    sa.Column("last_status", COUNT),
    sa.Column("created_at_ms", MILLIS, nullable=False),
    sa.Column("updated_at_ms", MILLIS, nullable=False),
    sa.PrimaryKeyConstraint("account_id", "id"),
    # By id alone: what an operator names without its account, and what is old enough to be forgotten. It grows at
    # its end only, for ids sort by time.
    sa.Index(None, "id"),
    # What is pending or dead, a small part of all.
    sa.Index(
        "ix_webhook_deliveries_undelivered",
        "account_id",
        "status",
        "id",
        sqlite_where=sa.text("status <> 'delivered'"),
        postgresql_where=sa.text("status <> 'delivered'"),
    ),
)

# The deliveries that are still to be tried, and when. Claimed as messages are in the outbox.
webhook_outbox = sa.Table(
    "webhook_outbox",
    metadata,
    sa.Column("account_id", ID, nullable=False),
    sa.Column("delivery_id", ID, nullable=False),
    sa.Column("endpoint_id", ID, nullable=False),
    sa.Column("due_at_ms", MILLIS, nullable=False),
    sa.Column("claim", ID, nullable=False, server_default=""),
    sa.PrimaryKeyConstraint("delivery_id", "account_id"),
    # The queue of every endpoint, which has ids of its own: who looks for what is due goes from one queue's head to
    # the next one's, past all that waits behind, and takes a few of each.
    sa.Index("ix_webhook_outbox_queues", "endpoint_id", "due_at_ms", "delivery_id"),
)

webhook_attempts = sa.Table(
    "webhook_attempts",
    metadata,
    sa.Column("account_id", ID, nullable=False),
    sa.Column("delivery_id", ID, nullable=False),
    # Counts from 1.
    sa.Column("number", COUNT, nullable=False),
    sa.Column("at_ms", MILLIS, nullable=False),
    sa.Column("duration_ms", MILLIS, nullable=False),
    # HTTP status of the answer; null where there was none.
    sa.Column("http_status", COUNT),
    sa.Column("failure", sa.String(200), nullable=False, server_default=""),
    # The first 2,000 bytes of the answer, as text without NUL.
    sa.Column("answer", sa.Text, nullable=False, server_default=""),
    AccountKey("delivery_id", "number"),
)
