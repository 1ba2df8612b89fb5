"""The migrations make exactly the tables that the code was written for, with and without rows in them."""

import asyncio
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory

from hydrasms_app import migrate
from hydrasms_app.database import upgrade_database
from hydrasms_app.problems import NotYet, Problem
from hydrasms_app.schema import metadata
from hydrasms_app.settings import load_settings
from hydrasms_base.ids import new_id
from hydrasms_billing.credits import LedgerCredits
from hydrasms_billing.verify import verify_ledger
from hydrasms_core.db.list_keeper import ListKeeper
from hydrasms_core.db.lists import LISTED
from hydrasms_core.messaging.accept import Acceptance
from hydrasms_core.webhooks.delivery_store import Made, add_attempts
from hydrasms_core.webhooks.model import DeliveryType, Endpoint
from hydrasms_core.webhooks.queue_store import NewDelivery, queue
from hydrasms_core.webhooks.store import SealedSecrets, insert_endpoint
from tests.support.consent import consent_book
from tests.support.databases import KINDS, connected, empty_of, opened
from tests.support.inbound_rows import AT_MS, a_text, insert_inbound, receive
from tests.support.ledger import fill, open_account
from tests.support.schemas import schema_of
from tests.support.sends import a_send

FILLED = (
    "balances",
    "transfers",
    "messages",
    "outbox",
    "carrier_references",
    "inbound_messages",
    "events",
    "webhook_endpoints",
    "webhook_deliveries",
    "webhook_outbox",
    "webhook_attempts",
)
HEAD = max(migrate.revisions())
LANES = 3


def verified(target):
    async def work():
        async with opened(target) as database:
            return await verify_ledger(database)

    return asyncio.run(work())


def put_in_rows(target):
    """Fill a database with every kind of transfer and message, some that wait in the outbox; all are listed."""

    async def work():
        async with opened(target) as database:
            await fill(database, accounts=3, messages_each=20)
            account = await open_account(database, 10)
            sends = [a_send(account, key="k"), a_send(account)]
            await database.write(lambda tx: Acceptance(LedgerCredits(), consent_book()).commit(tx, sends))
            await database.write(lambda tx: put_in_texts(tx, account))
            if isinstance(target, Path):
                await ListKeeper(database).catch_up(short_tail=1)

    asyncio.run(work())


async def put_in_texts(tx, account):
    """Store a text of an account that was pushed, and one of nobody's."""
    text = await receive(tx, account)
    await insert_inbound(tx, a_text(""))
    delivery = NewDelivery(account, new_id(), "endpoint", DeliveryType.INBOUND, text.id, "")
    await insert_endpoint(
        tx,
        Endpoint("endpoint", account, "order", "http://127.0.0.1:1/", True, None, None, "", None),
        SealedSecrets("sealed", "sealed"),
        at_ms=AT_MS,
    )
    assert await queue(tx, [delivery], at_ms=AT_MS) == {delivery.id}
    await add_attempts(tx, [Made(account, delivery.id, number, AT_MS, 5, 200, "", "ok") for number in (1, 2)])


def rows_of(connection):
    """Return the rows of every table, by the names of their columns."""
    found = {}
    for name in sa.inspect(connection).get_table_names():
        table = sa.Table(name, sa.MetaData(), autoload_with=connection)
        if name not in ("alembic_version", "schema_floor"):
            # Not in the key's own order, which is not the same in all revisions.
            key = sorted(table.primary_key.columns, key=lambda column: column.name)
            rows = connection.execute(sa.select(table).order_by(*key))
            found[name] = [dict(row) for row in rows.mappings()]
    return found


def test_the_migrated_schema_is_that_of_the_tables(target):
    migrate.upgrade(target)
    is_sqlite = isinstance(target, Path)

    def differences(connection):
        # What finds the rows of lists is no table of ours to SQLAlchemy, and Alembic does not know that an index may
        # be PostgreSQL's alone; the next test has both.
        others = {"alembic_version"} | (
            {"list_marks", *(f"listed_{name}" for name in LISTED), "ix_events_position_id"}
            if is_sqlite
            else set()
        )
        options = {"compare_type": True, "include_object": lambda _object, name, *_: name not in others}
        return compare_metadata(MigrationContext.configure(connection, opts=options), metadata)

    assert connected(target, differences) == []


def test_checks_triggers_and_indexes_are_those_of_the_tables_too(target, database_kind, tmp_path):
    migrate.upgrade(target)
    with empty_of(database_kind, tmp_path.joinpath("created")) as created:
        tmp_path.joinpath("created").mkdir()
        connected(created, metadata.create_all)
        assert connected(target, schema_of) == connected(created, schema_of)


def test_a_schema_that_lacks_anything_would_be_seen(target):
    migrate.upgrade(target)
    whole = connected(target, schema_of)
    is_sqlite = isinstance(target, Path)
    for kind, name in (
        ("index", "ix_outbox_step_due_at_ms"),
        ("trigger", "transfers_refuse_update" if is_sqlite else "transfers.transfers_refuse_update"),
        ("table", "receipts"),
    ):
        assert (kind, name) in whole
        trigger_on = "" if is_sqlite else " ON transfers"
        drop = f"DROP {kind} {name.rpartition('.')[2]}{trigger_on if kind == 'trigger' else ''}"
        connected(target, partial(sa.Connection.execute, statement=sa.text(drop)))
        assert (kind, name) not in connected(target, schema_of)


def test_a_migrated_database_has_all_guards_of_the_ledger(target):
    migrate.upgrade(target)
    assert verified(target).ok


def test_the_migrations_can_be_taken_back_and_applied_again(target):
    migrate.upgrade(target)
    before = connected(target, schema_of)
    put_in_rows(target)
    assert migrate.downgrade(target, "base") == ""
    assert connected(target, schema_of) == {}
    assert migrate.upgrade(target) == HEAD
    assert connected(target, schema_of) == before
    assert not any(connected(target, rows_of).values())


def without(rows, tables):
    """Return all rows but those of tables that were taken away and made again; what finds lists is made from them."""
    lost = {name for name in tables if name != "list_marks" and not name.startswith("listed_")}
    lost |= {f"listed_{name}" for name in lost}
    kept = {name: [] if name in lost else found for name, found in rows.items()}
    if "list_marks" in kept:
        kept["list_marks"] = [mark for mark in kept["list_marks"] if mark["list"] not in lost]
    return kept


def test_each_migration_can_be_taken_back_and_applied_again_with_rows_in_every_table(target):
    migrate.upgrade(target)
    put_in_rows(target)
    schema, rows = connected(target, schema_of), connected(target, rows_of)
    assert all(rows[name] for name in FILLED)
    for revision in list(migrate.revisions())[-2::-1]:
        assert migrate.downgrade(target, revision) == revision
        older = connected(target, rows_of)
        for name, kept in older.items():
            # Whatever the older schema has as well is as it was.
            columns = kept[0].keys() if kept else ()
            expected = [{column: row[column] for column in columns} for row in rows[name]]
            if name == "list_marks":
                expected = [row for row in expected if f"listed_{row['list']}" in older]
            assert kept == expected
        assert migrate.upgrade(target) == HEAD
        assert connected(target, schema_of) == schema
        rows = without(rows, rows.keys() - older.keys())
        assert connected(target, rows_of) == rows
    assert verified(target).ok


@pytest.mark.parametrize("database_kind", ["postgresql"], indirect=True)
def test_tables_in_partitions_can_be_taken_back_and_made_again(target):
    migrate.upgrade(target, lanes=LANES)
    before = connected(target, schema_of)
    assert ("table", "transfers_p2") in before
    migrate.check_lanes(target, LANES)
    with pytest.raises(Problem, match=f"HYDRASMS_LANES is {LANES + 1}"):
        migrate.check_lanes(target, LANES + 1)
    migrate.downgrade(target, "base")
    assert connected(target, schema_of) == {}
    migrate.upgrade(target, lanes=LANES)
    assert connected(target, schema_of) == before


def test_what_older_code_queued_is_in_the_one_lane_that_there_was(target):
    migrate.upgrade(target)
    put_in_rows(target)
    migrate.downgrade(target, "0001")
    connected(
        target,
        lambda connection: connection.execute(
            sa.text(
                "INSERT INTO outbox (account_id, message_id, step, due_at_ms) VALUES ('a', 'm', 'submit', 1)"
            )
        ),
    )
    migrate.upgrade(target)
    rows = connected(target, rows_of)
    assert {row["lane"] for row in rows["outbox"] + rows["carrier_references"]} == {0}
    assert "m" in {row["message_id"] for row in rows["outbox"]}


def test_upgrading_twice_changes_nothing(target):
    migrate.upgrade(target)
    put_in_rows(target)
    before = connected(target, schema_of), connected(target, rows_of)
    assert before[0]
    assert migrate.upgrade(target) == HEAD
    assert (connected(target, schema_of), connected(target, rows_of)) == before


def test_several_that_upgrade_at_once_are_as_one(target):
    number = 4
    together = threading.Barrier(number)
    settings = load_settings(database_url=f"sqlite:///{target}" if isinstance(target, Path) else target)

    def upgrade(_):
        together.wait(20)
        # As every role does: beside a file there is a lock to wait for, because SQLite's own gives up after a while.
        return upgrade_database(settings)

    with ThreadPoolExecutor(number) as threads:
        assert list(threads.map(upgrade, range(number))) == [HEAD] * number
    assert verified(target).ok


def test_several_processes_that_upgrade_at_once_are_as_one(target, tmp_path, monkeypatch):
    url = f"sqlite:///{target}" if isinstance(target, Path) else target
    monkeypatch.setenv("HYDRASMS_DATABASE_URL", url)
    hydrasms = Path(sys.executable).with_name("hydrasms")
    command = [hydrasms, "db", "upgrade", "--phase", "pre", "--data-dir", tmp_path / "var"]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    said = [each.communicate(timeout=60)[0] for each in running]
    assert [each.returncode for each in running] == [0] * 3
    assert said == [f"The database is at revision {HEAD}.\n"] * 3
    assert verified(target).ok


def test_a_newer_database_is_refused(target):
    migrate.upgrade(target)

    def make_newer(connection):
        connection.execute(sa.text("UPDATE alembic_version SET version_num = '9999'"))
        connection.execute(sa.text("INSERT INTO schema_floor VALUES (1, '9999')"))

    connected(target, make_newer)
    for refused in (
        lambda: migrate.upgrade(target),
        lambda: migrate.downgrade(target, "base"),
        lambda: migrate.check_usable(target),
    ):
        with pytest.raises(Problem, match="newer hydrasms"):
            refused()


def test_a_database_that_lacks_migrations_is_refused_until_it_has_them(target):
    connected(target, lambda connection: None)
    assert migrate.is_empty(target)
    with pytest.raises(NotYet, match="db upgrade"):
        migrate.check_usable(target)
    migrate.upgrade(target)
    assert not migrate.is_empty(target)
    migrate.check_usable(target)


def test_a_file_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(Problem, match="no database"):
        migrate.check_usable(tmp_path / "nothing")
    assert not (tmp_path / "nothing").exists()


@pytest.mark.parametrize("database_kind", ["postgresql"], indirect=True)
@pytest.mark.parametrize("change", [{"database": "there_is_none"}, {"port": 1}])
def test_a_server_or_database_that_cannot_be_reached_is_waited_for_and_its_password_not_shown(target, change):
    url = sa.make_url(target).set(password="geheim", **change).render_as_string(hide_password=False)
    for step in (migrate.upgrade, migrate.check_usable, migrate.is_empty):
        with pytest.raises(NotYet) as caught:
            step(url)
        assert "geheim" not in str(caught.value)


def test_the_files_numbers_are_the_chain_of_revisions():
    config = Config()
    config.set_main_option("script_location", str(Path(migrate.__file__).with_name("migrations")))
    config.set_main_option("path_separator", "os")
    chain = [script.revision for script in ScriptDirectory.from_config(config).walk_revisions()]
    assert chain[::-1] == list(migrate.revisions())


def test_both_kinds_are_looked_at():
    assert KINDS == ("sqlite", "postgresql")
