"""Who may call and who may send, remembered, so that most calls ask the database nothing.

What is remembered holds for one version of the accounts (`access_changes`), and every row is read together with the
version that it belongs to. Three rules keep a change from being missed for longer than half a second:

1. A look-up trusts the memory only where the version was read within the last half second; else it reads it first.
2. A higher version empties the memory. A row that was read at any other version than the memory's is never kept.
3. After a change of its own, a process trusts nothing that was read, or begun to be read, before it.

Nothing is done while nobody asks, and what cannot be read is refused: the store's error goes to the caller.
"""

import asyncio
import math
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from hydrasms_base.clock import Clock
from hydrasms_base.ids import is_id
from hydrasms_core.accounts.model import AccountAccess, KeyAccess, is_digest
from hydrasms_core.db.transaction import Database, Transaction
from hydrasms_core.errors import (
    AccountSuspended,
    ApiKeyDisabled,
    DomainError,
    NotFound,
    SendingNotEnabled,
    UnknownApiKey,
)

Row = TypeVar("Row")
Sender = tuple[KeyAccess, AccountAccess | None]
"""A key and the account that it speaks for; None where that is gone."""

MAX_AGE_S = 0.5
"""For how long a version that was read stands for the present one."""

_NO_VERSION = -1
_VERSION = "version"


class AccessStore(Protocol):
    """What the directory reads of the accounts' store."""

    async def access_version(self, tx: Transaction) -> int:
        """Return the number of changes so far."""
        ...

    async def key_access(self, tx: Transaction, digest: str) -> KeyAccess | None:
        """Return what decides about a key, or None where nobody has it."""
        ...

    async def account_access(self, tx: Transaction, account_id: str) -> AccountAccess | None:
        """Return what decides about an account, or None where there is none."""
        ...

    async def senders(self, tx: Transaction, digests: Sequence[str]) -> dict[str, Sender]:
        """Return what decides about many keys and their accounts, by the keys' digests; unknown ones are left out."""
        ...


@dataclass(frozen=True, slots=True)
class _Reading:
    """A read that is under way, for all who want the same. `began` is when, `epoch` after how many own changes."""

    began: float
    epoch: int
    task: asyncio.Task[Any]


class AccessDirectory:
    """Answers who may call and who may send; a change made elsewhere is seen within half a second and one read.

    `max_entries` bounds the keys, and the accounts, that are remembered: one more pushes the oldest out. What does
    not exist is never remembered, so that asking for nonsense pushes nothing out.
    """

    def __init__(
        self, database: Database, store: AccessStore, clock: Clock, *, max_entries: int = 50_000
    ) -> None:
        self._database = database
        self._store = store
        self._clock = clock
        self._max_entries = max_entries
        self._keys: OrderedDict[str, KeyAccess] = OrderedDict()
        self._accounts: OrderedDict[str, AccountAccess] = OrderedDict()
        # All rows above were read at this version, and it was the database's own at `_checked_at` or later.
        self._version = _NO_VERSION
        self._checked_at = -math.inf
        self._epoch = 0
        self._readings: dict[str, _Reading] = {}

    async def account_of(self, digest: str) -> str:
        """Return the account that a key speaks for; raises UnknownApiKey, ApiKeyDisabled or StoreUnavailable."""
        oldest = self._clock.monotonic() - MAX_AGE_S
        if self._checked_at < oldest:
            await self._check_version(oldest)
        key = self._keys.get(digest)
        if key is None:
            key = await self._find_key(digest, oldest)
        return self._account_of(key)

    async def require_account(self, account_id: str) -> None:
        """Return where there is such an account; raises NotFound or StoreUnavailable."""
        await self._account(account_id)

    async def require_sending(self, account_id: str) -> None:
        """Return where an account may send.

        Raises NotFound, AccountSuspended, SendingNotEnabled or StoreUnavailable.
        """
        _check_sending(await self._account(account_id))

    def known_sender(self, digest: str) -> str | None:
        """Return, from memory alone, the account that a key speaks for where that may send; None where only the
        database can tell.

        Raises as `account_of` and then `require_sending`. For callers with many keys in hand, who call `refresh`
        first and ask `senders_of` about those that are left.
        """
        if self._checked_at < self._clock.monotonic() - MAX_AGE_S:
            return None
        key = self._keys.get(digest)
        if key is None:
            return None
        account_id = self._account_of(key)
        account = self._accounts.get(account_id)
        if account is None:
            return None
        _check_sending(account)
        return account_id

    async def senders_of(self, digests: Iterable[str]) -> dict[str, str | DomainError]:
        """Return for each of many keys its account, or the refusal that it would be raised; raises StoreUnavailable.

        All are read at once, remembered or not, and are remembered then.
        """
        asked = list(digests)
        wanted = [digest for digest in asked if is_digest(digest)]
        rows = await self._read_senders(wanted) if wanted else {}
        return {digest: self._judged(rows.get(digest)) for digest in asked}

    async def refresh(self) -> None:
        """Read the version where what was read of it is too old to be trusted; raises StoreUnavailable."""
        oldest = self._clock.monotonic() - MAX_AGE_S
        if self._checked_at < oldest:
            await self._check_version(oldest)

    def recheck(self) -> None:
        """Trust nothing until the version has been read again; to be called after every commit of a change."""
        self._epoch += 1
        self._checked_at = -math.inf

    async def _read_senders(self, digests: Sequence[str]) -> dict[str, Sender]:
        async def work(tx: Transaction) -> tuple[int, dict[str, Sender]]:
            # The version first, as below.
            return await self._store.access_version(tx), await self._store.senders(tx, digests)

        began, epoch = self._clock.monotonic(), self._epoch
        version, rows = await self._database.read(work)
        if self._adopt(version, began, epoch):
            for digest, (key, account) in rows.items():
                self._keep(self._keys, digest, key)
                if account is not None:
                    self._keep(self._accounts, key.account_id, account)
        return rows

    def _judged(self, sender: Sender | None) -> str | DomainError:
        try:
            if sender is None:
                raise _unknown()
            key, account = sender
            account_id = self._account_of(key)
            if account is None:
                raise NotFound("account")
            _check_sending(account)
        except DomainError as error:
            return error
        return account_id

    def _account_of(self, key: KeyAccess) -> str:
        if not key.enabled:
            raise ApiKeyDisabled("This API key is disabled.")
        if key.expires_at_ms is not None and key.expires_at_ms <= self._clock.now_ms():
            raise ApiKeyDisabled("This API key is past its end.")
        return key.account_id

    async def _account(self, account_id: str) -> AccountAccess:
        oldest = self._clock.monotonic() - MAX_AGE_S
        if self._checked_at < oldest:
            await self._check_version(oldest)
        account = self._accounts.get(account_id)
        if account is None:
            account = await self._find_account(account_id, oldest)
        return account

    async def _find_key(self, digest: str, oldest: float) -> KeyAccess:
        key = None
        if is_digest(digest):
            key = await self._row(self._keys, self._store.key_access, digest, oldest)
        if key is None:
            raise _unknown()
        return key

    async def _find_account(self, account_id: str, oldest: float) -> AccountAccess:
        account = None
        if is_id(account_id):
            account = await self._row(self._accounts, self._store.account_access, account_id, oldest)
        if account is None:
            raise NotFound("account")
        return account

    async def _check_version(self, oldest: float) -> None:
        async def read(began: float, epoch: int) -> None:
            self._adopt(await self._database.read(self._store.access_version), began, epoch)

        # Twice only where the first read was overtaken by a change.
        while self._checked_at < oldest:
            await self._read_once(_VERSION, oldest, read)

    async def _row(
        self,
        rows: OrderedDict[str, Row],
        find: Callable[[Transaction, str], Awaitable[Row | None]],
        name: str,
        oldest: float,
    ) -> Row | None:
        async def work(tx: Transaction) -> tuple[int, Row | None]:
            # The version first: a row that is newer than its version is only forgotten too early.
            return await self._store.access_version(tx), await find(tx, name)

        async def read(began: float, epoch: int) -> Row | None:
            version, row = await self._database.read(work)
            if self._adopt(version, began, epoch) and row is not None:
                self._keep(rows, name, row)
            return row

        return await self._read_once(name, oldest, read)

    async def _read_once(
        self, name: str, oldest: float, read: Callable[[float, int], Coroutine[Any, Any, Row]]
    ) -> Row:
        """Share a read with all who want the same now; one that began too long ago tells nothing of now."""
        reading = self._readings.get(name)
        if reading is None or reading.began < oldest or reading.epoch != self._epoch:
            began = self._clock.monotonic()
            task = asyncio.create_task(read(began, self._epoch))
            reading = self._readings[name] = _Reading(began, self._epoch, task)
            task.add_done_callback(lambda _: self._end(name, reading))
        # Shielded, for a caller that gives up must not take the answer away from the others.
        answer: Row = await asyncio.shield(reading.task)
        return answer

    def _end(self, name: str, reading: _Reading) -> None:
        if self._readings.get(name) is reading:
            del self._readings[name]

    def _adopt(self, version: int, began: float, epoch: int) -> bool:
        """Bring the memory to a version that was read; tells whether rows read with it may be kept."""
        if epoch != self._epoch:
            return False
        if version < self._version:
            # Either this read was overtaken or the database was set back; only another look can tell.
            self._empty(_NO_VERSION)
            self.recheck()
            return False
        if version > self._version:
            self._empty(version)
        self._checked_at = max(self._checked_at, began)
        return True

    def _empty(self, version: int) -> None:
        self._keys.clear()
        self._accounts.clear()
        self._version = version

    def _keep(self, rows: OrderedDict[str, Row], name: str, row: Row) -> None:
        if len(rows) >= self._max_entries and name not in rows:
            rows.popitem(last=False)
        rows[name] = row


def _unknown() -> UnknownApiKey:
    return UnknownApiKey(
        "This API key is unknown. Send the key alone as the Authorization header, with no scheme in front of it."
    )


def _check_sending(account: AccountAccess) -> None:
    if account.suspended:
        raise AccountSuspended("This account is suspended.")
    if not account.sending_enabled:
        raise SendingNotEnabled("This account may not send messages yet.")
