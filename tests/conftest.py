"""Fixtures for every kind of test."""

import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from hydrasms_core.db.sqlite import SqliteDatabase
from hydrasms_core.db.transaction import Database
from tests.support.clock import FakeClock
from tests.support.databases import make_template
from tests.support.product import Product, product_in


@pytest.fixture(scope="session")
def template_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated, empty SQLite file, made once; tests work on copies of it."""
    return make_template(tmp_path_factory.mktemp("template") / "template.db")


@pytest.fixture
def database_path(template_database: Path, tmp_path: Path) -> Path:
    path = tmp_path / "hydrasms.db"
    shutil.copyfile(template_database, path)
    return path


# Issue 3 adds "postgresql": every suite that takes `database` then runs on both.
@pytest.fixture(params=["sqlite"])
async def database(request: pytest.FixtureRequest, database_path: Path) -> AsyncIterator[Database]:
    """An open database with the current schema and no rows."""
    opened = SqliteDatabase(database_path)
    yield opened
    await opened.close()


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
async def product(template_database: Path, tmp_path: Path) -> AsyncIterator[Product]:
    """The whole product, up and empty."""
    async with product_in(tmp_path / "data", template_database) as opened:
        yield opened


@pytest.fixture
async def still_product(template_database: Path, tmp_path: Path) -> AsyncIterator[Product]:
    """The product without its dispatcher, so that messages stay queued."""
    async with product_in(tmp_path / "data", template_database, dispatcher=False) as opened:
        yield opened
