"""Databases for tests: copies of a migrated, empty template."""

import asyncio
import contextlib
import itertools
import os
import shutil
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import asyncpg
import pytest
import sqlalchemy as sa

from hydrasms_app import migrate
from hydrasms_core.db.postgres import PostgresDatabase
from hydrasms_core.db.postgres_pool import async_engine
from hydrasms_core.db.sqlite import SqliteDatabase, sync_engine
from hydrasms_core.db.transaction import Database

T = TypeVar("T")

POSTGRES = os.environ.get("HYDRASMS_TEST_POSTGRES", "")
"""URL of a server where tests may create databases; `make check` starts one, `make test` does without."""

KINDS = ("sqlite", "postgresql")
"""What tests run on that take a database; without a server those on PostgreSQL are left out."""

ON_SQLITE = pytest.mark.parametrize("database_kind", ["sqlite"], indirect=True)
"""For tests of what is SQLite's alone: its files, pragmas and threads."""

ON_POSTGRES = pytest.mark.parametrize("database_kind", ["postgresql"], indirect=True)
"""For tests of what is PostgreSQL's alone: its locks and connections."""

_numbers = itertools.count()


def make_template(path: Path) -> Path:
    """Make a SQLite file with the current schema, as a server makes it."""
    migrate.upgrade(path)
    return path


@contextlib.contextmanager
def postgres_template(
    make: Callable[[str], object] = migrate.upgrade, template: str = "template0"
) -> Iterator[str]:
    """Give the name of a PostgreSQL database for others to be copies of: a copy of a template, and what `make`
    then does to its URL; it brings the schema up to date unless told otherwise."""
    # On a thread of its own, for the fixture that wants it may stand inside of an event loop.
    with ThreadPoolExecutor(1) as apart:
        name = _new_name()
        apart.submit(asyncio.run, _create(name, template)).result()
        try:
            apart.submit(make, postgres_url(name)).result()
            yield name
        finally:
            apart.submit(asyncio.run, _drop(name)).result()


@contextlib.asynccontextmanager
async def postgres_copy(template: str = "template0") -> AsyncIterator[str]:
    """Give the URL of a PostgreSQL database that is a copy of a template, or empty, until the block ends."""
    name = _new_name()
    await _create(name, template)
    try:
        yield postgres_url(name)
    finally:
        await _drop(name)


@contextlib.asynccontextmanager
async def opened(target: Path | str, **options: Any) -> AsyncIterator[Database]:
    """Open a database until the block ends: a SQLite file, or a PostgreSQL URL."""
    database: Database = (
        SqliteDatabase(target) if isinstance(target, Path) else PostgresDatabase(target, **options)
    )
    try:
        yield database
    finally:
        await database.close()


@contextlib.asynccontextmanager
async def copy_of(kind: str, template: Path | str, folder: Path) -> AsyncIterator[Path | str]:
    """Give a database of a kind, a copy of a template of that kind, until the block ends."""
    if kind == "sqlite":
        path = folder / "hydrasms.db"
        shutil.copyfile(template, path)
        yield path
    else:
        async with postgres_copy(str(template)) as url:
            yield url


@contextlib.contextmanager
def empty_of(kind: str, folder: Path) -> Iterator[Path | str]:
    """Say where an empty database of a kind is, or comes to be, until the block ends."""
    if kind == "sqlite":
        yield folder / "empty.db"
        return
    with postgres_template(lambda url: None) as name:
        yield postgres_url(name)


def connected(target: Path | str, work: Callable[[sa.Connection], T]) -> T:
    """Do something in a transaction of its own, as whoever owns the database may; not from within a loop."""
    if isinstance(target, Path):
        engine = sync_engine(target)
        with engine.begin() as connection:
            done = work(connection)
        engine.dispose()
        return done

    async def connect() -> T:
        engine = async_engine(str(target)).execution_options(isolation_level="READ COMMITTED")
        async with engine.begin() as connection:
            done = await connection.run_sync(work)
        await engine.dispose()
        return done

    return asyncio.run(connect())


def postgres_url(name: str) -> str:
    """Return the URL of a database of the tests' server."""
    return str(sa.make_url(POSTGRES).set(database=name).render_as_string(hide_password=False))


def _new_name() -> str:
    return f"hydrasms_test_{os.getpid()}_{next(_numbers)}"


async def _create(name: str, template: str) -> None:
    await _administer(f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY FILE_COPY")


async def _drop(name: str) -> None:
    await _administer(f"DROP DATABASE {name} WITH (FORCE)")


async def _administer(statement: str) -> None:
    connection = await asyncpg.connect(POSTGRES)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()
