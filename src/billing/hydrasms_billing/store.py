"""All SQL about balances and transfers, but for their verification (`audit.py`)."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from hydrasms_base.ids import new_id
from hydrasms_billing.ledger import COUNTER_ACCOUNTS, parties
from hydrasms_billing.model import Transaction, TransactionKind
from hydrasms_billing.tables import balances, transfers
from hydrasms_core.db.dialect import SetStatement
from hydrasms_core.db.lists import newest_first
from hydrasms_core.db.transaction import Transaction as OpenTransaction
from hydrasms_core.messaging.ports import Charge
from hydrasms_core.paging import PageRequest

_HOLD_BALANCES = SetStatement(
    # In one order, so that two transactions never wait for each other.
    "SELECT b.account_id, b.balance FROM {rows} JOIN balances AS b ON b.account_id = {r.account_id}"
    " WHERE {accounts:b} ORDER BY r.account_id {lock:b}",
    ("account_id",),
)
_CHANGE_BALANCES = SetStatement(
    "UPDATE balances SET balance = balance + r.change, updated_at_ms = :at_ms"
    " FROM {rows} WHERE balances.account_id = {r.account_id} AND {accounts:balances}",
    ("account_id", "change"),
)
_CHARGE_COLUMNS = ("account_id", "id", "amount", "message_id", "actor")
_INSERT_SPENDS = SetStatement(
    "INSERT INTO transfers"
    " (account_id, id, debit_account, credit_account, amount, kind, message_id, actor, created_at_ms)"
    " SELECT account_id, id, account_id, :counter, amount, :kind, message_id, actor, :at_ms"
    " FROM {rows} WHERE true",
    _CHARGE_COLUMNS,
)
_INSERT_REFUNDS = SetStatement(
    "INSERT INTO transfers"
    " (account_id, id, debit_account, credit_account, amount, kind, message_id, actor, created_at_ms)"
    " SELECT account_id, id, :counter, account_id, amount, :kind, message_id, actor, :at_ms"
    " FROM {rows} WHERE true",
    _CHARGE_COLUMNS,
)
# In the order in which `_transaction` reads them.
_SELECTED = (
    transfers.c.id,
    transfers.c.account_id,
    transfers.c.kind,
    transfers.c.amount,
    transfers.c.debit_account,
    transfers.c.actor,
    transfers.c.created_at_ms,
    transfers.c.message_id,
    transfers.c.payment_id,
    transfers.c.reason,
)


async def open_balance(tx: OpenTransaction, account_id: str, *, at_ms: int) -> None:
    """Give an account a balance, of 0; an IntegrityViolation where it has one."""
    await tx.execute(sa.insert(balances).values(account_id=account_id, balance=0, updated_at_ms=at_ms))


async def find_balance(tx: OpenTransaction, account_id: str) -> int | None:
    """Return the balance of one account, or None where it has none."""
    found = await tx.execute(sa.select(balances.c.balance).where(balances.c.account_id == account_id))
    row = found.one_or_none()
    return None if row is None else int(row.balance)


async def hold_balances(tx: OpenTransaction, account_ids: Collection[str]) -> dict[str, int]:
    """Return the balances of accounts, which nobody else changes until the transaction ends.

    Accounts that have none are missing.
    """
    found = await tx.execute_set(_HOLD_BALANCES, [(account_id,) for account_id in account_ids])
    return {row[0]: row[1] for row in found}


async def change_balances(tx: OpenTransaction, changes: Mapping[str, int], *, at_ms: int) -> None:
    """Add to, or with a negative change take from, one balance an account; all of them are held.

    Below zero it is an IntegrityViolation.
    """
    await tx.defer_set(_CHANGE_BALANCES, list(changes.items()), {"at_ms": at_ms})


async def insert_spends(tx: OpenTransaction, charges: Sequence[Charge], *, at_ms: int) -> None:
    """Record what messages cost; an IntegrityViolation where one was paid before."""
    await _insert_charges(tx, _INSERT_SPENDS, TransactionKind.SPEND, charges, at_ms)


async def insert_refunds(tx: OpenTransaction, charges: Sequence[Charge], *, at_ms: int) -> None:
    """Record what is given back; an IntegrityViolation where that was done before."""
    await _insert_charges(tx, _INSERT_REFUNDS, TransactionKind.REFUND, charges, at_ms)


async def insert_transaction(tx: OpenTransaction, transaction: Transaction) -> None:
    """Record one transaction of any kind."""
    debit_account, credit_account = parties(transaction)
    await tx.execute(
        sa.insert(transfers).values(
            account_id=transaction.account_id,
            id=transaction.id,
            debit_account=debit_account,
            credit_account=credit_account,
            amount=abs(transaction.amount),
            kind=transaction.kind.value,
            message_id=transaction.message_id,
            payment_id=transaction.payment_id,
            actor=transaction.actor,
            reason=transaction.reason,
            created_at_ms=transaction.created_at_ms,
        )
    )


async def get_transaction(tx: OpenTransaction, account_id: str, transaction_id: str) -> Transaction:
    """Return a transaction that is known to be there."""
    found = await tx.execute(
        sa.select(*_SELECTED).where(transfers.c.account_id == account_id, transfers.c.id == transaction_id)
    )
    return _transaction(found.one())


async def list_transactions(tx: OpenTransaction, account_id: str, page: PageRequest) -> list[Transaction]:
    """Return up to one transaction more than the page holds, newest first."""
    found = await tx.execute(newest_first(tx.dialect, _SELECTED, account_id, page))
    return [_transaction(row) for row in found]


async def _insert_charges(
    tx: OpenTransaction,
    statement: SetStatement,
    kind: TransactionKind,
    charges: Sequence[Charge],
    at_ms: int,
) -> None:
    rows = [(c.account_id, new_id(), c.credits, c.message_id, c.actor) for c in charges]
    parameters = {"counter": COUNTER_ACCOUNTS[kind], "kind": kind.value, "at_ms": at_ms}
    await tx.defer_set(statement, rows, parameters)


def _transaction(row: Sequence[Any]) -> Transaction:
    id_, account_id, kind, amount, debit_account, actor, created_at_ms, message_id, payment_id, reason = row
    return Transaction(
        id=id_,
        account_id=account_id,
        kind=TransactionKind(kind),
        amount=-amount if debit_account == account_id else amount,
        actor=actor,
        created_at_ms=created_at_ms,
        message_id=message_id,
        payment_id=payment_id,
        reason=reason,
    )
