"""On a database partitioned by account every statement of the hot path touches one partition, batches included.

Exempt by nature, and small: look-ups by key digest, by a carrier's reference, and the claim of what is due in the
outbox. They are listed in `EXEMPT`.
"""

import asyncio
import re

import pytest

from hydrasms_app import migrate
from hydrasms_base.metrics import Metrics
from hydrasms_billing.credits import LedgerCredits
from hydrasms_billing.service import Billing
from hydrasms_core.accounts import store as accounts_store
from hydrasms_core.accounts.directory import AccessDirectory
from hydrasms_core.accounts.model import NewAccount
from hydrasms_core.accounts.service import Accounts
from hydrasms_core.carriers.base import Receipt, ReceiptStatus, Refused, Submitted, Throttled
from hydrasms_core.carriers.registry import Carriers
from hydrasms_core.db.postgres_lanes import PartitionLanes
from hydrasms_core.errors import InsufficientCredits, NotCancellable
from hydrasms_core.messaging import delivery_store, store
from hydrasms_core.messaging.handover import Handover
from hydrasms_core.messaging.lanes import OneLane
from hydrasms_core.messaging.model import Accepted, Draft, Status
from hydrasms_core.messaging.receipts import ReceiptIntake
from hydrasms_core.messaging.service import Messaging
from hydrasms_core.settings import DeliverySettings, MessagingSettings
from tests.support import databases
from tests.support.consent import consent_book
from tests.support.delivery import ToldCarrier
from tests.support.explained import ExplainingDatabase

pytestmark = pytest.mark.postgresql

LANES = 4
PHONE = "+447700900000"
EXEMPT = {
    "the claim of what is due": "WITH living AS",
    "when more is due": "SELECT r.step, (SELECT min(o.due_at_ms)",
    "a carrier's references": "FROM unnest($1::text[], $2::text[]) AS r(carrier, reference) JOIN carrier_references",
    "what a claim holds, for the process that owns the database alone": "UPDATE outbox SET due_at_ms=",
}


@pytest.fixture
async def explaining():
    async with databases.postgres_copy() as url:
        await asyncio.to_thread(migrate.upgrade, url, lanes=LANES)
        database = ExplainingDatabase(url)
        yield database
        await database.close()


class Fleet:
    """The services over a partitioned database, and accounts in every lane."""

    def __init__(self, database, clock, lanes=None):
        self.database = database
        self.clock = clock
        self.lanes = PartitionLanes(database, LANES)
        ledger = LedgerCredits()
        directory = AccessDirectory(database, accounts_store, clock)
        self.accounts = Accounts(database, ledger, clock, directory.recheck)
        self.billing = Billing(database, clock)
        self.carrier = ToldCarrier()
        self.handover = Handover(ledger, consent_book(), Carriers([self.carrier]), clock, DeliverySettings())
        self.intake = ReceiptIntake(database, clock, Metrics())
        self.messaging = Messaging(
            database,
            ledger,
            consent_book(),
            directory,
            clock,
            MessagingSettings(),
            lambda: None,
            lanes or self.lanes,
        )

    async def open(self, number):
        """Open accounts of 20 credits; returns them by lane."""
        opened: dict[int, list[str]] = {}
        for _ in range(number):
            created = await self.accounts.create(NewAccount("Hep", initial_credits=20), actor="service")
            opened.setdefault(await self.lanes.of(created.account.id), []).append(created.account.id)
        return opened

    async def claim(self):
        return await self.database.write(lambda tx: self.handover.claim(tx, ()))

    def forget(self):
        """Forget the statements so far."""
        self.database.planned.clear()
        self.database.locked.clear()


def exempt(text):
    return any(sign in text for sign in EXEMPT.values())


def astray(database):
    """Return the statements that touch several partitions and may not."""
    return [p.text for p in database.planned if len(p.partitions) > 1 and not exempt(p.text)]


async def test_sends_of_many_accounts_touch_one_partition_a_statement_and_a_transaction(explaining, clock):
    fleet = Fleet(explaining, clock)
    opened = await fleet.open(16)
    assert len(opened) > 1
    fleet.forget()
    accounts = [account for lane in opened.values() for account in lane]
    for key in (None, "a", "a"):
        await asyncio.gather(
            *(
                fleet.messaging.send(a, Draft(PHONE, f"Hi {n}", key), actor="account")
                for a in accounts
                for n in (1,)
            )
        )
    outcomes = await fleet.messaging.send_batch(accounts[0], [Draft(PHONE, "x" * 799)] * 5, actor="account")
    assert (
        sorted(type(outcome).__name__ for outcome in outcomes)
        == ["Accepted"] * 3 + ["InsufficientCredits"] * 2
    )
    assert [o for o in outcomes if not isinstance(o, Accepted | InsufficientCredits)] == []
    assert any("INSERT INTO messages" in planned.text for planned in explaining.planned)
    assert any("idempotency_keys AS k" in planned.text for planned in explaining.planned)
    assert astray(explaining) == []
    # An INSERT's plan does not name its partition; the locks that its transaction holds do.
    assert {len(locked) for locked in explaining.locked} <= {0, 1}
    assert any(explaining.locked)


async def test_handing_over_settling_and_reports_touch_one_partition_a_statement(explaining, clock):
    fleet = Fleet(explaining, clock)
    opened = await fleet.open(16)
    accounts = [account for lane in opened.values() for account in lane]
    for account in accounts:
        await fleet.messaging.send(account, Draft(PHONE, "Hi"), actor="account")
        await fleet.messaging.send(account, Draft(PHONE, "Ho"), actor="account")
    fleet.forget()
    claimed = []
    while (claim := await fleet.claim()).due:
        claimed.append(claim)
        batch = claim.batches["told"]
        answers = [
            Refused("no")
            if index % 3 == 0
            else Submitted(f"r-{held.key[1]}")
            if index % 3 == 1
            else Throttled("busy")
            for index, held in enumerate(batch.held)
        ]
        await fleet.database.write(
            lambda tx, claim=claim, batch=batch, answers=answers: fleet.handover.settle(
                tx, claim.id, "told", batch, answers
            )
        )
        await fleet.database.write(lambda tx, claim=claim: fleet.handover.renew(tx, claim))
    # A claim is of one lane, so that there were as many as lanes.
    assert len(claimed) == len(opened)
    assert sum(claim.due for claim in claimed) == 2 * len(accounts)
    references = [f"r-{held.key[1]}" for claim in claimed for held in claim.batches["told"].held[1::3]]
    await fleet.intake.receive(
        [Receipt("told", r, ReceiptStatus.DELIVERED, clock.now_ms()) for r in references]
    )
    messages = [
        message for account in accounts for message in (await fleet.messaging.list_sent(account, 0, "")).rows
    ]
    assert sum(message.status is Status.DELIVERED for message in messages) == len(references) > 1
    clock.advance(80 * 3600)
    assert await fleet.database.write(fleet.handover.give_up_receipts) == 0
    assert astray(explaining) == []


async def test_what_accounts_read_and_take_back_touches_one_partition(explaining, clock):
    fleet = Fleet(explaining, clock)
    opened = await fleet.open(8)
    account = next(iter(opened.values()))[0]
    sent = await fleet.messaging.send(account, Draft(PHONE, "Hi"), actor="account")
    fleet.forget()
    assert (await fleet.messaging.get(account, sent.message.id)).status is Status.QUEUED
    assert len((await fleet.messaging.list_sent(account, 10, "")).rows) == 1
    assert (await fleet.messaging.list_inbound(account, 10, "")).rows == []
    await fleet.messaging.cancel(account, sent.message.id, actor="account")
    assert await fleet.billing.balance(account) == 20
    await fleet.billing.grant(account, 5, "a gift", actor="service", idempotency_key="once")
    assert len((await fleet.billing.transactions(account, 10, "")).rows) == 4
    second = await fleet.messaging.send(account, Draft(PHONE, "Hi"), actor="account")
    assert {len(locked) for locked in explaining.locked} <= {0, 1}
    await fleet.claim()
    with pytest.raises(NotCancellable):
        await fleet.messaging.cancel(account, second.message.id, actor="account")
    assert astray(explaining) == []


async def test_a_batch_that_mixed_lanes_would_be_caught(explaining, clock):
    fleet = Fleet(explaining, clock, lanes=OneLane())
    opened = await fleet.open(12)
    fleet.forget()
    accounts = [account for lane in opened.values() for account in lane]
    await asyncio.gather(*(fleet.messaging.send(a, Draft(PHONE, "Hi"), actor="account") for a in accounts))
    assert astray(explaining) != []
    assert max(len(locked) for locked in explaining.locked) > 1


@pytest.mark.parametrize(
    ("module", "name"),
    [(store, "_FIND_KEYS"), (delivery_store, "_FIND_DUE"), (delivery_store, "_SET_STATUS")],
    ids=lambda each: each if isinstance(each, str) else "",
)
async def test_a_statement_that_did_not_name_its_accounts_would_be_caught(explaining, module, name):
    statement = getattr(module, name)
    rows = [["x"] * len(statement._columns)]
    parameters = {name: 1 if name.endswith("_ms") else "x" for name in statement._names}
    text, values = statement.for_postgres(rows, parameters, partitioned=True)
    careless = re.sub(r"(AND )?\w+\.account_id = ANY\(\$\d+::text\[\]\)", r"\1true", text)
    assert careless != text
    # A merge join reads every partition; with the accounts named only one is left to join with.
    await explaining.write(lambda tx: tx._driver.fetch(text, *values))
    named = explaining.planned[-1]
    await explaining.write(lambda tx: tx._driver.fetch(careless, *values))
    assert len(named.partitions) == 1
    assert explaining.planned[-1].partitions == set(range(LANES))
