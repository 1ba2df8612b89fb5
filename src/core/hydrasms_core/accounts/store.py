"""All SQL about accounts and API keys."""

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from hydrasms_core.accounts.model import Account, AccountAccess, AccountChange, ApiKey, KeyAccess, Plan
from hydrasms_core.accounts.tables import access_changes, accounts, api_keys
from hydrasms_core.db.dialect import SetStatement
from hydrasms_core.db.transaction import Transaction
from hydrasms_core.paging import PageRequest

# In the order in which `_account` and `_api_key` read them.
_ACCOUNT = (
    accounts.c.id,
    accounts.c.name,
    accounts.c.plan,
    accounts.c.sending_enabled,
    accounts.c.suspended,
    accounts.c.created_at_ms,
    accounts.c.updated_at_ms,
)
_API_KEY = (
    api_keys.c.id,
    api_keys.c.account_id,
    api_keys.c.name,
    api_keys.c.prefix,
    api_keys.c.enabled,
    api_keys.c.imported,
    api_keys.c.created_at_ms,
    api_keys.c.expires_at_ms,
)

_COUNT_A_CHANGE = sa.text(
    "INSERT INTO access_changes (id, version) VALUES (1, 1)"
    " ON CONFLICT (id) DO UPDATE SET version = access_changes.version + 1"
)

_FIND_SENDERS = SetStatement(
    "SELECT k.digest, k.account_id, k.enabled, k.expires_at_ms, a.sending_enabled, a.suspended"
    " FROM {rows} JOIN api_keys AS k ON k.digest = r.digest LEFT JOIN accounts AS a ON a.id = k.account_id",
    ("digest",),
)


async def insert_account(tx: Transaction, account: Account) -> None:
    """Store a new account."""
    await tx.execute(
        sa.insert(accounts).values(
            id=account.id,
            name=account.name,
            plan=account.plan.value,
            sending_enabled=account.sending_enabled,
            suspended=account.suspended,
            created_at_ms=account.created_at_ms,
            updated_at_ms=account.updated_at_ms,
        )
    )


async def get_account(tx: Transaction, account_id: str) -> Account | None:
    """Return one account, or None."""
    found = await tx.execute(sa.select(*_ACCOUNT).where(accounts.c.id == account_id))
    row = found.one_or_none()
    return None if row is None else _account(row)


async def hold_account(tx: Transaction, account_id: str) -> Account | None:
    """Return one account, or None, and keep everybody else from changing it until the transaction ends."""
    # Keys may be added meanwhile: they refer to the account and change nothing of it.
    query = sa.select(*_ACCOUNT).where(accounts.c.id == account_id).with_for_update(key_share=True)
    row = (await tx.execute(query)).one_or_none()
    return None if row is None else _account(row)


async def list_accounts(tx: Transaction, page: PageRequest) -> list[Account]:
    """Return up to one account more than the page holds, newest first."""
    query = sa.select(*_ACCOUNT)
    if page.before is not None:
        query = query.where(accounts.c.id < page.before)
    found = await tx.execute(query.order_by(accounts.c.id.desc()).limit(page.size + 1))
    return [_account(row) for row in found]


async def update_account(tx: Transaction, account_id: str, change: AccountChange, *, at_ms: int) -> None:
    """Change what is set, and nothing else, of an account."""
    values: dict[str, Any] = {
        "name": change.name,
        "plan": None if change.plan is None else change.plan.value,
        "sending_enabled": change.sending_enabled,
        "suspended": change.suspended,
    }
    changed = {column: value for column, value in values.items() if value is not None}
    await tx.execute(
        sa.update(accounts).where(accounts.c.id == account_id).values(**changed, updated_at_ms=at_ms)
    )
    await tx.execute(_COUNT_A_CHANGE)


async def insert_key(tx: Transaction, key: ApiKey, digest: str) -> None:
    """Store a new API key under its digest."""
    await tx.execute(
        sa.insert(api_keys).values(
            id=key.id,
            account_id=key.account_id,
            name=key.name,
            prefix=key.prefix,
            digest=digest,
            enabled=key.enabled,
            imported=key.imported,
            created_at_ms=key.created_at_ms,
            expires_at_ms=key.expires_at_ms,
        )
    )


async def get_key(tx: Transaction, key_id: str) -> ApiKey | None:
    """Return what is known about a key, or None."""
    found = await tx.execute(sa.select(*_API_KEY).where(api_keys.c.id == key_id))
    row = found.one_or_none()
    return None if row is None else _api_key(row)


async def get_first_key(tx: Transaction, account: Account) -> ApiKey | None:
    """Return the key that was created together with its account, or None where none was or it is gone."""
    found = await tx.execute(
        sa.select(*_API_KEY)
        .where(api_keys.c.account_id == account.id, api_keys.c.created_at_ms == account.created_at_ms)
        .order_by(api_keys.c.id)
        .limit(1)
    )
    row = found.one_or_none()
    return None if row is None else _api_key(row)


async def list_keys(tx: Transaction, account_id: str, page: PageRequest) -> list[ApiKey]:
    """Return up to one key more than the page holds, newest first."""
    query = sa.select(*_API_KEY).where(api_keys.c.account_id == account_id)
    if page.before is not None:
        query = query.where(api_keys.c.id < page.before)
    found = await tx.execute(query.order_by(api_keys.c.id.desc()).limit(page.size + 1))
    return [_api_key(row) for row in found]


async def set_key_enabled(tx: Transaction, key_id: str, *, enabled: bool) -> None:
    """Enable or disable a key; changes nothing where it is so already."""
    result = await tx.execute(
        sa.update(api_keys)
        .where(api_keys.c.id == key_id, api_keys.c.enabled != sa.literal(enabled))
        .values(enabled=enabled)
    )
    await _count_if_any(tx, result.rowcount)


async def set_key_end(tx: Transaction, key_id: str, *, expires_at_ms: int) -> None:
    """Let a key end at a time."""
    result = await tx.execute(
        sa.update(api_keys).where(api_keys.c.id == key_id).values(expires_at_ms=expires_at_ms)
    )
    await _count_if_any(tx, result.rowcount)


async def delete_key(tx: Transaction, key_id: str) -> bool:
    """Forget a key; tells whether there was one."""
    result = await tx.execute(sa.delete(api_keys).where(api_keys.c.id == key_id))
    await _count_if_any(tx, result.rowcount)
    return result.rowcount > 0


async def access_version(tx: Transaction) -> int:
    """Return how often an account or a key has been changed."""
    found = await tx.execute(sa.select(access_changes.c.version).where(access_changes.c.id == 1))
    return int(found.scalar_one_or_none() or 0)


async def key_access(tx: Transaction, digest: str) -> KeyAccess | None:
    """Return what decides about a key, or None where nobody has it."""
    found = await tx.execute(
        sa.select(api_keys.c.account_id, api_keys.c.enabled, api_keys.c.expires_at_ms).where(
            api_keys.c.digest == digest
        )
    )
    row = found.one_or_none()
    return None if row is None else KeyAccess(row.account_id, row.enabled, row.expires_at_ms)


async def account_access(tx: Transaction, account_id: str) -> AccountAccess | None:
    """Return what decides about an account, or None where there is none."""
    found = await tx.execute(
        sa.select(accounts.c.sending_enabled, accounts.c.suspended).where(accounts.c.id == account_id)
    )
    row = found.one_or_none()
    return None if row is None else AccountAccess(row.sending_enabled, row.suspended)


async def senders(
    tx: Transaction, digests: Sequence[str]
) -> dict[str, tuple[KeyAccess, AccountAccess | None]]:
    """Return what decides about many keys and their accounts, by the keys' digests; unknown ones are left out."""
    rows = await tx.execute_set(_FIND_SENDERS, [(digest,) for digest in digests])
    return {
        digest: (
            KeyAccess(account_id, bool(enabled), expires_at_ms),
            None if suspended is None else AccountAccess(bool(sending_enabled), bool(suspended)),
        )
        for digest, account_id, enabled, expires_at_ms, sending_enabled, suspended in rows
    }


async def _count_if_any(tx: Transaction, changed_rows: int) -> None:
    if changed_rows:
        await tx.execute(_COUNT_A_CHANGE)


def _account(row: Sequence[Any]) -> Account:
    return Account(row[0], row[1], Plan(row[2]), row[3], row[4], row[5], row[6])


def _api_key(row: Sequence[Any]) -> ApiKey:
    return ApiKey(row[0], row[1], row[2], row[3], row[4], row[5], row[6], row[7])
