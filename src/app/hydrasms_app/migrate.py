"""Brings a database's schema up to date."""

from pathlib import Path

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory

from hydrasms_app.problems import Problem
from hydrasms_core.db.sqlite import sync_engine

_SCRIPTS = Path(__file__).with_name("migrations")


def upgrade(path: Path) -> str:
    """Apply every migration that a SQLite file lacks, all or none, and return its revision.

    Raises Problem for a file that a newer hydrasms made, or that cannot be opened.
    """
    return _migrate(path, "head")


def downgrade(path: Path, revision: str) -> str:
    """Take migrations back to a revision ("base": all of them) and return what remains."""
    return _migrate(path, revision)


def newest_revision() -> str:
    """Return the revision that this code was written for."""
    head = _scripts(_config()).get_current_head()
    return head or ""


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
    _refuse_newer(found, path)
    if found != newest_revision():
        raise Problem(f"the database at {path} is not up to date: run `hydrasms db upgrade`")


def _migrate(path: Path, target: str) -> str:
    engine = sync_engine(path)
    try:
        with engine.begin() as connection:
            _refuse_newer(_current(connection, path), path)
            config = _config()
            config.attributes["connection"] = connection
            if target == "head":
                command.upgrade(config, target)
            else:
                command.downgrade(config, target)
            return _current(connection, path)
    except sa.exc.DatabaseError as error:
        raise _unusable(path, error) from None
    finally:
        engine.dispose()


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(_SCRIPTS))
    config.set_main_option("path_separator", "os")
    return config


def _scripts(config: Config) -> ScriptDirectory:
    return ScriptDirectory.from_config(config)


def _current(connection: sa.Connection, path: Path) -> str:
    heads = MigrationContext.configure(connection).get_current_heads()
    if len(heads) > 1:
        raise Problem(f"the database at {path} names {len(heads)} revisions where one is expected")
    return heads[0] if heads else ""


def _refuse_newer(found: str, path: Path) -> None:
    known = {script.revision for script in _scripts(_config()).walk_revisions()}
    if found and found not in known:
        raise Problem(
            f"the database at {path} was made by a newer hydrasms (its revision {found} is not known here): "
            "install that version, or name another data directory with HYDRASMS_DATA_DIR"
        )


def _unusable(path: Path, error: sa.exc.DatabaseError) -> Problem:
    return Problem(f"the database at {path} cannot be used: {error.orig}")
