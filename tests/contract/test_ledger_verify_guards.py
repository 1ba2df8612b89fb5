"""A verification finds guards of the ledger that are gone or weaker."""

import contextlib
import re
import sqlite3

import pytest

from hydrasms_app import schema
from hydrasms_billing.model import DiscrepancyKind
from hydrasms_billing.verify import verify_ledger
from hydrasms_core.db.sqlite import sync_engine
from tests.support.databases import ON_SQLITE, opened

TRIGGERS = [
    "transfers_refuse_update",
    "transfers_refuse_delete",
    "balances_refuse_delete",
    "balances_refuse_move",
]
CONSTRAINTS = [
    "ck_balances_not_negative",
    "pk_balances",
    "ck_transfers_amount",
    "ck_transfers_two_accounts",
    "ck_transfers_parties",
    "ck_transfers_message",
    "ck_transfers_payment",
    "pk_transfers",
]


def rebuild(path, table, rewrite):
    """Make a table anew with other words, keeping its rows, indexes and triggers."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        objects = "SELECT sql FROM sqlite_master WHERE tbl_name = ? AND sql IS NOT NULL"
        (create,) = connection.execute(f"{objects} AND type = 'table'", (table,)).fetchone()
        rest = connection.execute(f"{objects} AND type <> 'table'", (table,)).fetchall()
        assert rewrite(create) != create
        connection.execute(f"CREATE TEMP TABLE kept AS SELECT * FROM {table}")
        connection.execute(f"DROP TABLE {table}")
        connection.execute(rewrite(create))
        connection.execute(f"INSERT INTO {table} SELECT * FROM kept")
        for (sql,) in rest:
            connection.execute(sql)


def rewrite_trigger(path, name, rewrite):
    """Make a trigger anew with other words."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        (create,) = connection.execute("SELECT sql FROM sqlite_master WHERE name = ?", (name,)).fetchone()
        assert rewrite(create) != create
        connection.execute(f"DROP TRIGGER {name}")
        connection.execute(rewrite(create))


def constraint_line(sql, name):
    (line,) = [line for line in sql.splitlines() if f"CONSTRAINT {name} " in line]
    return line


def without(sql, name):
    lines = [line for line in sql.splitlines() if line != constraint_line(sql, name)]
    return re.sub(r",\s*\)$", "\n)", "\n".join(lines))


@ON_SQLITE
async def test_the_tables_as_declared_and_as_migrated_have_the_same_guards(database, tmp_path):
    assert (await verify_ledger(database)).ok
    declared = tmp_path / "declared.db"
    engine = sync_engine(declared)
    schema.metadata.create_all(engine)
    engine.dispose()
    assert await guards_of(declared) == []


async def guards_of(path):
    async with opened(path) as database:
        report = await verify_ledger(database)
    assert {found.kind for found in report.discrepancies} <= {DiscrepancyKind.GUARD}
    return [found.subject for found in report.discrepancies]


@pytest.mark.parametrize("name", TRIGGERS)
async def test_a_trigger_that_is_gone_is_found(ledger_path, name):
    with contextlib.closing(sqlite3.connect(ledger_path)) as connection:
        connection.execute(f"DROP TRIGGER {name}")
    assert await guards_of(ledger_path) == [name]


@pytest.mark.parametrize("name", TRIGGERS)
async def test_a_trigger_that_refuses_no_more_is_found(ledger_path, name):
    rewrite_trigger(ledger_path, name, lambda sql: sql.replace(" BEGIN ", " WHEN 0 BEGIN "))
    assert await guards_of(ledger_path) == [name]


@pytest.mark.parametrize("name", CONSTRAINTS)
async def test_a_constraint_that_is_gone_is_found(ledger_path, name):
    table = name.split("_")[1]
    rebuild(ledger_path, table, lambda sql: without(sql, name))
    assert await guards_of(ledger_path) == [name]


@pytest.mark.parametrize("name", CONSTRAINTS)
async def test_a_constraint_that_is_only_a_comment_is_found(ledger_path, name):
    table = name.split("_")[1]

    def comment_out(sql):
        return without(sql, name).replace("(", f"( /* {constraint_line(sql, name)} */", 1)

    rebuild(ledger_path, table, comment_out)
    assert await guards_of(ledger_path) == [name]


@pytest.mark.parametrize(
    "weaker",
    [
        None,
        "CREATE INDEX {name} ON transfers (message_id, kind, account_id) WHERE message_id <> ''",
        "CREATE UNIQUE INDEX {name} ON transfers (message_id, kind, account_id, id) WHERE message_id <> ''",
        "CREATE UNIQUE INDEX {name} ON transfers (message_id, kind, account_id) WHERE kind = 'refund'",
    ],
)
async def test_a_unique_index_that_is_gone_or_weaker_is_found(ledger_path, weaker):
    with contextlib.closing(sqlite3.connect(ledger_path)) as connection:
        connection.execute("DROP INDEX uq_transfers_message")
        if weaker is not None:
            connection.execute(weaker.format(name="uq_transfers_message"))
    assert await guards_of(ledger_path) == ["uq_transfers_message"]


async def test_guards_that_are_only_written_otherwise_are_not_reported(ledger_path):
    rewrite_trigger(
        ledger_path,
        "transfers_refuse_update",
        lambda sql: sql.replace(" ON transfers ", '\n  on "transfers" -- here\n'),
    )
    with contextlib.closing(sqlite3.connect(ledger_path)) as connection:
        connection.execute("DROP INDEX uq_transfers_message")
        connection.execute(
            """create unique index "uq_transfers_message"
                 on [transfers] (message_id,kind,account_id) where message_id<>''"""
        )
    assert await guards_of(ledger_path) == []
