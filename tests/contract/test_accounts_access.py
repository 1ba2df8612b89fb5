"""Two core processes on one database: what one changes, the other knows within a second."""

import asyncio

import pytest

from hydrasms_base.keys import digest_key
from hydrasms_core.accounts import store
from hydrasms_core.accounts.directory import AccessDirectory
from hydrasms_core.accounts.model import AccountChange, NewAccount, NewKey
from hydrasms_core.accounts.service import Accounts
from hydrasms_core.errors import AccountSuspended, ApiKeyDisabled, NotFound, SendingNotEnabled, UnknownApiKey
from tests.support.accounts import FakeLedger, WatchedDatabase, within_bounds

SECOND = 1.0


@pytest.fixture
def here(database, clock):
    return AccessDirectory(database, store, clock)


@pytest.fixture
def watched(database):
    return WatchedDatabase(database)


@pytest.fixture
def elsewhere(watched, clock):
    """The directory of another process; nobody tells it of changes."""
    return AccessDirectory(watched, store, clock)


@pytest.fixture
def accounts(database, here, clock):
    return Accounts(database, FakeLedger(), clock, here.recheck)


@pytest.fixture
async def created(accounts, here, elsewhere):
    """An account with a key that both processes have used already."""
    created = await accounts.create(NewAccount("Hep", with_key=True), actor="service")
    for directory in (here, elsewhere):
        assert await directory.account_of(digest_key(created.secret.reveal())) == created.account.id
        await directory.require_sending(created.account.id)
    return created


@pytest.fixture
def digest(created):
    return digest_key(created.secret.reveal())


async def test_a_disabled_key_is_refused_here_at_once_and_elsewhere_within_a_second(
    accounts, created, digest, here, elsewhere, clock
):
    await accounts.set_key_enabled(created.key.id, enabled=False)
    with pytest.raises(ApiKeyDisabled):
        await here.account_of(digest)
    # Elsewhere it is still remembered, so it takes the second to see the change: the wait proves something.
    assert await elsewhere.account_of(digest) == created.account.id
    clock.advance(SECOND)
    with pytest.raises(ApiKeyDisabled):
        await elsewhere.account_of(digest)
    await accounts.set_key_enabled(created.key.id, enabled=True)
    assert await here.account_of(digest) == created.account.id
    clock.advance(SECOND)
    assert await elsewhere.account_of(digest) == created.account.id


async def test_a_deleted_key_is_unknown_here_at_once_and_elsewhere_within_a_second(
    accounts, created, digest, here, elsewhere, clock
):
    await accounts.delete_key(created.key.id)
    with pytest.raises(UnknownApiKey):
        await here.account_of(digest)
    clock.advance(SECOND)
    with pytest.raises(UnknownApiKey):
        await elsewhere.account_of(digest)


@pytest.mark.parametrize(
    ("change", "refusal"),
    [
        (AccountChange(suspended=True), AccountSuspended),
        (AccountChange(sending_enabled=False), SendingNotEnabled),
    ],
)
async def test_an_account_that_may_not_send_is_refused_here_at_once_and_elsewhere_within_a_second(
    accounts, created, here, elsewhere, clock, change, refusal
):
    await accounts.update(created.account.id, change)
    with pytest.raises(refusal):
        await here.require_sending(created.account.id)
    await elsewhere.require_sending(created.account.id)
    clock.advance(SECOND)
    with pytest.raises(refusal):
        await elsewhere.require_sending(created.account.id)


async def test_a_replaced_key_works_through_its_overlap_and_not_a_moment_longer(
    accounts, created, digest, here, elsewhere, clock
):
    rotated = await accounts.rotate_key(created.key.id, overlap_ms=10_000)
    successor = digest_key(rotated.issued.secret.reveal())
    clock.advance(9.999)
    for directory in (here, elsewhere):
        assert await directory.account_of(digest) == created.account.id
        assert await directory.account_of(successor) == created.account.id
    clock.advance(0.001)
    for directory in (here, elsewhere):
        with pytest.raises(ApiKeyDisabled):
            await directory.account_of(digest)
        assert await directory.account_of(successor) == created.account.id


async def test_a_key_replaced_without_an_overlap_is_refused_at_once(accounts, created, digest, here):
    await accounts.rotate_key(created.key.id, overlap_ms=0)
    with pytest.raises(ApiKeyDisabled):
        await here.account_of(digest)


async def test_a_new_key_works_everywhere_at_once(accounts, created, elsewhere):
    issued = await accounts.create_key(NewKey(created.account.id))
    assert await elsewhere.account_of(digest_key(issued.secret.reveal())) == created.account.id


async def test_an_account_that_does_not_exist_is_not_found(elsewhere):
    with pytest.raises(NotFound):
        await elsewhere.require_sending("018f0000-0000-7000-8000-000000000001")


async def test_a_row_read_before_a_change_is_not_kept_after_it(accounts, created, elsewhere, watched, clock):
    secret = (await accounts.create_key(NewKey(created.account.id))).secret.reveal()
    racing_digest = digest_key(secret)
    key_id = (await accounts.list_keys(created.account.id, 1, "")).rows[0].id
    held = watched.hold_next()
    racing = asyncio.create_task(elsewhere.account_of(racing_digest))
    await held.arrived()
    await accounts.set_key_enabled(key_id, enabled=False)
    clock.advance(0.51)
    await elsewhere.account_of(digest_key(created.secret.reveal()))
    held.release()
    # It began before the change, so it may still be let in; nobody after it.
    assert await within_bounds(racing) == created.account.id
    with pytest.raises(ApiKeyDisabled):
        await elsewhere.account_of(racing_digest)


async def test_other_keys_outlive_a_change_at_the_cost_of_one_read_each(
    accounts, created, digest, elsewhere, watched, clock
):
    await accounts.update(created.account.id, AccountChange(name="Hepp"))
    clock.advance(SECOND)
    reads = watched.reads
    for _ in range(10):
        await elsewhere.account_of(digest)
        await elsewhere.require_sending(created.account.id)
    assert watched.reads == reads + 3
