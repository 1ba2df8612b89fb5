"""The ledger: what opens, is spent and is given back."""

import random

import pytest
import sqlalchemy as sa

from hydrasms_base.ids import new_id
from hydrasms_billing import store
from hydrasms_billing.credits import LedgerCredits
from hydrasms_billing.ledger import BalanceMissing
from hydrasms_billing.tables import transfers
from hydrasms_core.accounts.ports import OpeningLedger
from hydrasms_core.db.transaction import IntegrityViolation
from hydrasms_core.messaging.ports import Credits
from tests.support.ledger import AT_MS, charge, open_account, send

ledger = LedgerCredits()
as_messaging_sees_it: Credits = ledger
as_accounts_see_it: OpeningLedger = ledger


async def spend(database, *charges):
    return await database.write(lambda tx: ledger.spend(tx, charges, at_ms=AT_MS))


async def refund(database, *charges):
    await database.write(lambda tx: ledger.refund(tx, charges, at_ms=AT_MS))


async def balance(database, account_id):
    return await database.read(lambda tx: store.find_balance(tx, account_id))


async def rows(database, table):
    found = await database.read(lambda tx: tx.execute(sa.text(f"SELECT * FROM {table}")))
    return sorted(found.fetchall(), key=repr)


async def moved(database, account_id):
    """Return (kind, debit, credit, amount, message) of an account's transfers, oldest first."""
    columns = transfers.c
    query = (
        sa.select(
            columns.kind, columns.debit_account, columns.credit_account, columns.amount, columns.message_id
        )
        .where(columns.account_id == account_id)
        .order_by(columns.id)
    )
    return [tuple(row) for row in await database.read(lambda tx: tx.execute(query))]


def outcomes(refusals):
    return [None if each is None else (each.balance, each.cost) for each in refusals]


# ---- opening ----


async def test_an_account_opens_with_its_first_credits_as_a_grant(database):
    account_id = await open_account(database, 1_000)
    assert await balance(database, account_id) == 1_000
    assert await moved(database, account_id) == [("grant", "granted", account_id, 1_000, "")]


async def test_an_account_opens_with_nothing_and_no_transfer(database):
    account_id = await open_account(database, 0)
    assert await balance(database, account_id) == 0
    assert await moved(database, account_id) == []


async def test_an_account_opens_once(database):
    account_id = await open_account(database, 10)
    with pytest.raises(IntegrityViolation):
        await database.write(
            lambda tx: ledger.open(tx, account_id, initial_credits=10, actor="service", at_ms=AT_MS)
        )
    assert await balance(database, account_id) == 10


# ---- spending ----


async def test_a_spend_debits_the_balance_and_is_recorded(database):
    account_id = await open_account(database, 10)
    paid = charge(account_id, 3)
    assert await spend(database, paid) == [None]
    assert await balance(database, account_id) == 7
    assert (await moved(database, account_id))[1:] == [("spend", account_id, "spent", 3, paid.message_id)]


async def test_within_a_batch_charges_are_paid_in_order_of_arrival_until_the_balance_is_spent(database):
    account_id = await open_account(database, 10)
    charges = [charge(account_id, cost) for cost in (4, 4, 4, 2, 1)]
    refusals = await spend(database, *charges)
    assert outcomes(refusals) == [None, None, (2, 4), None, (0, 1)]
    assert await balance(database, account_id) == 0
    spent = [message_id for kind, *_, message_id in await moved(database, account_id) if kind == "spend"]
    assert spent == [charges[0].message_id, charges[1].message_id, charges[3].message_id]


async def test_no_batch_overdraws_however_it_is_mixed(database):
    source = random.Random(7)
    account_ids = [await open_account(database, source.randint(0, 60)) for _ in range(5)]
    left = {account_id: await balance(database, account_id) for account_id in account_ids}
    for _ in range(20):
        charges = [charge(source.choice(account_ids), source.randint(1, 5)) for _ in range(20)]
        refusals = await spend(database, *charges)
        for paid, refusal in zip(charges, refusals, strict=True):
            before = left[paid.account_id]
            assert outcomes([refusal]) == [None if paid.credits <= before else (before, paid.credits)]
            left[paid.account_id] -= paid.credits if refusal is None else 0
        assert {account_id: await balance(database, account_id) for account_id in account_ids} == left
    assert min(left.values()) == 0


async def test_a_plan_that_overdraws_is_refused_by_the_table(database):
    """The control of the two tests above: without a plan that looks, the CHECK is what refuses."""
    account_id = await open_account(database, 10)

    async def unplanned(tx):
        await store.change_balances(tx, {account_id: -11}, at_ms=AT_MS)
        await store.insert_spends(tx, [charge(account_id, 11)], at_ms=AT_MS)

    with pytest.raises(IntegrityViolation, match="not_negative"):
        await database.write(unplanned)
    assert await balance(database, account_id) == 10


async def test_one_account_cannot_pay_for_another(database):
    poor, rich = await open_account(database, 0), await open_account(database, 100)
    assert outcomes(await spend(database, charge(poor), charge(rich), charge(poor))) == [(0, 1), None, (0, 1)]
    assert (await balance(database, poor), await balance(database, rich)) == (0, 99)


async def test_an_account_without_a_balance_has_nothing_to_spend(database):
    stranger = new_id()
    assert outcomes(await spend(database, charge(stranger, 2))) == [(0, 2)]
    assert await moved(database, stranger) == []


async def test_an_empty_batch_changes_nothing(database):
    assert await spend(database) == []
    await refund(database)
    assert await rows(database, "transfers") == []


async def test_a_batch_is_three_statements_however_many_charges_and_accounts(database):
    account_ids = [await open_account(database, 50) for _ in range(10)]
    statements = []

    class Counting:
        def __init__(self, tx):
            self.dialect = tx.dialect
            self._tx = tx

        async def execute(self, statement, parameters=None):
            statements.append(statement)
            return await self._tx.execute(statement, parameters)

        async def execute_set(self, statement, batch, parameters=None):
            statements.append(statement)
            return await self._tx.execute_set(statement, batch, parameters)

        async def defer_set(self, statement, batch, parameters=None):
            statements.append(statement)
            await self._tx.defer_set(statement, batch, parameters)

        async def hold(self, name, *, alone):
            return await self._tx.hold(name, alone=alone)

        def after_commit(self, call):
            self._tx.after_commit(call)

    charges = [charge(account_ids[number % 10]) for number in range(200)]
    refusals = await database.write(lambda tx: ledger.spend(Counting(tx), charges, at_ms=AT_MS))
    assert refusals == [None] * 200
    assert len(statements) == 3
    await database.write(lambda tx: ledger.refund(Counting(tx), charges, at_ms=AT_MS))
    assert len(statements) == 6


async def test_a_message_is_paid_once(database):
    account_id = await open_account(database, 10)
    paid = charge(account_id, 2)
    await spend(database, paid)
    with pytest.raises(IntegrityViolation):
        await spend(database, charge(account_id, 1), paid)
    with pytest.raises(IntegrityViolation):
        await spend(database, charge(account_id, 1, paid.message_id))
    assert await balance(database, account_id) == 8
    assert len(await moved(database, account_id)) == 2


# ---- refunds ----


async def test_a_refund_gives_the_credits_back_and_is_recorded(database):
    account_id, other = await open_account(database, 10), await open_account(database, 10)
    charges = [charge(account_id, 3), charge(account_id, 4), charge(other, 5)]
    await spend(database, *charges)
    await refund(database, *charges)
    assert (await balance(database, account_id), await balance(database, other)) == (10, 10)
    assert (await moved(database, account_id))[3:] == [
        ("refund", "spent", account_id, 3, charges[0].message_id),
        ("refund", "spent", account_id, 4, charges[1].message_id),
    ]


async def test_a_message_is_refunded_once(database):
    account_id = await open_account(database, 10)
    first, second = charge(account_id, 2), charge(account_id, 3)
    await spend(database, first, second)
    await refund(database, first)
    for batch in ([first], [second, first], [second, second]):
        with pytest.raises(IntegrityViolation):
            await refund(database, *batch)
    assert await balance(database, account_id) == 7
    assert [kind for kind, *_ in await moved(database, account_id)] == ["grant", "spend", "spend", "refund"]


async def test_a_refund_to_an_account_without_a_balance_undoes_its_whole_transaction(database):
    account_id = await open_account(database, 10)
    paid = charge(account_id, 2)
    await spend(database, paid)
    with pytest.raises(BalanceMissing):
        await refund(database, paid, charge(new_id()))
    assert await balance(database, account_id) == 8


async def test_what_is_refused_takes_the_whole_transaction_with_it(database):
    account_id = await open_account(database, 10)
    paid = charge(account_id, 2)

    async def work(tx):
        await send(tx, paid)
        await ledger.refund(tx, [paid], at_ms=AT_MS)
        await ledger.refund(tx, [paid], at_ms=AT_MS)

    with pytest.raises(IntegrityViolation):
        await database.write(work)
    assert await balance(database, account_id) == 10
    assert len(await moved(database, account_id)) == 1
    assert await rows(database, "messages") == []
