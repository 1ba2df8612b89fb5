"""Brings a database's schema up to date, in two phases that let old and new code run side by side.

A revision is *pre* or *post*, as the name of its file says (0001 is pre). A pre revision only adds what older code
does not mind: it is applied before the first process of the new release starts. A post revision takes away what
only older code needs: it is applied when the last old process has gone, and raises the database's floor, below
which no code is let in. In every release pre revisions come before post ones.

Alembic is imported only where there is something to do: it costs a start half a second and 15 MB for nothing.
"""

import asyncio
import contextlib
import enum
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import sqlalchemy as sa

from hydrasms_app.problems import NotYet, Problem
from hydrasms_core.db.sqlite import sync_engine
from hydrasms_core.errors import StoreUnavailable

T = TypeVar("T")

_SCRIPTS = Path(__file__).with_name("migrations")
# Any number does that nobody else takes as an advisory lock: "hydrasms" in a telephone's digits.
_LOCK = 49372767

Target = Path | str
"""A SQLite file, or the URL of a PostgreSQL database."""


class Phase(enum.StrEnum):
    """When a revision is applied."""

    PRE = "pre"
    POST = "post"


def revisions(scripts: Path = _SCRIPTS) -> dict[str, Phase]:
    """Return all revisions, oldest first, with their phases, as the names of the files in `versions` have them."""
    names = sorted(path.name for path in (scripts / "versions").glob("[0-9]*.py"))
    return {
        name.partition("_")[0]: Phase.POST if name.split("_")[1] == Phase.POST else Phase.PRE
        for name in names
    }


def upgrade(target: Target, *, phase: Phase | None = None, lanes: int = 1, scripts: Path = _SCRIPTS) -> str:
    """Apply every migration that a database lacks, all or none, and return its revision.

    An empty PostgreSQL database gets a partition a lane, where there are several. With `phase` pre, stop before the
    first post revision. Raises Problem for a database that newer code has taken out of this code's reach, or that
    cannot be used, and NotYet for one that is locked or away.
    """

    def work(connection: sa.Connection) -> str:
        found = _found(connection, target, scripts)
        pending = [number for number in revisions(scripts) if number > found]
        if phase is Phase.PRE:
            pending = _before_first_post(pending, scripts)
        if pending:
            _run_alembic(connection, pending[-1], scripts, lanes=lanes)
            _set_floor(connection, scripts)
        return max([found, *pending])

    return _in_transaction(target, work)


def downgrade(target: Target, revision: str, *, scripts: Path = _SCRIPTS) -> str:
    """Take migrations back to a revision ("base": all of them) and return what remains."""

    def work(connection: sa.Connection) -> str:
        _found(connection, target, scripts)
        _run_alembic(connection, revision, scripts, down=True)
        _set_floor(connection, scripts)
        return _current(connection)

    return _in_transaction(target, work)


def check_usable(target: Target, *, scripts: Path = _SCRIPTS) -> None:
    """Return where this code may work on the database.

    Raises Problem where newer code has shut it out, and NotYet until its pre revisions are there.
    """
    if isinstance(target, Path) and not target.exists():
        raise Problem(f"there is no database at {target}")
    known = revisions(scripts)
    needed = max(number for number, phase in known.items() if phase is Phase.PRE)

    def work(connection: sa.Connection) -> bool:
        return _found(connection, target, scripts) >= needed

    if not _in_transaction(target, work):
        raise NotYet(f"{_shown(target)} is not up to date: run `hydrasms db upgrade`")


def check_lanes(target: str, lanes: int) -> None:
    """Raise Problem unless a PostgreSQL database has a partition a lane, or none where there is one lane."""

    def work(connection: sa.Connection) -> int:
        found = connection.execute(
            sa.text("SELECT count(*) FROM pg_inherits WHERE inhparent = 'messages'\\:\\:regclass")
        )
        return int(found.scalar_one())

    found = _in_transaction(target, work) or 1
    if found != lanes:
        raise Problem(
            f"{_shown(target)} has tables in {found} part{'s' if found > 1 else ''} and HYDRASMS_LANES is {lanes}: "
            f"set it to {found}, or begin with an empty database"
        )


def is_empty(target: Target) -> bool:
    """Tell whether no migration was ever applied; raises Problem for a database that cannot be used."""
    return _in_transaction(target, lambda connection: not _current(connection))


def _before_first_post(pending: list[str], scripts: Path) -> list[str]:
    phases = revisions(scripts)
    posts = [number for number in pending if phases[number] is Phase.POST]
    return [number for number in pending if not posts or number < posts[0]]


def _in_transaction(target: Target, work: Callable[[sa.Connection], T]) -> T:
    try:
        if isinstance(target, Path):
            with _sqlite(target) as connection:
                return work(connection)
        return asyncio.run(_on_postgres(target, work))
    except sa.exc.DBAPIError as error:
        busy = getattr(error.orig, "sqlite_errorcode", None) == sqlite3.SQLITE_BUSY
        raise (NotYet if busy else Problem)(f"{_shown(target)} cannot be used: {error.orig}") from None
    except UnicodeDecodeError:
        # SQLite quotes damage that is no text, and the driver fails over the quotation.
        raise Problem(f"{_shown(target)} cannot be used: database disk image is malformed") from None
    except StoreUnavailable as error:
        raise NotYet(f"{_shown(target)} cannot be reached: {error.__cause__}") from None


@contextlib.contextmanager
def _sqlite(path: Path) -> Iterator[sa.Connection]:
    engine = sync_engine(path)
    try:
        with engine.begin() as connection:
            yield connection
    finally:
        engine.dispose()


async def _on_postgres(url: str, work: Callable[[sa.Connection], T]) -> T:
    from hydrasms_core.db.postgres_pool import async_engine, translated

    engine = async_engine(url).execution_options(isolation_level="READ COMMITTED")
    try:
        with translated():
            async with engine.begin() as connection:
                # One at a time: whoever is second finds all of it done.
                await connection.execute(sa.text("SET LOCAL lock_timeout = 0"))
                await connection.execute(sa.text(f"SELECT pg_advisory_xact_lock({_LOCK})"))
                return await connection.run_sync(work)
    finally:
        await engine.dispose()


def _run_alembic(
    connection: sa.Connection, target: str, scripts: Path, *, lanes: int = 1, down: bool = False
) -> None:
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(scripts))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    config.attributes["lanes"] = lanes
    if down:
        command.downgrade(config, target)
    else:
        command.upgrade(config, target)


def _set_floor(connection: sa.Connection, scripts: Path) -> None:
    """Record the last post revision that is applied: older code than that is let in no more."""
    current = _current(connection)
    applied = [
        number for number, phase in revisions(scripts).items() if phase is Phase.POST and number <= current
    ]
    if applied:
        connection.execute(
            sa.text(
                "INSERT INTO schema_floor (id, revision) VALUES (1, :revision)"
                " ON CONFLICT (id) DO UPDATE SET revision = excluded.revision"
            ),
            {"revision": applied[-1]},
        )
    elif sa.inspect(connection).has_table("schema_floor"):
        connection.execute(sa.text("DELETE FROM schema_floor"))


def _found(connection: sa.Connection, target: Target, scripts: Path) -> str:
    """Return a database's revision, "" for an empty one; raises Problem where this code must keep off."""
    found = _current(connection)
    known = revisions(scripts)
    if found and found not in known:
        floor = _floor(connection)
        if floor and floor not in known:
            raise Problem(
                f"{_shown(target)} was made by a newer hydrasms (its revision {found} is not known here): "
                "install that version, or name another data directory with HYDRASMS_DATA_DIR"
            )
    return found


def _current(connection: sa.Connection) -> str:
    if not sa.inspect(connection).has_table("alembic_version"):
        return ""
    found = connection.execute(sa.text("SELECT version_num FROM alembic_version")).scalar_one_or_none()
    return str(found or "")


def _floor(connection: sa.Connection) -> str:
    if not sa.inspect(connection).has_table("schema_floor"):
        return ""
    found = connection.execute(sa.text("SELECT revision FROM schema_floor WHERE id = 1")).scalar_one_or_none()
    return str(found or "")


def _shown(target: Target) -> str:
    """Name a database without its password."""
    if isinstance(target, Path):
        return f"the database at {target}"
    url = sa.make_url(target)
    return f"the database {url.database} at {url.host or url.query.get('host', 'localhost')}"
