"""What the growth benchmark fills a database with is what the service could have written."""

import asyncio

import pytest
import sqlalchemy as sa

from bench import grown
from hydrasms_base.ids import is_id, new_id
from hydrasms_billing.verify import verify_ledger
from hydrasms_core.messaging import store
from hydrasms_core.messaging.text import measure
from hydrasms_core.paging import PageRequest
from tests.support import databases
from tests.support.ledger import open_account

ACCOUNTS = 7
ROWS = 1_000


@pytest.fixture
async def filled(database_target):
    """A database with messages that were made up, and its accounts."""
    async with databases.opened(database_target) as database:
        accounts = [await open_account(database, 1_000_000) for _ in range(ACCOUNTS)]
    await asyncio.to_thread(grown.fill, database_target, accounts, ROWS)
    async with databases.opened(database_target) as database:
        yield database, accounts


async def test_the_ledger_is_in_order_and_holds_all_of_it(filled):
    report = await verify_ledger(filled[0])
    assert (report.discrepancies, report.messages, report.transfers) == ([], ROWS, ROWS + ACCOUNTS)


@pytest.mark.parametrize("database_kind", ["sqlite"], indirect=True)
async def test_on_sqlite_all_of_it_is_listed(filled):
    for table in ("messages", "transfers"):
        text = sa.text(f"SELECT (SELECT count(*) FROM listed_{table}), (SELECT count(*) FROM {table})")
        listed, there = (await filled[0].read(lambda tx, text=text: tx.execute(text))).one()
        assert listed == there > 0


async def test_the_messages_are_as_the_service_makes_them(filled):
    database, accounts = filled
    listed = []
    for account in accounts:
        page = PageRequest(ROWS, before=None, scope="")
        listed += await database.read(
            lambda tx, account=account, page=page: store.list_messages(tx, account, page)
        )
    assert len(listed) == ROWS
    for message in listed:
        shape = measure(message.content)
        assert is_id(message.id)
        assert message.id < new_id()
        assert (message.encoding, message.segments) == (shape.encoding, shape.segments)
        assert message.recipient.e164.startswith("+447700900")


async def test_every_account_has_its_share_and_ids_grow_with_time(filled):
    query = sa.text("SELECT account_id, count(*) FROM messages GROUP BY account_id")
    counts = dict((await filled[0].read(lambda tx: tx.execute(query))).fetchall())
    assert set(counts) == set(filled[1])
    assert max(counts.values()) - min(counts.values()) <= 1
    ordered = sa.text("SELECT created_at_ms FROM messages ORDER BY id")
    times = [row[0] for row in (await filled[0].read(lambda tx: tx.execute(ordered))).fetchall()]
    assert times == sorted(times)
