"""What a verification holds against each other, rule by rule."""

import random

import pytest
import sqlalchemy as sa

from hydrasms_base.ids import new_id
from hydrasms_billing import store
from hydrasms_billing.model import MAX_DISCREPANCIES, DiscrepancyKind
from hydrasms_billing.verify import verify_ledger
from hydrasms_core.accounts.tables import accounts
from hydrasms_core.messaging.model import Status
from tests.support.ledger import (
    AT_MS,
    FATES,
    charge,
    credits_ledger,
    findings,
    open_account,
    put_message,
    send,
)
from tests.support.tampering import any_transfer, run, tampered, unguarded

BALANCE, SPEND, REFUND, TRANSFER, _GUARD = DiscrepancyKind


async def test_a_balance_that_moved_without_a_transfer_is_found(database):
    account_id = await open_account(database, 10)
    await database.write(lambda tx: store.change_balances(tx, {account_id: 1}, at_ms=AT_MS))
    report = await verify_ledger(database)
    assert findings(report) == {(BALANCE, account_id, "")}
    assert report.discrepancies[0].detail == "The balance is 11; the transfers sum to 10."


async def test_a_balance_without_any_transfer_is_found(database):
    account_id = await open_account(database, 0)
    await database.write(lambda tx: store.change_balances(tx, {account_id: 5}, at_ms=AT_MS))
    assert findings(await verify_ledger(database)) == {(BALANCE, account_id, "")}


async def test_transfers_without_a_balance_are_found(database):
    account_id = await open_account(database, 10)
    await unguarded(database, lambda tx: run(tx, "DELETE FROM balances"))
    assert findings(await verify_ledger(database)) == {(BALANCE, account_id, "")}


async def test_an_account_without_a_balance_is_found_even_where_it_has_no_transfers(database):
    account_id = new_id()
    row = sa.insert(accounts).values(
        id=account_id,
        name="",
        plan="free",
        sending_enabled=True,
        suspended=False,
        created_at_ms=AT_MS,
        updated_at_ms=AT_MS,
    )
    await database.write(lambda tx: tx.execute(row))
    assert findings(await verify_ledger(database)) == {(BALANCE, account_id, "")}


async def test_an_overdraft_is_found_though_its_transfers_add_up(database):
    account_id = await open_account(database, 5)
    paid = charge(account_id, 7)
    await database.write(lambda tx: put_message(tx, paid))
    await database.write(lambda tx: store.insert_spends(tx, [paid], at_ms=AT_MS))
    await unguarded(database, lambda tx: run(tx, "UPDATE balances SET balance = -2"))
    report = await verify_ledger(database)
    assert findings(report) == {(BALANCE, account_id, "")}
    assert report.discrepancies[0].detail == "The balance is -2, below zero."


async def test_a_message_without_a_spend_is_found(database):
    account_id = await open_account(database, 10)
    free = charge(account_id)
    await database.write(lambda tx: put_message(tx, free))
    assert findings(await verify_ledger(database)) == {(SPEND, account_id, free.message_id)}


async def test_a_spend_without_a_message_is_found(database):
    account_id = await open_account(database, 10)
    paid = charge(account_id)
    await database.write(lambda tx: credits_ledger.spend(tx, [paid], at_ms=AT_MS))
    assert findings(await verify_ledger(database)) == {(SPEND, account_id, paid.message_id)}


async def test_a_spend_of_another_amount_than_the_message_costs_is_found(database):
    account_id = await open_account(database, 10)
    paid = charge(account_id, 2)
    await database.write(lambda tx: credits_ledger.spend(tx, [paid], at_ms=AT_MS))
    await database.write(lambda tx: put_message(tx, charge(account_id, 3, paid.message_id)))
    assert findings(await verify_ledger(database)) == {(SPEND, account_id, paid.message_id)}


async def test_amounts_that_changed_places_are_found_though_the_balance_adds_up(filled):
    async def swap(tx):
        first = await any_transfer(tx, random.Random(1), "kind = 'spend' AND amount = 1")
        second = await any_transfer(
            tx, random.Random(1), f"kind = 'spend' AND amount = 5 AND account_id = '{first[0]}'"
        )
        await run(tx, "UPDATE transfers SET amount = 5 WHERE id = :id", id=first[1])
        await run(tx, "UPDATE transfers SET amount = 1 WHERE id = :id", id=second[1])
        return {(SPEND, first[0], first[4]), (SPEND, second[0], second[4])}

    expected, report = await tampered(filled, swap)
    assert findings(report) == expected


async def test_a_message_that_another_account_paid_is_found(database):
    owner, payer = await open_account(database, 10), await open_account(database, 10)
    paid = charge(payer)
    await database.write(lambda tx: credits_ledger.spend(tx, [paid], at_ms=AT_MS))
    await database.write(lambda tx: put_message(tx, charge(owner, 1, paid.message_id)))
    assert findings(await verify_ledger(database)) == {
        (SPEND, owner, paid.message_id),
        (SPEND, payer, paid.message_id),
    }


@pytest.mark.parametrize(("status", "taken", "refunded"), FATES)
async def test_a_message_has_a_refund_exactly_where_no_carrier_took_it(database, status, taken, refunded):
    account_id = await open_account(database, 10)
    right, wrong = charge(account_id, 2), charge(account_id, 3)
    await database.write(lambda tx: send(tx, right, status, taken=taken, refunded=refunded))
    assert (await verify_ledger(database)).ok
    await database.write(lambda tx: send(tx, wrong, status, taken=taken, refunded=not refunded))
    assert findings(await verify_ledger(database)) == {(REFUND, account_id, wrong.message_id)}


def test_the_fates_above_are_all_there_are():
    assert {status for status, _, _ in FATES} == set(Status)


async def test_whether_a_carrier_took_another_message_does_not_matter(database):
    account_id, other = await open_account(database, 10), await open_account(database, 10)
    expired = charge(account_id)
    await database.write(lambda tx: send(tx, expired, Status.EXPIRED, refunded=True))
    await database.write(lambda tx: send(tx, charge(account_id), Status.EXPIRED, taken=True))
    await database.write(
        lambda tx: send(tx, charge(other, 1, expired.message_id), Status.EXPIRED, taken=True)
    )
    assert (await verify_ledger(database)).ok


async def test_a_refund_of_another_amount_is_found(database):
    account_id = await open_account(database, 10)
    paid = charge(account_id, 2)
    await database.write(lambda tx: send(tx, paid, Status.REJECTED))
    less = charge(account_id, 1, paid.message_id)
    await database.write(lambda tx: credits_ledger.refund(tx, [less], at_ms=AT_MS))
    assert findings(await verify_ledger(database)) == {(REFUND, account_id, paid.message_id)}


async def test_transfers_of_a_message_that_is_not_there_are_found(database):
    account_id = await open_account(database, 10)
    ghost = charge(account_id)
    await database.write(lambda tx: credits_ledger.spend(tx, [ghost], at_ms=AT_MS))
    await database.write(lambda tx: credits_ledger.refund(tx, [ghost], at_ms=AT_MS))
    assert findings(await verify_ledger(database)) == {
        (SPEND, account_id, ghost.message_id),
        (REFUND, account_id, ghost.message_id),
    }


@pytest.mark.parametrize(
    "change",
    [
        "kind = 'gift'",
        "kind = 'top_up'",
        "debit_account = account_id, credit_account = 'granted'",
        "debit_account = 'spent'",
        "credit_account = debit_account",
        "message_id = 'm'",
        "payment_id = 'p'",
    ],
)
async def test_a_malformed_transfer_is_found(database, change):
    account_id = await open_account(database, 10)

    async def tamper(tx):
        await run(tx, f"UPDATE transfers SET {change}")
        return (await run(tx, "SELECT id FROM transfers")).scalar_one()

    transfer_id = await unguarded(database, tamper)
    assert (TRANSFER, account_id, transfer_id) in findings(await verify_ledger(database))


async def test_a_report_names_the_first_100_and_counts_all(database):
    account_ids = [await open_account(database, 10) for _ in range(MAX_DISCREPANCIES - 20)]

    async def work(tx):
        await store.change_balances(tx, dict.fromkeys(account_ids, 1), at_ms=AT_MS)
        for _ in range(MAX_DISCREPANCIES + 20):
            await put_message(tx, charge(account_ids[0]))

    await database.write(work)
    report = await verify_ledger(database)
    named = [found.kind for found in report.discrepancies]
    assert named == [BALANCE] * (MAX_DISCREPANCIES - 20) + [SPEND] * 20
    assert (report.accounts, report.messages) == (MAX_DISCREPANCIES - 20, MAX_DISCREPANCIES + 20)
