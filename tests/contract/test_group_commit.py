"""The writer: many callers, one transaction."""

import asyncio
import random
import threading

import pytest
import sqlalchemy as sa

from hydrasms_base.log import request_id
from hydrasms_core.db.group_commit import GroupCommit
from hydrasms_core.db.transaction import IntegrityViolation
from hydrasms_core.errors import InvalidArgument, Overloaded, StoreUnavailable
from tests.support.accounts import NoDatabase
from tests.support.databases import ON_SQLITE
from tests.support.delivery import ObservedDatabase
from tests.support.gates import Gate

ITEMS = sa.table("items", sa.column("value"))


@pytest.fixture
async def items(database):
    await database.write(lambda tx: tx.execute(sa.text("CREATE TABLE items (value INTEGER UNIQUE)")))
    return database


class Inserting:
    """Commits numbers; remembers the batches that it was given."""

    def __init__(self, gate: Gate | None = None):
        self.batches: list[list[int]] = []
        self.gate = gate

    async def __call__(self, tx, numbers):
        self.batches.append(list(numbers))
        if self.gate is not None:
            await self.gate.pass_through(tx)
        outcomes = []
        for number in numbers:
            if number < 0:
                outcomes.append(InvalidArgument("negative"))
                continue
            await tx.execute(sa.insert(ITEMS).values(value=number))
            outcomes.append(number * 10)
        return outcomes


async def stored(database):
    rows = await database.read(lambda tx: tx.execute(sa.select(ITEMS.c.value).order_by(ITEMS.c.value)))
    return [row.value for row in rows]


async def test_everybody_gets_their_own_outcome(items):
    writer = GroupCommit(items, Inserting())
    outcomes = await asyncio.gather(*(writer.submit(number) for number in range(100)))
    assert outcomes == [number * 10 for number in range(100)]
    assert await stored(items) == list(range(100))


async def test_what_arrives_during_a_commit_shares_the_next_one(items):
    gate = Gate()
    commit = Inserting(gate)
    writer = GroupCommit(items, commit)
    first = asyncio.create_task(writer.submit(0))
    await gate.reached()
    rest = [asyncio.create_task(writer.submit(number)) for number in range(1, 50)]
    await asyncio.sleep(0)
    gate.open()
    await asyncio.gather(first, *rest)
    assert [len(batch) for batch in commit.batches] == [1, 49]


@ON_SQLITE
async def test_what_arrives_while_the_database_is_at_other_work_shares_the_transaction(items):
    gate = Gate()
    commit = Inserting()
    writer = GroupCommit(items, commit)
    other = asyncio.create_task(items.write(gate.pass_through))
    await gate.reached()
    sends = []
    for number in range(5):
        sends.append(asyncio.create_task(writer.submit(number)))
        # Each has come to the writer before the next one does.
        await asyncio.sleep(0)
    gate.open()
    await asyncio.gather(other, *sends)
    assert [len(batch) for batch in commit.batches] == [5]


@pytest.mark.parametrize("together", [True, False])
async def test_for_those_who_come_together_a_transaction_is_asked_for_while_one_is_running(items, together):
    """On PostgreSQL it would not wait in line: it would take its batch at once, and wait for locks with it."""
    gate = Gate()
    commit = Inserting(gate)
    observed = ObservedDatabase(items)
    writer = GroupCommit(observed, commit)
    first = asyncio.create_task(writer.submit(0))
    await gate.reached()
    if together:
        rest = [asyncio.create_task(writer.submit_each(range(n, n + 5))) for n in range(1, 20, 5)]
    else:
        rest = [asyncio.create_task(writer.submit(number)) for number in range(1, 21)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert observed.transactions == (2 if together and items.writes_in_turn else 1)
    gate.open()
    await asyncio.gather(first, *rest)
    assert [len(batch) for batch in commit.batches] == [1, 20]
    assert await stored(items) == list(range(21))


async def test_nobody_is_forgotten_whoever_comes_when(items):
    commit = Inserting()
    writer = GroupCommit(items, commit, max_batch=7)
    chance = random.Random(7)

    async def come(number):
        for _ in range(chance.randrange(200)):
            await asyncio.sleep(0)
        return await (writer.submit(number) if chance.random() < 0.5 else one_of_many(number))

    async def one_of_many(number):
        return (await writer.submit_each([number]))[0]

    async with asyncio.timeout(30):
        outcomes = await asyncio.gather(*(come(number) for number in range(500)))
    assert outcomes == [number * 10 for number in range(500)]
    assert await stored(items) == list(range(500))
    assert max(map(len, commit.batches)) <= 7


@ON_SQLITE
async def test_a_refusal_at_its_turn_is_the_items_own_outcome_and_no_neighbours(items):
    gate = Gate()
    commit = Inserting()
    late = InvalidArgument("too late")
    writer = GroupCommit(items, commit, refusal=lambda number: late if number % 2 else None)
    other = asyncio.create_task(items.write(gate.pass_through))
    await gate.reached()
    sends = [asyncio.create_task(writer.submit(number)) for number in range(4)]
    await asyncio.sleep(0)
    gate.open()
    outcomes = await asyncio.gather(other, *sends, return_exceptions=True)
    assert outcomes[1:] == [0, late, 20, late]
    assert await stored(items) == [0, 2]


async def test_a_batch_is_bounded(items):
    gate = Gate()
    commit = Inserting(gate)
    writer = GroupCommit(items, commit, max_batch=10)
    tasks = [asyncio.create_task(writer.submit(number)) for number in range(35)]
    await gate.reached()
    gate.open()
    await asyncio.gather(*tasks)
    assert max(len(batch) for batch in commit.batches) == 10


async def test_one_items_own_error_fails_no_neighbour(items):
    writer = GroupCommit(items, Inserting())
    outcomes = await asyncio.gather(*(writer.submit(n) for n in (1, -1, 2)), return_exceptions=True)
    assert outcomes[0] == 10
    assert isinstance(outcomes[1], InvalidArgument)
    assert outcomes[2] == 20
    assert await stored(items) == [1, 2]


async def test_an_item_that_breaks_the_transaction_fails_alone(items):
    gate = Gate()
    writer = GroupCommit(items, Inserting(gate))
    first = asyncio.create_task(writer.submit(0))
    await gate.reached()
    # 7 comes twice: the unique index refuses the whole transaction that holds both.
    rest = [asyncio.create_task(writer.submit(number)) for number in (5, 6, 7, 7, 8, 9)]
    await asyncio.sleep(0)
    gate.open()
    outcomes = await asyncio.gather(first, *rest, return_exceptions=True)
    assert [outcome for outcome in outcomes if not isinstance(outcome, Exception)] == [0, 50, 60, 70, 80, 90]
    assert await stored(items) == [0, 5, 6, 7, 8, 9]


async def test_past_the_bound_callers_are_refused_at_once(items):
    gate = Gate()
    writer = GroupCommit(items, Inserting(gate), max_waiting=3)
    first = asyncio.create_task(writer.submit(0))
    await gate.reached()
    waiting = [asyncio.create_task(writer.submit(number)) for number in (1, 2, 3)]
    await asyncio.sleep(0)
    with pytest.raises(Overloaded):
        await writer.submit(4)
    gate.open()
    await asyncio.gather(first, *waiting)
    assert await stored(items) == [0, 1, 2, 3]


async def test_a_caller_that_goes_away_takes_its_waiting_item_back(items):
    gate = Gate()
    writer = GroupCommit(items, Inserting(gate))
    first = asyncio.create_task(writer.submit(0))
    await gate.reached()
    leaving, staying = asyncio.create_task(writer.submit(1)), asyncio.create_task(writer.submit(2))
    await asyncio.sleep(0)
    leaving.cancel()
    gate.open()
    await asyncio.gather(first, staying)
    assert await stored(items) == [0, 2]


async def test_a_store_that_refuses_refuses_everybody_once(items):
    calls = 0

    async def refuse(tx, numbers):
        nonlocal calls
        calls += 1
        raise StoreUnavailable

    writer = GroupCommit(items, refuse)
    outcomes = await asyncio.gather(*(writer.submit(n) for n in range(8)), return_exceptions=True)
    assert all(isinstance(outcome, StoreUnavailable) for outcome in outcomes)
    assert calls == 1


async def test_submit_all_returns_outcomes_in_order(items):
    writer = GroupCommit(items, Inserting())
    outcomes = await writer.submit_all([3, -1, 4])
    assert outcomes[0] == 30
    assert isinstance(outcomes[1], InvalidArgument)
    assert outcomes[2] == 40


async def test_submit_all_has_room_for_all_or_takes_none(items):
    writer = GroupCommit(items, Inserting(), max_waiting=2)
    with pytest.raises(Overloaded):
        await writer.submit_all([1, 2, 3])
    assert await stored(items) == []


async def test_submit_each_puts_every_failure_in_the_place_of_its_item(items):
    writer = GroupCommit(items, Inserting())
    # 5 comes twice: the unique index, which no outcome speaks of, refuses the second.
    first, refused, twin, last = await writer.submit_each([5, -1, 5, 6])
    assert (first, last) == (50, 60)
    assert isinstance(refused, InvalidArgument)
    assert isinstance(twin, IntegrityViolation)
    assert await stored(items) == [5, 6]


async def test_submit_each_of_nothing_touches_no_store(items):
    commit = Inserting()
    assert await GroupCommit(items, commit).submit_each([]) == []
    assert commit.batches == []


async def test_submit_each_refuses_only_what_there_is_no_room_for(items):
    gate = Gate()
    writer = GroupCommit(items, Inserting(gate), max_waiting=2)
    first = asyncio.create_task(writer.submit(0))
    await gate.reached()
    rest = asyncio.create_task(writer.submit_each([1, 2, 3]))
    await asyncio.sleep(0)
    gate.open()
    assert await first == 0
    outcomes = await rest
    assert outcomes[:2] == [10, 20]
    assert isinstance(outcomes[2], Overloaded)
    assert await stored(items) == [0, 1, 2]


async def test_items_submitted_together_share_transactions_with_all_others(items):
    gate = Gate()
    commit = Inserting(gate)
    writer = GroupCommit(items, commit, max_batch=4)
    first = asyncio.create_task(writer.submit(0))
    await gate.reached()
    tasks = [
        asyncio.create_task(each)
        for each in (writer.submit_each([1, 2, 3]), writer.submit(4), writer.submit_each([5, 6]))
    ]
    await asyncio.sleep(0)
    gate.open()
    assert await asyncio.gather(first, *tasks) == [0, [10, 20, 30], 40, [50, 60]]
    assert commit.batches == [[0], [1, 2, 3, 4], [5, 6]]


async def test_a_caller_that_goes_away_takes_all_its_waiting_items_back(items):
    gate = Gate()
    writer = GroupCommit(items, Inserting(gate))
    first = asyncio.create_task(writer.submit(0))
    await gate.reached()
    leaving, staying = asyncio.create_task(writer.submit_each([1, 2])), asyncio.create_task(writer.submit(3))
    await asyncio.sleep(0)
    leaving.cancel()
    gate.open()
    await asyncio.gather(first, staying)
    assert await stored(items) == [0, 3]


async def test_an_item_that_is_refused_when_its_turn_comes_is_not_begun(items):
    gate = Gate()
    late = set()
    writer = GroupCommit(
        items, Inserting(gate), refusal=lambda number: InvalidArgument("late") if number in late else None
    )
    first = asyncio.create_task(writer.submit(0))
    await gate.reached()
    many = asyncio.create_task(writer.submit_each([1, 2]))
    rest = [asyncio.create_task(writer.submit(number)) for number in (3, 4)]
    await asyncio.sleep(0)
    # The one that is being committed is late as well, and is committed.
    late.update({0, 2, 3})
    gate.open()
    refused, taken = await asyncio.gather(*rest, return_exceptions=True)
    begun, late_too = await many
    assert (await first, begun, taken) == (0, 10, 40)
    assert isinstance(late_too, InvalidArgument)
    assert isinstance(refused, InvalidArgument)
    assert await stored(items) == [0, 1, 4]


async def test_what_is_logged_about_a_batch_bears_no_callers_request_id():
    seen = []

    async def note(tx, numbers):
        seen.append(request_id.get())
        return numbers

    token = request_id.set("r-1")
    try:
        await GroupCommit(NoDatabase(), note).submit(1)
    finally:
        request_id.reset(token)
    assert seen == [""]


async def test_drain_waits_for_what_was_taken_in(items):
    gate = Gate()
    writer = GroupCommit(items, Inserting(gate))
    tasks = [asyncio.create_task(writer.submit(number)) for number in range(5)]
    await gate.reached()
    draining = asyncio.create_task(writer.drain())
    await asyncio.sleep(0)
    assert not draining.done()
    gate.open()
    await draining
    assert [await task for task in tasks] == [0, 10, 20, 30, 40]


@ON_SQLITE
async def test_the_work_of_a_transaction_runs_off_the_loop_on_sqlite(items):
    threads = []

    async def note(tx, numbers):
        threads.append(threading.current_thread().name)
        return numbers

    await GroupCommit(items, note).submit(1)
    assert threads == ["hydrasms-writer"]
