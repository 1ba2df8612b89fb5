"""Brings a database's schema up to date.

Alembic is imported only where there is something to do: it costs a start half a second and 15 MB for nothing.
"""

import sqlite3
from pathlib import Path

import sqlalchemy as sa

from hydrasms_app.problems import NotYet, Problem
from hydrasms_core.db.sqlite import sync_engine

_SCRIPTS = Path(__file__).with_name("migrations")


def revisions() -> list[str]:
    """Return all revisions, oldest first: the numbers that the files of `migrations/versions` begin with."""
    return sorted(path.name.partition("_")[0] for path in (_SCRIPTS / "versions").glob("[0-9]*.py"))


def upgrade(path: Path) -> str:
    """Apply every migration that a SQLite file lacks, all or none, and return its revision.

    Raises Problem for a file that a newer hydrasms made, or that cannot be opened; NotYet for one that is locked.
    """
    return _migrate(path, revisions()[-1])


def downgrade(path: Path, revision: str) -> str:
    """Take migrations back to a revision ("base": all of them) and return what remains."""
    return _migrate(path, revision)


def check_current(path: Path) -> None:
    """Raise Problem unless a SQLite file has exactly the schema that this code was written for."""
    if not path.exists():
        raise Problem(f"there is no database at {path}")
    engine = sync_engine(path)
    try:
        with engine.connect() as connection:
            found = _current(connection, path)
    except sa.exc.DatabaseError as error:
        raise _unusable(path, error) from None
    finally:
        engine.dispose()
    if found != revisions()[-1]:
        raise Problem(f"the database at {path} is not up to date: run `hydrasms db upgrade`")


def _migrate(path: Path, target: str) -> str:
    engine = sync_engine(path)
    try:
        with engine.begin() as connection:
            if _current(connection, path) != target:
                _run_alembic(connection, target)
            return _current(connection, path)
    except sa.exc.DatabaseError as error:
        raise _unusable(path, error) from None
    finally:
        engine.dispose()


def _run_alembic(connection: sa.Connection, target: str) -> None:
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(_SCRIPTS))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    if target == revisions()[-1]:
        command.upgrade(config, target)
    else:
        command.downgrade(config, target)


def _current(connection: sa.Connection, path: Path) -> str:
    """Return a database's revision, "" for an empty one; raises Problem for one that is not known here."""
    if not sa.inspect(connection).has_table("alembic_version"):
        return ""
    found = connection.execute(sa.text("SELECT version_num FROM alembic_version")).scalar_one_or_none() or ""
    if found and found not in revisions():
        raise Problem(
            f"the database at {path} was made by a newer hydrasms (its revision {found} is not known here): "
            "install that version, or name another data directory with HYDRASMS_DATA_DIR"
        )
    return str(found)


def _unusable(path: Path, error: sa.exc.DatabaseError) -> Problem:
    busy = getattr(error.orig, "sqlite_errorcode", None) == sqlite3.SQLITE_BUSY
    return (NotYet if busy else Problem)(f"the database at {path} cannot be used: {error.orig}")
