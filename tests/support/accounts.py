"""What tests of accounts share."""

import asyncio
from collections.abc import Awaitable, Sequence
from typing import Any, TypeVar

from hydrasms_core.accounts.model import AccountAccess, KeyAccess
from hydrasms_core.db.transaction import Database, Transaction, Work

T = TypeVar("T")

_BOUND_S = 10.0


async def within_bounds(awaitable: Awaitable[T]) -> T:
    """Wait for something, but not for ever."""
    return await asyncio.wait_for(awaitable, _BOUND_S)


class FakeLedger:
    """Remembers the balances that it opened; fails where told to."""

    def __init__(self) -> None:
        self.opened: list[tuple[str, int, str, int]] = []
        self.failure: Exception | None = None

    async def open(
        self, tx: Transaction, account_id: str, *, initial_credits: int, actor: str, at_ms: int
    ) -> None:
        if self.failure is not None:
            raise self.failure
        self.opened.append((account_id, initial_credits, actor, at_ms))


class FakeAccessStore:
    """Accounts and keys in dictionaries, with the version that counts their changes."""

    def __init__(self) -> None:
        self.version = 0
        self.keys: dict[str, KeyAccess] = {}
        self.accounts: dict[str, AccountAccess] = {}
        self.asked: list[str] = []

    def change_key(self, digest: str, key: KeyAccess) -> None:
        self.version += 1
        self.keys[digest] = key

    async def access_version(self, tx: Transaction) -> int:
        return self.version

    async def key_access(self, tx: Transaction, digest: str) -> KeyAccess | None:
        self.asked.append(digest)
        return self.keys.get(digest)

    async def account_access(self, tx: Transaction, account_id: str) -> AccountAccess | None:
        self.asked.append(account_id)
        return self.accounts.get(account_id)

    async def senders(
        self, tx: Transaction, digests: Sequence[str]
    ) -> dict[str, tuple[KeyAccess, AccountAccess | None]]:
        self.asked.extend(digests)
        found = {digest: self.keys[digest] for digest in digests if digest in self.keys}
        return {digest: (key, self.accounts.get(key.account_id)) for digest, key in found.items()}


class NoDatabase:
    """Runs work with no transaction at all, for stores that need none."""

    writes_in_turn = False

    async def read(self, work: Work[Any]) -> Any:
        return await work(None)  # type: ignore[arg-type]

    async def write(self, work: Work[Any], landed: Work[bool] | None = None) -> Any:
        return await work(None)  # type: ignore[arg-type]

    async def close(self) -> None:
        pass


class Hold:
    """Keeps the answer of one read back: `arrived` once it has been read, until `release`."""

    def __init__(self) -> None:
        self._arrived = asyncio.Event()
        self._released = asyncio.Event()

    async def pass_through(self) -> None:
        self._arrived.set()
        await within_bounds(self._released.wait())

    async def arrived(self) -> None:
        await within_bounds(self._arrived.wait())

    def release(self) -> None:
        self._released.set()


class WatchedDatabase:
    """Another database, with its reads counted, failed or their answers held back."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._hold: Hold | None = None
        self.reads = 0
        self.failure: Exception | None = None

    @property
    def writes_in_turn(self) -> bool:
        return self._database.writes_in_turn

    def hold_next(self) -> Hold:
        """Keep the answer of the next read back."""
        self._hold = Hold()
        return self._hold

    async def read(self, work: Work[T]) -> T:
        self.reads += 1
        if self.failure is not None:
            raise self.failure
        hold, self._hold = self._hold, None
        answer = await self._database.read(work)
        if hold is not None:
            await hold.pass_through()
        return answer

    async def write(self, work: Work[T], landed: Work[bool] | None = None) -> T:
        return await self._database.write(work, landed)

    async def close(self) -> None:
        await self._database.close()
