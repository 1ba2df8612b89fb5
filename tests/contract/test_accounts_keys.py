"""API keys on a database: made here or elsewhere, disabled, replaced, forgotten."""

from dataclasses import replace

import pytest
import sqlalchemy as sa

from hydrasms_base.keys import digest_key, is_plausible
from hydrasms_core.accounts import store
from hydrasms_core.accounts.model import ImportedKey, NewAccount, NewKey
from hydrasms_core.accounts.service import Accounts
from hydrasms_core.accounts.tables import api_keys
from hydrasms_core.errors import (
    AlreadyExists,
    IdempotencyMismatch,
    InvalidArgument,
    InvalidPageToken,
    NotFound,
)
from tests.support.accounts import FakeLedger

DAY_MS = 24 * 3_600_000
DIGEST = "ab" * 32


@pytest.fixture
def accounts(database, clock):
    return Accounts(database, FakeLedger(), clock, changed=lambda: None)


@pytest.fixture
async def account(accounts):
    return (await accounts.create(NewAccount("Hep"), actor="service")).account


async def count_keys(database):
    query = sa.select(sa.func.count()).select_from(api_keys)
    return (await database.read(lambda tx: tx.execute(query))).scalar_one()


async def test_a_key_is_created_with_its_name(accounts, account, database):
    issued = await accounts.create_key(NewKey(account.id, "web"))
    assert (issued.key.name, issued.key.account_id, issued.key.imported) == ("web", account.id, False)
    access = await database.read(lambda tx: store.key_access(tx, digest_key(issued.secret.reveal())))
    assert access.account_id == account.id


async def test_a_key_made_elsewhere_is_taken_over_by_its_digest(accounts, account, database):
    issued = await accounts.create_key(NewKey(account.id, "old", ImportedKey(DIGEST, "sk-12")))
    assert issued.secret is None
    assert (issued.key.imported, issued.key.prefix) == (True, "sk-12")
    access = await database.read(lambda tx: store.key_access(tx, DIGEST))
    assert access.account_id == account.id


async def test_a_key_is_taken_over_once_whoever_has_it(accounts, account):
    other = (await accounts.create(NewAccount("Other"), actor="service")).account
    await accounts.create_key(NewKey(account.id, imported=ImportedKey(DIGEST, "")))
    for account_id in (account.id, other.id):
        with pytest.raises(AlreadyExists) as caught:
            await accounts.create_key(NewKey(account_id, imported=ImportedKey(DIGEST, "")))
        assert caught.value.metadata == {"resource": "api key"}
        assert account.id not in caught.value.message


async def test_a_repeated_key_creation_is_answered_again_without_the_secret(accounts, account, database):
    new = NewKey(account.id, "web", idempotency_key="once")
    first, again = await accounts.create_key(new), await accounts.create_key(new)
    assert (again.key, again.secret, again.replayed) == (first.key, None, True)
    with pytest.raises(IdempotencyMismatch):
        await accounts.create_key(replace(new, name="other"))
    assert await count_keys(database) == 1


async def test_a_repeated_take_over_is_answered_again(accounts, account):
    new = NewKey(account.id, imported=ImportedKey(DIGEST, "sk"), idempotency_key="once")
    first, again = await accounts.create_key(new), await accounts.create_key(new)
    assert (first.replayed, again.replayed, again.key) == (False, True, first.key)
    for imported in (ImportedKey("cd" * 32, "sk"), ImportedKey(DIGEST, "s"), None):
        with pytest.raises(IdempotencyMismatch):
            await accounts.create_key(replace(new, imported=imported))


async def test_idempotency_keys_of_two_accounts_have_nothing_to_do_with_each_other(accounts, account):
    other = (await accounts.create(NewAccount("Other"), actor="service")).account
    for account_id in (account.id, other.id):
        issued = await accounts.create_key(NewKey(account_id, idempotency_key="once"))
        assert (issued.key.account_id, issued.replayed) == (account_id, False)


async def test_keys_are_listed_newest_first_and_only_those_of_the_account(accounts, account):
    other = (await accounts.create(NewAccount("Other", with_key=True), actor="service")).account
    ids = [(await accounts.create_key(NewKey(account.id))).key.id for _ in range(3)]
    first = await accounts.list_keys(account.id, 2, "")
    rest = await accounts.list_keys(account.id, 2, first.next_token)
    assert [row.id for row in (*first.rows, *rest.rows)] == ids[::-1]
    with pytest.raises(InvalidPageToken):
        await accounts.list_keys(other.id, 2, first.next_token)


async def test_a_key_is_disabled_and_enabled(accounts, account):
    key = (await accounts.create_key(NewKey(account.id))).key
    bystander = (await accounts.create_key(NewKey(account.id))).key
    for enabled in (False, False, True, True):
        assert await accounts.set_key_enabled(key.id, enabled=enabled) == replace(key, enabled=enabled)
    await accounts.set_key_enabled(key.id, enabled=False)
    assert (await accounts.list_keys(account.id, 0, "")).rows == [bystander, replace(key, enabled=False)]


async def test_a_deleted_key_is_gone(accounts, account):
    key, other = [(await accounts.create_key(NewKey(account.id))).key for _ in range(2)]
    await accounts.delete_key(key.id)
    assert (await accounts.list_keys(account.id, 0, "")).rows == [other]


@pytest.mark.parametrize("key_id", ["", "no id", "018f0000-0000-7000-8000-000000000001", "a\0b"])
async def test_a_key_that_does_not_exist_is_not_found(accounts, key_id):
    with pytest.raises(NotFound):
        await accounts.set_key_enabled(key_id, enabled=False)
    with pytest.raises(NotFound):
        await accounts.rotate_key(key_id)
    with pytest.raises(NotFound):
        await accounts.delete_key(key_id)


async def test_a_rotation_lets_the_old_key_end_and_names_the_successor_after_it(accounts, account, clock):
    old = (await accounts.create_key(NewKey(account.id, "web", ImportedKey(DIGEST, "sk")))).key
    rotated = await accounts.rotate_key(old.id)
    assert rotated.replaced == replace(old, expires_at_ms=clock.now_ms() + DAY_MS)
    successor = rotated.issued.key
    assert (successor.name, successor.account_id, successor.imported) == ("web", account.id, False)
    assert (successor.enabled, successor.expires_at_ms) == (True, None)
    assert is_plausible(rotated.issued.secret.reveal())
    assert (await accounts.list_keys(account.id, 0, "")).rows == [successor, rotated.replaced]


async def test_a_second_rotation_does_not_move_the_end_away(accounts, account, clock):
    old = (await accounts.create_key(NewKey(account.id))).key
    first = await accounts.rotate_key(old.id, overlap_ms=1_000)
    second = await accounts.rotate_key(old.id, overlap_ms=30 * DAY_MS)
    assert second.replaced.expires_at_ms == first.replaced.expires_at_ms == clock.now_ms() + 1_000


async def test_a_rotation_leaves_a_disabled_key_disabled(accounts, account):
    leaked = (await accounts.create_key(NewKey(account.id))).key
    await accounts.set_key_enabled(leaked.id, enabled=False)
    rotated = await accounts.rotate_key(leaked.id)
    assert (rotated.replaced.enabled, rotated.issued.key.enabled) == (False, True)


async def test_a_repeated_rotation_is_answered_again_without_the_secret(accounts, account, database, clock):
    old = (await accounts.create_key(NewKey(account.id))).key
    first = await accounts.rotate_key(old.id, overlap_ms=1_000, idempotency_key="once")
    clock.advance(60)
    again = await accounts.rotate_key(old.id, overlap_ms=1_000, idempotency_key="once")
    assert (again.issued.key, again.replaced) == (first.issued.key, first.replaced)
    assert (again.issued.secret, again.issued.replayed) == (None, True)
    with pytest.raises(IdempotencyMismatch):
        await accounts.rotate_key(old.id, overlap_ms=2_000, idempotency_key="once")
    assert await count_keys(database) == 2


@pytest.mark.parametrize("overlap_ms", [-1, 30 * DAY_MS + 1])
async def test_a_rotation_with_an_overlap_out_of_bounds_changes_nothing(accounts, account, overlap_ms):
    old = (await accounts.create_key(NewKey(account.id))).key
    with pytest.raises(InvalidArgument):
        await accounts.rotate_key(old.id, overlap_ms=overlap_ms)
    assert (await accounts.list_keys(account.id, 0, "")).rows == [old]
