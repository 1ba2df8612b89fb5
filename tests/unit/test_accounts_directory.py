"""What is remembered of accounts and keys, and for how long."""

import asyncio
import contextlib

import pytest

from hydrasms_core.accounts.directory import AccessDirectory
from hydrasms_core.accounts.model import AccountAccess, KeyAccess
from hydrasms_core.errors import (
    AccountSuspended,
    ApiKeyDisabled,
    NotFound,
    SendingNotEnabled,
    StoreUnavailable,
    UnknownApiKey,
)
from tests.support.accounts import FakeAccessStore, NoDatabase, WatchedDatabase, within_bounds

ACCOUNT = "018f0000-0000-7000-8000-000000000001"
OTHER = "018f0000-0000-7000-8000-000000000002"
DIGEST = "ab" * 32
ENABLED = KeyAccess(ACCOUNT, True, None)
DISABLED = KeyAccess(ACCOUNT, False, None)


def digest_of(number):
    return f"{number:064x}"


class Remembering(AccessDirectory):
    """The control: keeps whatever row arrives, whatever happened since it was read."""

    def _adopt(self, version, began, epoch):
        return version < self._version or super()._adopt(version, began, epoch)


@pytest.fixture
def store():
    store = FakeAccessStore()
    store.keys[DIGEST] = ENABLED
    store.accounts[ACCOUNT] = AccountAccess(sending_enabled=True, suspended=False)
    return store


@pytest.fixture
def database():
    return WatchedDatabase(NoDatabase())


@pytest.fixture
def directory(database, store, clock):
    return AccessDirectory(database, store, clock)


def run_without_a_loop(coroutine):
    """Return the result of a coroutine that never suspends; fails where it does."""
    with pytest.raises(StopIteration) as stopped:
        coroutine.send(None)
    return stopped.value.value


async def test_a_hit_reads_nothing_and_never_suspends(directory, database):
    await directory.account_of(DIGEST)
    await directory.require_sending(ACCOUNT)
    reads, tasks = database.reads, asyncio.all_tasks()
    for _ in range(100):
        assert run_without_a_loop(directory.account_of(DIGEST)) == ACCOUNT
        assert run_without_a_loop(directory.require_sending(ACCOUNT)) is None
    assert database.reads == reads
    assert asyncio.all_tasks() == tasks


async def test_a_version_is_trusted_for_half_a_second(directory, database, clock):
    await directory.account_of(DIGEST)
    reads = database.reads
    clock.advance(0.5)
    await directory.account_of(DIGEST)
    assert database.reads == reads
    clock.advance(0.01)
    await directory.account_of(DIGEST)
    assert database.reads == reads + 1


async def test_concurrent_lookups_share_one_version_read(directory, database, clock):
    await directory.account_of(DIGEST)
    await directory.require_sending(ACCOUNT)
    reads = database.reads
    clock.advance(0.6)
    lookups = [directory.account_of(DIGEST) for _ in range(50)]
    await asyncio.gather(*lookups, *(directory.require_sending(ACCOUNT) for _ in range(50)))
    assert database.reads == reads + 1


async def test_concurrent_misses_of_one_key_share_one_read(directory, database, store):
    await asyncio.gather(*(directory.account_of(DIGEST) for _ in range(100)))
    assert store.asked == [DIGEST]
    assert database.reads == 2  # the version, then the row


async def test_a_change_elsewhere_is_seen_within_half_a_second(directory, store, clock):
    await directory.account_of(DIGEST)
    store.change_key(DIGEST, DISABLED)
    clock.advance(0.51)
    with pytest.raises(ApiKeyDisabled):
        await directory.account_of(DIGEST)
    store.change_key(DIGEST, ENABLED)
    clock.advance(0.51)
    assert await directory.account_of(DIGEST) == ACCOUNT


async def test_an_unchanged_version_keeps_what_is_remembered(directory, store, clock):
    await directory.account_of(DIGEST)
    for _ in range(10):
        clock.advance(0.6)
        await directory.account_of(DIGEST)
    assert store.asked == [DIGEST]


async def test_an_own_change_is_seen_at_once(directory, store):
    await directory.account_of(DIGEST)
    store.change_key(DIGEST, DISABLED)
    directory.recheck()
    with pytest.raises(ApiKeyDisabled):
        await directory.account_of(DIGEST)


async def answer_after_a_race(directory, database, store, clock):
    """Have a key's row read before a change arrive after another look-up has seen the change."""
    store.keys[digest_of(1)] = KeyAccess(OTHER, True, None)
    await directory.account_of(digest_of(1))
    held = database.hold_next()
    racing = asyncio.create_task(directory.account_of(DIGEST))
    await held.arrived()
    store.change_key(DIGEST, DISABLED)
    clock.advance(0.51)
    await directory.account_of(digest_of(1))
    held.release()
    await within_bounds(racing)
    try:
        return await directory.account_of(DIGEST)
    except ApiKeyDisabled:
        return "disabled"


async def test_a_row_read_before_a_change_is_not_kept_after_it(directory, database, store, clock):
    assert await answer_after_a_race(directory, database, store, clock) == "disabled"


async def test_control_a_directory_that_keeps_every_row_loses_that_race(database, store, clock):
    broken = Remembering(database, store, clock)
    assert await answer_after_a_race(broken, database, store, clock) == ACCOUNT


class ChangedBetween(FakeAccessStore):
    """A database that shows each statement its own state: the key changes between two of one transaction."""

    armed = False

    async def access_version(self, tx):
        return self._then_change(await super().access_version(tx))

    async def key_access(self, tx, digest):
        return self._then_change(await super().key_access(tx, digest))

    def _then_change(self, answer):
        if self.armed:
            self.armed = False
            self.change_key(DIGEST, DISABLED)
        return answer


async def test_a_row_is_never_kept_under_a_version_newer_than_itself(database, clock):
    store = ChangedBetween()
    store.keys = {DIGEST: ENABLED, digest_of(1): KeyAccess(OTHER, True, None)}
    directory = AccessDirectory(database, store, clock)
    await directory.account_of(digest_of(1))
    store.armed = True
    with contextlib.suppress(ApiKeyDisabled):
        await directory.account_of(DIGEST)
    assert not store.armed
    clock.advance(0.51)
    with pytest.raises(ApiKeyDisabled):
        await directory.account_of(DIGEST)


async def answer_after_an_own_change(directory, database, store):
    """Change a key here while its row, as it was before, is on its way."""
    store.keys[digest_of(1)] = KeyAccess(OTHER, True, None)
    await directory.account_of(digest_of(1))
    held = database.hold_next()
    racing = asyncio.create_task(directory.account_of(DIGEST))
    await held.arrived()
    store.change_key(DIGEST, DISABLED)
    directory.recheck()
    database_is_slow = database.hold_next()
    following = asyncio.create_task(directory.account_of(DIGEST))
    await database_is_slow.arrived()
    held.release()
    await within_bounds(racing)
    database_is_slow.release()
    try:
        return await within_bounds(following)
    except ApiKeyDisabled:
        return "disabled"


async def test_a_row_on_its_way_during_an_own_change_is_not_kept(directory, database, store):
    assert await answer_after_an_own_change(directory, database, store) == "disabled"


async def test_a_lookup_does_not_wait_for_a_read_that_began_too_long_ago(directory, database, store, clock):
    held = database.hold_next()
    slow = asyncio.create_task(directory.account_of(DIGEST))
    await held.arrived()
    store.change_key(DIGEST, DISABLED)
    clock.advance(10)
    # The version that is on its way was read before the change, so this one reads its own.
    with pytest.raises(ApiKeyDisabled):
        await within_bounds(directory.account_of(DIGEST))
    held.release()
    # It began before the change: either answer is right, but none may be missing.
    await asyncio.gather(slow, return_exceptions=True)
    with pytest.raises(ApiKeyDisabled):
        await directory.account_of(DIGEST)


async def test_what_cannot_be_read_is_refused_even_where_it_is_remembered(directory, database, clock):
    await directory.account_of(DIGEST)
    await directory.require_sending(ACCOUNT)
    clock.advance(0.51)
    database.failure = StoreUnavailable()
    for _ in range(2):
        with pytest.raises(StoreUnavailable):
            await directory.account_of(DIGEST)
        with pytest.raises(StoreUnavailable):
            await directory.require_sending(ACCOUNT)
    database.failure = None
    assert await directory.account_of(DIGEST) == ACCOUNT


async def test_a_caller_that_gives_up_takes_nothing_from_the_others(directory, database):
    held = database.hold_next()
    first = asyncio.create_task(directory.account_of(DIGEST))
    await held.arrived()
    second = asyncio.create_task(directory.account_of(DIGEST))
    await asyncio.sleep(0)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    held.release()
    assert await within_bounds(second) == ACCOUNT


async def test_a_database_that_was_set_back_is_believed(directory, store, clock):
    store.version = 7
    await directory.account_of(DIGEST)
    store.version, store.keys[DIGEST] = 3, DISABLED
    clock.advance(0.51)
    with pytest.raises(ApiKeyDisabled):
        await within_bounds(directory.account_of(DIGEST))


async def test_junk_pushes_nothing_out(database, store, clock):
    directory = AccessDirectory(database, store, clock, max_entries=2)
    await directory.account_of(DIGEST)
    for number in range(100):
        with pytest.raises(UnknownApiKey):
            await directory.account_of(digest_of(number))
    store.asked.clear()
    assert run_without_a_loop(directory.account_of(DIGEST)) == ACCOUNT
    assert store.asked == []


async def test_the_memory_is_bounded_and_the_oldest_goes_first(database, store, clock):
    directory = AccessDirectory(database, store, clock, max_entries=3)
    for number in range(4):
        store.keys[digest_of(number)] = KeyAccess(ACCOUNT, True, None)
        await directory.account_of(digest_of(number))
    store.asked.clear()
    for number in (1, 2, 3):
        await directory.account_of(digest_of(number))
    assert store.asked == []
    await directory.account_of(digest_of(0))
    assert store.asked == [digest_of(0)]


@pytest.mark.parametrize("digest", ["", "é", "a\0b", DIGEST.upper(), DIGEST + "0", "x" * 100_000])
async def test_what_is_no_digest_is_not_looked_up(directory, store, digest):
    with pytest.raises(UnknownApiKey):
        await directory.account_of(digest)
    assert store.asked == []


async def test_an_unknown_key_is_told_how_to_send_one(directory):
    with pytest.raises(UnknownApiKey) as caught:
        await directory.account_of(digest_of(9))
    assert caught.value.message == (
        "This API key is unknown. Send the key alone as the Authorization header, "
        "with no scheme in front of it."
    )


async def test_a_key_is_refused_from_its_end_on(directory, store, clock):
    store.keys[DIGEST] = KeyAccess(ACCOUNT, True, clock.now_ms() + 400)
    assert await directory.account_of(DIGEST) == ACCOUNT
    clock.advance(0.399)
    assert await directory.account_of(DIGEST) == ACCOUNT
    clock.advance(0.001)
    with pytest.raises(ApiKeyDisabled):
        await directory.account_of(DIGEST)


@pytest.mark.parametrize(
    ("access", "refusal"),
    [
        (AccountAccess(sending_enabled=False, suspended=False), SendingNotEnabled),
        (AccountAccess(sending_enabled=True, suspended=True), AccountSuspended),
        (AccountAccess(sending_enabled=False, suspended=True), AccountSuspended),
    ],
)
async def test_an_account_that_may_not_send_is_told_why(directory, store, access, refusal):
    store.accounts[ACCOUNT] = access
    for _ in range(2):
        with pytest.raises(refusal):
            await directory.require_sending(ACCOUNT)


@pytest.mark.parametrize("account_id", [OTHER, "", "no id", "a\0b"])
async def test_an_account_that_does_not_exist_may_not_send(directory, account_id):
    with pytest.raises(NotFound):
        await directory.require_sending(account_id)


async def test_what_is_new_is_found_at_once_though_it_was_unknown_before(directory, store):
    with pytest.raises(UnknownApiKey):
        await directory.account_of(digest_of(5))
    store.keys[digest_of(5)] = KeyAccess(OTHER, True, None)
    assert await directory.account_of(digest_of(5)) == OTHER
