"""No overdraft: many sends at once, just enough credits for some of them (bars, money, 1)."""

import asyncio
import contextlib
import sqlite3
import threading
from dataclasses import dataclass

import pytest

from tests.support.databases import ON_POSTGRES
from tests.support.tampering import run

BALANCE = 100
RACERS = 400
THREADS = 8


@dataclass(frozen=True)
class Outcome:
    """What a race left: how its sends were answered, and what was then found stored."""

    accepted: int
    refused: int
    balance: int
    messages: int


def assert_no_overdraft(outcome):
    assert outcome.balance >= 0
    assert outcome == Outcome(accepted=BALANCE, refused=RACERS - BALANCE, balance=0, messages=BALANCE)


async def race(product):
    account = await product.account(credits=BALANCE)
    answers = await asyncio.gather(*(product.post(account, f"racer {number}") for number in range(RACERS)))
    refusals = [answer for answer in answers if answer.status_code != 200]
    assert {(answer.status_code, answer.json()["code"]) for answer in refusals} == {
        (400, "INSUFFICIENT_CREDITS")
    }
    accepted = {answer.json()["ID"] for answer in answers if answer.status_code == 200}
    stored = {message.id for message in await product.messages(account.id)}
    assert accepted == stored
    spends = [row for row in await product.transactions(account.id) if row.amount < 0]
    assert sorted((row.message_id, row.amount) for row in spends) == [(each, -1) for each in sorted(stored)]
    return Outcome(len(accepted), len(refusals), await product.balance(account.id), len(stored))


async def test_exactly_as_many_sends_are_accepted_as_there_are_credits(product):
    assert_no_overdraft(await race(product))


@pytest.mark.faults
async def test_exactly_as_many_sends_are_accepted_as_there_are_credits_20_times(product):
    for _ in range(20):
        assert_no_overdraft(await race(product))


def spend_after_reading(connection, all_have_read):
    """Spend where the balance that was read allows it: the mistake that the writer and the CHECK rule out."""
    (seen,) = connection.execute("SELECT balance FROM unchecked").fetchone()
    all_have_read()
    if seen < 1:
        return False
    connection.execute("BEGIN IMMEDIATE")
    connection.execute("UPDATE unchecked SET balance = balance - 1")
    connection.execute("INSERT INTO sent DEFAULT VALUES")
    connection.execute("COMMIT")
    return True


def spend_under_the_lock(connection, all_have_read):
    """Spend as it is done right, so that it is the reading beforehand that the control fails for."""
    all_have_read()
    connection.execute("BEGIN IMMEDIATE")
    changed = connection.execute("UPDATE unchecked SET balance = balance - 1 WHERE balance >= 1").rowcount
    if changed:
        connection.execute("INSERT INTO sent DEFAULT VALUES")
    connection.execute("COMMIT")
    return changed == 1


def race_threads(path, spend):
    """Race for a balance in a copy of its table that has no CHECK; nobody spends before all have read."""
    with contextlib.closing(_open(path)) as connection:
        connection.execute("DROP TABLE IF EXISTS unchecked")
        connection.execute("DROP TABLE IF EXISTS sent")
        # What is created from a query takes over the columns and no constraint.
        connection.execute("CREATE TABLE unchecked AS SELECT * FROM balances")
        connection.execute("CREATE TABLE sent (id INTEGER PRIMARY KEY)")
        connection.execute("INSERT INTO unchecked VALUES ('account', ?, 0)", (BALANCE,))
        barrier = threading.Barrier(THREADS, timeout=60)
        answers = []

        def send_on():
            with contextlib.closing(_open(path)) as own:
                for _ in range(RACERS // THREADS):
                    barrier.wait()
                    answers.append(spend(own, barrier.wait))

        threads = [threading.Thread(target=send_on) for _ in range(THREADS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(120)
        assert len(answers) == RACERS
        (balance,) = connection.execute("SELECT balance FROM unchecked").fetchone()
        (messages,) = connection.execute("SELECT count(*) FROM sent").fetchone()
    return Outcome(answers.count(True), answers.count(False), balance, messages)


def _open(path):
    connection = sqlite3.connect(path, timeout=60, isolation_level=None)
    # Nothing here has to outlive a crash.
    connection.execute("PRAGMA synchronous = OFF")
    return connection


def test_control_reading_before_spending_overdraws_and_is_caught_20_times_of_20(database_path):
    caught = 0
    for _ in range(20):
        outcome = race_threads(database_path, spend_after_reading)
        # The last round in which all read a credit begins at 4, and all eight spend it.
        assert outcome == Outcome(accepted=104, refused=296, balance=-4, messages=104)
        with pytest.raises(AssertionError):
            assert_no_overdraft(outcome)
        caught += 1
    assert caught == 20


def test_control_the_same_threads_pass_where_reading_and_spending_are_one(database_path):
    assert_no_overdraft(race_threads(database_path, spend_under_the_lock))


async def spend_after_reading_unlocked(tx, all_have_read):
    """Spend where the balance that was read allows it, which others may read as well."""
    seen = (await run(tx, "SELECT balance FROM unchecked")).scalar_one()
    await all_have_read()
    if seen < 1:
        return False
    await run(tx, "UPDATE unchecked SET balance = balance - 1")
    await run(tx, "INSERT INTO sent DEFAULT VALUES")
    return True


async def spend_in_one_step(tx, all_have_read):
    await all_have_read()
    changed = await run(tx, "UPDATE unchecked SET balance = balance - 1 WHERE balance >= 1")
    if changed.rowcount:
        await run(tx, "INSERT INTO sent DEFAULT VALUES")
    return changed.rowcount == 1


async def race_connections(database, spend):
    """The same race on PostgreSQL, where transactions run at once."""

    async def put_up(tx):
        await run(tx, "DROP TABLE IF EXISTS unchecked, sent")
        await run(tx, "CREATE TABLE unchecked AS SELECT * FROM balances")
        await run(tx, "CREATE TABLE sent (id BIGINT GENERATED ALWAYS AS IDENTITY)")
        await run(tx, "INSERT INTO unchecked VALUES ('account', :balance, 0)", balance=BALANCE)

    async def left(tx):
        balance = (await run(tx, "SELECT balance FROM unchecked")).scalar_one()
        return balance, (await run(tx, "SELECT count(*) FROM sent")).scalar_one()

    await database.write(put_up)
    barrier = asyncio.Barrier(THREADS)

    async def send_on():
        answers = []
        for _ in range(RACERS // THREADS):
            await barrier.wait()
            answers.append(await database.write(lambda tx: spend(tx, barrier.wait)))
        return answers

    async with asyncio.timeout(120):
        answers = [
            answer for each in await asyncio.gather(*(send_on() for _ in range(THREADS))) for answer in each
        ]
    return Outcome(answers.count(True), answers.count(False), *await database.read(left))


@ON_POSTGRES
async def test_control_reading_without_a_lock_overdraws_and_is_caught_20_times_of_20(database):
    for _ in range(20):
        outcome = await race_connections(database, spend_after_reading_unlocked)
        assert outcome == Outcome(accepted=104, refused=296, balance=-4, messages=104)
        with pytest.raises(AssertionError):
            assert_no_overdraft(outcome)


@ON_POSTGRES
async def test_control_the_same_transactions_pass_where_reading_and_spending_are_one(database):
    assert_no_overdraft(await race_connections(database, spend_in_one_step))
