"""The first schema: accounts, keys, messages, the ledger and the simulated phone network."""

from typing import Any

import sqlalchemy as sa
from alembic import context, op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_INT64 = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_ID = sa.String(length=36).with_variant(sa.String(length=36, collation="C"), "postgresql")
_SQLITE_TRIGGERS = (
    """CREATE TRIGGER balances_refuse_delete BEFORE DELETE ON balances BEGIN SELECT RAISE(ABORT, 'balances are never deleted'); END""",
    """CREATE TRIGGER balances_refuse_move BEFORE UPDATE OF account_id ON balances BEGIN SELECT RAISE(ABORT, 'a balance keeps its account'); END""",
    """CREATE TRIGGER transfers_refuse_delete BEFORE DELETE ON transfers BEGIN SELECT RAISE(ABORT, 'transfers are append-only'); END""",
    """CREATE TRIGGER transfers_refuse_update BEFORE UPDATE ON transfers BEGIN SELECT RAISE(ABORT, 'transfers are append-only'); END""",
)
_POSTGRES_FUNCTION = """CREATE FUNCTION hydrasms_refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION '%', TG_ARGV[0] USING ERRCODE = 'integrity_constraint_violation'; END $$"""
_POSTGRES_TRIGGERS = (
    """CREATE TRIGGER balances_refuse_delete BEFORE DELETE ON balances FOR EACH ROW EXECUTE FUNCTION hydrasms_refuse('balances are never deleted')""",
    """CREATE TRIGGER balances_refuse_move BEFORE UPDATE OF account_id ON balances FOR EACH ROW EXECUTE FUNCTION hydrasms_refuse('a balance keeps its account')""",
    """CREATE TRIGGER balances_refuse_truncate BEFORE TRUNCATE ON balances FOR EACH STATEMENT EXECUTE FUNCTION hydrasms_refuse('balances are never deleted')""",
    """CREATE TRIGGER transfers_refuse_delete BEFORE DELETE ON transfers FOR EACH ROW EXECUTE FUNCTION hydrasms_refuse('transfers are append-only')""",
    """CREATE TRIGGER transfers_refuse_truncate BEFORE TRUNCATE ON transfers FOR EACH STATEMENT EXECUTE FUNCTION hydrasms_refuse('transfers are append-only')""",
    """CREATE TRIGGER transfers_refuse_update BEFORE UPDATE ON transfers FOR EACH ROW EXECUTE FUNCTION hydrasms_refuse('transfers are append-only')""",
)
_PARTITIONED = ("balances", "idempotency_keys", "inbound_messages", "messages", "outbox", "transfers")


def upgrade() -> None:
    """Make every table; on PostgreSQL with lanes, those of the hot path in as many partitions by account."""
    op.create_table(
        "access_changes",
        sa.Column("id", _INT64, autoincrement=False, nullable=False),
        sa.Column("version", _INT64, nullable=False),
        sa.CheckConstraint("id = 1", name=op.f("ck_access_changes_one_row")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_access_changes")),
    )
    op.create_table(
        "accounts",
        sa.Column("id", _ID, nullable=False),
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column("plan", sa.String(length=16), nullable=False),
        sa.Column("sending_enabled", sa.Boolean(), nullable=False),
        sa.Column("suspended", sa.Boolean(), nullable=False),
        sa.Column("created_at_ms", _INT64, nullable=False),
        sa.Column("updated_at_ms", _INT64, nullable=False),
        sa.CheckConstraint("plan IN ('free', 'premium')", name=op.f("ck_accounts_plan")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_accounts")),
    )
    op.create_table(
        "balances",
        sa.Column("account_id", _ID, nullable=False),
        sa.Column("balance", _INT64, nullable=False),
        sa.Column("updated_at_ms", _INT64, nullable=False),
        sa.CheckConstraint("balance >= 0", name=op.f("ck_balances_not_negative")),
        sa.PrimaryKeyConstraint("account_id", name=op.f("pk_balances")),
        **_partitioned(),
    )
    op.create_table(
        "carrier_references",
        sa.Column("carrier", sa.String(length=32), nullable=False),
        sa.Column("reference", sa.String(length=128), nullable=False),
        sa.Column("account_id", _ID, nullable=False),
        sa.Column("message_id", _ID, nullable=False),
        sa.PrimaryKeyConstraint("carrier", "reference", name=op.f("pk_carrier_references")),
    )
    op.create_table(
        "idempotency_keys",
        sa.Column("account_id", _ID, nullable=False),
        sa.Column("operation", sa.String(length=32), nullable=False),
        sa.Column("key", sa.String(length=255), nullable=False),
        sa.Column("fingerprint", sa.String(length=64), nullable=False),
        sa.Column("subject_id", _ID, nullable=False),
        sa.Column("created_at_ms", _INT64, nullable=False),
        sa.PrimaryKeyConstraint("account_id", "operation", "key", name=op.f("pk_idempotency_keys")),
        **_partitioned(),
    )
    op.create_index(
        op.f("ix_idempotency_keys_created_at_ms"), "idempotency_keys", ["created_at_ms"], unique=False
    )
    op.create_table(
        "inbound_messages",
        sa.Column("account_id", _ID, nullable=False),
        sa.Column("id", _ID, nullable=False),
        sa.Column("sender", sa.String(length=32), nullable=False),
        sa.Column("shortcode", sa.String(length=64), nullable=False),
        sa.Column("content", sa.Text(), nullable=False),
        sa.Column("webhook_status", _INT64, nullable=True),
        sa.Column("created_at_ms", _INT64, nullable=False),
        sa.PrimaryKeyConstraint("account_id", "id", name=op.f("pk_inbound_messages")),
        **_partitioned(),
    )
    op.create_table(
        "messages",
        sa.Column("account_id", _ID, nullable=False),
        sa.Column("id", _ID, nullable=False),
        sa.Column("sender", sa.String(length=20), nullable=False),
        sa.Column("recipient", sa.String(length=20), nullable=False),
        sa.Column("country_iso2", sa.String(length=2), nullable=False),
        sa.Column("country_iso3", sa.String(length=3), nullable=False),
        sa.Column("calling_code", _INT64, nullable=False),
        sa.Column("content", sa.Text(), nullable=False),
        sa.Column("status", sa.String(length=16), nullable=False),
        sa.Column("credits", _INT64, nullable=False),
        sa.Column("encoding", sa.String(length=8), nullable=False),
        sa.Column("segments", _INT64, nullable=False),
        sa.Column("created_at_ms", _INT64, nullable=False),
        sa.Column("updated_at_ms", _INT64, nullable=False),
        sa.Column("expires_at_ms", _INT64, nullable=False),
        sa.Column("carrier", sa.String(length=32), server_default="", nullable=False),
        sa.Column("attempts", _INT64, server_default="0", nullable=False),
        sa.Column("duplicate_risk", _INT64, server_default="0", nullable=False),
        sa.Column("failure", sa.String(length=200), server_default="", nullable=False),
        sa.CheckConstraint("credits >= 1", name=op.f("ck_messages_credits")),
        sa.PrimaryKeyConstraint("account_id", "id", name=op.f("pk_messages")),
        **_partitioned(),
    )
    op.create_table(
        "outbox",
        sa.Column("account_id", _ID, nullable=False),
        sa.Column("message_id", _ID, nullable=False),
        sa.Column("step", sa.String(length=8), nullable=False),
        sa.Column("due_at_ms", _INT64, nullable=False),
        sa.Column("claim", _ID, server_default="", nullable=False),
        sa.PrimaryKeyConstraint("message_id", "account_id", name=op.f("pk_outbox")),
        **_partitioned(),
    )
    op.create_index(op.f("ix_outbox_step_due_at_ms"), "outbox", ["step", "due_at_ms"], unique=False)
    op.create_table(
        "receipts",
        sa.Column("id", _ID, nullable=False),
        sa.Column("carrier", sa.String(length=32), nullable=False),
        sa.Column("reference", sa.String(length=128), nullable=False),
        sa.Column("account_id", _ID, server_default="", nullable=False),
        sa.Column("message_id", _ID, server_default="", nullable=False),
        sa.Column("status", sa.String(length=16), nullable=False),
        sa.Column("failure", sa.String(length=200), server_default="", nullable=False),
        sa.Column("applied", _INT64, server_default="0", nullable=False),
        sa.Column("received_at_ms", _INT64, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_receipts")),
    )
    op.create_index(
        "ix_receipts_unmatched",
        "receipts",
        ["carrier", "reference"],
        unique=False,
        sqlite_where=sa.text("message_id = ''"),
        postgresql_where=sa.text("message_id = ''"),
    )
    op.create_table(
        "simulated_receipts",
        sa.Column("due_at_ms", _INT64, nullable=False),
        sa.Column("reference", _ID, nullable=False),
        sa.Column("ordinal", _INT64, nullable=False),
        sa.Column("status", sa.String(length=16), nullable=False),
        sa.Column("failure", sa.String(length=200), nullable=False),
        sa.PrimaryKeyConstraint("due_at_ms", "reference", "ordinal", name=op.f("pk_simulated_receipts")),
    )
    op.create_table(
        "simulated_texts",
        sa.Column("id", _ID, nullable=False),
        sa.Column("message_id", _ID, nullable=False),
        sa.Column("sender", sa.String(length=20), nullable=False),
        sa.Column("recipient", sa.String(length=20), nullable=False),
        sa.Column("content", sa.Text(), nullable=False),
        sa.Column("received_at_ms", _INT64, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_simulated_texts")),
    )
    op.create_index(
        op.f("ix_simulated_texts_recipient_id"), "simulated_texts", ["recipient", "id"], unique=False
    )
    op.create_table(
        "transfers",
        sa.Column("account_id", _ID, nullable=False),
        sa.Column("id", _ID, nullable=False),
        sa.Column("debit_account", _ID, nullable=False),
        sa.Column("credit_account", _ID, nullable=False),
        sa.Column("amount", _INT64, nullable=False),
        sa.Column("kind", sa.String(length=10), nullable=False),
        sa.Column("message_id", _ID, server_default="", nullable=False),
        sa.Column("payment_id", sa.String(length=255), server_default="", nullable=False),
        sa.Column("actor", sa.String(length=16), nullable=False),
        sa.Column("reason", sa.String(length=500), server_default="", nullable=False),
        sa.Column("created_at_ms", _INT64, nullable=False),
        sa.CheckConstraint("(kind = 'top_up') = (payment_id <> '')", name=op.f("ck_transfers_payment")),
        sa.CheckConstraint(
            "(kind IN ('spend', 'refund')) = (message_id <> '')", name=op.f("ck_transfers_message")
        ),
        sa.CheckConstraint(
            "kind = 'grant' AND debit_account = 'granted' AND credit_account = account_id OR kind = 'top_up' AND debit_account = 'sold' AND credit_account = account_id OR kind = 'spend' AND debit_account = account_id AND credit_account = 'spent' OR kind = 'refund' AND debit_account = 'spent' AND credit_account = account_id OR kind = 'adjustment' AND debit_account = 'adjusted' AND credit_account = account_id OR kind = 'adjustment' AND debit_account = account_id AND credit_account = 'adjusted'",
            name=op.f("ck_transfers_parties"),
        ),
        sa.CheckConstraint(
            "amount BETWEEN 1 AND 4611686018427387904 AND amount = CAST(amount AS BIGINT)",
            name=op.f("ck_transfers_amount"),
        ),
        sa.CheckConstraint("debit_account <> credit_account", name=op.f("ck_transfers_two_accounts")),
        sa.PrimaryKeyConstraint("account_id", "id", name=op.f("pk_transfers")),
        **_partitioned(),
    )
    op.create_index(
        "uq_transfers_message",
        "transfers",
        ["message_id", "kind", "account_id"],
        unique=True,
        sqlite_where=sa.text("message_id <> ''"),
        postgresql_where=sa.text("message_id <> ''"),
    )
    op.create_table(
        "api_keys",
        sa.Column("id", _ID, nullable=False),
        sa.Column("account_id", _ID, nullable=False),
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column("prefix", sa.String(length=9), nullable=False),
        sa.Column("digest", sa.CHAR(length=64), nullable=False),
        sa.Column("enabled", sa.Boolean(), nullable=False),
        sa.Column("imported", sa.Boolean(), nullable=False),
        sa.Column("created_at_ms", _INT64, nullable=False),
        sa.Column("expires_at_ms", _INT64, nullable=True),
        sa.ForeignKeyConstraint(
            ["account_id"],
            ["accounts.id"],
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_api_keys")),
        sa.UniqueConstraint("digest", name=op.f("uq_api_keys_digest")),
    )
    op.create_index(op.f("ix_api_keys_account_id_id"), "api_keys", ["account_id", "id"], unique=False)
    if op.get_bind().dialect.name == "sqlite":
        for trigger in _SQLITE_TRIGGERS:
            op.execute(trigger)
        return
    if _lanes() > 1:
        for table in _PARTITIONED:
            for lane in range(_lanes()):
                op.execute(
                    f"CREATE TABLE {table}_p{lane} PARTITION OF {table}"
                    f" FOR VALUES WITH (MODULUS {_lanes()}, REMAINDER {lane})"
                )
    op.execute(_POSTGRES_FUNCTION)
    for trigger in _POSTGRES_TRIGGERS:
        op.execute(trigger)
        name = trigger.split()[2]
        table = name.partition("_")[0]
        op.execute(f"ALTER TABLE {table} ENABLE ALWAYS TRIGGER {name}")
        if " TRUNCATE " in trigger:
            # Truncating a partition is no truncating of its table.
            for lane in range(_lanes() if _lanes() > 1 else 0):
                op.execute(trigger.replace(f" ON {table} ", f" ON {table}_p{lane} "))
                op.execute(f"ALTER TABLE {table}_p{lane} ENABLE ALWAYS TRIGGER {name}")


def _lanes() -> int:
    return int(context.config.attributes.get("lanes", 1))


def _partitioned() -> dict[str, Any]:
    on_postgres = op.get_bind().dialect.name == "postgresql"
    return {"postgresql_partition_by": "HASH (account_id)"} if on_postgres and _lanes() > 1 else {}


def downgrade() -> None:
    """Take every table away, and with them their triggers and indexes."""
    op.drop_index(op.f("ix_api_keys_account_id_id"), table_name="api_keys")
    op.drop_table("api_keys")
    op.drop_index(
        "uq_transfers_message",
        table_name="transfers",
        sqlite_where=sa.text("message_id <> ''"),
        postgresql_where=sa.text("message_id <> ''"),
    )
    op.drop_table("transfers")
    op.drop_index(op.f("ix_simulated_texts_recipient_id"), table_name="simulated_texts")
    op.drop_table("simulated_texts")
    op.drop_table("simulated_receipts")
    op.drop_index(
        "ix_receipts_unmatched",
        table_name="receipts",
        sqlite_where=sa.text("message_id = ''"),
        postgresql_where=sa.text("message_id = ''"),
    )
    op.drop_table("receipts")
    op.drop_index(op.f("ix_outbox_step_due_at_ms"), table_name="outbox")
    op.drop_table("outbox")
    op.drop_table("messages")
    op.drop_table("inbound_messages")
    op.drop_index(op.f("ix_idempotency_keys_created_at_ms"), table_name="idempotency_keys")
    op.drop_table("idempotency_keys")
    op.drop_table("carrier_references")
    op.drop_table("balances")
    op.drop_table("accounts")
    op.drop_table("access_changes")
    if op.get_bind().dialect.name == "postgresql":
        op.execute("DROP FUNCTION hydrasms_refuse()")
