"""Ledgers for tests: messages with their spends and refunds."""

import random

import sqlalchemy as sa

from hydrasms_base.ids import new_id
from hydrasms_billing import store
from hydrasms_billing.credits import LedgerCredits
from hydrasms_billing.model import DiscrepancyKind, Transaction, TransactionKind, VerifyReport
from hydrasms_core.db.transaction import Database
from hydrasms_core.db.transaction import Transaction as OpenTransaction
from hydrasms_core.messaging.model import Status
from hydrasms_core.messaging.ports import Charge
from hydrasms_core.messaging.tables import carrier_references, messages

AT_MS = 1_780_000_000_000

# Every way that a message can end or stand, as (status, a carrier took it, it is refunded).
FATES = (
    (Status.QUEUED, False, False),
    (Status.SUBMITTING, False, False),
    (Status.SUBMITTED, True, False),
    (Status.DELIVERED, True, False),
    (Status.UNDELIVERED, True, False),
    (Status.UNKNOWN, False, False),
    (Status.EXPIRED, True, False),
    (Status.EXPIRED, False, True),
    (Status.REJECTED, False, True),
    (Status.CANCELLED, False, True),
)

credits_ledger = LedgerCredits()


async def open_account(database: Database, amount: int) -> str:
    account_id = new_id()
    await database.write(
        lambda tx: credits_ledger.open(tx, account_id, initial_credits=amount, actor="service", at_ms=AT_MS)
    )
    return account_id


def charge(account_id: str, cost: int = 1, message_id: str | None = None) -> Charge:
    return Charge(account_id, message_id or new_id(), cost, "account")


async def top_up(tx: OpenTransaction, account_id: str, amount: int) -> None:
    """Book a payment as the purchase of credits will."""
    bought = Transaction(
        new_id(), account_id, TransactionKind.TOP_UP, amount, "system", AT_MS, payment_id=new_id()
    )
    await store.change_balances(tx, {account_id: amount}, at_ms=AT_MS)
    await store.insert_transaction(tx, bought)


async def put_message(
    tx: OpenTransaction, paid: Charge, status: Status = Status.QUEUED, *, taken: bool = False
) -> None:
    """Store a message as messaging does, with a carrier's reference where a carrier took it."""
    blanks = {
        column.name: 0 if isinstance(column.type, sa.Integer) else ""
        for column in messages.columns
        if not column.nullable and column.server_default is None
    }
    await tx.execute(
        sa.insert(messages).values(
            blanks
            | {
                "account_id": paid.account_id,
                "id": paid.message_id,
                "status": status.value,
                "credits": paid.credits,
                "encoding": "GSM7",
            }
        )
    )
    if taken:
        await tx.execute(
            sa.insert(carrier_references).values(
                carrier="simulator",
                reference=new_id(),
                account_id=paid.account_id,
                message_id=paid.message_id,
            )
        )


async def send(
    tx: OpenTransaction,
    paid: Charge,
    status: Status = Status.QUEUED,
    *,
    taken: bool = False,
    refunded: bool = False,
) -> None:
    """Put a message through its life in one transaction: debited, stored, and refunded where that is due."""
    assert await credits_ledger.spend(tx, [paid], at_ms=AT_MS) == [None]
    await put_message(tx, paid, status, taken=taken)
    if refunded:
        await credits_ledger.refund(tx, [paid], at_ms=AT_MS)


async def fill(database: Database, *, accounts: int = 5, messages_each: int = 20, seed: int = 1) -> list[str]:
    """Make a ledger with every kind of transaction and every fate of a message; returns the accounts."""
    source = random.Random(seed)
    account_ids = [await open_account(database, source.randint(200, 1_000)) for _ in range(accounts)]

    async def work(tx: OpenTransaction) -> None:
        for account_id in account_ids:
            await top_up(tx, account_id, source.randint(1, 500))
            for number in range(messages_each):
                status, taken, refunded = FATES[number % len(FATES)]
                paid = charge(account_id, source.randint(1, 5))
                await send(tx, paid, status, taken=taken, refunded=refunded)

    await database.write(work)
    return account_ids


def findings(report: VerifyReport) -> set[tuple[DiscrepancyKind, str, str]]:
    """Return what a report found, without its words."""
    return {(found.kind, found.account_id, found.subject) for found in report.discrepancies}
