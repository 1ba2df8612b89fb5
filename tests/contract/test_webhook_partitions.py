"""On a database partitioned by account every statement about pushes and events touches one partition.

Exempt by nature are those in `EXEMPT`: who looks for what is due cannot know whose it is, and what housekeeping and
a process that begins do, they do for all.
"""

import asyncio
import re
from typing import Any

import pytest

from hydrasms_app import migrate
from hydrasms_base.ids import new_id
from hydrasms_core.db.dialect import _type
from hydrasms_core.db.postgres_lanes import PartitionLanes
from hydrasms_core.events import store as events_store
from hydrasms_core.events.bell import Bell
from hydrasms_core.events.model import BEGINNING, EventType
from hydrasms_core.events.recording import RecordedHappenings
from hydrasms_core.inbound import store as inbound_store
from hydrasms_core.inbound.ports import Push
from hydrasms_core.messaging.lanes import OneLane
from hydrasms_core.messaging.model import InboundMessage
from hydrasms_core.messaging.ports import Happening
from hydrasms_core.webhooks import delivery_store, queue_store, store
from hydrasms_core.webhooks.model import DeliveryStatus
from hydrasms_core.webhooks.pushes import PushQueue
from hydrasms_core.webhooks.service import Webhooks
from tests.support import databases
from tests.support.delivery import ObservedDatabase
from tests.support.explained import ExplainingDatabase
from tests.support.waiting import eventually
from tests.support.webhooks import NO_ANSWER, PushWorld, ToldPoster, answered

pytestmark = pytest.mark.postgresql

LANES = 4
ACCOUNTS = 16
PHONE = "+447700900000"
EXEMPT = {
    "where anything is due, which is no one account's": "WITH RECURSIVE found(endpoint_id)",
    "what is due too late since the clock was set back, for a deliverer that begins": "UPDATE webhook_outbox"
    " SET due_at_ms=$1::BIGINT WHERE webhook_outbox.due_at_ms > $2::BIGINT",
    "what claims hold, for the process that owns the database alone": "UPDATE webhook_outbox"
    " SET due_at_ms=$1::BIGINT WHERE webhook_outbox.claim !=",
    "deliveries that are over and old, for housekeeping": "FROM webhook_deliveries \nWHERE webhook_deliveries.id <",
    "a delivery by its id alone, for an operator": "WHERE webhook_deliveries.id = $2::VARCHAR;",
    "events that are old, for housekeeping": "DELETE FROM events",
    "events of all accounts, for those who serve all": "(events.position, events.id) > ($1::BIGINT,"
    " $2::VARCHAR) ORDER BY",
}
# What the deliverer's run must have come by, so that it is known to touch one partition.
PUSHING = (
    "INSERT INTO webhook_deliveries",
    "INSERT INTO webhook_outbox",
    "json_agg(h.delivery_id)",
    "JOIN webhook_outbox AS o ON",
    "UPDATE webhook_outbox SET claim =",
    "UPDATE webhook_outbox SET due_at_ms = $",
    "UPDATE webhook_outbox SET due_at_ms = r.due_at_ms",
    "DELETE FROM webhook_outbox",
    "INSERT INTO webhook_attempts",
    "UPDATE webhook_deliveries SET status = r.status",
    "UPDATE webhook_deliveries SET status = 'dead'",
    "UPDATE inbound_messages SET webhook_status",
    "UPDATE webhook_endpoints SET failing_since_ms = NULL",
    "UPDATE webhook_endpoints SET failing_since_ms = coalesce",
    "UPDATE webhook_endpoints SET disabled_at_ms",
    "INSERT INTO events",
)


@pytest.fixture
async def explaining():
    async with databases.postgres_copy() as url:
        await asyncio.to_thread(migrate.upgrade, url, lanes=LANES)
        database = ExplainingDatabase(url)
        yield database
        await database.close()


async def follow(tx, happenings, *, at_ms):
    await PushQueue().status_pushes(tx, happenings, at_ms=at_ms)


class AnyAccount:
    """Every account is there."""

    async def require_account(self, account_id):
        pass


def url_of(account):
    return f"https://{account}.example/"


def astray(database):
    """Return the statements that touch several partitions and may not."""
    return [
        p.text
        for p in database.planned
        if len(p.partitions) > 1 and not any(sign in f"{p.text};" for sign in EXEMPT.values())
    ]


class Pushers:
    """A deliverer over a partitioned database, and accounts in every lane with two webhooks each."""

    def __init__(self, database, clock, lanes=None, **settings):
        self.database = database
        self.lanes = PartitionLanes(database, LANES)
        self.answers: dict[str, Any] = {}
        self.endpoints: dict[str, str] = {}
        """The webhook of a shortcode of each account."""
        self.poster = ToldPoster(lambda posted: self.answers[posted.url])
        self.happenings = RecordedHappenings(Bell(), [follow])
        self.world = PushWorld(
            ObservedDatabase(database),
            clock,
            self.poster,
            lanes=lanes or self.lanes,
            happenings=self.happenings,
            **settings,
        )

    async def open(self):
        """Open accounts whose receivers answer in one of four ways; returns them by lane."""
        opened: dict[int, list[str]] = {}
        for answer in [answered(200), answered(500), answered(410), NO_ANSWER] * (ACCOUNTS // 4):
            account = new_id()
            opened.setdefault(await self.lanes.of(account), []).append(account)
            url = url_of(account)
            self.answers[url] = answer
            self.endpoints[account], _ = await self.world.endpoint(url, account_id=account)
            await self.world.own_endpoint(url, account_id=account)
        assert len(opened) > 1
        return opened

    async def push(self, accounts):
        """Take in, in one transaction, a text for each account and that a message of each was delivered."""
        now_ms = self.world.clock.now_ms()
        texts = [InboundMessage(new_id(), a, PHONE, "order", "pizza", None, now_ms) for a in accounts]
        delivered = [
            Happening(a, "message_status_changed", new_id(), {"status": "delivered"}) for a in accounts
        ]

        async def work(tx):
            await inbound_store.insert_messages(tx, texts)
            pushes = [Push(text.account_id, self.endpoints[text.account_id], text.id) for text in texts]
            await self.world.queue.enqueue(tx, pushes, at_ms=now_ms)
            await self.happenings.record(tx, delivered, at_ms=now_ms)

        await self.database.write(work)

    def forget(self):
        """Forget the statements so far."""
        self.database.planned.clear()
        self.database.locked_writing.clear()

    def has_run(self, sign):
        """Tell whether a statement has run."""
        return any(sign in planned.text for planned in self.database.planned)

    async def until_settled(self, number):
        """Wait until so many attempts have been settled."""
        statuses = ("delivered", "dead", "pending")

        def settled():
            return sum(self.world.counted("webhook_settlements", status=each) for each in statuses) >= number

        await eventually(settled, what=f"{number} settlements")


async def test_pushes_of_many_accounts_touch_one_partition_a_statement_and_a_transaction(explaining, clock):
    pushers = Pushers(explaining, clock, lease_s=0.3)
    opened = await pushers.open()
    poster, world = pushers.poster, pushers.world
    async with world.running():
        await eventually(lambda: pushers.has_run("WITH RECURSIVE found"), what="the first look")
        pushers.forget()
        poster.may_answer.clear()
        for accounts in opened.values():
            await pushers.push(accounts)
        world.deliverer.wake()
        await poster.until_posted(2 * ACCOUNTS)
        await eventually(lambda: pushers.has_run("UPDATE webhook_outbox SET due_at_ms = $"), what="a renewal")
        # One that fails and has no webhook any more when it would be tried again.
        gone = next(account for account in pushers.endpoints if pushers.answers[url_of(account)] is NO_ANSWER)
        await world.database.write(
            lambda tx: world.endpoints.remove(tx, gone, pushers.endpoints[gone], at_ms=clock.now_ms())
        )
        poster.may_answer.set()
        await pushers.until_settled(2 * ACCOUNTS)
        world.pass_time(5)
        # Those that were answered 500 or not at all, but for the one.
        await pushers.until_settled(2 * ACCOUNTS + ACCOUNTS - 1)
        await eventually(lambda: world.counted("webhook_given_up") == 1, what="the one that is given up")
    assert [sign for sign in PUSHING if not pushers.has_run(sign)] == []
    assert astray(explaining) == []
    # An INSERT's plan does not name its partition; the locks that its transaction holds do.
    assert {len(locked) for locked in explaining.locked_writing} <= {0, 1}
    assert set().union(*explaining.locked_writing) == set(opened)


async def test_what_owners_do_with_their_webhooks_touches_one_partition(explaining, clock):
    pushers = Pushers(explaining, clock)
    opened = await pushers.open()
    world = pushers.world
    account = opened[min(opened)][0]
    endpoint_id = pushers.endpoints[account]
    pushers.answers[url_of(account)] = answered(410)
    async with world.running():
        await pushers.push([account])
        world.deliverer.wake()
        await pushers.until_settled(2)
    pushers.forget()
    webhooks = Webhooks(explaining, AnyAccount(), world.endpoints, clock, lambda: None)
    dead = (await webhooks.list_deliveries(account, 10, "")).rows
    assert [each.status for each in dead] == [DeliveryStatus.DEAD] * 2
    await webhooks.set_own(account, url_of(account))
    await world.database.write(
        lambda tx: world.endpoints.put(
            tx, account, endpoint_id, word="order", url=url_of(account), auth=None, retries=None, at_ms=1
        )
    )
    assert (await webhooks.redeliver(account, dead[0].id)).status is DeliveryStatus.PENDING
    assert (await webhooks.redeliver_dead(account)).number == 1
    await webhooks.send_test(account, endpoint_id)
    await webhooks.rotate_secret(account, endpoint_id)
    assert (await webhooks.get_endpoint(account, endpoint_id)).id == endpoint_id
    await webhooks.set_own(account, "")
    events = await explaining.read(lambda tx: events_store.read_after(tx, account, BEGINNING, most=10))
    assert [event.type for event in events if event.type is EventType.WEBHOOK_DISABLED] != []
    assert astray(explaining) == []
    assert {len(locked) for locked in explaining.locked_writing} <= {0, 1}


async def test_what_is_exempt_of_webhooks_and_events_needs_to_be(explaining, clock):
    pushers = Pushers(explaining, clock)
    opened = await pushers.open()
    await pushers.push(opened[min(opened)])
    pushers.forget()
    now_ms = clock.now_ms()
    for work in (
        lambda tx: delivery_store.find_queues(tx, now_ms=now_ms),
        lambda tx: delivery_store.bring_forward(tx, now_ms=now_ms, ahead_ms=now_ms),
        lambda tx: delivery_store.release_claims(tx, now_ms=now_ms),
        lambda tx: queue_store.purge(tx, before_id=new_id()),
        lambda tx: store.get_delivery(tx, None, new_id()),
        lambda tx: events_store.purge(tx, now_ms=now_ms),
        lambda tx: events_store.read_after(tx, None, BEGINNING, most=10),
    ):
        before = len(explaining.planned)
        await explaining.write(work)
        assert any(len(p.partitions) > 1 for p in explaining.planned[before:]), explaining.planned[before:]
    assert astray(explaining) == []


async def test_a_deliverer_that_mixed_lanes_would_be_caught(explaining, clock):
    pushers = Pushers(explaining, clock, lanes=OneLane())
    opened = await pushers.open()
    async with pushers.world.running():
        await eventually(lambda: pushers.has_run("WITH RECURSIVE found"), what="the first look")
        pushers.forget()
        for accounts in opened.values():
            await pushers.push(accounts)
        pushers.world.deliverer.wake()
        await pushers.until_settled(2 * ACCOUNTS)
    assert astray(explaining) != []
    assert max(len(locked) for locked in explaining.locked_writing) > 1


@pytest.mark.parametrize(
    ("module", "name"),
    [
        (delivery_store, "_TAKE"),
        (delivery_store, "_SCHEDULE"),
        (delivery_store, "_FINISH"),
        (delivery_store, "_RECORD"),
        (queue_store, "_INSERT_DELIVERIES"),
    ],
    ids=lambda each: each if isinstance(each, str) else "",
)
async def test_a_statement_that_did_not_name_its_accounts_would_be_caught(explaining, module, name):
    statement = getattr(module, name)
    rows = [[1 if _type(name) == "bigint" else "x" for name in statement._columns]]
    parameters = {name: 1 if _type(name) == "bigint" else "x" for name in statement._names}
    text, values = statement.for_postgres(rows, parameters, partitioned=True)
    careless = re.sub(r"(AND )?\w+\.account_id = ANY\(\$\d+::text\[\]\)", r"\1true", text)
    assert careless != text
    # A merge join reads every partition; with the accounts named only one is left to join with.
    await explaining.write(lambda tx: tx._driver.fetch(text, *values))
    named = explaining.planned[-1]
    await explaining.write(lambda tx: tx._driver.fetch(careless, *values))
    assert len(named.partitions) == 1
    assert explaining.planned[-1].partitions == set(range(LANES))
