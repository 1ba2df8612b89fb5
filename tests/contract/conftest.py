"""Fixtures of the contract suites."""

import asyncio
import shutil

import pytest

from tests.support import databases
from tests.support.ledger import fill


@pytest.fixture(scope="session")
def sqlite_ledger(sqlite_template, tmp_path_factory):
    """A file with a ledger that is in order, made once."""
    path = tmp_path_factory.mktemp("ledger") / "ledger.db"
    shutil.copyfile(sqlite_template, path)
    _fill(path)
    return path


@pytest.fixture(scope="session")
def postgres_ledger(postgres_template):
    """The same as a PostgreSQL database."""
    with databases.postgres_template(_fill, postgres_template) as name:
        yield name


@pytest.fixture
def ledger_path(sqlite_ledger, tmp_path):
    """A copy of the file, to tamper with its schema."""
    return shutil.copyfile(sqlite_ledger, tmp_path / "ledger.db")


@pytest.fixture(scope="session")
def ledger_template(request, database_kind):
    return request.getfixturevalue("sqlite_ledger" if database_kind == "sqlite" else "postgres_ledger")


@pytest.fixture
async def filled(database_kind, ledger_template, tmp_path):
    """A database with a ledger that is in order."""
    async with (
        databases.copy_of(database_kind, ledger_template, tmp_path) as target,
        databases.opened(target) as database,
    ):
        yield database


def _fill(target):
    async def make():
        async with databases.opened(target) as database:
            await fill(database, accounts=5, messages_each=40)

    asyncio.run(make())


@pytest.fixture
async def postgres_url(postgres_template):
    """The URL of a PostgreSQL database with the current schema and no rows."""
    async with databases.postgres_copy(postgres_template) as url:
        yield url
