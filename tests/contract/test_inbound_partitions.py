"""On a database partitioned by account, taking texts in touches one partition a transaction.

Exempt by nature: looking a text up by its carrier's reference, its first word or its sender, which no account leads
to; and giving a text of nobody's to an account, which moves it from one partition to another, one text at a time.
"""

import asyncio

import pytest

from hydrasms_app import migrate
from hydrasms_base.ids import new_id
from hydrasms_core.db.postgres_lanes import PartitionLanes
from hydrasms_core.errors import StoreBusy
from hydrasms_core.inbound.model import Outcome
from hydrasms_core.inbound.ports import Holder
from hydrasms_core.messaging.lanes import OneLane
from tests.support import databases
from tests.support.explained import ExplainingDatabase
from tests.support.inbound import Reception, make_records, text_of

pytestmark = pytest.mark.postgresql

LANES = 4
BY_REFERENCE = "JOIN inbound_references AS f ON"


@pytest.fixture
async def explaining():
    async with databases.postgres_copy() as url:
        await asyncio.to_thread(migrate.upgrade, url, lanes=LANES)
        async with databases.opened(url) as plain:
            await make_records(plain)
        database = ExplainingDatabase(url)
        yield database
        await database.close()


async def with_holders(explaining, clock, lanes):
    """A reception where accounts of every lane hold a shortcode and have sent a message."""
    reception = Reception(explaining, clock, lanes=lanes)
    found = PartitionLanes(explaining, LANES)
    reached = set()
    for number in range(16):
        account_id = new_id()
        reception.shortcodes.held[f"w{number}"] = Holder(account_id, new_id(), active=True)
        await reception.sent(account_id, f"+4477009{number:05}")
        reached.add(await found.of(account_id))
    assert len(reached) > 1
    explaining.planned.clear()
    explaining.locked_writing.clear()
    return reception


def texts(words):
    return [text_of(f"{word} hello", reference=f"r{word}") for word in words for _ in range(2)]


def astray(database):
    return [p.text for p in database.planned if len(p.partitions) > 1 and BY_REFERENCE not in p.text]


async def test_texts_for_many_accounts_touch_one_partition_a_statement_and_a_transaction(explaining, clock):
    reception = await with_holders(explaining, clock, PartitionLanes(explaining, LANES))
    received = await asyncio.gather(
        *map(reception.inbound.receive, texts([*reception.shortcodes.held, "no"]))
    )
    assert sum(each.duplicate for each in received) == len(received) / 2
    assert {each.outcome for each in received} == {Outcome.ROUTED, Outcome.UNKNOWN_SHORTCODE}
    assert any("INSERT INTO inbound_messages" in planned.text for planned in explaining.planned)
    assert astray(explaining) == []
    # Of the transactions that write; the looks before them find repeats wherever those are.
    assert {len(locked) for locked in explaining.locked_writing} - {0} == {1}
    assert len(await reception.messages()) == len(received) / 2


async def test_stops_and_starts_touch_one_partition(explaining, clock):
    reception = await with_holders(explaining, clock, PartitionLanes(explaining, LANES))
    numbers = [f"+4477009{number:05}" for number in range(16)]
    for word in ("STOP", "START", "HELP"):
        received = await asyncio.gather(*(reception.receive(word, sender=number) for number in numbers))
        assert all(each.message.account_id for each in received)
    assert any("opt_outs" in planned.text for planned in explaining.planned)
    assert astray(explaining) == []
    assert {len(locked) for locked in explaining.locked_writing} == {1}


async def test_a_batch_that_mixed_lanes_would_be_caught(explaining, clock):
    reception = await with_holders(explaining, clock, OneLane())
    await asyncio.gather(*map(reception.inbound.receive, texts(reception.shortcodes.held)))
    assert max(map(len, explaining.locked_writing)) > 1


async def test_a_shortcode_that_changes_hands_meanwhile_is_looked_for_again(explaining, clock):
    reception = await with_holders(explaining, clock, PartitionLanes(explaining, LANES))
    held = reception.shortcodes.held
    first, second = held["w0"], held["w1"]
    looks = iter([first, second, second, second])

    class Changing:
        async def holders(self, tx, words):
            return dict.fromkeys(words, next(looks))

    restless = Reception(
        explaining,
        clock,
        shortcodes=Changing(),  # type: ignore[arg-type]
        lanes=PartitionLanes(explaining, LANES),
    )
    received = await restless.receive("w0")
    assert received.message.account_id == second.account_id
    looks = iter([first, second] * 20)
    with pytest.raises(StoreBusy):
        await restless.receive("w0")
    assert len(await restless.messages()) == 1
