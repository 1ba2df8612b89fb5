"""Verification of the ledger: it finds what is wrong, and nothing where all is well."""

import asyncio
import random
import threading
import time
from typing import Any

import pytest
import sqlalchemy as sa

from hydrasms_app.schema import metadata
from hydrasms_base.ids import new_id
from hydrasms_billing.model import DiscrepancyKind
from hydrasms_billing.tables import transfers
from hydrasms_billing.verify import verify_ledger
from hydrasms_core.messaging.tables import messages
from tests.support.ledger import FATES, charge, fill, findings, open_account, send
from tests.support.tampering import any_transfer, run, tampered, unguarded

BALANCE, SPEND, REFUND, TRANSFER, GUARD = DiscrepancyKind
TRIALS = 100
OTHERS = ", ".join(column.name for column in transfers.columns if column.name != "id")


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


async def test_verification_changes_nothing(database):
    await fill(database)
    before = await all_rows(database)
    await verify_ledger(database)
    assert await all_rows(database) == before


async def all_rows(database):
    async def work(tx):
        return [
            (await tx.execute(sa.select(*table.columns).order_by(*table.columns))).all()
            for table in metadata.sorted_tables
        ]

    return await database.read(work)


# ---- tampering, at random places ----


def expected_for(account_id, kind, message_id):
    """Return what a wrong amount of a transfer, or its absence, shows as."""
    expected = {(BALANCE, account_id, "")}
    if kind in ("spend", "refund"):
        expected.add((SPEND if kind == "spend" else REFUND, account_id, message_id))
    return expected


async def test_opening_the_guards_and_changing_nothing_is_not_reported(filled):
    """The control of all tests below: what they find is what was changed, not how."""

    async def nothing(tx):
        return None

    _, report = await tampered(filled, nothing)
    assert report.discrepancies == []
    await unguarded(filled, nothing)
    assert (await verify_ledger(filled)).discrepancies == []


async def test_an_altered_amount_is_found_wherever_it_is(filled):
    for trial in range(TRIALS):
        source = random.Random(trial)

        async def alter(tx, source=source):
            account_id, transfer_id, kind, amount, message_id = await any_transfer(tx, source)
            altered = source.choice(
                [amount + 1, amount + source.randint(2, 10**9), amount * 2, amount + 2**40]
            )
            await set_amount(tx, altered, "id = :id", id=transfer_id)
            return expected_for(account_id, kind, message_id)

        expected, report = await tampered(filled, alter)
        assert findings(report) == expected, f"trial {trial}"


async def set_amount(tx, amount, condition, **parameters):
    # Bound as it is: a column of SQLite takes any type.
    change = sa.text(f"UPDATE transfers SET amount = :amount WHERE {condition}")
    await tx.execute(change.bindparams(amount=amount, **parameters))


async def test_an_impossible_amount_is_found_and_breaks_no_sum(filled, database_kind):
    amounts: list[Any] = [0, -1, -(2**63), 2**62 + 1, 2**63 - 1]
    if database_kind == "sqlite":
        amounts += [1.5, "many", b"\x00"]
    for amount in amounts:
        for condition in ("kind = 'grant'", "kind = 'spend'", "kind = 'refund'"):

            async def alter(tx, amount=amount, condition=condition):
                account_id, transfer_id, *_ = await any_transfer(tx, random.Random(1), condition)
                await set_amount(tx, amount, "id = :id", id=transfer_id)
                return account_id, transfer_id

            (account_id, transfer_id), report = await tampered(filled, alter)
            assert (TRANSFER, account_id, transfer_id) in findings(report)


async def test_sums_past_64_bits_are_found_and_break_nothing(filled):
    _, report = await tampered(filled, lambda tx: set_amount(tx, 2**62, "kind <> 'spend'"))
    assert {found.account_id for found in report.discrepancies if found.kind is BALANCE} != set()
    assert not report.ok


async def test_a_missing_row_is_found_wherever_it_was(filled):
    for trial in range(TRIALS):
        source = random.Random(trial)

        async def remove(tx, source=source):
            account_id, transfer_id, kind, _, message_id = await any_transfer(tx, source)
            await run(tx, "DELETE FROM transfers WHERE id = :id", id=transfer_id)
            return expected_for(account_id, kind, message_id)

        expected, report = await tampered(filled, remove)
        assert findings(report) == expected, f"trial {trial}"


async def test_a_doubled_row_is_found_wherever_it_is(filled):
    for trial in range(TRIALS):
        source = random.Random(trial)

        async def double(tx, source=source):
            account_id, transfer_id, _, _, message_id = await any_transfer(tx, source)
            expected = {(BALANCE, account_id, "")}
            if message_id:
                # A second spend or refund fits in only where its index is gone, so that shows as well.
                await run(tx, "DROP INDEX uq_transfers_message")
                expected |= {(TRANSFER, account_id, message_id), (GUARD, "", "uq_transfers_message")}
            await run(
                tx,
                f"INSERT INTO transfers (id, {OTHERS}) SELECT :twin, {OTHERS} FROM transfers WHERE id = :id",
                id=transfer_id,
                twin=new_id(),
            )
            return expected

        expected, report = await tampered(filled, double)
        assert findings(report) == expected, f"trial {trial}"


# ---- one state, while writes go on ----


class WritesBetweenStatements:
    """A database in which a message is sent before each statement of a read."""

    def __init__(self, database, account_id):
        self.database = database
        self.account_id = account_id
        self.loop = asyncio.get_running_loop()

    async def disturb(self):
        if threading.current_thread() is threading.main_thread():
            await self.send_one()
        else:
            # SQLite reads on a thread of its own, which waits while the loop has the message sent.
            asyncio.run_coroutine_threadsafe(self.send_one(), self.loop).result(20)

    async def send_one(self):
        await self.database.write(lambda tx: send(tx, charge(self.account_id)))

    async def read(self, work):
        return await self.database.read(lambda tx: work(_Disturbed(self, tx.dialect, tx.execute)))


class TornReads(WritesBetweenStatements):
    """The control: every statement of a read sees a state of its own."""

    async def read(self, work):
        dialect = await self.database.read(_dialect)
        return await work(_Disturbed(self, dialect, self._execute_apart))

    async def _execute_apart(self, statement, parameters=None):
        return await self.database.read(lambda tx: tx.execute(statement, parameters))


class _Disturbed:
    def __init__(self, disturbed, dialect, execute):
        self.dialect = dialect
        self._disturbed = disturbed
        self._execute = execute

    async def execute(self, statement, parameters=None):
        await self._disturbed.disturb()
        return await self._execute(statement, parameters)


async def _dialect(tx):
    return tx.dialect


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


NUMBERS = "WITH RECURSIVE n (i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i + 1 < {count})"


def named(letter, number):
    """Return an id made of a number, all of one length, in SQL."""
    return f"'{letter}' || CAST(1000000000 + {number} AS TEXT)"


async def many(database, count):
    """Fill a database with messages of a thousand accounts, their spends, and a refund of every tenth."""
    numbers, account, message = NUMBERS.format(count=count), named("a", "i % 1000"), named("m", "i")
    values = {
        column.name: "0" if isinstance(column.type, sa.Integer) else "''"
        for column in messages.columns
        if not column.nullable and column.server_default is None
    }
    values |= {"account_id": account, "id": message, "credits": "i % 5 + 1", "content": f"'{'x' * 160}'"}
    values["status"] = "CASE WHEN i % 10 = 0 THEN 'rejected' ELSE 'delivered' END"
    rows = (
        (f"{account}, {named('g', 'i')}, 'granted', {account}, {count}, 'grant', ''", "i < 1000"),
        (f"{account}, {named('s', 'i')}, {account}, 'spent', i % 5 + 1, 'spend', {message}", "true"),
        (f"{account}, {named('r', 'i')}, 'spent', {account}, i % 5 + 1, 'refund', {message}", "i % 10 = 0"),
    )
    columns = "account_id, id, debit_account, credit_account, amount, kind, message_id, actor, created_at_ms"

    async def work(tx):
        await run(
            tx,
            f"INSERT INTO messages ({', '.join(values)}) {numbers} SELECT {', '.join(values.values())} FROM n",
        )
        for row, condition in rows:
            await run(
                tx,
                f"INSERT INTO transfers ({columns}) {numbers} SELECT {row}, 'system', 0 FROM n WHERE {condition}",
            )
        await run(
            tx,
            "INSERT INTO balances"
            " SELECT account_id, sum(CASE WHEN credit_account = account_id THEN amount ELSE -amount END), 0"
            " FROM transfers GROUP BY account_id",
        )

    await database.write(work)


async def verified_in_time(database, count, bound_s):
    await many(database, count)
    began = time.monotonic()
    report = await verify_ledger(database)
    assert time.monotonic() - began < bound_s
    assert report.ok
    assert report.transfers == 1_000 + count + count // 10

    async def tamper(tx):
        await run(tx, "DROP INDEX uq_transfers_message")
        await run(tx, f"UPDATE transfers SET amount = amount + 1 WHERE id = {named('s', count // 2)}")

    await unguarded(database, tamper)
    began = time.monotonic()
    report = await verify_ledger(database)
    # Without the index it may not take longer either: that is when somebody is most in need of it.
    assert time.monotonic() - began < bound_s
    assert sorted(found.kind.name for found in report.discrepancies) == ["BALANCE", "GUARD", "SPEND"]


async def test_a_large_ledger_is_verified_in_time_with_and_without_its_index(database):
    await verified_in_time(database, 20_000, bound_s=20.0)


@pytest.mark.faults
async def test_a_million_transfers_are_verified_in_30_seconds(database):
    await verified_in_time(database, 1_000_000, bound_s=30.0)
