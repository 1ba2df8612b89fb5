"""Verification of the ledger: it finds what is wrong, and nothing where all is well."""

import asyncio
import contextlib
import random
import re
import shutil
import sqlite3
import time

import pytest
import sqlalchemy as sa

from hydrasms_base.ids import new_id
from hydrasms_billing import store
from hydrasms_billing.model import MAX_DISCREPANCIES, DiscrepancyKind
from hydrasms_billing.verify import verify_ledger
from hydrasms_core.accounts.tables import accounts
from hydrasms_core.db.sqlite import SqliteDatabase
from hydrasms_core.messaging.model import Status
from hydrasms_core.messaging.tables import messages
from tests.support.ledger import (
    AT_MS,
    FATES,
    charge,
    credits_ledger,
    fill,
    open_account,
    put_message,
    send,
    unguarded,
)

BALANCE, SPEND, REFUND, TRANSFER, GUARD = DiscrepancyKind
TRIALS = 100


def findings(report):
    return {(found.kind, found.account_id, found.subject) for found in report.discrepancies}


# ---- where all is well ----


async def test_an_empty_ledger_is_in_order(database):
    report = await verify_ledger(database)
    assert report.ok
    assert (report.accounts, report.transfers, report.messages) == (0, 0, 0)


async def test_a_ledger_with_every_kind_of_transaction_and_message_is_in_order(database):
    await fill(database, accounts=5, messages_each=20)
    report = await verify_ledger(database)
    assert report.discrepancies == []
    refunds = 5 * 2 * sum(refunded for _, _, refunded in FATES)
    assert (report.accounts, report.messages) == (5, 100)
    assert report.transfers == 5 + 5 + 100 + refunds


async def test_an_account_that_opened_with_nothing_is_in_order(database):
    await open_account(database, 0)
    assert (await verify_ledger(database)).ok


async def test_verification_changes_nothing(database, database_path):
    await fill(database)
    with contextlib.closing(sqlite3.connect(database_path)) as connection:
        before = list(connection.iterdump())
        await verify_ledger(database)
        assert list(connection.iterdump()) == before


# ---- tampering, at random places ----


@pytest.fixture(scope="module")
def ledger_file(template_database, tmp_path_factory):
    """A file with a ledger that is in order, made once."""
    path = tmp_path_factory.mktemp("ledger") / "ledger.db"
    shutil.copyfile(template_database, path)

    async def make():
        opened = SqliteDatabase(path)
        try:
            await fill(opened, accounts=5, messages_each=40)
        finally:
            await opened.close()

    asyncio.run(make())
    return path


@pytest.fixture
def ledger_path(ledger_file, tmp_path):
    """A copy of the ledger, to tamper with."""
    return shutil.copyfile(ledger_file, tmp_path / "ledger.db")


async def verified(path):
    opened = SqliteDatabase(path)
    try:
        return await verify_ledger(opened)
    finally:
        await opened.close()


async def tampered(ledger_path, tamper):
    """Verify a copy of a ledger with which `tamper` has done something, past all guards."""
    copy = ledger_path.with_name("tampered.db")
    shutil.copyfile(ledger_path, copy)
    with unguarded(copy) as connection:
        told = tamper(connection)
    return told, await verified(copy)


def any_transfer(connection, source, condition="true"):
    rows = connection.execute(
        f"SELECT account_id, id, kind, amount, message_id FROM transfers WHERE {condition} ORDER BY id"
    ).fetchall()
    return source.choice(rows)


def expected_for(account_id, kind, message_id):
    """Return what a wrong amount of a transfer, or its absence, shows as."""
    expected = {(BALANCE, account_id, "")}
    if kind in ("spend", "refund"):
        expected.add((SPEND if kind == "spend" else REFUND, account_id, message_id))
    return expected


async def test_opening_the_guards_and_changing_nothing_is_not_reported(ledger_path):
    """The control of all tests below: what they find is what was changed, not how."""
    _, report = await tampered(ledger_path, lambda connection: None)
    assert report.discrepancies == []


async def test_an_altered_amount_is_found_wherever_it_is(ledger_path):
    for trial in range(TRIALS):
        source = random.Random(trial)

        def alter(connection, source=source):
            account_id, transfer_id, kind, amount, message_id = any_transfer(connection, source)
            altered = source.choice(
                [amount + 1, amount + source.randint(2, 10**9), amount * 2, amount + 2**40]
            )
            connection.execute("UPDATE transfers SET amount = ? WHERE id = ?", (altered, transfer_id))
            return expected_for(account_id, kind, message_id)

        expected, report = await tampered(ledger_path, alter)
        assert findings(report) == expected, f"trial {trial}"


async def test_an_impossible_amount_is_found_and_breaks_no_sum(ledger_path):
    for amount in (0, -1, -(2**63), 2**62 + 1, 2**63 - 1, 1.5, "many", b"\x00"):
        for condition in ("kind = 'grant'", "kind = 'spend'", "kind = 'refund'"):

            def alter(connection, amount=amount, condition=condition):
                account_id, transfer_id, *_ = any_transfer(connection, random.Random(1), condition)
                connection.execute("UPDATE transfers SET amount = ? WHERE id = ?", (amount, transfer_id))
                return account_id, transfer_id

            (account_id, transfer_id), report = await tampered(ledger_path, alter)
            assert (TRANSFER, account_id, transfer_id) in findings(report)


async def test_sums_past_64_bits_are_found_and_break_nothing(ledger_path):
    def alter(connection):
        connection.execute("UPDATE transfers SET amount = ? WHERE kind <> 'spend'", (2**62,))

    _, report = await tampered(ledger_path, alter)
    assert {found.account_id for found in report.discrepancies if found.kind is BALANCE} != set()
    assert not report.ok


async def test_a_missing_row_is_found_wherever_it_was(ledger_path):
    for trial in range(TRIALS):
        source = random.Random(trial)

        def remove(connection, source=source):
            account_id, transfer_id, kind, _, message_id = any_transfer(connection, source)
            connection.execute("DELETE FROM transfers WHERE id = ?", (transfer_id,))
            return expected_for(account_id, kind, message_id)

        expected, report = await tampered(ledger_path, remove)
        assert findings(report) == expected, f"trial {trial}"


async def test_a_doubled_row_is_found_wherever_it_is(ledger_path):
    for trial in range(TRIALS):
        source = random.Random(trial)

        def double(connection, source=source):
            account_id, transfer_id, _, _, message_id = any_transfer(connection, source)
            expected = {(BALANCE, account_id, "")}
            if message_id:
                # A second spend or refund fits in only where its index is gone, so that shows as well.
                connection.execute("DROP INDEX uq_transfers_message")
                expected |= {(TRANSFER, account_id, message_id), (GUARD, "", "uq_transfers_message")}
            connection.execute(
                "CREATE TEMP TABLE twin AS SELECT * FROM transfers WHERE id = ?", (transfer_id,)
            )
            connection.execute("UPDATE twin SET id = ?", (new_id(),))
            connection.execute("INSERT INTO transfers SELECT * FROM twin")
            return expected

        expected, report = await tampered(ledger_path, double)
        assert findings(report) == expected, f"trial {trial}"


# ---- every rule, one by one ----


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


async def test_transfers_without_a_balance_are_found(database, database_path):
    account_id = await open_account(database, 10)
    with unguarded(database_path) as connection:
        connection.execute("DELETE FROM balances")
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


async def test_an_overdraft_is_found_though_its_transfers_add_up(database, database_path):
    account_id = await open_account(database, 5)
    paid = charge(account_id, 7)
    await database.write(lambda tx: put_message(tx, paid))
    await database.write(lambda tx: store.insert_spends(tx, [paid], at_ms=AT_MS))
    with unguarded(database_path) as connection:
        connection.execute("UPDATE balances SET balance = -2")
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


async def test_amounts_that_changed_places_are_found_though_the_balance_adds_up(ledger_path):
    def swap(connection):
        first = any_transfer(connection, random.Random(1), "kind = 'spend' AND amount = 1")
        second = any_transfer(
            connection, random.Random(1), f"kind = 'spend' AND amount = 5 AND account_id = '{first[0]}'"
        )
        connection.execute("UPDATE transfers SET amount = 5 WHERE id = ?", (first[1],))
        connection.execute("UPDATE transfers SET amount = 1 WHERE id = ?", (second[1],))
        return {(SPEND, first[0], first[4]), (SPEND, second[0], second[4])}

    expected, report = await tampered(ledger_path, swap)
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
async def test_a_malformed_transfer_is_found(database, database_path, change):
    account_id = await open_account(database, 10)
    with unguarded(database_path) as connection:
        connection.execute(f"UPDATE transfers SET {change}")
        (transfer_id,) = connection.execute("SELECT id FROM transfers").fetchone()
    assert (TRANSFER, account_id, transfer_id) in findings(await verify_ledger(database))


async def test_a_report_names_the_first_100_and_counts_all(database):
    account_id = await open_account(database, 10)

    async def work(tx):
        for _ in range(MAX_DISCREPANCIES + 20):
            await put_message(tx, charge(account_id))

    await database.write(work)
    report = await verify_ledger(database)
    assert len(report.discrepancies) == MAX_DISCREPANCIES
    assert report.messages == MAX_DISCREPANCIES + 20


# ---- guards ----

TRIGGERS = [
    "transfers_refuse_update",
    "transfers_refuse_delete",
    "balances_refuse_delete",
    "balances_refuse_move",
]
CONSTRAINTS = [
    "ck_balances_not_negative",
    "pk_balances",
    "ck_transfers_amount",
    "ck_transfers_two_accounts",
    "ck_transfers_parties",
    "ck_transfers_message",
    "ck_transfers_payment",
    "pk_transfers",
]


def rebuild(path, table, rewrite):
    """Make a table anew with other words, keeping its rows, indexes and triggers."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        objects = "SELECT sql FROM sqlite_master WHERE tbl_name = ? AND sql IS NOT NULL"
        (create,) = connection.execute(f"{objects} AND type = 'table'", (table,)).fetchone()
        rest = connection.execute(f"{objects} AND type <> 'table'", (table,)).fetchall()
        assert rewrite(create) != create
        connection.execute(f"CREATE TEMP TABLE kept AS SELECT * FROM {table}")
        connection.execute(f"DROP TABLE {table}")
        connection.execute(rewrite(create))
        connection.execute(f"INSERT INTO {table} SELECT * FROM kept")
        for (sql,) in rest:
            connection.execute(sql)


def rewrite_trigger(path, name, rewrite):
    """Make a trigger anew with other words."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        (create,) = connection.execute("SELECT sql FROM sqlite_master WHERE name = ?", (name,)).fetchone()
        assert rewrite(create) != create
        connection.execute(f"DROP TRIGGER {name}")
        connection.execute(rewrite(create))


def constraint_line(sql, name):
    (line,) = [line for line in sql.splitlines() if f"CONSTRAINT {name} " in line]
    return line


def without(sql, name):
    lines = [line for line in sql.splitlines() if line != constraint_line(sql, name)]
    return re.sub(r",\s*\)$", "\n)", "\n".join(lines))


async def guards_of(path):
    report = await verified(path)
    assert {found.kind for found in report.discrepancies} <= {GUARD}
    return [found.subject for found in report.discrepancies]


@pytest.mark.parametrize("name", TRIGGERS)
async def test_a_trigger_that_is_gone_is_found(ledger_path, name):
    with contextlib.closing(sqlite3.connect(ledger_path)) as connection:
        connection.execute(f"DROP TRIGGER {name}")
    assert await guards_of(ledger_path) == [name]


@pytest.mark.parametrize("name", TRIGGERS)
async def test_a_trigger_that_refuses_no_more_is_found(ledger_path, name):
    rewrite_trigger(ledger_path, name, lambda sql: sql.replace(" BEGIN ", " WHEN 0 BEGIN "))
    assert await guards_of(ledger_path) == [name]


@pytest.mark.parametrize("name", CONSTRAINTS)
async def test_a_constraint_that_is_gone_is_found(ledger_path, name):
    table = name.split("_")[1]
    rebuild(ledger_path, table, lambda sql: without(sql, name))
    assert await guards_of(ledger_path) == [name]


@pytest.mark.parametrize("name", CONSTRAINTS)
async def test_a_constraint_that_is_only_a_comment_is_found(ledger_path, name):
    table = name.split("_")[1]

    def comment_out(sql):
        return without(sql, name).replace("(", f"( /* {constraint_line(sql, name)} */", 1)

    rebuild(ledger_path, table, comment_out)
    assert await guards_of(ledger_path) == [name]


@pytest.mark.parametrize(
    "weaker",
    [
        None,
        "CREATE INDEX {name} ON transfers (message_id, kind, account_id) WHERE message_id <> ''",
        "CREATE UNIQUE INDEX {name} ON transfers (message_id, kind, account_id, id) WHERE message_id <> ''",
        "CREATE UNIQUE INDEX {name} ON transfers (message_id, kind, account_id) WHERE kind = 'refund'",
    ],
)
async def test_a_unique_index_that_is_gone_or_weaker_is_found(ledger_path, weaker):
    with contextlib.closing(sqlite3.connect(ledger_path)) as connection:
        connection.execute("DROP INDEX uq_transfers_message")
        if weaker is not None:
            connection.execute(weaker.format(name="uq_transfers_message"))
    assert await guards_of(ledger_path) == ["uq_transfers_message"]


async def test_guards_that_are_only_written_otherwise_are_not_reported(ledger_path):
    rewrite_trigger(
        ledger_path,
        "transfers_refuse_update",
        lambda sql: sql.replace(" ON transfers ", '\n  on "transfers" -- here\n'),
    )
    with contextlib.closing(sqlite3.connect(ledger_path)) as connection:
        connection.execute("DROP INDEX uq_transfers_message")
        connection.execute(
            """create unique index "uq_transfers_message"
                 on [transfers] (message_id,kind,account_id) where message_id<>''"""
        )
    assert await guards_of(ledger_path) == []


# ---- one state, while writes go on ----


class WritesBetweenStatements:
    """A database in which a message is sent before each statement of a read."""

    def __init__(self, database, account_id):
        self.database = database
        self.account_id = account_id

    async def disturb(self):
        await self.database.write(lambda tx: send(tx, charge(self.account_id)))

    async def read(self, work):
        return await self.database.read(lambda tx: work(_Disturbed(self, tx.execute)))


class TornReads(WritesBetweenStatements):
    """The control: every statement of a read sees a state of its own."""

    async def read(self, work):
        return await work(_Disturbed(self, self._execute_apart))

    async def _execute_apart(self, statement, parameters=None):
        return await self.database.read(lambda tx: tx.execute(statement, parameters))


class _Disturbed:
    def __init__(self, disturbed, execute):
        self._disturbed = disturbed
        self._execute = execute

    async def execute(self, statement, parameters=None):
        await self._disturbed.disturb()
        return await self._execute(statement, parameters)


@pytest.mark.parametrize(("kind", "is_one_state"), [(WritesBetweenStatements, True), (TornReads, False)])
async def test_verification_reads_one_state_whatever_is_written_meanwhile(database, kind, is_one_state):
    account_id = await open_account(database, 1_000)
    report = await verify_ledger(kind(database, account_id))
    assert report.ok
    # The state is that of the first statement, before which one message was sent.
    assert (report.messages == 1) is is_one_state
    assert (await verify_ledger(database)).messages > 1


async def test_verification_finds_nothing_while_messages_come_and_go(database):
    account_ids = await fill(database, accounts=2, messages_each=10)
    done = False
    written = 0

    async def send_one(number):
        status, taken, refunded = FATES[number % len(FATES)]
        paid = charge(account_ids[number % 2])
        await database.write(lambda tx: send(tx, paid, status, taken=taken, refunded=refunded))

    async def write():
        nonlocal written
        while not done:
            await send_one(written)
            written += 1
            if written % 50 == 0:
                await open_account(database, 5)

    async with asyncio.TaskGroup() as group:
        group.create_task(write())
        before = 0
        for _ in range(20):
            report = await verify_ledger(database)
            assert report.ok
            assert report.messages >= before
            before = report.messages
        done = True
    assert written > 0


# ---- size ----


def many(path, count):
    """Fill a file with messages of a thousand accounts, their spends, and a refund of every tenth."""
    account, message = "printf('a%035d', i % 1000)", "printf('m%035d', i)"
    values = {"account_id": account, "id": message, "status": "iif(i % 10, 'delivered', 'rejected')"}
    values |= {"credits": "i % 5 + 1", "content": "printf('%0160d', i)"}
    names = [
        column.name for column in messages.columns if not column.nullable and column.server_default is None
    ]
    columns = "account_id, id, debit_account, credit_account, amount, kind, message_id, actor, created_at_ms"
    numbers = f"WITH RECURSIVE n (i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i + 1 < {count})"
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA synchronous=OFF")
        connection.execute("BEGIN")
        picked = ", ".join(values.get(name, "0") for name in names)
        connection.execute(f"INSERT INTO messages ({', '.join(names)}) {numbers} SELECT {picked} FROM n")
        for transfer, condition in (
            (f"{account}, printf('g%035d', i), 'granted', {account}, {count}, 'grant', ''", "i < 1000"),
            (f"{account}, printf('s%035d', i), {account}, 'spent', i % 5 + 1, 'spend', {message}", "true"),
            (
                f"{account}, printf('r%035d', i), 'spent', {account}, i % 5 + 1, 'refund', {message}",
                "i % 10 = 0",
            ),
        ):
            connection.execute(
                f"INSERT INTO transfers ({columns}) {numbers} SELECT {transfer}, 'system', 0 FROM n WHERE {condition}"
            )
        connection.execute(
            "INSERT INTO balances SELECT account_id, sum(iif(credit_account = account_id, amount, -amount)), 0"
            " FROM transfers GROUP BY account_id"
        )
        connection.execute("COMMIT")


async def verified_in_time(path, count, bound_s):
    many(path, count)
    began = time.monotonic()
    report = await verified(path)
    assert time.monotonic() - began < bound_s
    assert report.ok
    assert report.transfers == 1_000 + count + count // 10
    with unguarded(path) as connection:
        connection.execute("DROP INDEX uq_transfers_message")
        connection.execute(
            "UPDATE transfers SET amount = amount + 1 WHERE id = printf('s%035d', ?)", (count // 2,)
        )
    began = time.monotonic()
    report = await verified(path)
    # Without the index it may not take longer either: that is when somebody is most in need of it.
    assert time.monotonic() - began < bound_s
    assert sorted(found.kind.name for found in report.discrepancies) == ["BALANCE", "GUARD", "SPEND"]


async def test_a_large_ledger_is_verified_in_time_with_and_without_its_index(database_path):
    await verified_in_time(database_path, 20_000, bound_s=20.0)


@pytest.mark.faults
async def test_a_million_transfers_are_verified_in_30_seconds(database_path):
    await verified_in_time(database_path, 1_000_000, bound_s=30.0)
