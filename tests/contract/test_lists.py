"""Lists of an account's messages and transactions on SQLite, where they follow what is added some time later."""

import asyncio
import random

import pytest
import sqlalchemy as sa

from hydrasms_base.ids import first_id_at, new_id
from hydrasms_billing.store import list_transactions
from hydrasms_core.db.list_keeper import ListKeeper, _Statements
from hydrasms_core.db.lists import LISTED, newest_first
from hydrasms_core.messaging.store import list_messages
from hydrasms_core.messaging.tables import messages
from hydrasms_core.paging import PageRequest
from tests.support.ledger import charge, fill, open_account, send

pytestmark = pytest.mark.parametrize("database_kind", ["sqlite"], indirect=True)

LISTS = {"messages": list_messages, "transfers": list_transactions}


async def paged(database, table, account_id, size):
    """Return the ids of all pages of an account's list, in order."""
    found, before = [], None
    while True:
        page = PageRequest(size, before, "scope")
        rows = await database.read(lambda tx, page=page: LISTS[table](tx, account_id, page))
        assert len(rows) <= size + 1
        found += [row.id for row in rows[:size]]
        if len(rows) <= size:
            return found
        before = found[-1]


async def stored(database, table, account_id):
    """Return what the list must be, from the table itself."""
    text = sa.text(f"SELECT id FROM {table} WHERE account_id = :account_id")
    rows = await database.read(lambda tx: tx.execute(text, {"account_id": account_id}))
    return sorted((row[0] for row in rows), reverse=True)


async def listed(database, table):
    """Return how many rows are found by the list's own index."""
    text = sa.text(f"SELECT count(*) FROM listed_{table}")
    return await database.read(lambda tx: _scalar(tx, text))


async def _scalar(tx, text):
    return (await tx.execute(text)).scalar_one()


async def assert_lists_are_whole(database, account_ids):
    for table in LISTED:
        for account_id in account_ids:
            expected = await stored(database, table, account_id)
            assert expected
            for size in (1, 7, 1_000):
                assert await paged(database, table, account_id, size) == expected


async def run(database, text, **values):
    await database.write(lambda tx: tx.execute(sa.text(text), values))


async def test_a_list_is_whole_before_while_and_after_it_is_caught_up_with(database):
    keeper = ListKeeper(database)
    accounts = await fill(database, accounts=4, messages_each=15)
    await assert_lists_are_whole(database, accounts)
    for seed in range(3):
        await keeper.catch_up(short_tail=1, rows_a_write=random.Random(seed).randint(1, 40))
        for table in LISTED:
            assert await listed(database, table) > 0
        await assert_lists_are_whole(database, accounts)
        more = await fill(database, accounts=2, messages_each=9, seed=seed)
        accounts += more
        for account_id in accounts[:3]:
            await database.write(lambda tx, account_id=account_id: send(tx, charge(account_id)))
        await assert_lists_are_whole(database, accounts)


async def test_a_short_tail_is_left_alone_and_a_long_one_is_not(database):
    keeper = ListKeeper(database)
    await fill(database, accounts=2, messages_each=10)
    total = await database.read(lambda tx: _scalar(tx, sa.text("SELECT count(*) FROM transfers")))
    await keeper.catch_up(short_tail=total + 1)
    assert await listed(database, "transfers") == 0
    await keeper.catch_up(short_tail=total)
    assert await listed(database, "transfers") == total


async def test_what_comes_late_with_an_early_id_is_listed_in_its_place(database):
    account_id = await open_account(database, 10)
    await database.write(lambda tx: send(tx, charge(account_id)))
    await ListKeeper(database).catch_up(short_tail=1)
    early = first_id_at(1_000_000_000_000)
    await database.write(lambda tx: send(tx, charge(account_id, message_id=early)))
    for _ in range(2):
        ids = await paged(database, "messages", account_id, 1)
        assert len(ids) == 2
        assert ids[-1] == early
        await ListKeeper(database).catch_up(short_tail=1)


async def test_where_it_was_cut_off_nothing_is_missing_or_listed_twice(database):
    accounts = await fill(database, accounts=3, messages_each=10)
    for table in LISTED:
        statements = _Statements(table)
        tail = await database.read(
            lambda tx, statements=statements: statements.find_tail(tx, short_tail=1, rows_a_write=5)
        )
        assert len(tail.bounds) > 2
        done = await database.write(
            lambda tx, statements=statements, tail=tail: statements.list_part(
                tx, tail=tail, after=tail.bounds[0], upto=tail.bounds[1]
            )
        )
        assert done
        assert await listed(database, table) == 5
    await assert_lists_are_whole(database, accounts)
    await ListKeeper(database).catch_up(short_tail=1)
    await assert_lists_are_whole(database, accounts)


async def test_several_that_catch_up_at_once_are_as_one(database):
    accounts = await fill(database, accounts=3, messages_each=20)
    keepers = [ListKeeper(database) for _ in range(4)]
    await asyncio.gather(*(keeper.catch_up(short_tail=1, rows_a_write=7) for keeper in keepers))
    await assert_lists_are_whole(database, accounts)
    for table in LISTED:
        total = await database.read(
            lambda tx, table=table: _scalar(tx, sa.text(f"SELECT count(*) FROM {table}"))
        )
        assert await listed(database, table) == total


async def test_rows_that_were_numbered_anew_are_listed_from_the_beginning(database):
    account_id = await open_account(database, 10)
    first, second, third = (new_id() for _ in range(3))
    for message_id in (first, second):
        await database.write(lambda tx, m=message_id: send(tx, charge(account_id, message_id=m)))
    await ListKeeper(database).catch_up(short_tail=1)
    await run(database, "DELETE FROM messages WHERE id = :id", id=first)
    # As VACUUM numbers them: the second is now the first.
    await run(database, "UPDATE messages SET rowid = 1 WHERE id = :id", id=second)
    await database.write(lambda tx: send(tx, charge(account_id, message_id=third)))
    assert await paged(database, "messages", account_id, 10) == [second]
    # However few they are.
    await ListKeeper(database).catch_up()
    assert await paged(database, "messages", account_id, 10) == [third, second]


async def plan_of(database, query):
    text = "EXPLAIN QUERY PLAN " + str(query.compile(compile_kwargs={"literal_binds": True}))
    rows = await database.read(lambda tx: tx.execute(sa.text(text)))
    return [row[3] for row in rows]


@pytest.mark.parametrize("before", [None, new_id()])
async def test_a_list_looks_through_nothing_but_the_tail(database, before):
    page = PageRequest(10, before, "scope")
    account_id = await open_account(database, 1)
    steps = await plan_of(database, newest_first("sqlite", [messages.c.id], account_id, page))
    reads = [step for step in steps if "messages" in step]
    assert len(reads) == 3
    assert any("listed_messages USING PRIMARY KEY (account_id=?" in step for step in reads)
    assert any("messages USING INTEGER PRIMARY KEY (rowid>?)" in step for step in reads)
    assert any(
        "messages USING COVERING INDEX" in step and "(id=? AND account_id=?)" in step for step in reads
    )
    # Control: asked for as on PostgreSQL it would look through all that is there.
    careless = await plan_of(database, newest_first("postgresql", [messages.c.id], account_id, page))
    assert not any("account_id=?" in step for step in careless)
