"""The tables of balances and of the transfers behind them."""

import sqlalchemy as sa
from sqlalchemy import event

from hydrasms_billing.guards import POSTGRES_FUNCTION, POSTGRES_TRIGGERS, SQLITE_TRIGGERS
from hydrasms_core.db.lists import AccountKey
from hydrasms_core.db.metadata import COUNT, ID, MILLIS, metadata

BALANCE_RULES = {"not_negative": "balance >= 0"}

TRANSFER_RULES = {
    # 1 to 2**62, and whole: a column of SQLite takes any type, and text is greater than every number there.
    "amount": "amount BETWEEN 1 AND 4611686018427387904 AND amount = CAST(amount AS BIGINT)",
    "two_accounts": "debit_account <> credit_account",
    # The known kinds, each between the account and its own counter account.
    "parties": (
        "kind = 'grant' AND debit_account = 'granted' AND credit_account = account_id"
        " OR kind = 'top_up' AND debit_account = 'sold' AND credit_account = account_id"
        " OR kind = 'spend' AND debit_account = account_id AND credit_account = 'spent'"
        " OR kind = 'refund' AND debit_account = 'spent' AND credit_account = account_id"
        " OR kind = 'adjustment' AND debit_account = 'adjusted' AND credit_account = account_id"
        " OR kind = 'adjustment' AND debit_account = account_id AND credit_account = 'adjusted'"
    ),
    "message": "(kind IN ('spend', 'refund')) = (message_id <> '')",
    "payment": "(kind = 'top_up') = (payment_id <> '')",
}
"""What holds for every transfer, by name: CHECKs of the table, and evaluated anew by `verify.py`."""

balances = sa.Table(
    "balances",
    metadata,
    sa.Column("account_id", ID, nullable=False),
    sa.Column("balance", COUNT, nullable=False),
    sa.Column("updated_at_ms", MILLIS, nullable=False),
    sa.PrimaryKeyConstraint("account_id"),
    *(sa.CheckConstraint(rule, name=name) for name, rule in BALANCE_RULES.items()),
)

# Double entry in one row: `amount` moves from the debit account to the credit account. No number and no text of a
# message stands here, so erasing those never touches the ledger.
transfers = sa.Table(
    "transfers",
    metadata,
    # The customer concerned, one of the two parties.
    sa.Column("account_id", ID, nullable=False),
    sa.Column("id", ID, nullable=False),
    sa.Column("debit_account", ID, nullable=False),
    sa.Column("credit_account", ID, nullable=False),
    sa.Column("amount", COUNT, nullable=False),
    sa.Column("kind", sa.String(10), nullable=False),
    # The message that is paid or given back; empty for other kinds.
    sa.Column("message_id", ID, nullable=False, server_default=""),
    # The payment that bought the credits; empty for other kinds.
    sa.Column("payment_id", sa.String(255), nullable=False, server_default=""),
    sa.Column("actor", sa.String(16), nullable=False),
    sa.Column("reason", sa.String(500), nullable=False, server_default=""),
    sa.Column("created_at_ms", MILLIS, nullable=False),
    AccountKey("id"),
    *(sa.CheckConstraint(rule, name=name) for name, rule in TRANSFER_RULES.items()),
    # At most one spend and one refund a message. It leads with the message because those ids grow with time, so
    # that new entries go to the right edge of the index. Led by the account they go to as many pages as there are
    # accounts: with a thousand of them and a million rows, batches were measured to insert half as fast.
    sa.Index(
        "uq_transfers_message",
        "message_id",
        "kind",
        "account_id",
        unique=True,
        sqlite_where=sa.text("message_id <> ''"),
        postgresql_where=sa.text("message_id <> ''"),
    ),
)

for _trigger in SQLITE_TRIGGERS:
    event.listen(
        metadata.tables[_trigger.table],
        "after_create",
        sa.DDL(_trigger.sqlite).execute_if(dialect="sqlite"),  # type: ignore[no-untyped-call]
    )
event.listen(
    metadata,
    "before_create",
    sa.DDL(POSTGRES_FUNCTION.replace("%", "%%")).execute_if(dialect="postgresql"),  # type: ignore[no-untyped-call]
)
for _trigger in POSTGRES_TRIGGERS:
    for _statement in (
        _trigger.postgres,
        f"ALTER TABLE {_trigger.table} ENABLE ALWAYS TRIGGER {_trigger.name}",
    ):
        event.listen(
            metadata.tables[_trigger.table],
            "after_create",
            sa.DDL(_statement).execute_if(dialect="postgresql"),  # type: ignore[no-untyped-call]
        )
