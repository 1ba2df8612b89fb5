"""The migrations make exactly the tables that the code was written for."""

import contextlib
import sqlite3
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory

from hydrasms_app import migrate
from hydrasms_app.problems import Problem
from hydrasms_app.schema import metadata
from hydrasms_billing.verify import verify_ledger
from hydrasms_core.db.sqlite import SqliteDatabase, sync_engine


def objects(path):
    with contextlib.closing(sqlite3.connect(path)) as connection:
        rows = connection.execute(
            "SELECT type, name, sql FROM sqlite_master WHERE name NOT LIKE 'sqlite_%' AND name <> 'alembic_version'"
        ).fetchall()
    return {(kind, name): " ".join((sql or "").split()) for kind, name, sql in rows}


def test_the_migrated_schema_is_that_of_the_tables(tmp_path):
    migrate.upgrade(tmp_path / "db")
    engine = sync_engine(tmp_path / "db")
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        differences = [d for d in compare_metadata(context, metadata) if "alembic_version" not in str(d)]
    engine.dispose()
    assert differences == []


def test_checks_triggers_and_indexes_are_those_of_the_tables_too(tmp_path):
    migrate.upgrade(tmp_path / "migrated")
    engine = sync_engine(tmp_path / "created")
    metadata.create_all(engine)
    engine.dispose()
    migrated, created = objects(tmp_path / "migrated"), objects(tmp_path / "created")
    assert set(migrated) == set(created)
    for key, sql in created.items():
        assert _normal(migrated[key]) == _normal(sql), key


def _normal(sql: str) -> list[str]:
    """Return the words of a definition in any order: constraints are no more and no less, wherever they stand."""
    words = sql.replace("(", " ( ").replace(")", " ) ").replace(",", " , ").replace('"', "").split()
    return sorted(words)


async def test_a_migrated_database_has_all_guards_of_the_ledger(tmp_path):
    migrate.upgrade(tmp_path / "db")
    database = SqliteDatabase(tmp_path / "db")
    report = await verify_ledger(database)
    await database.close()
    assert report.ok


def test_the_migrations_can_be_taken_back_and_applied_again(tmp_path):
    migrate.upgrade(tmp_path / "db")
    before = objects(tmp_path / "db")
    migrate.downgrade(tmp_path / "db", "base")
    assert objects(tmp_path / "db") == {}
    assert migrate.upgrade(tmp_path / "db") == max(migrate.revisions())
    assert objects(tmp_path / "db") == before


def test_upgrading_twice_changes_nothing(tmp_path):
    migrate.upgrade(tmp_path / "db")
    before = objects(tmp_path / "db")
    assert before
    assert migrate.upgrade(tmp_path / "db") == max(migrate.revisions())
    assert objects(tmp_path / "db") == before


def test_a_newer_database_is_refused(tmp_path):
    migrate.upgrade(tmp_path / "db")
    with contextlib.closing(sqlite3.connect(tmp_path / "db")) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
        connection.execute("INSERT INTO schema_floor VALUES (1, '9999')")
        connection.commit()
    with pytest.raises(Problem, match="newer hydrasms"):
        migrate.upgrade(tmp_path / "db")
    with pytest.raises(Problem, match="newer hydrasms"):
        migrate.check_usable(tmp_path / "db")


def test_a_database_that_lacks_migrations_is_refused_offline(tmp_path):
    sqlite3.connect(tmp_path / "db").close()
    with pytest.raises(Problem, match="db upgrade"):
        migrate.check_usable(tmp_path / "db")
    with pytest.raises(Problem, match="no database"):
        migrate.check_usable(tmp_path / "nothing")


def test_the_files_numbers_are_the_chain_of_revisions():
    config = Config()
    config.set_main_option("script_location", str(Path(migrate.__file__).with_name("migrations")))
    config.set_main_option("path_separator", "os")
    chain = [script.revision for script in ScriptDirectory.from_config(config).walk_revisions()]
    assert chain[::-1] == list(migrate.revisions())
