"""The tables of messages, their outbox, and what phones sent."""

import sqlalchemy as sa

from hydrasms_core.db.lists import AccountKey
from hydrasms_core.db.metadata import COUNT, ID, MILLIS, metadata

messages = sa.Table(
    "messages",
    metadata,
    sa.Column("account_id", ID, nullable=False),
    sa.Column("id", ID, nullable=False),
    sa.Column("sender", sa.String(20), nullable=False),
    sa.Column("recipient", sa.String(20), nullable=False),
    # What was known of the number when it was accepted; numbering plans change, an answer given does not.
    sa.Column("country_iso2", sa.String(2), nullable=False),
    sa.Column("country_iso3", sa.String(3), nullable=False),
    sa.Column("calling_code", COUNT, nullable=False),
    sa.Column("content", sa.Text, nullable=False),
    sa.Column("status", sa.String(16), nullable=False),
    sa.Column("credits", COUNT, nullable=False),
    sa.Column("encoding", sa.String(8), nullable=False),
    sa.Column("segments", COUNT, nullable=False),
    sa.Column("created_at_ms", MILLIS, nullable=False),
    sa.Column("updated_at_ms", MILLIS, nullable=False),
    sa.Column("expires_at_ms", MILLIS, nullable=False),
    sa.Column("carrier", sa.String(32), nullable=False, server_default=""),
    sa.Column("attempts", COUNT, nullable=False, server_default="0"),
    sa.Column("duplicate_risk", COUNT, nullable=False, server_default="0"),
    sa.Column("failure", sa.String(200), nullable=False, server_default=""),
    AccountKey("id"),
    sa.CheckConstraint("credits >= 1", name="credits"),
)

# What is still to be done about a message, and when. A worker claims a row by pushing due_at_ms into the future:
# should it die, the row falls due again by itself.
outbox = sa.Table(
    "outbox",
    metadata,
    sa.Column("account_id", ID, nullable=False),
    sa.Column("message_id", ID, nullable=False),
    # submit: hand it to a carrier; receipt: give up waiting for the carrier's report.
    sa.Column("step", sa.String(8), nullable=False),
    sa.Column("due_at_ms", MILLIS, nullable=False),
    # Who holds it; only the claim that is named here may say what came of it. Empty: nobody. A row that falls due
    # with a claim on it was held by a worker that died.
    sa.Column("claim", ID, nullable=False, server_default=""),
    # The writer's lane that the account belongs to: a worker takes messages of one lane at a time.
    sa.Column("lane", COUNT, nullable=False, server_default="0"),
    # Led by the message because those ids grow with time: a batch's rows then lie side by side, however many
    # accounts it is of. With 300 of them that was measured to be a tenth of all that delivering a message costs.
    sa.PrimaryKeyConstraint("message_id", "account_id"),
    sa.Index(None, "step", "due_at_ms"),
)

# What a carrier called a message, for its reports; a message in parts has one a part.
carrier_references = sa.Table(
    "carrier_references",
    metadata,
    sa.Column("carrier", sa.String(32), nullable=False),
    sa.Column("reference", sa.String(128), nullable=False),
    sa.Column("account_id", ID, nullable=False),
    sa.Column("message_id", ID, nullable=False),
    # The writer's lane that the account belongs to.
    sa.Column("lane", COUNT, nullable=False, server_default="0"),
    sa.PrimaryKeyConstraint("carrier", "reference"),
)

# What carriers reported, every report once as it came, whether or not it moved anything.
receipts = sa.Table(
    "receipts",
    metadata,
    sa.Column("id", ID, nullable=False),
    sa.Column("carrier", sa.String(32), nullable=False),
    sa.Column("reference", sa.String(128), nullable=False),
    # The message that it was matched with; empty while it waits for one.
    sa.Column("account_id", ID, nullable=False, server_default=""),
    sa.Column("message_id", ID, nullable=False, server_default=""),
    sa.Column("status", sa.String(16), nullable=False),
    sa.Column("failure", sa.String(200), nullable=False, server_default=""),
    # Whether it moved the message.
    sa.Column("applied", COUNT, nullable=False, server_default="0"),
    sa.Column("received_at_ms", MILLIS, nullable=False),
    sa.PrimaryKeyConstraint("id"),
    # Those that wait for their message, a few at most.
    sa.Index(
        "ix_receipts_unmatched",
        "carrier",
        "reference",
        sqlite_where=sa.text("message_id = ''"),
        postgresql_where=sa.text("message_id = ''"),
    ),
)

inbound_messages = sa.Table(
    "inbound_messages",
    metadata,
    sa.Column("account_id", ID, nullable=False),
    sa.Column("id", ID, nullable=False),
    sa.Column("sender", sa.String(32), nullable=False),
    sa.Column("shortcode", sa.String(64), nullable=False),
    sa.Column("content", sa.Text, nullable=False),
    sa.Column("webhook_status", COUNT),
    sa.Column("created_at_ms", MILLIS, nullable=False),
    AccountKey("id"),
)
