"""PostgreSQL's connections and transactions: what breaks, and what is left then."""

import asyncio
import contextlib
import io
import logging
import sys
from functools import partial

import asyncpg
import pytest
import sqlalchemy as sa
import structlog

from hydrasms_base import log as hydrasms_log
from hydrasms_core.db import postgres_pool
from hydrasms_core.db.dialect import SetStatement
from hydrasms_core.db.postgres import PostgresDatabase
from hydrasms_core.db.transaction import IntegrityViolation
from hydrasms_core.errors import StoreUnavailable
from tests.support.gates import Gate
from tests.support.tampering import run
from tests.support.waiting import eventually

pytestmark = pytest.mark.postgresql

RUNS = 4
WRITERS = 8
SECRET = "a private text"
ADD = SetStatement("INSERT INTO pairs (ordinal, word) SELECT ordinal, word FROM {rows}", ("ordinal", "word"))


@pytest.fixture
async def admin(postgres_url):
    connection = await asyncpg.connect(postgres_url)
    yield connection
    await connection.close()


@pytest.fixture
async def database(postgres_url, admin):
    await admin.execute("CREATE TABLE pairs (ordinal BIGINT PRIMARY KEY, word TEXT CHECK (word <> 'wrong'))")
    database = PostgresDatabase(postgres_url)
    yield database
    async with asyncio.timeout(20):
        await database.close()


@pytest.fixture
async def impatient(postgres_url, database, monkeypatch):
    """The same database for somebody who waits for nothing longer than a moment."""
    for name in ("lock_timeout", "idle_in_transaction_session_timeout"):
        monkeypatch.setitem(postgres_pool._SERVER_SETTINGS, name, "50ms")
    impatient = PostgresDatabase(postgres_url)
    yield impatient
    await impatient.close()


def adding(ordinal, word=SECRET):
    return lambda tx: tx.execute_set(ADD, [(ordinal, word)])


async def stored(database):
    found = await database.read(lambda tx: run(tx, "SELECT ordinal FROM pairs ORDER BY ordinal"))
    return [row.ordinal for row in found]


async def own_process(tx):
    return (await run(tx, "SELECT pg_backend_pid()")).scalar_one()


async def is_gone(admin, process):
    """Tell whether the server has no such process any more."""
    found = await admin.fetchval("SELECT count(*) FROM pg_stat_activity WHERE pid = $1", process)
    return found == 0


# ---- transactions that the database undoes -------------------------------------------------------------------


async def test_a_deadlock_is_run_anew_and_comes_out_right(database, admin):
    await admin.execute("INSERT INTO pairs VALUES (1, 'x'), (2, 'x')")
    meeting = asyncio.Barrier(2)
    runs = []

    def appending(letter, first, second):
        async def work(tx):
            runs.append(letter)
            for ordinal in (first, second):
                await run(
                    tx, "UPDATE pairs SET word = word || :letter WHERE ordinal = :n", letter=letter, n=ordinal
                )
                if runs.count(letter) == 1 and ordinal == first:
                    # Each now has what the other wants next.
                    await meeting.wait()
            return letter

        return work

    async with asyncio.timeout(20):
        done = await asyncio.gather(
            database.write(appending("a", 1, 2)), database.write(appending("b", 2, 1))
        )
    assert list(done) == ["a", "b"]
    assert len(runs) == 3
    words = {row["word"] for row in await admin.fetch("SELECT word FROM pairs")}
    assert words in ({"xab"}, {"xba"})


@pytest.mark.parametrize("code", ["40P01", "40001"])
async def test_what_is_undone_again_and_again_is_given_up(database, code):
    runs = []

    async def work(tx):
        runs.append(1)
        await adding(len(runs))(tx)
        await run(tx, f"DO $$ BEGIN RAISE EXCEPTION 'undone' USING ERRCODE = '{code}'; END $$")

    with pytest.raises(StoreUnavailable):
        await database.write(work)
    assert len(runs) == RUNS
    assert await stored(database) == []


async def test_what_is_undone_once_counts_once(database):
    runs = []

    async def work(tx):
        runs.append(1)
        await adding(len(runs))(tx)
        if len(runs) == 1:
            await run(tx, "DO $$ BEGIN RAISE EXCEPTION 'undone' USING ERRCODE = '40001'; END $$")
        return len(runs)

    assert await database.write(work) == 2
    assert await stored(database) == [2]


async def test_a_failed_statement_that_the_work_swallows_is_no_commit(database):
    async def work(tx):
        await adding(1)(tx)
        with contextlib.suppress(asyncpg.UniqueViolationError):
            await adding(1)(tx)
        return "pretends that all is well"

    with pytest.raises(IntegrityViolation, match="had failed"):
        await database.write(work)
    assert await stored(database) == []
    await database.write(adding(2))
    assert await stored(database) == [2]


async def test_what_is_deferred_is_checked_before_the_commit_at_the_latest(database):
    await database.write(adding(1))
    with pytest.raises(IntegrityViolation):
        await database.write(lambda tx: tx.defer_set(ADD, [(1, "x")]))
    assert await stored(database) == [1]


# ---- connections that break ----------------------------------------------------------------------------------


async def test_every_connection_is_durable_and_bounded_whatever_the_servers_defaults(database, admin):
    name = await admin.fetchval("SELECT current_database()")
    await admin.execute(f"ALTER DATABASE {name} SET synchronous_commit = off")
    await admin.execute(f"ALTER DATABASE {name} SET timezone = 'Asia/Tokyo'")
    for transaction in (database.read, database.write):
        for setting, value in (
            ("synchronous_commit", "on"),
            ("TimeZone", "UTC"),
            ("jit", "off"),
            ("lock_timeout", "5s"),
            ("idle_in_transaction_session_timeout", "10s"),
        ):
            found = await transaction(lambda tx, setting=setting: run(tx, f"SHOW {setting}"))
            assert found.scalar_one() == value


async def test_connections_that_broke_while_nobody_used_them_are_passed_over(database, admin):
    async def together(transaction):
        """Use as many connections as there are at once; returns their processes."""
        meeting = asyncio.Barrier(WRITERS)

        async def work(tx):
            await meeting.wait()
            return await own_process(tx)

        async with asyncio.timeout(20):
            return set(await asyncio.gather(*(transaction(work) for _ in range(WRITERS))))

    for transaction in (database.write, database.read):
        before = await together(transaction)
        assert len(before) == WRITERS
        for process in before:
            await admin.execute("SELECT pg_terminate_backend($1)", process)
        for process in before:
            await eventually(partial(is_gone, admin, process))
        assert not await together(transaction) & before


async def test_a_connection_that_nobody_has_noticed_to_be_broken_is_passed_over(database, monkeypatch):
    await database.write(own_process)
    (broken,) = database._writers._idle
    execute = asyncpg.Connection.execute

    async def execute_unless_broken(self, *arguments, **options):
        # As it is between the server's word that the connection ends and the loop's reading it.
        if self is broken.driver:
            raise asyncpg.ConnectionDoesNotExistError("the connection was closed in the middle of operation")
        return await execute(self, *arguments, **options)

    monkeypatch.setattr(asyncpg.Connection, "execute", execute_unless_broken)
    await database.write(adding(1))
    assert broken not in database._writers._idle
    assert await stored(database) == [1]


@pytest.mark.parametrize("by_core", [False, True])
async def test_a_connection_that_breaks_in_mid_transaction_leaves_nothing(database, admin, by_core):
    async def work(tx):
        await adding(1)(tx)
        process = await own_process(tx)
        await admin.execute("SELECT pg_terminate_backend($1)", process)
        await eventually(lambda: is_gone(admin, process))
        await (run(tx, "SELECT 1") if by_core else adding(2)(tx))

    with pytest.raises(StoreUnavailable):
        await database.write(work)
    assert await stored(database) == []
    await database.write(adding(3))
    assert await stored(database) == [3]


async def test_a_process_that_stands_still_in_mid_transaction_loses_it(impatient, admin):
    async def work(tx):
        await adding(1)(tx)
        process = await own_process(tx)
        await eventually(lambda: is_gone(admin, process))
        await adding(2)(tx)

    with pytest.raises(StoreUnavailable):
        await impatient.write(work)
    assert await stored(impatient) == []


async def test_a_lock_that_another_keeps_is_not_waited_for_for_ever(impatient, admin):
    await admin.execute("INSERT INTO pairs VALUES (1, 'x')")
    async with admin.transaction():
        await admin.execute("UPDATE pairs SET word = 'y'")
        for change in ("UPDATE pairs SET word = 'z'", "SELECT word FROM pairs FOR UPDATE"):
            with pytest.raises(StoreUnavailable):
                await impatient.write(lambda tx, change=change: run(tx, change))
    await impatient.write(lambda tx: run(tx, "UPDATE pairs SET word = 'z'"))


async def test_a_name_that_another_holds_alone_is_not_waited_for_for_ever(database, impatient):
    gate = Gate()

    async def keep(tx):
        assert await tx.hold("a name", alone=True)
        await gate.pass_through(tx)

    keeping = asyncio.create_task(database.write(keep))
    await gate.reached()
    for alone in (False, True):
        with pytest.raises(StoreUnavailable):
            await impatient.write(lambda tx, alone=alone: tx.hold("a name", alone=alone))
    assert await impatient.write(lambda tx: tx.hold("another name", alone=True))
    gate.open()
    await keeping
    assert await impatient.write(lambda tx: tx.hold("a name", alone=False))


async def test_a_name_may_be_held_together(database):
    meeting = asyncio.Barrier(3)

    async def work(tx):
        await tx.hold("a name", alone=False)
        await meeting.wait()

    async with asyncio.timeout(20):
        await asyncio.gather(*(database.write(work) for _ in range(3)))


@pytest.mark.parametrize(
    "changes", [{"port": 1}, {"database": "there_is_none"}, {"username": "nobody_of_that_name"}]
)
async def test_a_server_that_cannot_be_reached_is_unavailable(postgres_url, changes):
    url = sa.make_url(postgres_url).set(**changes).render_as_string(hide_password=False)
    database = PostgresDatabase(url)
    for transaction in (database.read, database.write):
        with pytest.raises(StoreUnavailable):
            await transaction(own_process)
    await database.close()


# ---- callers and the pool ------------------------------------------------------------------------------------


async def test_a_caller_that_goes_away_leaves_its_transaction_finished_and_the_pool_whole(database):
    gates = [Gate() for _ in range(2 * WRITERS)]

    def work(ordinal, gate):
        async def add(tx):
            await adding(ordinal)(tx)
            await gate.pass_through(tx)

        return add

    for half in (range(WRITERS), range(WRITERS, 2 * WRITERS)):
        leaving = [asyncio.create_task(database.write(work(n, gates[n]))) for n in half]
        for ordinal in half:
            await gates[ordinal].reached()
        for task in leaving:
            task.cancel()
        await asyncio.wait(leaving)
        assert all(task.cancelled() for task in leaving)
        for ordinal in half:
            gates[ordinal].open()
    # More than there are connections, so that one which was not given back would be missed.
    async with asyncio.timeout(20):
        await asyncio.gather(*(database.write(adding(100 + n)) for n in range(3 * WRITERS)))
    await eventually(lambda: all_are_there(database, 2 * WRITERS), what="what those who left began")


async def all_are_there(database, number):
    return [ordinal for ordinal in await stored(database) if ordinal < 100] == list(range(number))


async def test_closing_waits_for_a_transaction_that_nobody_waits_for(postgres_url, database):
    gate = Gate()

    async def work(tx):
        await adding(1)(tx)
        await gate.pass_through(tx)

    other = PostgresDatabase(postgres_url)
    leaving = asyncio.create_task(other.write(work))
    await gate.reached()
    leaving.cancel()
    closing = asyncio.create_task(other.close())
    await asyncio.wait([leaving])
    assert not closing.done()
    gate.open()
    await closing
    assert await stored(database) == [1]


async def test_whoever_waits_too_long_for_a_connection_is_refused(postgres_url, monkeypatch):
    monkeypatch.setattr(postgres_pool, "_CONNECT_S", 0.5)
    database = PostgresDatabase(postgres_url, writers=1)
    gate = Gate()
    keeping = asyncio.create_task(database.write(gate.pass_through))
    await gate.reached()
    with pytest.raises(StoreUnavailable):
        await database.write(own_process)
    gate.open()
    await keeping
    assert await database.write(own_process)
    await database.close()


# ---- nothing that was bound to a statement comes out -----------------------------------------------------------


FAILURES = {
    "a key that is there": lambda tx: adding(1)(tx),
    "a key that is there, deferred": lambda tx: tx.defer_set(ADD, [(1, SECRET)]),
    "a key that is there, by Core": lambda tx: run(
        tx, "INSERT INTO pairs VALUES (:n, :word)", n=1, word=SECRET
    ),
    "a key that holds the text": lambda tx: run(tx, "INSERT INTO words VALUES (:word)", word=SECRET),
    "a check": lambda tx: run(
        tx, "INSERT INTO pairs SELECT 2, 'wrong' WHERE CAST(:word AS text) <> ''", word=SECRET
    ),
    "a wrong type": lambda tx: tx.execute_set(ADD, [(SECRET, SECRET)]),
    "a wrong type, by Core": lambda tx: run(tx, "SELECT CAST(:word AS bigint)", word=SECRET),
    "NUL": lambda tx: adding(3, f"{SECRET}\0")(tx),
    "a lone surrogate": lambda tx: adding(3, f"{SECRET}\ud800")(tx),
    "a statement that is wrong": lambda tx: run(tx, "SELECT :word FROM nowhere", word=SECRET),
}


@pytest.fixture
def logged(monkeypatch):
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    hydrasms_log.configure_logging("debug", "json")
    yield stream
    structlog.reset_defaults()
    hydrasms_log._direct = None
    logging.basicConfig(force=True, handlers=[logging.NullHandler()])


@pytest.mark.parametrize("failure", FAILURES.values(), ids=FAILURES.keys())
async def test_no_log_and_no_error_for_callers_holds_what_was_bound(database, admin, logged, failure):
    await admin.execute("CREATE TABLE words (word TEXT PRIMARY KEY)")
    await admin.execute("INSERT INTO words VALUES ($1)", SECRET)
    await database.write(adding(1))
    # Of whatever class, for it is its words that matter.
    with pytest.raises(Exception) as caught:
        await database.write(failure)
    if isinstance(caught.value, IntegrityViolation | StoreUnavailable):
        # Callers may see what these say; of all others they see nothing.
        assert "private" not in f"{caught.value!r} {caught.value}"
    hydrasms_log.get_logger("test").error("failed", exc_info=caught.value)
    text = logged.getvalue()
    assert "failed" in text
    assert "private" not in text
    assert await stored(database) == [1]


async def test_control_the_search_would_find_what_was_bound(database, logged):
    hydrasms_log.get_logger("test").error("failed", words=SECRET)
    assert "private" in logged.getvalue()
