"""Idempotency keys as the database keeps them."""

import pytest
import sqlalchemy as sa

from hydrasms_base.ids import new_id
from hydrasms_core.db.transaction import IntegrityViolation
from hydrasms_core.errors import IdempotencyMismatch
from hydrasms_core.idempotency.model import KEPT_MS, fingerprint
from hydrasms_core.idempotency.store import purge, recall, remember
from hydrasms_core.idempotency.tables import idempotency_keys

ALICE, BOB = new_id(), new_id()
SUBJECT = new_id()
NOW_MS = 1_780_000_000_000
REQUEST, OTHER_REQUEST = fingerprint("a"), fingerprint("b")


@pytest.fixture
def keys(database):
    return Keys(database)


class Keys:
    def __init__(self, database):
        self._database = database

    async def remember(
        self, key="k", *, account=ALICE, operation="send", request=REQUEST, subject=SUBJECT, at_ms=NOW_MS
    ):
        await self._database.write(
            lambda tx: remember(tx, account, operation, key, request, subject, at_ms=at_ms)
        )

    async def recall(self, key="k", *, account=ALICE, operation="send", request=REQUEST):
        return await self._database.read(lambda tx: recall(tx, account, operation, key, request))

    async def fill(self, number, at_ms):
        async def work(tx):
            for index in range(number):
                await remember(tx, ALICE, "send", f"{at_ms}-{index}", REQUEST, SUBJECT, at_ms=at_ms)

        await self._database.write(work)

    async def purge(self, now_ms):
        return await self._database.write(lambda tx: purge(tx, now_ms=now_ms))

    async def left(self):
        async def work(tx):
            found = await tx.execute(sa.select(idempotency_keys.c.created_at_ms))
            return sorted(row[0] for row in found)

        return await self._database.read(work)


async def test_a_key_that_was_remembered_tells_what_it_made(keys):
    await keys.remember()
    assert await keys.recall() == SUBJECT


async def test_a_new_key_tells_nothing(keys):
    assert await keys.recall() is None
    await keys.remember()
    assert await keys.recall("K") is None
    assert await keys.recall("k2") is None


async def test_a_key_belongs_to_one_operation_of_one_account(keys):
    await keys.remember()
    assert await keys.recall(account=BOB) is None
    assert await keys.recall(account="") is None
    assert await keys.recall(operation="grant") is None
    other = new_id()
    await keys.remember(account=BOB, subject=other)
    await keys.remember(operation="grant", subject=other)
    assert await keys.recall(account=BOB) == await keys.recall(operation="grant") == other
    assert await keys.recall() == SUBJECT


async def test_another_request_with_the_key_is_a_mismatch(keys):
    await keys.remember()
    with pytest.raises(IdempotencyMismatch):
        await keys.recall(request=OTHER_REQUEST)
    assert await keys.recall() == SUBJECT


async def test_a_key_is_remembered_once(keys):
    await keys.remember()
    with pytest.raises(IntegrityViolation):
        await keys.remember(subject=new_id())
    assert await keys.recall() == SUBJECT


async def test_a_key_that_was_rolled_back_is_new(keys, database):
    async def work(tx):
        await remember(tx, ALICE, "send", "k", REQUEST, SUBJECT, at_ms=NOW_MS)
        assert await recall(tx, ALICE, "send", "k", REQUEST) == SUBJECT
        raise RuntimeError("undone")

    with pytest.raises(RuntimeError):
        await database.write(work)
    assert await keys.recall() is None


@pytest.mark.parametrize("key", ["!", "~" * 255, "'; DROP TABLE idempotency_keys;--", "%_\\"])
async def test_a_key_is_taken_as_it_is(keys, key):
    await keys.remember(key)
    assert await keys.recall(key) == SUBJECT
    assert await keys.recall(key[:-1] + "x") is None


async def test_a_key_is_kept_for_24_hours_to_the_millisecond(keys):
    assert KEPT_MS == 24 * 3_600_000
    await keys.remember()
    assert await keys.purge(NOW_MS + KEPT_MS) == 0
    assert await keys.recall() == SUBJECT
    assert await keys.purge(NOW_MS + KEPT_MS + 1) == 1
    assert await keys.recall() is None


async def test_a_purge_leaves_what_is_young(keys):
    await keys.fill(3, NOW_MS - KEPT_MS - 1)
    await keys.fill(2, NOW_MS - KEPT_MS)
    await keys.fill(1, NOW_MS)
    assert await keys.purge(NOW_MS) == 3
    assert await keys.left() == [NOW_MS - KEPT_MS] * 2 + [NOW_MS]
    assert await keys.purge(NOW_MS) == 0


async def test_a_purge_takes_a_thousand_at_once_the_oldest_first(keys):
    older, old = NOW_MS - KEPT_MS - 2, NOW_MS - KEPT_MS - 1
    await keys.fill(500, old)
    await keys.fill(800, older)
    assert await keys.purge(NOW_MS) == 1_000
    assert await keys.left() == [old] * 300
    assert await keys.purge(NOW_MS) == 300
    assert await keys.left() == []


def test_a_fingerprint_keeps_its_parts_apart():
    assert fingerprint("ab", "c") != fingerprint("a", "bc") != fingerprint("abc")
    assert fingerprint("a", "") != fingerprint("a")
    assert fingerprint("+447700900000", "ж😀") == fingerprint("+447700900000", "ж😀")
