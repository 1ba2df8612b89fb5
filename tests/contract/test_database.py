"""What every database promises its stores."""

import asyncio
import contextlib
import enum
import sqlite3
from collections import namedtuple

import orjson
import pytest
import sqlalchemy as sa

from hydrasms_core.db.dialect import SetStatement
from hydrasms_core.db.transaction import IntegrityViolation
from tests.support.databases import ON_SQLITE
from tests.support.gates import Gate

PAIRS = SetStatement(
    "INSERT INTO pairs (ordinal, word) SELECT ordinal, word FROM {rows} WHERE true RETURNING ordinal, word",
    ("ordinal", "word"),
)
SUFFIXED = SetStatement("SELECT ordinal, word || :suffix FROM {rows}", ("ordinal", "word"))
LISTED = SetStatement(
    "SELECT (SELECT {listed:p.word} FROM pairs AS p WHERE p.ordinal >= r.ordinal) FROM {rows} WHERE true",
    ("ordinal",),
)

PAIRS_FROM = SetStatement(
    "SELECT p.ordinal, p.word, p.ordinal > 2 FROM {rows} JOIN pairs AS p ON p.ordinal = r.ordinal"
    " WHERE p.ordinal >= :least_ms ORDER BY p.ordinal DESC",
    ("ordinal",),
    as_one=3,
)
LAST = SetStatement("SELECT max(ordinal), :least_ms FROM pairs", (), as_one=2)


@pytest.fixture
async def pairs(database):
    await database.write(
        lambda tx: tx.execute(sa.text("CREATE TABLE pairs (ordinal BIGINT PRIMARY KEY, word TEXT)"))
    )
    return database


async def count(database):
    result = await database.read(lambda tx: tx.execute(sa.text("SELECT count(*) FROM pairs")))
    return result.scalar_one()


async def test_a_statement_over_a_batch_keeps_order_types_and_nulls(pairs):
    rows = [(1, "x"), (2, None), (3, 'it\'s "quoted" \\ 漢字 😀 \u2028')]
    assert await pairs.write(lambda tx: tx.execute_set(PAIRS, rows)) == rows


async def test_a_statement_over_a_batch_takes_plain_parameters_too(pairs):
    found = await pairs.read(lambda tx: tx.execute_set(SUFFIXED, [(1, "x"), (2, "y")], {"suffix": "!"}))
    assert found == [(1, "x!"), (2, "y!")]


async def test_what_comes_as_one_value_is_the_same_rows(pairs):
    rows = [(1, "x"), (2, None), (3, 'it\'s "quoted" \\ 漢字 😀 \u2028'), (2**53 + 1, "")]
    await pairs.write(lambda tx: tx.execute_set(PAIRS, rows))
    asked = [(ordinal,) for ordinal, _ in rows]
    found = await pairs.read(lambda tx: tx.execute_set(PAIRS_FROM, asked, {"least_ms": 2}))
    assert found == [(ordinal, word, ordinal > 2) for ordinal, word in reversed(rows[1:])]
    assert await pairs.read(lambda tx: tx.execute_set(PAIRS_FROM, [(7,)], {"least_ms": 2})) == []


async def test_a_statement_may_have_no_batch(pairs):
    assert await pairs.read(lambda tx: tx.execute_set(LAST, (), {"least_ms": 5})) == [(None, 5)]


async def test_many_values_come_as_one_list(pairs):
    words = ["x", None, 'it\'s "quoted" \\ 漢字 😀 \u2028']
    await pairs.write(lambda tx: tx.execute_set(PAIRS, list(enumerate(words, 1))))
    found = await pairs.read(lambda tx: tx.execute_set(LISTED, [(1,), (3,), (9,)]))
    # Of no values there is no list on PostgreSQL, and an empty one on SQLite.
    assert [orjson.loads(row[0] or "[]") for row in found] == [words, words[2:], []]


async def test_work_that_raises_leaves_nothing(pairs):
    async def work(tx):
        await tx.execute_set(PAIRS, [(1, "x")])
        raise ValueError("changed my mind")

    with pytest.raises(ValueError, match="changed my mind"):
        await pairs.write(work)
    assert await count(pairs) == 0


async def test_a_constraint_is_an_integrity_violation_whichever_way_it_is_hit(pairs):
    await pairs.write(lambda tx: tx.execute_set(PAIRS, [(1, "x")]))
    with pytest.raises(IntegrityViolation):
        await pairs.write(lambda tx: tx.execute_set(PAIRS, [(1, "y")]))
    with pytest.raises(IntegrityViolation):
        await pairs.write(lambda tx: tx.execute(sa.text("INSERT INTO pairs VALUES (1, 'z')")))


async def test_work_that_goes_on_after_a_violation_leaves_nothing(pairs):
    await pairs.write(lambda tx: tx.execute_set(PAIRS, [(1, "x")]))
    refused = []

    async def work(tx):
        await tx.execute_set(PAIRS, [(2, "before")])
        for statement in (
            tx.execute_set(PAIRS, [(1, "violation")]),
            tx.execute_set(PAIRS, [(3, "after")]),
            tx.execute(sa.text("INSERT INTO pairs VALUES (4, 'after')")),
        ):
            try:
                await statement
            except Exception as error:  # noqa: BLE001 - that there is one is what counts
                refused.append(error)
        raise refused[-1]

    with pytest.raises(Exception, match=r".+"):
        await pairs.write(work)
    assert len(refused) == 3
    assert await count(pairs) == 1


@ON_SQLITE
async def test_a_violation_that_work_keeps_to_itself_is_no_commit(pairs):
    await pairs.write(lambda tx: tx.execute_set(PAIRS, [(1, "x")]))

    async def work(tx):
        with contextlib.suppress(sqlite3.IntegrityError):
            await tx.execute_set(PAIRS, [(2, "before"), (1, "violation")])

    with pytest.raises(RuntimeError, match="ended the transaction"):
        await pairs.write(work)
    assert await count(pairs) == 1
    await pairs.write(lambda tx: tx.execute_set(PAIRS, [(2, "y")]))
    assert await count(pairs) == 2


async def test_a_read_cannot_write(pairs):
    with pytest.raises(Exception, match="store cannot be used"):
        await pairs.read(lambda tx: tx.execute(sa.text("INSERT INTO pairs VALUES (1, 'x')")))
    assert await count(pairs) == 0


async def test_a_read_sees_one_state_while_writes_go_on(pairs):
    gate = Gate()

    async def work(tx):
        before = (await tx.execute(sa.text("SELECT count(*) FROM pairs"))).scalar_one()
        await gate.pass_through(tx)
        after = (await tx.execute(sa.text("SELECT count(*) FROM pairs"))).scalar_one()
        return before, after

    reading = asyncio.create_task(pairs.read(work))
    await gate.reached()
    await pairs.write(lambda tx: tx.execute_set(PAIRS, [(1, "x")]))
    gate.open()
    assert await reading == (0, 0)
    assert await count(pairs) == 1


async def test_a_write_is_seen_by_the_next_read(pairs):
    for number in range(50):
        await pairs.write(lambda tx, n=number: tx.execute_set(PAIRS, [(n, "x")]))
        assert await count(pairs) == number + 1


@ON_SQLITE
async def test_a_write_that_waits_for_anything_else_is_refused(pairs):
    async def work(tx):
        await tx.execute_set(PAIRS, [(1, "x")])
        await asyncio.sleep(0)

    with pytest.raises(RuntimeError, match="waited for something other"):
        await pairs.write(work)
    assert await count(pairs) == 0


async def test_a_cancelled_caller_leaves_the_writer_usable(pairs):
    task = asyncio.create_task(pairs.write(lambda tx: tx.execute_set(PAIRS, [(1, "x")])))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await pairs.write(lambda tx: tx.execute_set(PAIRS, [(2, "y")]))
    assert await count(pairs) == 2


@ON_SQLITE
@pytest.mark.parametrize(
    ("pragma", "value"),
    [("synchronous", 2), ("recursive_triggers", 1), ("foreign_keys", 1), ("secure_delete", 1)],
)
async def test_the_writer_of_sqlite_is_durable_and_guarded(database, pragma, value):
    found = await database.write(lambda tx: tx.execute(sa.text(f"PRAGMA {pragma}")))
    assert found.scalar_one() == value


@ON_SQLITE
async def test_sqlite_keeps_a_write_ahead_log(database, database_target):
    with contextlib.closing(sqlite3.connect(database_target)) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)


@pytest.mark.parametrize("size", [0, 1, 2, 3, 64, 65, 1_000, 5_000, 40_000])
async def test_a_batch_may_have_any_size(pairs, size):
    rows = [(number, None if number % 3 else f"row {number}") for number in range(size)]
    assert sorted(await pairs.write(lambda tx: tx.execute_set(PAIRS, rows))) == rows
    assert await count(pairs) == size


async def test_named_tuples_and_enumerations_are_values_in_batches_of_every_size(pairs):
    Pair = namedtuple("Pair", "a b")

    class Word(enum.StrEnum):
        HELLO = "hello"

    for first, size in ((0, 3), (10, 20_000)):
        rows = [Pair(number, Word.HELLO) for number in range(first, first + size)]
        found = await pairs.write(lambda tx, rows=rows: tx.execute_set(PAIRS, rows))
        assert sorted(found) == [(number, "hello") for number in range(first, first + size)]


def test_a_set_statement_takes_its_rows_in_one_place():
    with pytest.raises(ValueError, match="one place"):
        SetStatement("SELECT 1", ("a",))
