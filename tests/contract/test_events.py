"""What every database promises to those who follow events: their order, and that nothing is missed."""

import asyncio
import contextlib
import time

import pytest
import sqlalchemy as sa

from hydrasms_app import migrate
from hydrasms_base.ids import new_id
from hydrasms_core.errors import AccountSuspended, InvalidArgument, InvalidPageToken
from hydrasms_core.events import store
from hydrasms_core.events.bell import Bell
from hydrasms_core.events.model import KEPT_MS, EventQuery, EventType, Place, cursor
from hydrasms_core.events.recording import RecordedHappenings
from hydrasms_core.events.service import Events
from hydrasms_core.events.tables import events
from hydrasms_core.messaging.model import InboundMessage
from hydrasms_core.messaging.ports import Happening
from tests.support import databases
from tests.support.databases import ON_POSTGRES
from tests.support.delivery import rows_of
from tests.support.inbound_rows import insert_inbound
from tests.support.messaging import FakeSendingAccounts
from tests.support.waiting import BOUND_S, eventually

ALICE, BOB = new_id(), new_id()
NOW_MS = 1_780_000_000_000


class Book:
    """Events of one process: what records them and what lists them."""

    def __init__(self, database, followers=()):
        self.database = database
        self.bell = Bell()
        self.accounts = FakeSendingAccounts()
        self.happenings = RecordedHappenings(self.bell, followers)
        self.events = Events(database, self.accounts, self.bell)

    async def record(
        self, *subjects, account=ALICE, kind=EventType.SHORTCODE_DEACTIVATED, at_ms=NOW_MS, **detail
    ):
        told = [Happening(account, kind, subject, detail) for subject in subjects]
        await self.database.write(lambda tx: self.happenings.record(tx, told, at_ms=at_ms))

    async def list(self, account=ALICE, within_s=None, **query):
        return await self.events.list_events(account, EventQuery(**query), within_s=within_s)

    async def subjects(self, account=ALICE, **query):
        return [event.subject_id for event in (await self.list(account, **query)).events]


@pytest.fixture
def book(database):
    return Book(database)


@contextlib.asynccontextmanager
async def looking_out(book):
    running = asyncio.create_task(book.events.run())
    try:
        yield
    finally:
        running.cancel()
        await asyncio.wait([running])
        assert running.cancelled(), running.exception()


# ---- order ---------------------------------------------------------------------------------------------------


async def test_events_come_in_the_order_in_which_they_were_recorded(book):
    await book.record("a", "b", "c")
    await book.record("d")
    await book.record("e", "f")
    assert await book.subjects() == ["a", "b", "c", "d", "e", "f"]


async def test_each_event_and_each_answer_is_a_place_to_go_on_from(book):
    await book.record("a", "b", "c", "d")
    first = await book.list(page_size=2)
    assert [event.subject_id for event in first.events] == ["a", "b"]
    assert await book.subjects(after=cursor(first.next_place)) == ["c", "d"]
    assert await book.subjects(after=cursor(first.events[0].place)) == ["b", "c", "d"]
    last = await book.list(after=cursor(first.next_place))
    assert await book.subjects(after=cursor(last.next_place)) == []


async def test_an_answer_without_events_is_a_place_as_well(book):
    empty = await book.list()
    assert empty.events == []
    await book.record("a")
    assert await book.subjects(after=cursor(empty.next_place)) == ["a"]


async def test_an_account_sees_its_own_events_and_operators_see_all(book):
    await book.record("a")
    await book.record("b", account=BOB)
    await book.record("c")
    assert await book.subjects(ALICE) == ["a", "c"]
    assert await book.subjects(BOB) == ["b"]
    assert await book.subjects(None) == ["a", "b", "c"]
    assert [event.account_id for event in (await book.list(None)).events] == [ALICE, BOB, ALICE]
    assert BOB in book.accounts.asked


async def test_a_place_of_one_account_shows_nothing_of_it_to_another(book):
    await book.record("a")
    await book.record("b", account=BOB)
    place = cursor((await book.list(ALICE)).next_place)
    assert await book.subjects(BOB, after=place) == ["b"]


async def test_from_now_on_begins_behind_the_newest_event(book):
    place = cursor((await book.list(from_now=True)).next_place)
    await book.record("a")
    assert await book.subjects(after=place) == ["a"]
    place = cursor((await book.list(from_now=True)).next_place)
    assert await book.subjects(after=place) == []
    await book.record("b")
    assert await book.subjects(after=place) == ["b"]
    # An account that has no event of its own begins behind everybody's newest.
    assert (await book.list(BOB, from_now=True)).events == []


async def test_what_is_rolled_back_has_not_happened(book):
    async def work(tx):
        await book.happenings.record(tx, [Happening(ALICE, EventType.WEBHOOK_DISABLED, "x")], at_ms=NOW_MS)
        raise RuntimeError("undone")

    with book.bell.listening(ALICE) as rung:
        with pytest.raises(RuntimeError):
            await book.database.write(work)
        await book.record("a", account=BOB)
        assert not rung.is_set()
    assert await book.subjects() == []


async def test_nothing_is_written_where_nothing_happened(book):
    await book.record()
    assert await rows_of(book.database, events) == []


async def test_followers_act_in_the_same_transaction(database):
    async def follower(tx, happenings, *, at_ms):
        seen.append([happening.subject_id for happening in happenings])
        raise RuntimeError("undone")

    seen: list[list[str]] = []
    book = Book(database, [follower])
    with pytest.raises(RuntimeError):
        await book.record("a", "b")
    assert seen == [["a", "b"]]
    assert await book.subjects() == []


# ---- what an event tells -------------------------------------------------------------------------------------


async def test_an_event_tells_what_was_recorded(book):
    await book.record(
        "m", kind=EventType.MESSAGE_STATUS_CHANGED, status="rejected", refunded=True, failure="ß\0"
    )
    (event,) = (await book.list()).events
    assert (event.type, event.created_at_ms, event.account_id) == ("message_status_changed", NOW_MS, ALICE)
    assert event.detail == {"status": "rejected", "refunded": True, "failure": "ß\0"}


async def test_a_text_is_told_as_it_is_when_the_event_is_read(book):
    text = InboundMessage(new_id(), ALICE, "+447700900000", "order", "large pepperoni", 200, NOW_MS)
    await book.database.write(lambda tx: insert_inbound(tx, text))
    gone = new_id()
    await book.record(text.id, gone, kind=EventType.INBOUND_RECEIVED)
    await book.record(text.id, kind=EventType.RECIPIENT_OPTED_OUT)
    # Another account's event about that very id tells nothing of the text.
    await book.record(text.id, account=BOB, kind=EventType.INBOUND_RECEIVED)
    found = (await book.list(None)).events
    assert [event.inbound for event in found] == [text, None, text, None]


async def test_a_page_of_long_texts_is_shorter_and_misses_none(book):
    texts = [
        InboundMessage(new_id(), ALICE, "+447700900000", "order", "\U0001f355" * 10_000, None, NOW_MS)
        for _ in range(120)
    ]

    async def store_all(tx):
        for text in texts:
            await insert_inbound(tx, text)

    await book.database.write(store_all)
    await book.record(*[text.id for text in texts], kind=EventType.INBOUND_RECEIVED)
    seen: list[str] = []
    after, pages = "", 0
    while True:
        page = await book.list(page_size=1_000, after=after)
        if not page.events:
            break
        assert sum(len(event.inbound.content.encode()) for event in page.events) < 4_000_000
        seen += [event.subject_id for event in page.events]
        after, pages = cursor(page.next_place), pages + 1
    assert seen == [text.id for text in texts]
    assert pages > 1


# ---- waiting -------------------------------------------------------------------------------------------------


async def test_who_waits_is_answered_as_soon_as_something_happens(book):
    waiting = asyncio.create_task(book.subjects(wait_ms=20_000))
    await eventually(lambda: book.bell.is_heard)
    await book.record("b", account=BOB)
    assert not waiting.done()
    began = time.monotonic()
    await book.record("a")
    # Nobody looks once a second here: it was the bell.
    assert await asyncio.wait_for(waiting, BOUND_S) == ["a"]
    assert time.monotonic() - began < 5


async def test_operators_who_wait_are_answered_for_any_account(book):
    waiting = asyncio.create_task(book.subjects(None, wait_ms=20_000))
    await eventually(lambda: book.bell.is_heard)
    await book.record("b", account=BOB)
    assert await asyncio.wait_for(waiting, BOUND_S) == ["b"]


async def test_what_another_process_adds_is_found_within_a_second_or_two(book, database_target):
    async with databases.opened(database_target) as elsewhere, looking_out(book):
        waiting = asyncio.create_task(book.subjects(wait_ms=20_000))
        await eventually(lambda: book.bell.is_heard)
        # Twice, so that the second finds somebody who has looked already.
        for subject in ("a", "b"):
            began = time.monotonic()
            await Book(elsewhere).record(subject)
            assert await asyncio.wait_for(waiting, BOUND_S) == [subject]
            assert time.monotonic() - began < 10
            after = cursor((await book.list(from_now=True)).next_place)
            waiting = asyncio.create_task(book.subjects(wait_ms=20_000, after=after))
        waiting.cancel()


async def test_who_waits_in_vain_is_answered_when_the_time_is_up(book):
    began = time.monotonic()
    assert await book.subjects(wait_ms=200) == []
    assert 0.15 < time.monotonic() - began < 5


async def test_an_answer_comes_before_its_caller_gives_up(book):
    began = time.monotonic()
    assert (await book.list(wait_ms=20_000, within_s=0.8)).events == []
    assert time.monotonic() - began < 0.8
    assert (await book.list(wait_ms=20_000, within_s=0.1)).events == []


async def test_nobody_waits_for_a_server_that_ends(book):
    waiting = [asyncio.create_task(book.subjects(account, wait_ms=20_000)) for account in (ALICE, BOB, None)]
    await eventually(lambda: len(book.bell._listening) == 3)
    book.events.stop()
    assert await asyncio.wait_for(asyncio.gather(*waiting), BOUND_S) == [[], [], []]
    assert await asyncio.wait_for(book.subjects(wait_ms=20_000), BOUND_S) == []


# ---- what is refused -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "after",
    [
        "x",
        "AAAA",
        "1.018f0000-0000-7000-8000-000000000001",
        cursor(Place(1, "018f0000-0000-7000-8000-000000000001")) + "=",
        cursor(Place(1, "")),
        cursor(Place(1, "x")),
        cursor(Place(1 << 63, "018f0000-0000-7000-8000-000000000001")),
        cursor(Place(1, "018f0000-0000-7000-8000-000000000001\n")),
        "é",
        "a" * 10_000,
    ],
)
async def test_a_place_that_is_none_is_refused(book, after):
    with pytest.raises(InvalidPageToken) as refused:
        await book.list(after=after)
    assert refused.value.field == "after"


@pytest.mark.parametrize(
    ("field", "value"), [("wait_ms", -1), ("wait_ms", 30_001), ("page_size", -1), ("page_size", 1_001)]
)
async def test_what_is_out_of_bounds_is_refused(book, field, value):
    with pytest.raises(InvalidArgument) as refused:
        await book.list(**{field: value})
    assert refused.value.field == field


async def test_an_account_that_may_not_follow_is_told_so_before_anything_else(book):
    book.accounts.refusal = AccountSuspended("suspended")
    with pytest.raises(AccountSuspended):
        await book.list(after="x")
    assert await book.subjects(None) == []


# ---- forgetting ----------------------------------------------------------------------------------------------


async def test_events_are_forgotten_after_a_week_but_for_the_newest(book):
    await book.record("a", "b", at_ms=NOW_MS)
    await book.record("c", at_ms=NOW_MS + 1)
    await book.record("d", at_ms=NOW_MS + 2)
    assert await book.database.write(lambda tx: store.purge(tx, now_ms=NOW_MS + KEPT_MS)) == 0
    assert await book.database.write(lambda tx: store.purge(tx, now_ms=NOW_MS + KEPT_MS + 1)) == 2
    assert await book.subjects() == ["c", "d"]
    assert await book.database.write(lambda tx: store.purge(tx, now_ms=NOW_MS + 2 * KEPT_MS)) == 1
    assert await book.subjects() == ["d"]


async def test_no_position_is_given_twice_whatever_has_been_forgotten(book):
    await book.record("a")
    place = cursor((await book.list()).next_place)
    await book.database.write(lambda tx: store.purge(tx, now_ms=NOW_MS + 2 * KEPT_MS))
    await book.record("b")
    assert await book.subjects(after=place) == ["b"]


async def test_who_was_away_for_more_than_a_week_goes_on_with_the_oldest(book):
    await book.record("a")
    place = cursor((await book.list()).next_place)
    await book.record("b", at_ms=NOW_MS + 1)
    await book.record("c", at_ms=NOW_MS + KEPT_MS)
    await book.database.write(lambda tx: store.purge(tx, now_ms=NOW_MS + 2 * KEPT_MS))
    assert await book.subjects(after=place) == ["c"]


async def test_a_place_from_before_a_backup_was_restored_begins_anew_and_misses_nothing(book):
    await book.record("a")
    await book.record("lost")
    place = cursor((await book.list()).next_place)
    await book.database.write(lambda tx: tx.execute(sa.delete(events).where(events.c.subject_id == "lost")))
    await book.record("b")
    assert await book.subjects(after=place) == ["a", "b"]


# ---- PostgreSQL: transactions overlap ------------------------------------------------------------------------


class Overlapping:
    """A transaction that has recorded an event and stays open until it is told to end."""

    def __init__(self, book, subject):
        self._book = book
        self._subject = subject
        self._recorded = asyncio.Event()
        self._may_end = asyncio.Event()
        self._task = asyncio.create_task(book.database.write(self._work))

    async def _work(self, tx):
        told = [Happening(ALICE, EventType.SHORTCODE_DEACTIVATED, self._subject)]
        await self._book.happenings.record(tx, told, at_ms=NOW_MS)
        await tx.execute(sa.text("SELECT 1"))
        self._recorded.set()
        await self._may_end.wait()

    async def recorded(self):
        await asyncio.wait_for(self._recorded.wait(), BOUND_S)

    async def end(self):
        self._may_end.set()
        await asyncio.wait_for(self._task, BOUND_S)


async def follow(book):
    """Record an event in a transaction that ends after a later one, while somebody reads; return what they saw."""
    slow = Overlapping(book, "slow")
    await slow.recorded()
    await book.record("quick")
    page = await book.list()
    seen = [event.subject_id for event in page.events]
    await slow.end()
    await book.record("last")
    return seen + await book.subjects(after=cursor(page.next_place))


@ON_POSTGRES
async def test_a_reader_never_passes_what_is_committed_later(book):
    assert await follow(book) == ["slow", "quick", "last"]


@ON_POSTGRES
async def test_a_reader_that_takes_all_it_sees_misses_an_event(book, monkeypatch):
    """The control."""
    monkeypatch.setattr(store, "_settled", lambda tx, query: query)
    assert await follow(book) == ["quick", "last"]


@ON_POSTGRES
async def test_who_waits_gets_what_an_older_transaction_held_up_soon_after_that_ends(book):
    async with looking_out(book):
        slow = Overlapping(book, "slow")
        await slow.recorded()
        waiting = asyncio.create_task(book.subjects(wait_ms=20_000))
        await eventually(lambda: book.bell.is_heard)
        await book.record("quick")
        # Longer than anybody looks by themselves.
        assert not (await asyncio.wait([waiting], timeout=1.5))[0]
        await slow.end()
        assert (await asyncio.wait_for(waiting, BOUND_S))[0] == "slow"


@ON_POSTGRES
async def test_many_writers_and_a_reader_that_resumes_lose_and_double_nothing(book):
    async def write(writer):
        for number in range(30):
            await book.record(f"{writer}-{number}")

    writing = asyncio.gather(*(write(writer) for writer in range(6)))
    seen: list[str] = []
    after = ""
    while len(seen) < 180:
        page = await asyncio.wait_for(book.list(after=after, wait_ms=2_000, page_size=7), BOUND_S)
        seen += [event.subject_id for event in page.events]
        after = cursor(page.next_place)
    await writing
    assert sorted(seen) == sorted(f"{writer}-{number}" for writer in range(6) for number in range(30))
    for writer in range(6):
        own = [int(subject.split("-")[1]) for subject in seen if subject.startswith(f"{writer}-")]
        assert own == list(range(30))


@ON_POSTGRES
async def test_events_from_another_database_come_before_what_is_added_here(book):
    await book.record("a", "b")
    far = 1 << 40
    await book.database.write(
        lambda tx: tx.execute(sa.update(events).values(position=events.c.position + far))
    )
    old = Place(
        (await rows_of(book.database, events))[0]["position"], (await rows_of(book.database, events))[0]["id"]
    )
    async with looking_out(book):
        await eventually(lambda: _settled(book))
    await book.record("c")
    assert await book.subjects() == ["a", "b", "c"]
    assert await book.subjects(after=cursor(old)) == ["a", "b", "c"]
    assert await book.database.write(store.settle_order) == 0


async def _settled(book):
    return all(row["position"] < 0 for row in await rows_of(book.database, events))


@pytest.mark.postgresql
async def test_events_of_a_partitioned_database_are_in_one_order():
    accounts = [new_id() for _ in range(12)]
    async with databases.postgres_copy() as url:
        await asyncio.to_thread(migrate.upgrade, url, lanes=4)
        async with databases.opened(url, partitioned=True) as database:
            book = Book(database)
            for number in range(3):
                for place, account in enumerate(accounts):
                    await book.record(f"{place}-{number}", account=account)
            assert await book.subjects(None) == [f"{place}-{n}" for n in range(3) for place in range(12)]
            for place, account in enumerate(accounts):
                assert await book.subjects(account) == [f"{place}-{number}" for number in range(3)]
            assert await database.write(lambda tx: store.purge(tx, now_ms=NOW_MS + 2 * KEPT_MS)) == 35
            assert len(await book.subjects(None)) == 1
