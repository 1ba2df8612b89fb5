"""A COMMIT on PostgreSQL whose answer is lost: what came of it is found out by looking, never by guessing."""

import asyncio

import pytest
import sqlalchemy as sa

from hydrasms_billing import store as billing_store
from hydrasms_billing.credits import LedgerCredits
from hydrasms_core.db import postgres
from hydrasms_core.db.group_commit import GroupCommit
from hydrasms_core.db.postgres import PostgresDatabase
from hydrasms_core.errors import CommitUnknown, StoreUnavailable
from hydrasms_core.messaging import store
from hydrasms_core.messaging.accept import Acceptance
from hydrasms_core.messaging.model import Accepted
from tests.support.consent import consent_book
from tests.support.ledger import open_account
from tests.support.relay import Fate, Relay
from tests.support.sends import a_send
from tests.support.tampering import run
from tests.support.waiting import eventually

pytestmark = pytest.mark.postgresql

CREDITS = 10
acceptance = Acceptance(LedgerCredits(), consent_book())


@pytest.fixture
async def relay(postgres_url):
    async with Relay(postgres_url).running() as relay:
        yield relay


@pytest.fixture
async def straight(postgres_url):
    """The database without the relay."""
    database = PostgresDatabase(postgres_url)
    yield database
    await database.close()


@pytest.fixture
async def relayed(relay):
    database = PostgresDatabase(relay.url)
    yield database
    await database.close()


@pytest.fixture
async def account(straight):
    return await open_account(straight, CREDITS)


def sending(database, account, *, landed=acceptance.landed, key="k"):
    """Begin to send a message."""
    writer = GroupCommit(database, acceptance.commit, landed)
    return asyncio.create_task(writer.submit(a_send(account, key=key)))


async def assert_it_is_as_answered(straight, account, sending):
    """What was accepted is stored and paid, once; of what was refused nothing is there."""
    await asyncio.wait([sending], timeout=20)
    outcome = sending.exception() or sending.result()
    assert type(outcome) in (Accepted, StoreUnavailable)
    accepted = outcome.message.id if isinstance(outcome, Accepted) else None
    # Whoever had it in hand is done with it now.
    await straight.write(lambda tx: billing_store.hold_balances(tx, [account]))
    stored = await straight.read(lambda tx: run(tx, "SELECT id FROM messages"))
    assert [row.id for row in stored] == ([accepted] if accepted else [])
    left = await straight.read(lambda tx: billing_store.find_balance(tx, account))
    assert left == CREDITS - len([accepted] if accepted else [])
    return accepted is not None


async def test_a_commit_that_came_through_is_found(relay, relayed, straight, account):
    relay.next_commit(Fate.ANSWER_LOST)
    assert await assert_it_is_as_answered(straight, account, sending(relayed, account))


async def test_a_commit_that_the_server_never_heard_of_is_refused_and_may_be_repeated(
    relay, relayed, straight, account
):
    relay.next_commit(Fate.NEVER_ASKED)
    assert not await assert_it_is_as_answered(straight, account, sending(relayed, account))
    assert await assert_it_is_as_answered(straight, account, sending(relayed, account))


async def waited_for(straight):
    """Tell whether somebody waits for another's lock."""
    found = await straight.read(
        lambda tx: run(
            tx,
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'",
        )
    )
    return found.scalar_one() > 0


async def test_a_commit_that_is_still_on_its_way_is_waited_for(relay, relayed, straight, account):
    relay.next_commit(Fate.LATE)
    sent = sending(relayed, account)
    await eventually(lambda: waited_for(straight), what="a look that waits")
    assert not sent.done()
    relay.release()
    assert await assert_it_is_as_answered(straight, account, sent)


async def test_a_commit_that_was_on_its_way_and_never_comes_is_refused(relay, relayed, straight, account):
    relay.next_commit(Fate.LATE)
    sent = sending(relayed, account)
    await eventually(lambda: waited_for(straight), what="a look that waits")
    await straight.read(
        lambda tx: run(
            tx,
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND state = 'idle in transaction' AND pid <> pg_backend_pid()",
        )
    )
    assert not await assert_it_is_as_answered(straight, account, sent)


async def guess_that_it_came_through(tx, sends, outcomes):
    return True


async def guess_that_it_did_not(tx, sends, outcomes):
    return False


async def look_without_waiting(tx, sends, outcomes):
    made = [outcome.message for outcome in outcomes]
    return len(await store.find_ids(tx, [(message.account_id, message.id) for message in made])) == len(made)


@pytest.mark.parametrize(
    ("landed", "fate"),
    [
        (guess_that_it_came_through, Fate.NEVER_ASKED),
        (guess_that_it_did_not, Fate.ANSWER_LOST),
    ],
)
async def test_control_a_guess_is_caught(relay, relayed, straight, account, landed, fate):
    relay.next_commit(fate)
    with pytest.raises(AssertionError):
        await assert_it_is_as_answered(straight, account, sending(relayed, account, landed=landed))


async def test_control_a_look_that_does_not_wait_is_caught(relay, relayed, straight, account):
    relay.next_commit(Fate.LATE)
    sent = sending(relayed, account, landed=look_without_waiting)
    await asyncio.wait([sent], timeout=20)
    relay.release()
    with pytest.raises(AssertionError):
        await assert_it_is_as_answered(straight, account, sent)


async def test_a_key_that_is_repeated_after_a_lost_answer_is_a_replay(relay, relayed, straight, account):
    relay.next_commit(Fate.ANSWER_LOST)
    first = await sending(relayed, account)
    again = await sending(relayed, account)
    assert (first, again) == (Accepted(first.message, replayed=False), Accepted(first.message, replayed=True))


@pytest.mark.parametrize("fate", [Fate.ANSWER_LOST, Fate.NEVER_ASKED])
async def test_where_nobody_can_look_it_is_said_that_nobody_knows(relay, relayed, account, fate):
    relay.next_commit(fate)
    with pytest.raises(CommitUnknown, match="before you repeat it"):
        await relayed.write(lambda tx: billing_store.change_balances(tx, {account: 1}, at_ms=0))


@pytest.mark.parametrize("fate", [Fate.ANSWER_LOST, Fate.NEVER_ASKED])
async def test_a_transaction_that_changed_nothing_is_never_in_doubt(relay, relayed, account, fate):
    for transaction in (relayed.read, relayed.write):
        relay.next_commit(fate)
        with pytest.raises(StoreUnavailable) as caught:
            await transaction(lambda tx: tx.execute(sa.select(1)))
        assert not isinstance(caught.value, CommitUnknown)


async def test_a_database_that_stays_away_leaves_it_open(relay, relayed, straight, account, monkeypatch):
    monkeypatch.setattr(postgres, "_RESOLVE_S", 0.3)
    relay.next_commit(Fate.ANSWER_LOST)

    async def refuse(tx, sends):
        outcomes = await acceptance.commit(tx, sends)
        relay.refusing = True
        return outcomes

    writer = GroupCommit(relayed, refuse, acceptance.landed)
    with pytest.raises(CommitUnknown):
        await writer.submit(a_send(account, key="k"))
    relay.refusing = False
    # Whoever asks again, as the error says, learns what became of it.
    assert (await sending(relayed, account)).replayed
