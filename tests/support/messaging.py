"""What tests of messaging share: its ports and its store in dictionaries."""

import asyncio
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import pytest

from hydrasms_base.clock import Clock
from hydrasms_base.ids import new_id
from hydrasms_core.db.transaction import Transaction, Work
from hydrasms_core.errors import DomainError, InsufficientCredits
from hydrasms_core.messaging import accept, service
from hydrasms_core.messaging.model import Accepted, Draft, InboundMessage, Message, Status
from hydrasms_core.messaging.ports import Charge
from hydrasms_core.messaging.service import Messaging
from hydrasms_core.messaging.store import KeyedSend
from hydrasms_core.paging import PageRequest
from hydrasms_core.settings import MessagingSettings
from tests.support.accounts import NoDatabase
from tests.support.consent import FakeConsent

ALICE, BOB = new_id(), new_id()
PHONE = "+447700900000"
HELLO = Draft(PHONE, "Hello")


class FakeCredits:
    """Balances in a dictionary; a text costs a credit for every ten characters begun, unlike the real price."""

    def __init__(self) -> None:
        self.balances: dict[str, int] = {ALICE: 100, BOB: 100}
        self.spent: list[Charge] = []
        self.refunded: list[Charge] = []
        self.failure: Exception | None = None
        self.held: set[str] = set()

    def price(self, content: str) -> int:
        return -(-len(content) // 10)

    async def spend(
        self,
        tx: Transaction,
        charges: Sequence[Charge],
        *,
        at_ms: int,
        held: Mapping[str, int] | None = None,
    ) -> list[InsufficientCredits | None]:
        if self.failure is not None:
            raise self.failure
        return [self._spend(charge) for charge in charges]

    async def hold(self, tx: Transaction, account_ids: Collection[str]) -> Mapping[str, int] | None:
        self.held |= set(account_ids)
        return None

    def _spend(self, charge: Charge) -> InsufficientCredits | None:
        balance = self.balances.get(charge.account_id, 0)
        if balance < charge.credits:
            return InsufficientCredits(balance, charge.credits)
        self.balances[charge.account_id] = balance - charge.credits
        self.spent.append(charge)
        return None

    async def refund(self, tx: Transaction, charges: Sequence[Charge], *, at_ms: int) -> None:
        for charge in charges:
            self.balances[charge.account_id] += charge.credits
            self.refunded.append(charge)


class FakeSendingAccounts:
    """Lets all accounts send, unless told to refuse."""

    def __init__(self) -> None:
        self.refusal: DomainError | None = None
        self.missing: DomainError | None = None
        self.asked: list[str] = []

    async def require_account(self, account_id: str) -> None:
        self.asked.append(account_id)
        if self.missing is not None:
            raise self.missing

    async def require_sending(self, account_id: str) -> None:
        self.asked.append(account_id)
        if self.refusal is not None:
            raise self.refusal


class FakeMessageStore:
    """Stands in for `hydrasms_core.messaging.store`, whose functions take the open transaction first."""

    def __init__(self) -> None:
        self.messages: dict[tuple[str, str], Message] = {}
        self.keys: dict[tuple[str, str], KeyedSend] = {}
        self.inbound: list[InboundMessage] = []
        self.outbox: set[str] = set()
        self.asked_for: list[str] = []
        self.transactions = 0

    def put(self, message: Message) -> None:
        self.messages[message.account_id, message.id] = message

    async def find_keyed(self, tx: Any, keys: Sequence[tuple[str, str]]) -> dict[tuple[str, str], KeyedSend]:
        found = {key: self.keys[key] for key in keys if key in self.keys}
        return {
            key: KeyedSend(send.key, send.fingerprint, self.messages[key[0], send.message.id])
            for key, send in found.items()
        }

    async def insert_queued(
        self, tx: Any, accepted: Sequence[Message], keyed: Sequence[KeyedSend], *, lane: int
    ) -> None:
        self.transactions += 1
        for message in accepted:
            assert (message.account_id, message.id) not in self.messages
            self.put(message)
            self.outbox.add(message.id)
        for send in keyed:
            assert (send.message.account_id, send.key) not in self.keys
            self.keys[send.message.account_id, send.key] = send

    async def get_message(self, tx: Any, account_id: str, message_id: str) -> Message | None:
        self.asked_for.append(message_id)
        return self.messages.get((account_id, message_id))

    async def list_messages(self, tx: Any, account_id: str, page: PageRequest) -> list[Message]:
        return _page([m for m in self.messages.values() if m.account_id == account_id], page)

    async def list_inbound(self, tx: Any, account_id: str, page: PageRequest) -> list[InboundMessage]:
        return _page([m for m in self.inbound if m.account_id == account_id], page)

    async def find_ids(self, tx: Any, keys: Sequence[tuple[str, str]]) -> set[str]:
        return {key[1] for key in keys if key in self.messages}

    async def cancel_queued(self, tx: Any, account_id: str, message_id: str, *, at_ms: int) -> bool:
        if message_id not in self.outbox:
            return False
        message = self.messages[account_id, message_id]
        self.put(message._replace(status=Status.CANCELLED, updated_at_ms=at_ms))
        self.outbox.discard(message_id)
        return True


def _page(rows: list[Any], page: PageRequest) -> list[Any]:
    below = [row for row in rows if page.before is None or row.id < page.before]
    return sorted(below, key=lambda row: row.id, reverse=True)[: page.size + 1]


def patch_store(monkeypatch: pytest.MonkeyPatch) -> FakeMessageStore:
    """Put a fake in the place of the store, for service and acceptance alike."""
    fake = FakeMessageStore()
    monkeypatch.setattr(service, "store", fake)
    monkeypatch.setattr(accept, "store", fake)
    return fake


class MessagingWorld:
    """A messaging service whose surroundings are all fakes; its store is patched in by `patch_store`."""

    def __init__(self, clock: Clock, store: FakeMessageStore, database: Any, **settings: Any) -> None:
        self.clock = clock
        self.store = store
        self.credits = FakeCredits()
        self.consent = FakeConsent()
        self.accounts = FakeSendingAccounts()
        self.wakes = 0
        self.messaging = Messaging(
            database,
            self.credits,
            self.consent,
            self.accounts,
            clock,
            MessagingSettings(**settings),
            self._wake,
        )

    def _wake(self) -> None:
        self.wakes += 1

    async def send(self, draft: Draft = HELLO, *, account: str = ALICE, actor: str = "account") -> Accepted:
        return await self.messaging.send(account, draft, actor=actor)

    def assert_nothing_happened(self) -> None:
        assert self.store.messages == {}
        assert self.store.keys == {}
        assert self.credits.spent == []
        assert self.wakes == 0


class GatedDatabase(NoDatabase):
    """Lets no transaction end before the gate is open; `entered` once the first has done its work."""

    def __init__(self) -> None:
        self.entered = asyncio.Event()
        self.gate = asyncio.Event()

    async def write(self, work: Work[Any], landed: Work[bool] | None = None) -> Any:
        result = await super().write(work, landed)
        self.entered.set()
        await self.gate.wait()
        return result
