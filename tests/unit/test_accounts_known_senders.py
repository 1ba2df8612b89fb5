"""What the directory tells of many keys at once, from memory alone: never anything else than it tells of one."""

import asyncio

import pytest

from hydrasms_core.accounts.directory import AccessDirectory
from hydrasms_core.accounts.model import AccountAccess, KeyAccess
from hydrasms_core.errors import (
    AccountSuspended,
    ApiKeyDisabled,
    DomainError,
    NotFound,
    SendingNotEnabled,
    StoreUnavailable,
    UnknownApiKey,
)
from tests.support.accounts import FakeAccessStore, NoDatabase, WatchedDatabase, within_bounds

ACCOUNT = "018f0000-0000-7000-8000-000000000001"
MISSING = "018f0000-0000-7000-8000-000000000002"
DIGEST = "ab" * 32
OPEN = AccountAccess(sending_enabled=True, suspended=False)


@pytest.fixture
def store():
    store = FakeAccessStore()
    store.keys[DIGEST] = KeyAccess(ACCOUNT, True, None)
    store.accounts[ACCOUNT] = OPEN
    return store


@pytest.fixture
def database():
    return WatchedDatabase(NoDatabase())


@pytest.fixture
def directory(database, store, clock):
    return AccessDirectory(database, store, clock)


async def alone(directory, digest):
    """Return what the two questions about one key are answered with, one after the other, or the refusal."""
    try:
        account_id = await directory.account_of(digest)
        await directory.require_sending(account_id)
    except DomainError as error:
        return type(error), error.message
    return account_id


async def together(directory, *digests):
    """Return the same from the question about many."""
    found = await directory.senders_of(digests)
    assert found.keys() == set(digests)
    return [(type(each), each.message) if isinstance(each, DomainError) else each for each in found.values()]


def known(directory, digest):
    try:
        return directory.known_sender(digest)
    except DomainError as error:
        return type(error), error.message


async def test_memory_tells_nothing_before_it_has_seen_key_and_account(directory):
    assert directory.known_sender(DIGEST) is None
    await directory.refresh()
    assert directory.known_sender(DIGEST) is None
    await directory.account_of(DIGEST)
    assert directory.known_sender(DIGEST) is None
    await directory.require_sending(ACCOUNT)
    assert directory.known_sender(DIGEST) == ACCOUNT


async def test_many_keys_are_one_read_and_known_from_then_on(directory, database, store):
    digests = [DIGEST]
    for number in range(100):
        account_id = f"018f0000-0000-7000-8000-{number:012x}"
        store.accounts[account_id] = OPEN
        store.keys[f"{number:064x}"] = KeyAccess(account_id, True, None)
        digests.append(f"{number:064x}")
    found = await directory.senders_of(digests)
    assert database.reads == 1
    assert found[DIGEST] == ACCOUNT
    assert [found[digest] for digest in digests] == [directory.known_sender(digest) for digest in digests]
    assert [await directory.account_of(digest) for digest in digests] == list(found.values())
    assert database.reads == 1


async def test_what_is_known_is_told_without_a_read(directory, database):
    await directory.senders_of([DIGEST])
    reads = database.reads
    for _ in range(10):
        assert directory.known_sender(DIGEST) == ACCOUNT
        await directory.refresh()
    assert database.reads == reads


async def test_what_is_no_digest_is_unknown_and_not_read(directory, database):
    assert await together(directory, "nonsense", "A" * 64) == [await alone(directory, "nonsense")] * 2
    reads = database.reads
    await directory.senders_of(["nonsense"])
    assert database.reads == reads


async def test_memory_tells_nothing_once_its_version_is_old_and_again_when_that_was_read(
    directory, database, clock
):
    await directory.senders_of([DIGEST])
    clock.advance(0.51)
    assert directory.known_sender(DIGEST) is None
    reads = database.reads
    await directory.refresh()
    assert directory.known_sender(DIGEST) == ACCOUNT
    assert database.reads == reads + 1


async def test_a_change_elsewhere_is_forgotten_by_the_next_refresh(directory, store, clock):
    await directory.senders_of([DIGEST])
    store.change_key(DIGEST, KeyAccess(ACCOUNT, False, None))
    clock.advance(0.51)
    await directory.refresh()
    assert directory.known_sender(DIGEST) is None
    (refusal,) = (await directory.senders_of([DIGEST])).values()
    assert isinstance(refusal, ApiKeyDisabled)


async def test_an_own_change_is_never_missed(directory, database, store):
    await directory.senders_of([DIGEST])
    held = database.hold_next()
    reading = asyncio.create_task(directory.senders_of([DIGEST]))
    await held.arrived()
    store.change_key(DIGEST, KeyAccess(ACCOUNT, False, None))
    directory.recheck()
    held.release()
    # It was asked before the change, and may be told what held then; nobody else is.
    await within_bounds(reading)
    assert directory.known_sender(DIGEST) is None
    assert (await alone(directory, DIGEST))[0] is ApiKeyDisabled


async def test_a_store_that_is_away_is_told(directory, database):
    database.failure = StoreUnavailable()
    with pytest.raises(StoreUnavailable):
        await directory.refresh()
    with pytest.raises(StoreUnavailable):
        await directory.senders_of([DIGEST])


@pytest.mark.parametrize(
    ("key", "account", "refusal"),
    [
        (None, OPEN, UnknownApiKey),
        (KeyAccess(ACCOUNT, False, None), OPEN, ApiKeyDisabled),
        (KeyAccess(ACCOUNT, True, 1), OPEN, ApiKeyDisabled),
        (KeyAccess(MISSING, True, None), OPEN, NotFound),
        (KeyAccess(ACCOUNT, True, None), AccountAccess(True, True), AccountSuspended),
        (KeyAccess(ACCOUNT, True, None), AccountAccess(False, False), SendingNotEnabled),
        # The key is judged first.
        (KeyAccess(ACCOUNT, False, None), AccountAccess(False, True), ApiKeyDisabled),
    ],
)
async def test_refusals_are_those_of_the_two_questions_one_after_the_other(
    directory, store, key, account, refusal
):
    store.accounts[ACCOUNT] = account
    del store.keys[DIGEST]
    if key is not None:
        store.keys[DIGEST] = key

    expected = await alone(directory, DIGEST)
    assert expected[0] is refusal
    assert await together(directory, DIGEST) == [expected]
    # From memory it is the same or nothing at all: what does not exist is never remembered.
    assert known(directory, DIGEST) == (None if refusal in (UnknownApiKey, NotFound) else expected)


async def test_a_key_past_its_end_is_refused_from_memory_too(directory, store, clock):
    store.keys[DIGEST] = KeyAccess(ACCOUNT, True, clock.now_ms() + 100)
    assert await together(directory, DIGEST) == [ACCOUNT]
    clock.advance(0.1)
    with pytest.raises(ApiKeyDisabled):
        directory.known_sender(DIGEST)
