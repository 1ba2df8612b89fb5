"""The guards of the ledger's tables: triggers, CHECKs and keys."""

import sqlite3

import pytest
import sqlalchemy as sa

from hydrasms_base.ids import new_id
from hydrasms_billing.tables import balances, transfers
from hydrasms_core.db.transaction import IntegrityViolation
from tests.support.ledger import AT_MS, fill, open_account


async def rows(database, table):
    found = await database.read(lambda tx: tx.execute(sa.text(f"SELECT * FROM {table}")))
    return sorted(found.fetchall(), key=repr)


async def unguarded_copy(database):
    """Copy the transfers, with their keys but without their triggers, into a table of another name."""

    async def work(tx):
        found = await tx.execute(
            sa.text("SELECT sql FROM sqlite_master WHERE type = 'table' AND name = 'transfers'")
        )
        await tx.execute(sa.text(found.scalar_one().replace("TABLE transfers", "TABLE unguarded")))
        await tx.execute(sa.text("INSERT INTO unguarded SELECT * FROM transfers"))
        await tx.execute(
            sa.text(
                "CREATE UNIQUE INDEX unguarded_message ON unguarded (message_id, kind) WHERE message_id <> ''"
            )
        )

    await database.write(work)


_COLUMNS = [column.name for column in transfers.columns]
_LIST = ", ".join(_COLUMNS)
_DEARER = ", ".join("amount + 1" if name == "amount" else name for name in _COLUMNS)
_TWIN = ", ".join("'twin' || substr(id, 5)" if name == "id" else name for name in _COLUMNS)
_APPEND = f"INSERT INTO {{table}} ({_LIST})"

CHANGES = [
    "UPDATE {table} SET amount = amount + 1",
    "UPDATE {table} SET reason = 'something else' WHERE kind = 'grant'",
    "UPDATE {table} SET created_at_ms = 0 WHERE id = (SELECT max(id) FROM {table})",
    "UPDATE OR REPLACE {table} SET amount = 1",
    "UPDATE OR IGNORE {table} SET amount = amount * 2",
    "UPDATE {table} SET amount = v.a FROM (SELECT 7 AS a) AS v",
    "DELETE FROM {table}",
    "DELETE FROM {table} WHERE kind = 'refund'",
    "DELETE FROM {table} WHERE rowid = (SELECT min(rowid) FROM {table})",
    f"INSERT OR REPLACE INTO {{table}} ({_LIST}) SELECT {_DEARER} FROM {{table}} WHERE true",
    f"REPLACE INTO {{table}} ({_LIST}) SELECT {_DEARER} FROM {{table}} WHERE kind = 'top_up'",
    # Another id, but a message that has its spend already: the unique index is what replaces.
    f"INSERT OR REPLACE INTO {{table}} ({_LIST}) SELECT {_TWIN} FROM {{table}} WHERE kind = 'spend'",
    f"{_APPEND} SELECT {_DEARER} FROM {{table}} WHERE true ON CONFLICT DO UPDATE SET amount = excluded.amount",
    f"{_APPEND} SELECT {_TWIN} FROM {{table}} WHERE kind = 'spend' ON CONFLICT DO UPDATE SET actor = 'nobody'",
]


@pytest.mark.parametrize("change", CHANGES)
async def test_transfers_are_append_only(database, change):
    await fill(database, accounts=2, messages_each=10)
    before = await rows(database, "transfers")
    with pytest.raises(IntegrityViolation, match="append-only"):
        await database.write(lambda tx: tx.execute(sa.text(change.format(table="transfers"))))
    assert await rows(database, "transfers") == before


@pytest.mark.parametrize("change", CHANGES)
async def test_the_same_change_goes_through_where_no_trigger_stands(database, change):
    """The control of the test above."""
    await fill(database, accounts=2, messages_each=10)
    await unguarded_copy(database)
    before = await rows(database, "unguarded")
    await database.write(lambda tx: tx.execute(sa.text(change.format(table="unguarded"))))
    assert await rows(database, "unguarded") != before


async def test_only_recursive_triggers_keep_replace_from_slipping_past(database, database_path):
    await fill(database, accounts=1, messages_each=10)
    before = await rows(database, "transfers")
    replace = CHANGES[9].format(table="transfers")
    connection = sqlite3.connect(database_path, isolation_level=None)
    try:
        connection.execute("PRAGMA recursive_triggers=ON")
        with pytest.raises(sqlite3.IntegrityError, match="append-only"):
            connection.execute(replace)
        connection.execute("PRAGMA recursive_triggers=OFF")
        connection.execute(replace)
    finally:
        connection.close()
    assert await rows(database, "transfers") != before


@pytest.mark.parametrize(
    "change",
    [
        "DELETE FROM balances",
        "DELETE FROM balances WHERE balance = 0",
        "UPDATE balances SET account_id = 'somebody else'",
        "INSERT OR REPLACE INTO balances SELECT account_id, balance + 1, updated_at_ms FROM balances WHERE true",
    ],
)
async def test_a_balance_stays_and_stays_its_accounts(database, change):
    await open_account(database, 0)
    before = await rows(database, "balances")
    with pytest.raises(IntegrityViolation, match="balance"):
        await database.write(lambda tx: tx.execute(sa.text(change)))
    assert await rows(database, "balances") == before


async def test_a_balance_is_never_below_zero(database):
    account_id = await open_account(database, 5)
    change = sa.update(balances).where(balances.c.account_id == account_id)
    await database.write(lambda tx: tx.execute(change.values(balance=0)))
    with pytest.raises(IntegrityViolation, match="not_negative"):
        await database.write(lambda tx: tx.execute(change.values(balance=-1)))


def transfer(**changes):
    return {
        "account_id": "a",
        "id": new_id(),
        "debit_account": "granted",
        "credit_account": "a",
        "amount": 1,
        "kind": "grant",
        "actor": "service",
        "created_at_ms": AT_MS,
    } | changes


SPEND = {"kind": "spend", "debit_account": "a", "credit_account": "spent", "message_id": "m"}


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"amount": 2**62},
        {"kind": "top_up", "debit_account": "sold", "payment_id": "p"},
        SPEND,
        {"kind": "refund", "debit_account": "spent", "message_id": "m"},
        {"kind": "adjustment", "debit_account": "adjusted"},
        {"kind": "adjustment", "debit_account": "a", "credit_account": "adjusted"},
    ],
)
async def test_a_well_formed_transfer_is_taken(database, changes):
    await database.write(lambda tx: tx.execute(sa.insert(transfers).values(transfer(**changes))))
    assert len(await rows(database, "transfers")) == 1


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"amount": 0}, "amount"),
        ({"amount": -1}, "amount"),
        ({"amount": 2**62 + 1}, "amount"),
        ({"amount": 1.5}, "amount"),
        ({"amount": "many"}, "amount"),
        # An account that has a counter account's name could otherwise pay itself.
        ({"account_id": "granted", "credit_account": "granted"}, "two_accounts"),
        ({"kind": "gift"}, "parties"),
        ({"kind": "spend", "message_id": "m"}, "parties"),
        (SPEND | {"credit_account": "sold"}, "parties"),
        (SPEND | {"debit_account": "spent", "credit_account": "a"}, "parties"),
        ({"kind": "refund", "message_id": "m"}, "parties"),
        ({"kind": "top_up", "payment_id": "p"}, "parties"),
        ({"kind": "adjustment"}, "parties"),
        ({"account_id": "b"}, "parties"),
        ({"debit_account": "b"}, "parties"),
        ({"message_id": "m"}, "message"),
        (SPEND | {"message_id": ""}, "message"),
        ({"payment_id": "p"}, "payment"),
        ({"kind": "top_up", "debit_account": "sold"}, "payment"),
    ],
)
async def test_a_malformed_transfer_is_refused_by_the_table(database, changes, rule):
    values = {name: sa.literal(value) for name, value in transfer(**changes).items()}
    with pytest.raises(IntegrityViolation, match=f"ck_transfers_{rule}"):
        await database.write(lambda tx: tx.execute(sa.insert(transfers).values(values)))
    assert await rows(database, "transfers") == []
