"""What tests of delivery share: queued messages, a ledger of refunds, carriers and databases that do as told."""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from typing import Any, TypeVar

import sqlalchemy as sa

from hydrasms_base.ids import new_id
from hydrasms_core.carriers.base import Answer, Reports, Submission, Submitted
from hydrasms_core.db.dialect import SetStatement
from hydrasms_core.db.transaction import Database, Transaction, Work
from hydrasms_core.errors import InsufficientCredits, StoreUnavailable
from hydrasms_core.messaging import store
from hydrasms_core.messaging.model import Message, Status
from hydrasms_core.messaging.numbering import PhoneNumber
from hydrasms_core.messaging.ports import Charge
from hydrasms_core.messaging.tables import carrier_references, messages, outbox, receipts
from hydrasms_core.messaging.text import Encoding

T = TypeVar("T")

ACCOUNT = "018f0000-0000-7000-8000-000000000001"
PHONE = "+447700900555"
VALIDITY_MS = 48 * 3_600_000
BOUND_S = 20.0


def queued_message(at_ms: int, recipient: str = PHONE, **changes: Any) -> Message:
    """Return a message as the send path makes it; any field may be changed by name."""
    fields: dict[str, Any] = {
        "id": new_id(),
        "account_id": ACCOUNT,
        "sender": "+2899682626",
        "recipient": PhoneNumber(recipient, "GB", "GBR", 44),
        "content": "Hello from Hep.gg",
        "status": Status.QUEUED,
        "credits": 1,
        "encoding": Encoding.GSM7,
        "segments": 1,
        "created_at_ms": at_ms,
        "updated_at_ms": at_ms,
        "expires_at_ms": at_ms + VALIDITY_MS,
    }
    return Message(**(fields | changes))


async def queue(database: Database, *queued: Message) -> list[str]:
    """Store messages and their outbox rows as the send path does; returns their ids."""
    await database.write(lambda tx: store.insert_queued(tx, queued, []))
    return [message.id for message in queued]


async def message_of(database: Database, message_id: str, account_id: str = ACCOUNT) -> Message:
    found = await database.read(lambda tx: store.get_message(tx, account_id, message_id))
    assert found is not None
    return found


async def rows_of(database: Database, table: sa.Table) -> list[dict[str, Any]]:
    """Return all rows of a table, in the order of their columns."""
    found = await database.read(lambda tx: tx.execute(sa.select(*table.columns).order_by(*table.columns)))
    return [dict(row._mapping) for row in found]


async def everything(database: Database) -> dict[str, list[dict[str, Any]]]:
    """Return all that delivery may change."""
    tables = (messages, outbox, carrier_references, receipts)
    return {table.name: await rows_of(database, table) for table in tables}


class RecordedCredits:
    """A ledger of refunds in the database; a second refund of a message breaks its constraint."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def open(self) -> "RecordedCredits":
        await self._database.write(
            lambda tx: tx.execute(
                sa.text(
                    "CREATE TABLE recorded_refunds (message_id TEXT PRIMARY KEY, account_id TEXT, credits INTEGER)"
                )
            )
        )
        return self

    def price(self, content: str) -> int:
        raise AssertionError("delivery prices nothing")

    async def hold(self, tx: Transaction, account_ids: Collection[str]) -> Mapping[str, int] | None:
        raise AssertionError("delivery holds nothing")

    async def spend(
        self,
        tx: Transaction,
        charges: Sequence[Charge],
        *,
        at_ms: int,
        held: Mapping[str, int] | None = None,
    ) -> list[InsufficientCredits | None]:
        raise AssertionError("delivery spends nothing")

    async def refund(self, tx: Transaction, charges: Sequence[Charge], *, at_ms: int) -> None:
        for charge in charges:
            assert charge.actor == "system"
            await tx.execute(
                sa.text("INSERT INTO recorded_refunds VALUES (:message, :account, :credits)"),
                {"message": charge.message_id, "account": charge.account_id, "credits": charge.credits},
            )

    async def refunds(self) -> dict[str, int]:
        """Return the credits given back, by message."""
        rows = await self._database.read(
            lambda tx: tx.execute(sa.text("SELECT message_id, credits FROM recorded_refunds"))
        )
        return {row.message_id: row.credits for row in rows}


class ObservedDatabase:
    """Another database that tells of its writes, counts statements and can be out of order."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._written = asyncio.Event()
        self._told = asyncio.Event()
        self._read = asyncio.Event()
        self.statements = 0
        self.transactions = 0
        self.out_of_order = False

    @property
    def writes_in_turn(self) -> bool:
        return self._database.writes_in_turn

    async def read(self, work: Work[T]) -> T:
        result = await self._database.read(work)
        self._read.set()
        return result

    async def write(self, work: Work[T], landed: Work[bool] | None = None) -> T:
        self.transactions += 1
        self._told.set()
        if self.out_of_order:
            raise StoreUnavailable
        result = await self._database.write(lambda tx: work(_CountedTransaction(tx, self)), landed)
        self._written.set()
        return result

    async def close(self) -> None:
        await self._database.close()

    async def until(self, holds: Callable[[], Awaitable[Any]], *, bound_s: float = BOUND_S) -> None:
        """Wait until something holds, looking again after every write; fails after a bound."""
        async with asyncio.timeout(bound_s):
            while True:
                self._written.clear()
                if await holds():
                    return
                await self._written.wait()

    async def next_written(self) -> None:
        """Wait until a write transaction, one under way included, has been committed; fails after a bound."""
        self._written.clear()
        async with asyncio.timeout(BOUND_S):
            await self._written.wait()

    async def next_read(self) -> None:
        """Wait until a read transaction, one under way included, is over; fails after a bound."""
        self._read.clear()
        async with asyncio.timeout(BOUND_S):
            await self._read.wait()

    async def next_write(self, within_s: float = BOUND_S) -> None:
        """Wait until somebody asks for a write transaction, allowed or not; raises TimeoutError."""
        self._told.clear()
        async with asyncio.timeout(within_s):
            await self._told.wait()


class _CountedTransaction:
    def __init__(self, tx: Transaction, database: ObservedDatabase) -> None:
        self._tx = tx
        self._database = database
        self.dialect = tx.dialect

    async def execute(self, statement: sa.Executable, parameters: Mapping[str, Any] | None = None) -> Any:
        self._database.statements += 1
        return await self._tx.execute(statement, parameters)

    async def execute_set(
        self,
        statement: SetStatement,
        rows: Sequence[Sequence[Any]],
        parameters: Mapping[str, Any] | None = None,
    ) -> list[tuple[Any, ...]]:
        self._database.statements += 1
        return await self._tx.execute_set(statement, rows, parameters)

    async def defer_set(
        self,
        statement: SetStatement,
        rows: Sequence[Sequence[Any]],
        parameters: Mapping[str, Any] | None = None,
    ) -> None:
        self._database.statements += 1
        await self._tx.defer_set(statement, rows, parameters)

    async def hold(self, name: str, *, alone: bool) -> bool:
        self._database.statements += 1
        return await self._tx.hold(name, alone=alone)

    def after_commit(self, call: Callable[[], None]) -> None:
        self._tx.after_commit(call)


class ToldCarrier:
    """A carrier that answers what it is told to, once it may."""

    def __init__(self, answer: Callable[[Submission], Answer] | None = None, name: str = "told") -> None:
        self.name = name
        self.answer = answer or (lambda submission: Submitted(f"ref-{submission.message_id}"))
        self.submitted: list[Submission] = []
        self.batches: list[int] = []
        self.may_answer = asyncio.Event()
        self.may_answer.set()
        self._came = asyncio.Event()

    async def submit(self, submissions: Sequence[Submission]) -> Sequence[Answer]:
        self.batches.append(len(submissions))
        self.submitted.extend(submissions)
        self._came.set()
        await self.may_answer.wait()
        return [self.answer(submission) for submission in submissions]

    async def run(self, reports: Reports) -> None:
        raise AssertionError("this carrier reports nothing by itself")

    async def until_batches(self, number: int) -> None:
        """Wait until so many batches have come; fails after a bound."""
        async with asyncio.timeout(BOUND_S):
            while len(self.batches) < number:
                self._came.clear()
                await self._came.wait()
