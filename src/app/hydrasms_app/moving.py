"""Takes everything from a SQLite file to an empty PostgreSQL database."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from hydrasms_app import migrate
from hydrasms_app.data_dir import held_data_dir
from hydrasms_app.problems import Problem
from hydrasms_app.schema import metadata, schema_floor
from hydrasms_app.settings import Settings
from hydrasms_billing.verify import verify_ledger
from hydrasms_core.db.postgres import PostgresDatabase, PostgresTransaction
from hydrasms_core.db.postgres_lanes import PartitionLanes
from hydrasms_core.db.sqlite import sync_engine
from hydrasms_core.db.transaction import Transaction

_ROWS_AT_ONCE = 5_000


def move(settings: Settings, url: str) -> int:
    """Copy every row of the settings' SQLite file into an empty PostgreSQL database; returns how many they are.

    No server may use the file meanwhile, and the database gets `settings.lanes` partitions. The ledger is verified
    in its new place. All rows come in one transaction: where anything goes wrong, nothing has come. Raises Problem.
    """
    source = settings.database
    if not isinstance(source, Path):
        raise Problem("the settings name a PostgreSQL database already: unset HYDRASMS_DATABASE_URL")
    with held_data_dir(settings.data_dir, shared=False):
        migrate.upgrade(source)
        if not migrate.is_empty(url):
            raise Problem("the database to move to is not empty: name one that is")
        migrate.upgrade(url, lanes=settings.lanes)
        return asyncio.run(_move(source, url, settings.lanes))


async def _move(source: Path, url: str, lanes: int) -> int:
    database = PostgresDatabase(url, write_limit_s=None)
    try:
        moved = await database.write(lambda tx: _copy_tables(tx, source, PartitionLanes(database, lanes)))
        report = await verify_ledger(database)
    finally:
        await database.close()
    if not report.ok:
        raise Problem(
            "everything was moved, and the ledger does not verify: run `hydrasms ledger verify --offline` on both"
        )
    return moved


async def _copy_tables(tx: Transaction, source: Path, lanes: PartitionLanes) -> int:
    assert isinstance(tx, PostgresTransaction)
    moved = 0
    for table in metadata.sorted_tables:
        # What the new database's own migrations have said of it stands.
        if table is schema_floor:
            continue
        columns = [column.name for column in table.columns]
        lane = columns.index("lane") if "lane" in columns and lanes.number > 1 else None
        for rows in _rows_of(source, table):
            if lane is not None:
                for row in rows:
                    row[lane] = await lanes.of(row[columns.index("account_id")])
            await tx.copy_rows(table.name, columns, rows)
            moved += len(rows)
    return moved


def _rows_of(source: Path, table: sa.Table) -> Iterator[list[list[Any]]]:
    engine = sync_engine(source, read_only=True)
    try:
        with engine.connect() as connection:
            found = connection.execution_options(yield_per=_ROWS_AT_ONCE).execute(sa.select(*table.columns))
            for part in found.partitions():
                yield [list(row) for row in part]
    finally:
        engine.dispose()
