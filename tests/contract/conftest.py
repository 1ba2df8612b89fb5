"""Fixtures of the contract suites."""

import asyncio
import shutil

import pytest

from hydrasms_core.db.sqlite import SqliteDatabase
from tests.support.ledger import fill


@pytest.fixture(scope="session")
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
