"""Fixtures for every kind of test."""

import shutil
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from hydrasms_core.db.transaction import Database
from tests.support import databases
from tests.support.clock import FakeClock
from tests.support.product import Product, product_in


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what needs PostgreSQL where no server is named; `make check` names one."""
    if databases.POSTGRES:
        return
    left_out = [item for item in items if item.get_closest_marker("postgresql")]
    if left_out:
        items[:] = [item for item in items if item not in left_out]
        config.hook.pytest_deselected(items=left_out)


@pytest.fixture(scope="session")
def template_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated, empty SQLite file, made once; tests work on copies of it."""
    return databases.make_template(tmp_path_factory.mktemp("template") / "template.db")


@pytest.fixture(scope="session")
def postgres_template() -> Iterator[str]:
    """A migrated, empty PostgreSQL database; tests work on copies of it."""
    with databases.postgres_template() as name:
        yield name


@pytest.fixture
def database_path(template_database: Path, tmp_path: Path) -> Path:
    path = tmp_path / "hydrasms.db"
    shutil.copyfile(template_database, path)
    return path


@pytest.fixture(params=databases.KINDS)
def database_kind(request: pytest.FixtureRequest) -> str:
    """Which database a test runs on: it runs on every kind that there is."""
    return str(request.param)


@pytest.fixture
async def database_target(
    request: pytest.FixtureRequest, database_kind: str, tmp_path: Path
) -> AsyncIterator[Path | str]:
    """Where a database with the current schema and no rows is: a file, or a URL."""
    fixture = "template_database" if database_kind == "sqlite" else "postgres_template"
    async with databases.copy_of(database_kind, request.getfixturevalue(fixture), tmp_path) as target:
        yield target


@pytest.fixture
async def database(database_target: Path | str) -> AsyncIterator[Database]:
    """An open database with the current schema and no rows."""
    async with databases.opened(database_target) as database:
        yield database


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
