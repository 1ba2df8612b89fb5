"""Databases that benchmarks make: a PostgreSQL server of our own, durable, and what either database holds."""

import asyncio
import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import asyncpg

from tools import postgres

_SETTINGS = (
    # Tests switch this off; without it a durable send is not what is measured.
    "fsync=on",
    "synchronous_commit=on",
    "shared_buffers=512MB",
    "max_wal_size=8GB",
    "checkpoint_timeout=15min",
    "max_connections=200",
    # A socket's path may be no longer than 107 bytes, and nobody calls there.
    "unix_socket_directories=",
)

Target = Path | str
"""A SQLite file, or the URL of a PostgreSQL database."""


class Postgres:
    """A running server in which databases can be made."""

    def __init__(self, server: postgres.PostgresServer) -> None:
        self._server = server

    def create(self, name: str, *, like: str | None = None) -> str:
        """Make a database, empty or as a copy of another, and return its URL."""
        execute(self._server.url, f'CREATE DATABASE "{name}"' + (f' TEMPLATE "{like}"' if like else ""))
        return self._server.url.rpartition("/")[0] + f"/{name}"

    def drop(self, name: str) -> None:
        """Remove a database that nobody is connected to any more."""
        execute(self._server.url, f'DROP DATABASE "{name}" WITH (FORCE)')


@contextlib.contextmanager
def postgres_server(folder: Path) -> Iterator[Postgres]:
    """Run a PostgreSQL server with its data in a new folder inside this one; raises NoPostgres."""
    with postgres.postgres(*_SETTINGS, within=folder) as server:
        yield Postgres(server)


def count(target: Target, query: str) -> int:
    """Return the one number that a query finds."""
    return row(target, query)[0]


def row(target: Target, query: str) -> tuple[int, ...]:
    """Return the one row of numbers that a query finds."""
    if isinstance(target, str):
        return tuple(_run(target, lambda connection: connection.fetchrow(query)))
    with contextlib.closing(sqlite3.connect(f"file:{target}?mode=ro", uri=True)) as reader:
        return tuple(reader.execute(query).fetchone())


def execute(url: str, *statements: str) -> None:
    """Run statements in a PostgreSQL database, each in a transaction of its own."""

    async def work(connection: "asyncpg.Connection[asyncpg.Record]") -> None:
        for statement in statements:
            await connection.execute(statement, timeout=None)

    _run(url, work)


def _run(url: str, work: Any) -> Any:
    async def connected() -> Any:
        connection = await asyncpg.connect(url)
        try:
            return await work(connection)
        finally:
            await connection.close()

    return asyncio.run(connected())
