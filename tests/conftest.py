"""Fixtures for every kind of test."""

import shutil
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from hydrasms_core.db.transaction import Database
from tests.support import databases
from tests.support.clock import FakeClock
from tests.support.product import Product, product_in


def pytest_report_header() -> str:
    """Say which databases a run is on."""
    return "databases: " + (
        ", ".join(databases.KINDS) if databases.POSTGRES else "sqlite (no server is named)"
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what needs PostgreSQL where no server is named; the summary counts it as deselected."""
    if databases.POSTGRES:
        return
    left_out = {item for item in items if _needs_postgres(item)}
    config.hook.pytest_deselected(items=list(left_out))
    items[:] = [item for item in items if item not in left_out]


def _needs_postgres(item: pytest.Item) -> bool:
    kind = item.callspec.params.get("database_kind") if hasattr(item, "callspec") else None
    return kind == "postgresql" or item.get_closest_marker("postgresql") is not None


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated, empty SQLite file, made once; tests work on copies of it."""
    return databases.make_template(tmp_path_factory.mktemp("template") / "template.db")


@pytest.fixture(scope="session")
def postgres_template() -> Iterator[str]:
    """A migrated, empty PostgreSQL database; tests work on copies of it."""
    with databases.postgres_template() as name:
        yield name


@pytest.fixture
def database_path(sqlite_template: Path, tmp_path: Path) -> Path:
    """A SQLite file with the current schema and no rows, whatever other tests run on."""
    path = tmp_path / "hydrasms.db"
    shutil.copyfile(sqlite_template, path)
    return path


@pytest.fixture(scope="session", params=databases.KINDS)
def database_kind(request: pytest.FixtureRequest) -> str:
    """Which database a test runs on: it runs on every kind, unless it says otherwise."""
    return str(request.param)


@pytest.fixture(scope="session")
def database_template(request: pytest.FixtureRequest, database_kind: str) -> Path | str:
    """A migrated, empty database of the kind: a file, or a name."""
    fixture = "sqlite_template" if database_kind == "sqlite" else "postgres_template"
    template: Path | str = request.getfixturevalue(fixture)
    return template


@pytest.fixture
async def database_target(
    database_kind: str, database_template: Path | str, tmp_path: Path
) -> AsyncIterator[Path | str]:
    """Where a database with the current schema and no rows is: a file, or a URL."""
    async with databases.copy_of(database_kind, database_template, tmp_path) as target:
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
async def product(database_target: Path | str, tmp_path: Path) -> AsyncIterator[Product]:
    """The whole product, up and empty."""
    async with product_in(tmp_path / "data", database_target) as opened:
        yield opened


@pytest.fixture
async def still_product(database_target: Path | str, tmp_path: Path) -> AsyncIterator[Product]:
    """The product without its dispatcher, so that messages stay queued."""
    async with product_in(tmp_path / "data", database_target, dispatcher=False) as opened:
        yield opened
