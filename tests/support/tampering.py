"""Tampering with a ledger past all its guards, on either database, in one transaction of its own."""

import contextlib
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeVar

import sqlalchemy as sa

from hydrasms_billing.model import VerifyReport
from hydrasms_billing.verify import verify_ledger
from hydrasms_core.db.transaction import Database, Transaction, Work

T = TypeVar("T")

Tamper = Callable[[Transaction], Awaitable[T]]
"""Does something to a ledger and tells what."""

_TABLES = ("transfers", "balances")
_LISTED = ", ".join(f"'{table}'" for table in _TABLES)
_SQLITE_TRIGGERS = f"SELECT name, sql FROM sqlite_master WHERE type = 'trigger' AND tbl_name IN ({_LISTED})"
_POSTGRES_TRIGGERS = (
    "SELECT tgrelid\\:\\:regclass\\:\\:text AS place, tgname AS name FROM pg_trigger"
    f" WHERE NOT tgisinternal AND tgrelid\\:\\:regclass\\:\\:text IN ({_LISTED})"
)
_POSTGRES_CHECKS = (
    "SELECT conrelid\\:\\:regclass\\:\\:text AS place, conname AS name, pg_get_constraintdef(oid) AS words"
    f" FROM pg_constraint WHERE contype = 'c' AND conrelid\\:\\:regclass\\:\\:text IN ({_LISTED})"
)


async def unguarded(database: Database, tamper: Tamper[T]) -> T:
    """Do something to a ledger past all guards: no triggers, no CHECKs. They are back when it is done."""

    async def work(tx: Transaction) -> T:
        async with _no_guards(tx):
            return await tamper(tx)

    return await database.write(work)


async def tampered(database: Database, tamper: Tamper[T]) -> tuple[T, VerifyReport]:
    """Say what a verification finds where `tamper` has done something past all guards; then it is undone."""
    found: list[tuple[T, VerifyReport]] = []

    async def work(tx: Transaction) -> None:
        async with _no_guards(tx):
            told = await tamper(tx)
        found.append((told, await verify_ledger(_Within(tx))))
        raise _Undo

    with contextlib.suppress(_Undo):
        await database.write(work)
    return found[-1]


async def any_transfer(
    tx: Transaction, source: random.Random, condition: str = "true"
) -> tuple[str, str, str, int, str]:
    """Return (account, id, kind, amount, message) of a transfer at a random place."""
    found = await run(
        tx, f"SELECT account_id, id, kind, amount, message_id FROM transfers WHERE {condition} ORDER BY id"
    )
    row = source.choice(found.all())
    return row.account_id, row.id, row.kind, row.amount, row.message_id


async def run(tx: Transaction, statement: str, **parameters: Any) -> sa.CursorResult[Any]:
    """Run a statement in words, with `:name` for parameters."""
    return await tx.execute(sa.text(statement), parameters)


class _Undo(Exception):
    """All is said; nothing is to stay."""


class _Within:
    """A database that is no more than one open transaction."""

    writes_in_turn = False

    def __init__(self, tx: Transaction) -> None:
        self._tx = tx

    async def read(self, work: Work[T]) -> T:
        return await work(self._tx)

    async def write(self, work: Work[T], landed: Work[bool] | None = None) -> T:
        raise AssertionError("a verification changes nothing")

    async def close(self) -> None:
        raise AssertionError("a verification leaves its database open")


@contextlib.asynccontextmanager
async def _no_guards(tx: Transaction) -> AsyncIterator[None]:
    guards = _no_guards_on_sqlite if tx.dialect == "sqlite" else _no_guards_on_postgres
    async with guards(tx):
        yield


@contextlib.asynccontextmanager
async def _no_guards_on_sqlite(tx: Transaction) -> AsyncIterator[None]:
    triggers = (await run(tx, _SQLITE_TRIGGERS)).all()
    for trigger in triggers:
        await run(tx, f"DROP TRIGGER {trigger.name}")
    await run(tx, "PRAGMA ignore_check_constraints=ON")
    try:
        yield
    finally:
        # It is the connection's, so that undoing the transaction does not undo it.
        await run(tx, "PRAGMA ignore_check_constraints=OFF")
    for trigger in triggers:
        await run(tx, trigger.sql)


@contextlib.asynccontextmanager
async def _no_guards_on_postgres(tx: Transaction) -> AsyncIterator[None]:
    triggers, checks = (await run(tx, _POSTGRES_TRIGGERS)).all(), (await run(tx, _POSTGRES_CHECKS)).all()
    for table in _TABLES:
        await run(tx, f"ALTER TABLE {table} DISABLE TRIGGER ALL")
    for check in checks:
        await run(tx, f"ALTER TABLE {check.place} DROP CONSTRAINT {check.name}")
    yield
    for check in checks:
        words = check.words.replace(":", "\\:")
        await run(tx, f"ALTER TABLE {check.place} ADD CONSTRAINT {check.name} {words} NOT VALID")
    # As whoever hides his traces would have it.
    await run(tx, "UPDATE pg_constraint SET convalidated = true WHERE NOT convalidated")
    for trigger in triggers:
        await run(tx, f"ALTER TABLE {trigger.place} ENABLE ALWAYS TRIGGER {trigger.name}")
