"""What becomes of SQLite's errors: said in the log, told to whoever asked, and never the end of the store."""

import asyncio
import contextlib
import sqlite3

import pytest
import sqlalchemy as sa
from structlog.testing import capture_logs

from hydrasms_app.damage import damage_told, require_sound
from hydrasms_app.problems import Problem
from hydrasms_app.settings import Settings
from hydrasms_core.db.group_commit import GroupCommit
from hydrasms_core.db.sqlite import SqliteDatabase
from hydrasms_core.db.transaction import StoreCorrupt
from hydrasms_core.errors import StoreUnavailable

BOUND_S = 20
ONE = sa.text("SELECT 1")


@pytest.fixture
async def opened(database_path):
    database = SqliteDatabase(database_path)
    yield database
    await database.close()


async def test_a_file_that_cannot_be_opened_is_told_to_whoever_asks_and_tried_again(tmp_path):
    path = tmp_path / "missing" / "hydrasms.db"
    database = SqliteDatabase(path)
    async with asyncio.timeout(BOUND_S):
        for ask in (database.read, database.write, database.write):
            with pytest.raises(StoreUnavailable):
                await ask(lambda tx: tx.execute(ONE))
        path.parent.mkdir()
        for ask in (database.read, database.write):
            assert (await ask(lambda tx: tx.execute(ONE))).scalar_one() == 1
        await database.close()


async def test_a_text_that_is_not_utf8_is_damage(opened, database_path):
    with contextlib.closing(sqlite3.connect(database_path)) as connection:
        connection.execute("CREATE TABLE texts (content TEXT)")
        connection.execute("INSERT INTO texts VALUES (CAST(x'c328' AS TEXT))")
        connection.commit()

    async def work(tx):
        return (await tx.execute(sa.text("SELECT content FROM texts"))).all()

    with pytest.raises(StoreCorrupt):
        await opened.read(work)


async def test_a_damaged_page_is_damage_and_no_reason_to_try_again(opened, database_path):
    await opened.close()
    _overwrite_all_but_the_first_page(database_path)
    database = SqliteDatabase(database_path)
    for ask in (database.read, database.write):
        with pytest.raises(StoreCorrupt):
            await ask(lambda tx: tx.execute(sa.text("SELECT count(*) FROM messages")))
    with pytest.raises(Problem, match="is damaged"):
        require_sound(Settings(data_dir=database_path.parent))
    await database.close()


async def test_a_batch_that_meets_damage_is_not_taken_apart(opened):
    batches = []

    async def commit(tx, items):
        batches.append(len(items))
        raise StoreCorrupt("SQLITE_CORRUPT")

    group = GroupCommit(opened, commit)
    outcomes = await asyncio.gather(*(group.submit(number) for number in range(8)), return_exceptions=True)
    assert {type(outcome) for outcome in outcomes} == {StoreCorrupt}
    assert batches == [8]


async def test_why_the_store_refuses_is_logged_once_and_not_each_time(opened):
    with capture_logs() as lines:
        for _ in range(3):
            with pytest.raises(StoreUnavailable):
                await opened.read(lambda tx: tx.execute(sa.text("DELETE FROM messages")))
    said = [line["error"] for line in lines if line["event"] == "store_unavailable"]
    assert said == ["SQLITE_READONLY"]


@pytest.mark.parametrize(
    "error",
    [
        StoreCorrupt("SQLITE_CORRUPT"),
        ExceptionGroup("loops", [ValueError(), ExceptionGroup("", [StoreCorrupt("x")])]),
    ],
)
def test_damage_ends_a_server_with_one_line_also_where_several_loops_meet_it(error, tmp_path):
    with pytest.raises(Problem, match="is damaged"), damage_told(Settings(data_dir=tmp_path)):
        raise error


def test_no_other_failure_is_called_damage(tmp_path):
    with pytest.raises(ExceptionGroup), damage_told(Settings(data_dir=tmp_path)):
        raise ExceptionGroup("loops", [ValueError()])


def _overwrite_all_but_the_first_page(path):
    content = bytearray(path.read_bytes())
    content[4096:] = b"\xaa" * (len(content) - 4096)
    path.write_bytes(content)
