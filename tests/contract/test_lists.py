"""Lists of what accounts have on SQLite, where they follow what is added some time later."""

import asyncio
import random

import pytest
import sqlalchemy as sa

from hydrasms_base.ids import first_id_at, new_id
from hydrasms_billing.store import list_transactions
from hydrasms_core.db.list_keeper import ListKeeper, _Statements
from hydrasms_core.db.lists import LISTED, newest_first, oldest_first
from hydrasms_core.events import store as events_store
from hydrasms_core.events.model import BEGINNING, KEPT_MS, Place
from hydrasms_core.events.tables import events
from hydrasms_core.inbound import store as inbound_store
from hydrasms_core.messaging.ports import Happening
from hydrasms_core.messaging.store import list_inbound, list_messages
from hydrasms_core.messaging.tables import messages
from hydrasms_core.paging import PageRequest
from tests.support import ledger
from tests.support.inbound_rows import AT_MS, a_text, insert_inbound, receive
from tests.support.ledger import charge, open_account, send

pytestmark = pytest.mark.parametrize("database_kind", ["sqlite"], indirect=True)

LISTS = {"messages": list_messages, "transfers": list_transactions, "inbound_messages": list_inbound}
NOBODY = ""


async def fill(database, *, accounts, messages_each, seed=1):
    """Make accounts that have something in every list; returns their ids."""
    account_ids = await ledger.fill(database, accounts=accounts, messages_each=messages_each, seed=seed)

    async def work(tx):
        for _ in range(messages_each):
            for account_id in account_ids:
                await receive(tx, account_id)
            # Of one position all.
            told = [
                Happening(account_id, "shortcode_deactivated", new_id()) for account_id in account_ids * 2
            ]
            await events_store.add(tx, told, at_ms=AT_MS)

    await database.write(work)
    return account_ids


async def paged(database, table, account_id, size):
    """Return the ids of all pages of an account's list, in order."""
    if table == "events":
        return await paged_events(database, account_id, size)
    found, before = [], None
    while True:
        page = PageRequest(size, before, "scope")
        rows = await database.read(lambda tx, page=page: LISTS[table](tx, account_id, page))
        assert len(rows) <= size + 1
        found += [row.id for row in rows[:size]]
        if len(rows) <= size:
            return found
        before = found[-1]


async def paged_events(database, account_id, size):
    found, place = [], BEGINNING
    while True:
        rows = await database.read(
            lambda tx, place=place: events_store.read_after(tx, account_id, place, most=size)
        )
        assert len(rows) <= size
        found += [row.place.id for row in rows]
        if len(rows) < size:
            return found
        place = rows[-1].place


async def stored(database, table, account_id):
    """Return what the list must be, from the table itself."""
    order = ", ".join(LISTED[table])
    text = sa.text(f"SELECT {order} FROM {table} WHERE account_id = :account_id")
    rows = await database.read(lambda tx: tx.execute(text, {"account_id": account_id}))
    return [row[-1] for row in sorted(map(tuple, rows), reverse=table != "events")]


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
            await database.write(lambda tx, account_id=account_id: receive(tx, account_id))
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
    assert await paged(database, "messages", account_id, 10) == [third, second]
    # However few they are.
    await ListKeeper(database).catch_up()
    assert await listed(database, "messages") == 3
    assert await paged(database, "messages", account_id, 10) == [third, second]


@pytest.mark.parametrize("listed_before", [True, False])
async def test_a_text_that_is_given_to_an_account_changes_lists(database, listed_before):
    account_id, other = (await fill(database, accounts=2, messages_each=3))[:2]
    texts = [a_text(NOBODY) for _ in range(3)]
    for text in texts:
        await database.write(lambda tx, text=text: insert_inbound(tx, text))
    if listed_before:
        await ListKeeper(database).catch_up(short_tail=1)
    await database.write(lambda tx: inbound_store.assign(tx, texts[1].id, account_id))
    for _ in range(2):
        await assert_lists_are_whole(database, [account_id, other])
        assert texts[1].id in await paged(database, "inbound_messages", account_id, 100)
        assert await paged(database, "inbound_messages", NOBODY, 1) == [texts[2].id, texts[0].id]
        await ListKeeper(database).catch_up(short_tail=1)


async def test_events_that_are_forgotten_are_in_no_list(database):
    account_ids = await fill(database, accounts=2, messages_each=5)
    await ListKeeper(database).catch_up(short_tail=1)
    total = await listed(database, "events")
    late_ms = AT_MS + KEPT_MS + 1
    told = [Happening(account_ids[0], "shortcode_deactivated", new_id())]
    await database.write(lambda tx: events_store.add(tx, told, at_ms=late_ms))
    assert await database.write(lambda tx: events_store.purge(tx, now_ms=late_ms)) == total
    assert await listed(database, "events") == 0
    # The mark's own row is gone: until all are listed again, all are the tail.
    [left] = await paged(database, "events", account_ids[0], 10)
    assert await paged(database, "events", account_ids[1], 10) == []
    await ListKeeper(database).catch_up()
    assert await listed(database, "events") == 1
    assert await paged(database, "events", account_ids[0], 10) == [left]


async def plan_of(database, query):
    text = "EXPLAIN QUERY PLAN " + str(query.compile(compile_kwargs={"literal_binds": True}))
    rows = await database.read(lambda tx: tx.execute(sa.text(text)))
    return [row[3] for row in rows]


MARK = [
    "SEARCH mark USING INDEX sqlite_autoindex_list_marks_1 (list=?)",
    "SEARCH last USING INTEGER PRIMARY KEY (rowid=?)",
]
"""Where the tail begins."""


def reads(steps):
    """Return the steps that read rows of tables, and of no result that was made meanwhile."""
    return [
        step for step in steps if step.startswith("SEARCH") or (step.startswith("SCAN") and "USING" in step)
    ]


@pytest.mark.parametrize("before", [None, new_id()])
async def test_a_list_looks_through_nothing_but_the_tail(database, before):
    page = PageRequest(10, before, "scope")
    account_id = await open_account(database, 1)
    steps = await plan_of(database, newest_first("sqlite", [messages.c.id], account_id, page))
    assert reads(steps) == [
        f"SEARCH listed_messages USING PRIMARY KEY (account_id=?{' AND id<?' if before else ''})",
        "SEARCH messages USING INTEGER PRIMARY KEY (rowid>?)",
        *MARK,
        "SEARCH messages USING COVERING INDEX sqlite_autoindex_messages_1 (id=? AND account_id=?)",
    ]
    # Control: asked for as on PostgreSQL it would look through all that is there.
    careless = await plan_of(database, newest_first("postgresql", [messages.c.id], account_id, page))
    assert not any("account_id=?" in step for step in careless)


async def test_events_are_looked_for_behind_a_place_in_the_list_and_in_the_tail(database):
    account_id = await open_account(database, 1)
    place = Place(5, new_id())
    steps = await plan_of(database, oldest_first("sqlite", [events.c.type], account_id, place, 10))
    index = "INDEX sqlite_autoindex_events_1"
    assert reads(steps) == [
        "SEARCH listed_events USING PRIMARY KEY (account_id=? AND (position,id)>(?,?))",
        f"SEARCH events USING COVERING {index} (position>?)",
        *MARK,
        f"SEARCH events USING {index} (position=? AND id=? AND account_id=?)",
    ]
    # Control: asked for as on PostgreSQL it would look through the events of all accounts behind the place.
    careless = await plan_of(database, oldest_first("postgresql", [events.c.type], account_id, place, 10))
    assert reads(careless) == [f"SEARCH events USING {index} ((position,id)>(?,?))"]
