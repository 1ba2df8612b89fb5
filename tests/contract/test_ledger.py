"""The ledger: debits, refunds and the guards that keep it append-only."""

import random
import sqlite3

import pytest
import sqlalchemy as sa

from hydrasms_base.ids import new_id
from hydrasms_billing import store
from hydrasms_billing.credits import LedgerCredits
from hydrasms_billing.ledger import BalanceMissing
from hydrasms_billing.tables import balances, transfers
from hydrasms_core.accounts.ports import OpeningLedger
from hydrasms_core.db.transaction import IntegrityViolation
from hydrasms_core.messaging.ports import Credits
from tests.support.ledger import AT_MS, charge, fill, open_account, send

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
            self._tx = tx

        async def execute(self, statement, parameters=None):
            statements.append(statement)
            return await self._tx.execute(statement, parameters)

        async def execute_set(self, statement, batch, parameters=None):
            statements.append(statement)
            return await self._tx.execute_set(statement, batch, parameters)

    charges = [charge(account_ids[number % 10]) for number in range(200)]
    refusals = await database.write(lambda tx: ledger.spend(Counting(tx), charges, at_ms=AT_MS))
    assert refusals == [None] * 200
    assert len(statements) == 3
    await database.write(lambda tx: ledger.refund(Counting(tx), charges, at_ms=AT_MS))
    assert len(statements) == 5


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


# ---- guards ----


async def unguarded_copy(database):
    """Copy the transfers, with their keys but without their triggers, into a table of another name."""

    async def work(tx):
        found = await tx.execute(
            sa.text("SELECT sql FROM sqlite_master WHERE type = 'table' AND name = 'transfers'")
        )
        await tx.execute(sa.text(found.scalar_one().replace("TABLE transfers", "TABLE unguarded")))
        await tx.execute(sa.text("INSERT INTO unguarded SELECT * FROM transfers"))
        await tx.execute(
            sa.text(
                "CREATE UNIQUE INDEX unguarded_message ON unguarded (message_id, kind) WHERE message_id <> ''"
            )
        )

    await database.write(work)


_COLUMNS = [column.name for column in transfers.columns]
_LIST = ", ".join(_COLUMNS)
_DEARER = ", ".join("amount + 1" if name == "amount" else name for name in _COLUMNS)
_TWIN = ", ".join("'twin' || substr(id, 5)" if name == "id" else name for name in _COLUMNS)
_APPEND = f"INSERT INTO {{table}} ({_LIST})"

CHANGES = [
    "UPDATE {table} SET amount = amount + 1",
    "UPDATE {table} SET reason = 'something else' WHERE kind = 'grant'",
    "UPDATE {table} SET created_at_ms = 0 WHERE id = (SELECT max(id) FROM {table})",
    "UPDATE OR REPLACE {table} SET amount = 1",
    "UPDATE OR IGNORE {table} SET amount = amount * 2",
    "UPDATE {table} SET amount = v.a FROM (SELECT 7 AS a) AS v",
    "DELETE FROM {table}",
    "DELETE FROM {table} WHERE kind = 'refund'",
    "DELETE FROM {table} WHERE rowid = (SELECT min(rowid) FROM {table})",
    f"INSERT OR REPLACE INTO {{table}} ({_LIST}) SELECT {_DEARER} FROM {{table}} WHERE true",
    f"REPLACE INTO {{table}} ({_LIST}) SELECT {_DEARER} FROM {{table}} WHERE kind = 'top_up'",
    # Another id, but a message that has its spend already: the unique index is what replaces.
    f"INSERT OR REPLACE INTO {{table}} ({_LIST}) SELECT {_TWIN} FROM {{table}} WHERE kind = 'spend'",
    f"{_APPEND} SELECT {_DEARER} FROM {{table}} WHERE true ON CONFLICT DO UPDATE SET amount = excluded.amount",
    f"{_APPEND} SELECT {_TWIN} FROM {{table}} WHERE kind = 'spend' ON CONFLICT DO UPDATE SET actor = 'nobody'",
]


@pytest.mark.parametrize("change", CHANGES)
async def test_transfers_are_append_only(database, change):
    await fill(database, accounts=2, messages_each=10)
    before = await rows(database, "transfers")
    with pytest.raises(IntegrityViolation, match="append-only"):
        await database.write(lambda tx: tx.execute(sa.text(change.format(table="transfers"))))
    assert await rows(database, "transfers") == before


@pytest.mark.parametrize("change", CHANGES)
async def test_the_same_change_goes_through_where_no_trigger_stands(database, change):
    """The control of the test above."""
    await fill(database, accounts=2, messages_each=10)
    await unguarded_copy(database)
    before = await rows(database, "unguarded")
    await database.write(lambda tx: tx.execute(sa.text(change.format(table="unguarded"))))
    assert await rows(database, "unguarded") != before


async def test_only_recursive_triggers_keep_replace_from_slipping_past(database, database_path):
    await fill(database, accounts=1, messages_each=10)
    before = await rows(database, "transfers")
    replace = CHANGES[9].format(table="transfers")
    connection = sqlite3.connect(database_path, isolation_level=None)
    try:
        connection.execute("PRAGMA recursive_triggers=ON")
        with pytest.raises(sqlite3.IntegrityError, match="append-only"):
            connection.execute(replace)
        connection.execute("PRAGMA recursive_triggers=OFF")
        connection.execute(replace)
    finally:
        connection.close()
    assert await rows(database, "transfers") != before


@pytest.mark.parametrize(
    "change",
    [
        "DELETE FROM balances",
        "DELETE FROM balances WHERE balance = 0",
        "UPDATE balances SET account_id = 'somebody else'",
        "INSERT OR REPLACE INTO balances SELECT account_id, balance + 1, updated_at_ms FROM balances WHERE true",
    ],
)
async def test_a_balance_stays_and_stays_its_accounts(database, change):
    await open_account(database, 0)
    before = await rows(database, "balances")
    with pytest.raises(IntegrityViolation, match="balance"):
        await database.write(lambda tx: tx.execute(sa.text(change)))
    assert await rows(database, "balances") == before


async def test_a_balance_is_never_below_zero(database):
    account_id = await open_account(database, 5)
    change = sa.update(balances).where(balances.c.account_id == account_id)
    await database.write(lambda tx: tx.execute(change.values(balance=0)))
    with pytest.raises(IntegrityViolation, match="not_negative"):
        await database.write(lambda tx: tx.execute(change.values(balance=-1)))


def transfer(**changes):
    return {
        "account_id": "a",
        "id": new_id(),
        "debit_account": "granted",
        "credit_account": "a",
        "amount": 1,
        "kind": "grant",
        "actor": "service",
        "created_at_ms": AT_MS,
    } | changes


SPEND = {"kind": "spend", "debit_account": "a", "credit_account": "spent", "message_id": "m"}


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"amount": 2**62},
        {"kind": "top_up", "debit_account": "sold", "payment_id": "p"},
        SPEND,
        {"kind": "refund", "debit_account": "spent", "message_id": "m"},
        {"kind": "adjustment", "debit_account": "adjusted"},
        {"kind": "adjustment", "debit_account": "a", "credit_account": "adjusted"},
    ],
)
async def test_a_well_formed_transfer_is_taken(database, changes):
    await database.write(lambda tx: tx.execute(sa.insert(transfers).values(transfer(**changes))))
    assert len(await rows(database, "transfers")) == 1


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"amount": 0}, "amount"),
        ({"amount": -1}, "amount"),
        ({"amount": 2**62 + 1}, "amount"),
        ({"amount": 1.5}, "amount"),
        ({"amount": "many"}, "amount"),
        # An account that has a counter account's name could otherwise pay itself.
        ({"account_id": "granted", "credit_account": "granted"}, "two_accounts"),
        ({"kind": "gift"}, "parties"),
        ({"kind": "spend", "message_id": "m"}, "parties"),
        (SPEND | {"credit_account": "sold"}, "parties"),
        (SPEND | {"debit_account": "spent", "credit_account": "a"}, "parties"),
        ({"kind": "refund", "message_id": "m"}, "parties"),
        ({"kind": "top_up", "payment_id": "p"}, "parties"),
        ({"kind": "adjustment"}, "parties"),
        ({"account_id": "b"}, "parties"),
        ({"debit_account": "b"}, "parties"),
        ({"message_id": "m"}, "message"),
        (SPEND | {"message_id": ""}, "message"),
        ({"payment_id": "p"}, "payment"),
        ({"kind": "top_up", "debit_account": "sold"}, "payment"),
    ],
)
async def test_a_malformed_transfer_is_refused_by_the_table(database, changes, rule):
    values = {name: sa.literal(value) for name, value in transfer(**changes).items()}
    with pytest.raises(IntegrityViolation, match=f"ck_transfers_{rule}"):
        await database.write(lambda tx: tx.execute(sa.insert(transfers).values(values)))
    assert await rows(database, "transfers") == []


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
