"""Fair turns on one SQLite file: between real processes, and whatever becomes of one of them."""

import asyncio
import contextlib
import fcntl
import signal
import subprocess
import sys
import threading
from collections import Counter

import pytest
import sqlalchemy as sa

from hydrasms_core.db.sqlite import SqliteDatabase
from hydrasms_core.db.turns import Turnstile
from hydrasms_core.errors import StoreUnavailable
from tests.support.waiting import eventually
from tests.support.writers import make_table, turns_taken

SECONDS = 2.0
MOST_OVERTAKEN = 25
"""How often others may come before one who wants to write all the time; twice would be ideal for three."""

HOLD = """
import sqlite3, sys
from pathlib import Path
from hydrasms_core.db.turns import Turnstile
turnstile = Turnstile(Path(sys.argv[1]))
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
turnstile.take()
if sys.argv[2] == "writing":
    connection.execute("BEGIN IMMEDIATE")
print("held", flush=True)
sys.stdin.readline()
if sys.argv[2] == "writing":
    connection.execute("COMMIT")
turnstile.give_back()
"""


def assert_fair(turns, names):
    shares = Counter(turns)
    assert min(shares[name] for name in names) >= 0.5 * max(shares.values())
    for name in names:
        overtaken = 0
        for turn in turns:
            overtaken = 0 if turn == name else overtaken + 1
            assert overtaken <= MOST_OVERTAKEN


@pytest.mark.parametrize("names", ["ab", "abc"])
def test_processes_that_write_all_the_time_share_the_turns(tmp_path, names):
    path = tmp_path / "shared.db"
    make_table(path)
    turns = turns_taken(path, names, seconds=SECONDS, queueing=True)
    assert len(turns) > 10 * len(names)
    assert_fair(turns, names)


def test_control_without_the_queue_some_starve_and_that_is_caught(tmp_path):
    path = tmp_path / "shared.db"
    make_table(path)
    turns = turns_taken(path, "abc", seconds=SECONDS, queueing=False)
    with pytest.raises(AssertionError):
        assert_fair(turns, "abc")


async def test_whoever_had_a_turn_comes_after_those_who_wait(tmp_path):
    path = tmp_path / "shared.db"
    first, second = Turnstile(path), Turnstile(path)
    order = []

    def have_a_turn(turnstile, name):
        turnstile.take()
        order.append(name)
        turnstile.give_back()

    first.take()
    waiting = threading.Thread(target=have_a_turn, args=(second, "second"))
    waiting.start()
    await eventually(lambda: second.waited_s > 0)
    first.give_back()
    have_a_turn(first, "first")
    waiting.join()
    assert order == ["second", "first"]
    assert (first.waited_s, second.waited_s) == (0, 0)
    first.close()
    second.close()


async def _rows(database):
    found = await database.read(lambda tx: tx.execute(sa.text("SELECT name FROM turns ORDER BY number")))
    return [name for (name,) in found]


def _add(name):
    statement = sa.text("INSERT INTO turns (name, at_ns) VALUES (:name, 0)")
    return lambda tx: tx.execute(statement, {"name": name})


@contextlib.asynccontextmanager
async def _opened(path, **settings):
    database = SqliteDatabase(path, **settings)
    try:
        yield database
    finally:
        await database.close()


@pytest.fixture
def shared(tmp_path):
    path = tmp_path / "shared.db"
    make_table(path)
    return path


@contextlib.contextmanager
def _taker(path, does="nothing"):
    """A process that takes a turn, says `held` when it has it, and gives it back when it gets a line."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path), does],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.fixture
def holder(shared):
    """A process that has the turn until it gets a line."""
    with _taker(shared) as process:
        _await_turn(process)
        yield process


def _await_turn(process):
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"


def _somebody_is_next(path):
    with path.with_name(f"{path.name}-next").open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


async def test_a_holder_that_is_killed_lets_the_others_go_on(shared, holder):
    async with _opened(shared) as database:
        writing = asyncio.create_task(database.write(_add("waited")))
        await asyncio.sleep(0)
        assert not writing.done()
        holder.kill()
        await asyncio.wait_for(writing, 20)
        assert await _rows(database) == ["waited"]


async def test_one_who_is_next_and_is_killed_takes_nobody_with_it(shared, holder):
    with _taker(shared) as second:
        await eventually(lambda: _somebody_is_next(shared))
        async with _opened(shared) as database:
            writing = asyncio.create_task(database.write(_add("waited")))
            second.kill()
            second.communicate()
            holder.communicate("go\n", timeout=20)
            await asyncio.wait_for(writing, 20)
            assert await _rows(database) == ["waited"]


async def test_a_turn_that_does_not_come_is_not_awaited_for_ever(shared, holder, capfd):
    async with _opened(shared, patience_s=0.3) as database:
        holder.send_signal(signal.SIGSTOP)
        names = [f"past it {number}" for number in range(3)]
        await asyncio.wait_for(asyncio.gather(*(database.write(_add(name)) for name in names)), 20)
        assert sorted(await _rows(database)) == names
        # Who comes later need not wait in vain first.
        assert "turn_not_awaited" in capfd.readouterr().out
        await asyncio.wait_for(database.write(_add("at once")), 20)
        assert capfd.readouterr().out == ""
        holder.send_signal(signal.SIGCONT)
        holder.communicate("go\n", timeout=20)
        await database.write(_add("in turn"))
        # Nothing was done twice when the turn came at last.
        assert sorted(await _rows(database)) == ["at once", "in turn", *names]


async def test_one_who_is_stopped_while_it_writes_makes_the_store_unavailable_until_it_goes_on(shared):
    with _taker(shared, "writing") as holder:
        _await_turn(holder)
        async with _opened(shared, patience_s=0.1) as database:
            holder.send_signal(signal.SIGSTOP)
            with pytest.raises(StoreUnavailable):
                await asyncio.wait_for(database.write(_add("given up")), 60)
            # Reads need no turn.
            assert await _rows(database) == []
            holder.send_signal(signal.SIGCONT)
            holder.communicate("go\n", timeout=20)
            await database.write(_add("went on"))
            assert await _rows(database) == ["went on"]


async def test_a_database_is_closed_though_its_turn_never_comes(shared, holder):
    database = SqliteDatabase(shared, patience_s=0.2)
    await database.write(_add("past it"))
    await asyncio.wait_for(database.close(), 20)


async def test_a_long_queue_of_our_own_is_no_reason_to_give_up(shared):
    async with _opened(shared, patience_s=0.05) as database:
        gate = threading.Event()

        async def slow(tx):
            gate.wait(20)
            await _add("slow")(tx)

        first = asyncio.create_task(database.write(slow))
        second = asyncio.create_task(database.write(_add("behind it")))
        done, _ = await asyncio.wait([first, second], timeout=0.3)
        assert not done
        gate.set()
        await asyncio.gather(first, second)
        assert await _rows(database) == ["slow", "behind it"]


async def test_where_the_files_cannot_be_had_writing_goes_on_without_order(shared, capfd):
    shared.with_name("shared.db-next").mkdir()
    async with _opened(shared) as database:
        for number in range(3):
            await database.write(_add(f"row {number}"))
        assert len(await _rows(database)) == 3
    assert capfd.readouterr().out.count("no_fair_turns") == 1


async def test_a_database_that_cannot_be_opened_refuses_and_opens_later(tmp_path):
    path = tmp_path / "later" / "shared.db"
    async with _opened(path) as database:
        with pytest.raises(StoreUnavailable):
            await database.write(_add("too early"))
        path.parent.mkdir()
        make_table(path)
        await database.write(_add("in time"))
        assert await _rows(database) == ["in time"]
