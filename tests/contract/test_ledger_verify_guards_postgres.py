"""A verification finds guards of the ledger that are gone or weaker on PostgreSQL."""

import asyncio

import pytest

from hydrasms_app import migrate
from hydrasms_app.schema import metadata
from hydrasms_billing.guards import POSTGRES_FUNCTION, POSTGRES_TRIGGERS
from hydrasms_billing.model import DiscrepancyKind
from hydrasms_billing.verify import verify_ledger
from hydrasms_core.db.postgres_pool import async_engine
from hydrasms_core.db.transaction import IntegrityViolation
from tests.support import databases
from tests.support.ledger import fill
from tests.support.tampering import run

pytestmark = pytest.mark.postgresql

LANES = 3
INDEX = "uq_transfers_message"
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
CHECKS = [name for name in CONSTRAINTS if name.startswith("ck_")]

each_trigger = pytest.mark.parametrize("trigger", POSTGRES_TRIGGERS, ids=lambda trigger: trigger.name)


@pytest.fixture
async def database(postgres_url):
    async with databases.opened(postgres_url) as database:
        yield database


@pytest.fixture(scope="module")
def template_in_lanes():
    def make(url):
        migrate.upgrade(url, lanes=LANES)
        asyncio.run(_fill(url))

    with databases.postgres_template(make) as name:
        yield name


async def _fill(url):
    async with databases.opened(url, partitioned=True) as database:
        # So many that every partition has some.
        await fill(database, accounts=40, messages_each=2)


@pytest.fixture
async def in_lanes(template_in_lanes):
    """A database whose tables are partitioned, with a ledger that is in order."""
    async with (
        databases.postgres_copy(template_in_lanes) as url,
        databases.opened(url, partitioned=True) as database,
    ):
        yield database


async def change(database, *statements):
    async def work(tx):
        for statement in statements:
            await run(tx, statement)

    await database.write(work)


async def missing(database):
    report = await verify_ledger(database)
    assert {found.kind for found in report.discrepancies} <= {DiscrepancyKind.GUARD}
    return [found.subject for found in report.discrepancies]


def table_of(name):
    return name.split("_")[1]


async def test_the_tables_as_declared_and_as_migrated_have_the_same_guards(database):
    assert await missing(database) == []
    async with databases.postgres_copy() as url:
        engine = async_engine(url).execution_options(isolation_level="READ COMMITTED")
        async with engine.begin() as connection:
            await connection.run_sync(metadata.create_all)
        await engine.dispose()
        async with databases.opened(url) as declared:
            assert await missing(declared) == []


@each_trigger
@pytest.mark.parametrize(
    "weaken",
    [
        "DROP TRIGGER {name} ON {table}",
        "ALTER TABLE {table} DISABLE TRIGGER {name}",
        # It fires, but not in sessions that replay another server's changes, and then in those alone.
        "ALTER TABLE {table} ENABLE TRIGGER {name}",
        "ALTER TABLE {table} ENABLE REPLICA TRIGGER {name}",
    ],
)
async def test_a_trigger_that_is_gone_or_off_is_found(database, trigger, weaken):
    await change(database, weaken.format(name=trigger.name, table=trigger.table))
    assert await missing(database) == [trigger.name]


@each_trigger
@pytest.mark.parametrize(
    "rewrite",
    [
        lambda words: words.replace(" EXECUTE", " WHEN (1 = 0) EXECUTE"),
        lambda words: words.replace("BEFORE", "AFTER"),
        lambda words: words.replace("hydrasms_refuse(", "does_nothing("),
    ],
    ids=["never", "afterwards", "another function"],
)
async def test_a_trigger_that_refuses_no_more_is_found(database, trigger, rewrite):
    weaker = rewrite(trigger.postgres)
    assert weaker != trigger.postgres
    await change(
        database,
        POSTGRES_FUNCTION.replace("hydrasms_refuse", "does_nothing").replace(
            "RAISE EXCEPTION", "RAISE NOTICE"
        ),
        f"DROP TRIGGER {trigger.name} ON {trigger.table}",
        weaker,
        f"ALTER TABLE {trigger.table} ENABLE ALWAYS TRIGGER {trigger.name}",
    )
    assert await missing(database) == [trigger.name]


async def test_a_function_that_refuses_no_more_is_found(database):
    tame = POSTGRES_FUNCTION.replace("CREATE", "CREATE OR REPLACE").replace(" EXCEPTION ", " NOTICE ")
    await change(
        database, tame.replace("USING ERRCODE = 'integrity_constraint_violation'; ", "; RETURN NEW; ")
    )
    assert await missing(database) == ["hydrasms_refuse"]


async def test_a_function_that_is_gone_is_found_with_all_that_it_took_along(database):
    await change(database, "DROP FUNCTION hydrasms_refuse() CASCADE")
    assert sorted(await missing(database)) == sorted(
        ["hydrasms_refuse", *(trigger.name for trigger in POSTGRES_TRIGGERS)]
    )


@pytest.mark.parametrize("name", CONSTRAINTS)
async def test_a_constraint_that_is_gone_is_found(database, name):
    await change(database, f"ALTER TABLE {table_of(name)} DROP CONSTRAINT {name}")
    assert await missing(database) == [name]


@pytest.mark.parametrize("name", CHECKS)
@pytest.mark.parametrize("words", ["CHECK (true)", "CHECK (true) NOT VALID"])
async def test_a_constraint_that_is_weaker_is_found(database, name, words):
    table = table_of(name)
    await change(
        database,
        f"ALTER TABLE {table} DROP CONSTRAINT {name}",
        f"ALTER TABLE {table} ADD CONSTRAINT {name} {words}",
    )
    assert await missing(database) == [name]


@pytest.mark.parametrize("name", CHECKS)
async def test_a_constraint_that_older_rows_need_not_meet_is_found(database, name):
    table = table_of(name)
    found = await database.read(
        lambda tx: run(
            tx, "SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE conname = :name", name=name
        )
    )
    words = found.scalar_one().replace(":", "\\:")
    again = [
        f"ALTER TABLE {table} DROP CONSTRAINT {name}",
        f"ALTER TABLE {table} ADD CONSTRAINT {name} {words}",
    ]
    await change(database, *again, again[0], f"{again[1]} NOT VALID")
    assert await missing(database) == [name]
    # Made anew from what the server says of it, as a restored dump is, it is the guard that it was.
    await change(database, *again)
    assert await missing(database) == []


@pytest.mark.parametrize(
    "weaker",
    [
        None,
        "CREATE INDEX {name} ON transfers (message_id, kind, account_id) WHERE message_id <> ''",
        "CREATE UNIQUE INDEX {name} ON transfers (message_id, kind, account_id, id) WHERE message_id <> ''",
        "CREATE UNIQUE INDEX {name} ON transfers (message_id, kind, account_id) WHERE kind = 'refund'",
        "CREATE UNIQUE INDEX {name} ON balances (account_id, balance)",
    ],
)
async def test_a_unique_index_that_is_gone_or_weaker_is_found(database, weaker):
    await change(database, f"DROP INDEX {INDEX}", *([weaker.format(name=INDEX)] if weaker else []))
    assert await missing(database) == [INDEX]


async def test_a_unique_index_that_is_not_valid_is_found(database):
    # As an index is whose building failed.
    await change(
        database, f"UPDATE pg_index SET indisvalid = false WHERE indexrelid = '{INDEX}'\\:\\:regclass"
    )
    assert await missing(database) == [INDEX]


async def test_guards_that_are_only_written_otherwise_are_not_reported(database):
    await change(
        database,
        f"DROP INDEX {INDEX}",
        f"""create unique index "{INDEX}" on public.transfers
              using btree (message_id,"kind",account_id) where message_id<>''""",
        "DROP TRIGGER transfers_refuse_update ON transfers",
        """create trigger transfers_refuse_update
             before update on transfers -- here
             for each row execute procedure hydrasms_refuse( 'transfers are append-only' )""",
        "ALTER TABLE transfers ENABLE ALWAYS TRIGGER transfers_refuse_update",
    )
    assert await missing(database) == []


# ---- tables in partitions ------------------------------------------------------------------------------------


async def test_a_database_in_partitions_has_all_guards(in_lanes):
    assert await missing(in_lanes) == []


@pytest.mark.parametrize("as_a_replica", [False, True])
async def test_a_partition_is_as_append_only_as_its_table(in_lanes, as_a_replica):
    changes = {
        "append-only": [
            "UPDATE {transfers} SET amount = amount + 1",
            "DELETE FROM {transfers}",
            "TRUNCATE {transfers}",
        ],
        "balance": [
            "DELETE FROM {balances}",
            "UPDATE {balances} SET account_id = account_id",
            "TRUNCATE {balances}",
        ],
    }
    before = ["SET LOCAL session_replication_role = replica"] if as_a_replica else []
    for words, statements in changes.items():
        for statement in statements:
            for lane in range(LANES):
                named = statement.format(transfers=f"transfers_p{lane}", balances=f"balances_p{lane}")
                with pytest.raises(IntegrityViolation, match=words):
                    await change(in_lanes, *before, named)


@each_trigger
@pytest.mark.parametrize(
    "weaken",
    ["ALTER TABLE {table}_p1 DISABLE TRIGGER {name}", "ALTER TABLE {table}_p1 ENABLE TRIGGER {name}"],
)
async def test_a_trigger_that_is_off_in_one_partition_is_found(in_lanes, trigger, weaken):
    await change(in_lanes, weaken.format(name=trigger.name, table=trigger.table))
    assert await missing(in_lanes) == [trigger.name]


@pytest.mark.parametrize("name", [INDEX, *CONSTRAINTS])
async def test_a_constraint_that_is_gone_from_tables_in_partitions_is_found(in_lanes, name):
    drop = f"DROP INDEX {name}" if name == INDEX else f"ALTER TABLE {table_of(name)} DROP CONSTRAINT {name}"
    await change(in_lanes, drop)
    assert await missing(in_lanes) == [name]
