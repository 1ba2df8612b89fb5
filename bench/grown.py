"""Fills a database with years of messages: by SQL directly, in a form that the service could have written itself.

Every account has as many. Ids grow with time, so that all indexes grow at their end while they are filled; to what
is sent later that makes no difference, for its places are where each account's messages end.
"""

import asyncio
import contextlib
import sqlite3
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import asyncpg

from bench.databases import Target
from hydrasms_core.db.list_keeper import ListKeeper
from hydrasms_core.db.sqlite import SqliteDatabase

_ALPHABET = "The quick brown fox jumps over the lazy dog, 0123456789 times. "
_VALIDITY_MS = 48 * 3_600_000
_SAID_EVERY_S = 20.0
# Nobody else wants to write meanwhile.
_LISTED_AT_ONCE = 100_000


class _Dialect(NamedTuple):
    """Where the two databases differ: each returns an expression."""

    hexadecimal: Callable[[str, int], str]
    decimal: Callable[[str, int], str]
    numbers: Callable[[int, int], str]
    """A table with one column, `i`, and both bounds in it."""


_SQLITE = _Dialect(
    lambda value, digits: f"printf('%0{digits}x', {value})",
    lambda value, digits: f"printf('%0{digits}d', {value})",
    lambda first, last: (
        f"(WITH RECURSIVE n (i) AS (SELECT {first} UNION ALL SELECT i + 1 FROM n WHERE i < {last}) SELECT i FROM n)"
    ),
)
_POSTGRES = _Dialect(
    lambda value, digits: f"lpad(to_hex({value}), {digits}, '0')",
    lambda value, digits: f"lpad(({value})::text, {digits}, '0')",
    lambda first, last: f"generate_series({first}::bigint, {last}::bigint) AS i",
)


def fill(target: Target, accounts: Sequence[str], rows: int) -> float:
    """Give accounts so many messages in all, and what they paid for them; returns the seconds that took.

    Nobody else may be connected to a file.
    """
    began = time.monotonic()
    if isinstance(target, str):
        asyncio.run(_fill_postgres(target, accounts, rows))
    else:
        with contextlib.closing(sqlite3.connect(target, isolation_level=None)) as connection:
            # Nothing has to survive here but what is whole in the end.
            for pragma in ("journal_mode=OFF", "synchronous=OFF", "cache_size=-500000"):
                connection.execute(f"PRAGMA {pragma}")
            connection.execute("BEGIN")
            for statement in _statements(_SQLITE, accounts, rows):
                connection.execute(statement)
            connection.execute("COMMIT")
            connection.execute("PRAGMA journal_mode=WAL")
        # Long since, by the time that so many are there.
        asyncio.run(_list_all(target))
    return time.monotonic() - began


async def _list_all(path: Path) -> None:
    database = SqliteDatabase(path)
    try:
        await ListKeeper(database).catch_up(short_tail=1, rows_a_write=_LISTED_AT_ONCE)
    finally:
        await database.close()


async def _fill_postgres(url: str, accounts: Sequence[str], rows: int) -> None:
    connection = await asyncpg.connect(url)
    try:
        await connection.execute("SET synchronous_commit = off")
        for statement in _statements(_POSTGRES, accounts, rows):
            await connection.execute(statement)
        # What the server would have done by itself, had they come one by one.
        for statement in ("VACUUM (ANALYZE) messages", "VACUUM (ANALYZE) transfers", "CHECKPOINT"):
            await connection.execute(statement)
    finally:
        await connection.close()


def _statements(dialect: _Dialect, accounts: Sequence[str], rows: int) -> Iterator[str]:
    """Return what to run, account by account, telling on standard error how far it is."""
    said = time.monotonic()
    began_ms = time.time_ns() // 1_000_000 - rows
    bounds = [rows * number // len(accounts) for number in range(len(accounts) + 1)]
    for account, (first, end) in zip(sorted(accounts), pairwise(bounds), strict=True):
        if time.monotonic() - said > _SAID_EVERY_S:
            said = time.monotonic()
            print(f"{first:,} of {rows:,} messages are there", file=sys.stderr, flush=True)
        if first < end:
            yield from _of_account(dialect, account, dialect.numbers(first, end - 1), began_ms)


def _of_account(dialect: _Dialect, account: str, numbers: str, began_ms: int) -> tuple[str, ...]:
    # A message each millisecond, the last of all a moment ago.
    ms = f"({began_ms} + i)"
    version_and_variant = "'-7000-8000-'"
    own_id = " || ".join(
        [
            dialect.hexadecimal(f"{ms} >> 16", 8),
            "'-'",
            dialect.hexadecimal(f"{ms} & 65535", 4),
            version_and_variant,
            dialect.hexadecimal("i", 12),
        ]
    )
    length = "(20 + i * 7919 % 281)"
    credits = f"(({length} + 159) / 160)"
    messages = (
        "INSERT INTO messages (account_id, id, sender, recipient, country_iso2, country_iso3, calling_code, content,"
        " status, credits, encoding, segments, created_at_ms, updated_at_ms, expires_at_ms, carrier, attempts)"
        f" SELECT '{account}', {own_id}, '+2899682626', '+447700900' || {dialect.decimal('i % 901', 3)}, 'GB', 'GBR',"
        f" 44, substr('{_ALPHABET * 5}', 1, CAST({length} AS integer)), 'delivered', {credits}, 'GSM7', {credits},"
        f" {ms}, {ms}, {ms} + {_VALIDITY_MS}, 'simulator', 1 FROM {numbers}"
    )
    transfers = (
        "INSERT INTO transfers (account_id, id, debit_account, credit_account, amount, kind, message_id, actor,"
        f" created_at_ms) SELECT '{account}', {own_id}, '{account}', 'spent', {credits}, 'spend', {own_id},"
        f" 'account', {ms} FROM {numbers}"
    )
    balance = (
        f"UPDATE balances SET balance = balance - (SELECT sum({credits}) FROM {numbers})"
        f" WHERE account_id = '{account}'"
    )
    return messages, transfers, balance
