"""`hydrasms db backup`: what it makes and what it refuses."""

import asyncio
import contextlib
import shutil
import sqlite3
import stat

import pytest

from hydrasms_app import migrate
from hydrasms_app.backup import back_up
from hydrasms_app.problems import Problem
from hydrasms_billing.verify import verify_ledger
from hydrasms_core.db.sqlite import SqliteDatabase
from hydrasms_core.db.sqlite_file import find_damage
from tests.support.fake_core import failure_of, run, text_of
from tests.support.history import read_books
from tests.support.ledger import fill


@pytest.fixture
async def opened(database_path):
    """An open SQLite file with a ledger, none of which has left the log so far."""
    database = SqliteDatabase(database_path)
    await fill(database, accounts=3, messages_each=20)
    file_alone = shutil.copy(database_path, database_path.with_name("alone.db"))
    with contextlib.closing(sqlite3.connect(file_alone)) as connection:
        assert connection.execute("SELECT count(*) FROM messages").fetchone() == (0,)
    yield database
    await database.close()


async def books_in(path):
    opened = SqliteDatabase(path)
    try:
        assert (await verify_ledger(opened)).discrepancies == []
        return await read_books(opened)
    finally:
        await opened.close()


async def test_a_backup_holds_what_is_only_in_the_log_so_far(opened, database_path, tmp_path):
    target = tmp_path / "backup.db"
    size = await asyncio.to_thread(back_up, database_path, target)
    assert size == target.stat().st_size
    migrate.check_usable(target)
    assert await books_in(target) == await read_books(opened)


async def test_a_backup_is_its_owners_alone_and_leaves_nothing_beside_it(opened, database_path, tmp_path):
    folder = tmp_path / "backups"
    folder.mkdir()
    back_up(database_path, folder / "backup.db")
    assert [path.name for path in folder.iterdir()] == ["backup.db"]
    assert stat.S_IMODE((folder / "backup.db").stat().st_mode) == 0o600


async def test_writers_go_on_while_a_backup_reads(opened, database_path, tmp_path):
    backing_up = asyncio.create_task(asyncio.to_thread(back_up, database_path, tmp_path / "backup.db"))
    number = 0
    while number == 0 or not backing_up.done():
        number += 1
        await fill(opened, accounts=1, messages_each=1)
    await backing_up
    found = await books_in(tmp_path / "backup.db")
    assert 60 <= len(found.messages) <= 60 + number


async def test_a_backup_replaces_no_file(opened, database_path, tmp_path):
    taken = tmp_path / "taken"
    taken.write_text("mine")
    with pytest.raises(Problem, match="is there already"):
        back_up(database_path, taken)
    assert taken.read_text() == "mine"


def test_a_missing_database_and_a_missing_folder_are_problems(database_path, tmp_path):
    with pytest.raises(Problem, match="there is no database"):
        back_up(tmp_path / "nowhere.db", tmp_path / "backup.db")
    with pytest.raises(Problem, match=r"cannot write the backup .*: No such file"):
        back_up(database_path, tmp_path / "nowhere" / "backup.db")


def test_a_damaged_database_is_not_backed_up(database_path, tmp_path):
    with contextlib.closing(sqlite3.connect(database_path)) as connection:
        connection.execute("PRAGMA writable_schema=ON")
        connection.execute("UPDATE sqlite_master SET rootpage = rootpage + 1 WHERE name = 'messages'")
        connection.commit()
    assert find_damage(database_path) is not None
    with pytest.raises(Problem, match="is damaged"):
        back_up(database_path, tmp_path / "backup.db")
    assert sorted(path.name for path in tmp_path.iterdir() if "backup" in path.name) == []


def test_the_command_says_what_it_made(database_path, tmp_path, monkeypatch):
    monkeypatch.setenv("HYDRASMS_DATA_DIR", str(database_path.parent))
    shown = text_of(run("db", "backup", str(tmp_path / "backup.db")))
    assert shown.startswith(f"Backed up {database_path} to {tmp_path / 'backup.db'}: ")
    assert find_damage(tmp_path / "backup.db") is None
    assert "is there already" in failure_of(run("db", "backup", str(tmp_path / "backup.db")))


def test_postgresql_is_backed_up_with_its_own_tools(tmp_path, monkeypatch):
    monkeypatch.setenv("HYDRASMS_DATABASE_URL", "postgresql://localhost/hydrasms")
    assert "pg_dump" in failure_of(run("db", "backup", str(tmp_path / "backup.db")))
