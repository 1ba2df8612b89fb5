"""Accounts and API keys on a database: what is stored, what is undone, what is answered again."""

import asyncio
from dataclasses import replace

import pytest
import sqlalchemy as sa

from hydrasms_base.ids import is_id, new_id
from hydrasms_base.keys import digest_key, display_prefix, generate_key, is_plausible
from hydrasms_core.accounts import store
from hydrasms_core.accounts.model import (
    AccountAccess,
    AccountChange,
    ApiKey,
    ImportedKey,
    NewAccount,
    NewKey,
    Plan,
)
from hydrasms_core.accounts.service import Accounts
from hydrasms_core.accounts.tables import accounts as accounts_table
from hydrasms_core.accounts.tables import api_keys
from hydrasms_core.db.transaction import IntegrityViolation
from hydrasms_core.errors import (
    AlreadyExists,
    IdempotencyMismatch,
    InvalidArgument,
    InvalidIdempotencyKey,
    NotFound,
)
from tests.support.accounts import FakeLedger, WatchedDatabase
from tests.support.databases import ON_SQLITE

DAY_MS = 24 * 3_600_000
DIGEST = "ab" * 32


@pytest.fixture
def ledger():
    return FakeLedger()


@pytest.fixture
def notified():
    return []


@pytest.fixture
def accounts(database, ledger, clock, notified):
    return Accounts(database, ledger, clock, lambda: notified.append(clock.now_ms()))


@pytest.fixture
async def account(accounts):
    return (await accounts.create(NewAccount("Hep"), actor="service")).account


async def version(database):
    return await database.read(store.access_version)


async def count(database, table):
    return await database.read(lambda tx: rows_of(tx, table))


async def rows_of(tx, table):
    return (await tx.execute(sa.select(sa.func.count()).select_from(table))).scalar_one()


async def test_an_account_is_created_as_asked(accounts, clock):
    created = await accounts.create(NewAccount("Hep", Plan.PREMIUM, sending_enabled=False), actor="service")
    assert is_id(created.account.id)
    assert created.account.name == "Hep"
    assert created.account.plan is Plan.PREMIUM
    assert (created.account.sending_enabled, created.account.suspended) == (False, False)
    assert created.account.created_at_ms == created.account.updated_at_ms == clock.now_ms()
    assert (created.key, created.secret, created.replayed) == (None, None, False)
    assert await accounts.get(created.account.id) == created.account


async def test_an_account_opens_its_balance(accounts, ledger):
    created = await accounts.create(NewAccount("Hep", initial_credits=1_000), actor="service")
    assert ledger.opened == [(created.account.id, 1_000, "service", created.account.created_at_ms)]


async def test_an_account_may_come_with_its_first_key(accounts, database):
    created = await accounts.create(NewAccount("Hep", with_key=True), actor="service")
    key, secret = created.key, created.secret.reveal()
    assert is_plausible(secret)
    assert (key.account_id, key.prefix) == (created.account.id, display_prefix(secret))
    assert (key.enabled, key.imported, key.expires_at_ms) == (True, False, None)
    access = await database.read(lambda tx: store.key_access(tx, digest_key(secret)))
    assert access.account_id == created.account.id


async def test_a_ledger_that_fails_leaves_no_account(accounts, ledger, database):
    ledger.failure = ZeroDivisionError()
    with pytest.raises(ZeroDivisionError):
        await accounts.create(NewAccount("Hep", with_key=True, idempotency_key="k"), actor="service")
    assert await count(database, accounts_table) == 0
    assert await count(database, api_keys) == 0
    ledger.failure = None
    created = await accounts.create(NewAccount("Hep", with_key=True, idempotency_key="k"), actor="service")
    assert not created.replayed


@pytest.mark.parametrize("new", [NewAccount(""), NewAccount("x", initial_credits=-1)])
async def test_an_account_out_of_bounds_is_refused_and_nothing_is_stored(accounts, database, new):
    with pytest.raises(InvalidArgument):
        await accounts.create(new, actor="service")
    assert await count(database, accounts_table) == 0


async def test_a_repeated_creation_is_answered_again_without_the_secret(accounts, ledger, database):
    new = NewAccount("Hep", initial_credits=5, with_key=True, idempotency_key="once")
    first = await accounts.create(new, actor="service")
    await accounts.create_key(NewKey(first.account.id, "another"))
    again = await accounts.create(new, actor="service")
    assert (again.account, again.key) == (first.account, first.key)
    assert (again.secret, again.replayed) == (None, True)
    assert len(ledger.opened) == 1
    assert await count(database, accounts_table) == 1


async def test_a_repeated_creation_shows_the_account_as_it_is_now(accounts):
    new = NewAccount("Hep", with_key=True, idempotency_key="once")
    first = await accounts.create(new, actor="service")
    await accounts.delete_key(first.key.id)
    await accounts.update(first.account.id, AccountChange(name="Hepp"))
    again = await accounts.create(new, actor="service")
    assert (again.account.name, again.key) == ("Hepp", None)


async def test_two_creations_at_once_with_one_key_create_once(accounts, database):
    new = NewAccount("Hep", with_key=True, idempotency_key="once")
    answers = await asyncio.gather(*(accounts.create(new, actor="service") for _ in range(20)))
    assert len({answer.account.id for answer in answers}) == 1
    assert [answer.replayed for answer in answers].count(False) == 1
    assert await count(database, api_keys) == 1


@pytest.mark.parametrize(
    "other",
    [
        {"name": "Other"},
        {"plan": Plan.PREMIUM},
        {"sending_enabled": False},
        {"initial_credits": 1},
        {"with_key": True},
    ],
)
async def test_an_idempotency_key_is_for_one_request(accounts, other):
    new = NewAccount("Hep", idempotency_key="once")
    await accounts.create(new, actor="service")
    with pytest.raises(IdempotencyMismatch):
        await accounts.create(replace(new, **other), actor="service")


async def test_an_idempotency_key_has_a_form(accounts, account):
    with pytest.raises(InvalidIdempotencyKey):
        await accounts.create(NewAccount("Hep", idempotency_key=""), actor="service")
    with pytest.raises(InvalidIdempotencyKey):
        await accounts.create_key(NewKey(account.id, idempotency_key="é"))
    with pytest.raises(InvalidIdempotencyKey):
        await accounts.rotate_key(new_id(), idempotency_key="x" * 256)


@pytest.mark.parametrize("account_id", ["", "no id", "018f0000-0000-7000-8000-000000000001", "a\0b"])
async def test_an_account_that_does_not_exist_is_not_found(accounts, account_id):
    with pytest.raises(NotFound):
        await accounts.get(account_id)
    with pytest.raises(NotFound):
        await accounts.update(account_id, AccountChange(name="x"))
    with pytest.raises(NotFound):
        await accounts.create_key(NewKey(account_id))
    with pytest.raises(NotFound):
        await accounts.list_keys(account_id, 0, "")


async def test_accounts_are_listed_newest_first_in_pages(accounts):
    ids = [(await accounts.create(NewAccount(f"{n}"), actor="service")).account.id for n in range(5)]
    listed, token = [], ""
    for expected in (2, 2, 1):
        page = await accounts.list_accounts(2, token)
        assert len(page.rows) == expected
        listed += [row.id for row in page.rows]
        token = page.next_token
    assert (listed, token) == (ids[::-1], "")


async def test_an_update_changes_what_is_set_and_leaves_the_rest(accounts, account, clock):
    clock.advance(1)
    updated = await accounts.update(account.id, AccountChange(plan=Plan.PREMIUM, suspended=True))
    expected = replace(account, plan=Plan.PREMIUM, suspended=True, updated_at_ms=clock.now_ms())
    assert updated == expected == await accounts.get(account.id)
    lifted = await accounts.update(account.id, AccountChange(name="Hepp", suspended=False))
    assert (lifted.name, lifted.plan, lifted.suspended) == ("Hepp", Plan.PREMIUM, False)


async def test_an_update_touches_no_other_account(accounts, account):
    other = (await accounts.create(NewAccount("Other"), actor="service")).account
    await accounts.update(account.id, AccountChange(name="x", suspended=True))
    assert await accounts.get(other.id) == other


async def test_an_update_that_changes_nothing_is_no_change(accounts, account, clock, database):
    clock.advance(1)
    for change in (AccountChange(), AccountChange(name="Hep", plan=Plan.FREE, suspended=False)):
        assert await accounts.update(account.id, change) == account
    assert await version(database) == 0


async def test_an_update_out_of_bounds_is_refused(accounts, account):
    with pytest.raises(InvalidArgument):
        await accounts.update(account.id, AccountChange(name="x" * 201))
    assert await accounts.get(account.id) == account


# ---- changes, constraints, rivals ----


async def test_every_change_of_what_exists_counts_once(accounts, account, database, notified):
    key = (await accounts.create_key(NewKey(account.id))).key
    assert await version(database) == 0  # nobody can have remembered what is new
    changes = [
        lambda: accounts.update(account.id, AccountChange(name="Hepp")),
        lambda: accounts.update(account.id, AccountChange(suspended=True)),
        lambda: accounts.set_key_enabled(key.id, enabled=False),
        lambda: accounts.set_key_enabled(key.id, enabled=True),
        lambda: accounts.rotate_key(key.id),
        lambda: accounts.delete_key(key.id),
    ]
    for number, change in enumerate(changes, start=1):
        notified.clear()
        await change()
        assert await version(database) == number
        assert len(notified) == 1
    await accounts.set_key_enabled((await accounts.create_key(NewKey(account.id))).key.id, enabled=True)
    assert await version(database) == len(changes)


async def test_a_change_that_is_undone_does_not_count(database, account, accounts):
    async def work(tx):
        await store.update_account(tx, account.id, AccountChange(suspended=True), at_ms=1)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await database.write(work)
    assert await version(database) == 0
    assert await accounts.get(account.id) == account


async def test_the_database_itself_keeps_digests_apart_and_keys_with_their_accounts(database, account):
    key = ApiKey(new_id(), account.id, "", "", True, False, 1)
    await database.write(lambda tx: store.insert_key(tx, key, DIGEST))
    for bad, digest in (
        (replace(key, id=new_id()), DIGEST),
        (replace(key, id=new_id(), account_id=new_id()), "0" * 64),
    ):
        with pytest.raises(IntegrityViolation):
            await database.write(lambda tx, bad=bad, digest=digest: store.insert_key(tx, bad, digest))


class Beaten(WatchedDatabase):
    """A database where a rival commits the same just before: the first write is refused by a constraint."""

    def __init__(self, database, rival):
        super().__init__(database)
        self._rival = rival

    async def write(self, work, landed=None):
        if self._rival is not None:
            rival, self._rival = self._rival, None
            await rival()
            raise IntegrityViolation("another was first")
        return await super().write(work, landed)


async def test_a_creation_that_another_process_made_just_before_is_a_replay(
    accounts, database, ledger, clock
):
    new = NewAccount("Hep", idempotency_key="once")
    beaten = Beaten(database, lambda: accounts.create(new, actor="service"))
    answer = await Accounts(beaten, ledger, clock, lambda: None).create(new, actor="service")
    assert answer.replayed
    assert await count(database, accounts_table) == 1


async def test_a_key_that_another_process_took_over_just_before_exists_already(
    accounts, account, database, ledger, clock
):
    new = NewKey(account.id, imported=ImportedKey(DIGEST, ""))
    beaten = Beaten(database, lambda: accounts.create_key(new))
    with pytest.raises(AlreadyExists):
        await Accounts(beaten, ledger, clock, lambda: None).create_key(new)


# ---- secrets ----


def files_that_hold(folder, needle):
    return [path.name for path in folder.glob("hydrasms.db*") if needle in path.read_bytes()]


@ON_SQLITE
async def test_keys_are_stored_as_digests_alone(accounts, account, database_target):
    keys = []
    for number in range(100):
        new = NewKey(account.id, f"key {number}", idempotency_key=f"once-{number}")
        keys.append((await accounts.create_key(new)).secret.reveal())
    rotated = await accounts.rotate_key((await accounts.list_keys(account.id, 1, "")).rows[0].id)
    keys.append(rotated.issued.secret.reveal())
    for key in keys:
        assert files_that_hold(database_target.parent, key.encode()) == []
        assert files_that_hold(database_target.parent, key[9:].encode()) == []
        # The digest is there, so the search reads what was written.
        assert files_that_hold(database_target.parent, digest_key(key).encode())


@ON_SQLITE
async def test_control_a_key_that_is_stored_in_the_clear_is_found(accounts, account, database_target):
    planted = generate_key()
    await accounts.create_key(NewKey(account.id, planted))
    assert files_that_hold(database_target.parent, planted.encode())


async def test_what_decides_about_many_keys_is_what_decides_about_each(accounts, database):
    made = [await accounts.create(NewAccount(f"{n}", with_key=True), actor="service") for n in range(5)]
    await accounts.update(made[1].account.id, AccountChange(suspended=True))
    await accounts.update(made[2].account.id, AccountChange(sending_enabled=False))
    await accounts.set_key_enabled(made[3].key.id, enabled=False)
    digests = [digest_key(each.secret.reveal()) for each in made]
    unknown = [f"{number:064x}" for number in range(1_000)]

    async def look(tx):
        together = await store.senders(tx, [*digests, *unknown])
        apart = {}
        for digest in digests:
            key = await store.key_access(tx, digest)
            assert key is not None
            apart[digest] = (key, await store.account_access(tx, key.account_id))
        return together, apart

    together, apart = await database.read(look)
    assert together == apart
    assert [(key.enabled, account) for key, account in (together[digest] for digest in digests)] == [
        (True, AccountAccess(True, False)),
        (True, AccountAccess(True, True)),
        (True, AccountAccess(False, False)),
        (False, AccountAccess(True, False)),
        (True, AccountAccess(True, False)),
    ]
    # Truths, and not what a database may hold in their place.
    assert {type(key.enabled) for key, _ in together.values()} == {bool}
    assert await database.read(lambda tx: store.senders(tx, unknown)) == {}
