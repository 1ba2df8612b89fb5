"""The guards of the ledger's tables: triggers, CHECKs and keys."""

import itertools
import sqlite3

import pytest
import sqlalchemy as sa

from hydrasms_base.ids import new_id
from hydrasms_billing.tables import balances, transfers
from hydrasms_core.db.transaction import IntegrityViolation
from tests.support.databases import KINDS, ON_POSTGRES, ON_SQLITE
from tests.support.ledger import AT_MS, fill, open_account
from tests.support.tampering import run


async def rows(database, table):
    found = await database.read(lambda tx: tx.execute(sa.text(f"SELECT * FROM {table}")))
    return sorted(found.fetchall(), key=repr)


async def unguarded_copy(database):
    """Copy the transfers, with their keys but without their triggers, into a table of another name."""

    async def work(tx):
        if tx.dialect == "sqlite":
            create = await run(tx, "SELECT sql FROM sqlite_master WHERE name = 'transfers'")
            await run(tx, create.scalar_one().replace("TABLE transfers", "TABLE unguarded"))
            await run(tx, f"CREATE UNIQUE INDEX unguarded_message ON unguarded {_ONE_A_MESSAGE}")
        else:
            await run(tx, "CREATE TABLE unguarded (LIKE transfers INCLUDING ALL)")
        await run(tx, "INSERT INTO unguarded SELECT * FROM transfers")

    await database.write(work)


_ONE_A_MESSAGE = "(message_id, kind, account_id) WHERE message_id <> ''"
_COLUMNS = [column.name for column in transfers.columns]
_LIST = ", ".join(_COLUMNS)
_DEARER = ", ".join("amount + 1" if name == "amount" else name for name in _COLUMNS)
_TWIN = ", ".join("'twin' || substr(id, 5)" if name == "id" else name for name in _COLUMNS)
_APPEND = f"INSERT INTO {{table}} ({_LIST})"

EVERYWHERE = [
    "UPDATE {table} SET amount = amount + 1",
    "UPDATE {table} SET reason = 'something else' WHERE kind = 'grant'",
    "UPDATE {table} SET created_at_ms = 0 WHERE id = (SELECT max(id) FROM {table})",
    "UPDATE {table} SET amount = v.a FROM (SELECT 7 AS a) AS v",
    "DELETE FROM {table}",
    "DELETE FROM {table} WHERE kind = 'refund'",
    (
        f"{_APPEND} SELECT {_DEARER} FROM {{table}} WHERE true"
        " ON CONFLICT (account_id, id) DO UPDATE SET amount = excluded.amount"
    ),
    # Another id, but a message that has its spend already.
    (
        f"{_APPEND} SELECT {_TWIN} FROM {{table}} WHERE kind = 'spend'"
        f" ON CONFLICT {_ONE_A_MESSAGE} DO UPDATE SET actor = 'nobody'"
    ),
]
SLIPS_PAST = f"INSERT OR REPLACE INTO {{table}} ({_LIST}) SELECT {_DEARER} FROM {{table}} WHERE true"
SQLITE = [
    "UPDATE OR REPLACE {table} SET amount = 1",
    "UPDATE OR IGNORE {table} SET amount = amount * 2",
    "DELETE FROM {table} WHERE rowid = (SELECT min(rowid) FROM {table})",
    SLIPS_PAST,
    f"REPLACE INTO {{table}} ({_LIST}) SELECT {_DEARER} FROM {{table}} WHERE kind = 'top_up'",
    # Here the unique index is what replaces.
    f"INSERT OR REPLACE INTO {{table}} ({_LIST}) SELECT {_TWIN} FROM {{table}} WHERE kind = 'spend'",
]
_MERGE = "MERGE INTO {table} AS t USING (SELECT * FROM {table}) AS s ON t.id = s.id WHEN MATCHED THEN"
POSTGRES = [
    "TRUNCATE {table}",
    "TRUNCATE {table} CASCADE",
    "TRUNCATE ONLY {table}",
    "UPDATE ONLY {table} SET amount = 1",
    "DELETE FROM {table} WHERE ctid = (SELECT min(ctid) FROM {table})",
    "DELETE FROM {table} USING balances WHERE balances.account_id = {table}.account_id",
    f"WITH gone AS (DELETE FROM {{table}} RETURNING *) INSERT INTO {{table}} ({_LIST}) SELECT {_DEARER} FROM gone",
    f"{_MERGE} UPDATE SET amount = 1",
    f"{_MERGE} DELETE",
]
CHANGES = [
    *(("sqlite", change) for change in EVERYWHERE + SQLITE),
    *(("postgresql", change) for change in EVERYWHERE + POSTGRES),
]
BALANCE_CHANGES = [
    "DELETE FROM balances",
    "DELETE FROM balances WHERE balance = 0",
    "UPDATE balances SET account_id = 'somebody else'",
]
AS_A_REPLICA = "SET LOCAL session_replication_role = replica"


def changing(*statements):
    """Return work that runs statements one after the other."""

    async def work(tx):
        for statement in statements:
            await run(tx, statement)

    return work


@pytest.mark.parametrize(("database_kind", "change"), CHANGES, indirect=["database_kind"])
async def test_transfers_are_append_only(database, change):
    await fill(database, accounts=2, messages_each=10)
    before = await rows(database, "transfers")
    with pytest.raises(IntegrityViolation, match="append-only"):
        await database.write(changing(change.format(table="transfers")))
    assert await rows(database, "transfers") == before


@pytest.mark.parametrize(("database_kind", "change"), CHANGES, indirect=["database_kind"])
async def test_the_same_change_goes_through_where_no_trigger_stands(database, change):
    """The control of the test above."""
    await fill(database, accounts=2, messages_each=10)
    await unguarded_copy(database)
    before = await rows(database, "unguarded")
    await database.write(changing(change.format(table="unguarded")))
    assert await rows(database, "unguarded") != before


@ON_POSTGRES
async def test_a_replicas_session_may_change_no_more(database):
    await fill(database, accounts=2, messages_each=10)
    await open_account(database, 0)
    before = await rows(database, "transfers"), await rows(database, "balances")
    for change in EVERYWHERE + POSTGRES:
        with pytest.raises(IntegrityViolation, match="append-only"):
            await database.write(changing(AS_A_REPLICA, change.format(table="transfers")))
    for change in [*BALANCE_CHANGES, "TRUNCATE balances"]:
        with pytest.raises(IntegrityViolation, match="balance"):
            await database.write(changing(AS_A_REPLICA, change))
    assert (await rows(database, "transfers"), await rows(database, "balances")) == before


@ON_POSTGRES
async def test_only_a_trigger_that_fires_always_keeps_replicas_sessions_from_slipping_past(database):
    await fill(database, accounts=1, messages_each=10)
    usual = changing("ALTER TABLE transfers ENABLE TRIGGER transfers_refuse_update")
    change = "UPDATE transfers SET amount = amount + 1"
    await database.write(usual)
    with pytest.raises(IntegrityViolation, match="append-only"):
        await database.write(changing(change))
    before = await rows(database, "transfers")
    await database.write(changing(AS_A_REPLICA, change))
    assert await rows(database, "transfers") != before


@ON_SQLITE
async def test_only_recursive_triggers_keep_replace_from_slipping_past(database, database_target):
    await fill(database, accounts=1, messages_each=10)
    before = await rows(database, "transfers")
    replace = SLIPS_PAST.format(table="transfers")
    connection = sqlite3.connect(database_target, isolation_level=None)
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
    ("database_kind", "change"),
    [
        *itertools.product(KINDS, BALANCE_CHANGES),
        ("sqlite", "INSERT OR REPLACE INTO balances SELECT account_id, 1, 0 FROM balances WHERE true"),
        ("postgresql", "TRUNCATE balances"),
        (
            "postgresql",
            "MERGE INTO balances USING (SELECT 0) AS s ON balances.balance = 0 WHEN MATCHED THEN DELETE",
        ),
    ],
    indirect=["database_kind"],
)
async def test_a_balance_stays_and_stays_its_accounts(database, change):
    await open_account(database, 0)
    before = await rows(database, "balances")
    with pytest.raises(IntegrityViolation, match="balance"):
        await database.write(changing(change))
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


MALFORMED = [
    ({"amount": 0}, "amount"),
    ({"amount": -1}, "amount"),
    ({"amount": 2**62 + 1}, "amount"),
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
]


@pytest.mark.parametrize(
    ("database_kind", "changes", "rule"),
    [
        *((kind, *malformed) for kind in KINDS for malformed in MALFORMED),
        # A column of SQLite takes any type.
        ("sqlite", {"amount": 1.5}, "amount"),
        ("sqlite", {"amount": "many"}, "amount"),
    ],
    indirect=["database_kind"],
)
async def test_a_malformed_transfer_is_refused_by_the_table(database, changes, rule):
    values = {name: sa.literal(value) for name, value in transfer(**changes).items()}
    with pytest.raises(IntegrityViolation, match=f"ck_transfers_{rule}"):
        await database.write(lambda tx: tx.execute(sa.insert(transfers).values(values)))
    assert await rows(database, "transfers") == []
