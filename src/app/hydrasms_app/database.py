"""Opens the database that the settings name."""

from pathlib import Path

from hydrasms_app import migrate
from hydrasms_app.settings import Settings
from hydrasms_core.db.sqlite import SqliteDatabase
from hydrasms_core.db.transaction import Database


def open_database(settings: Settings) -> Database:
    """Return the settings' database, open for business; its schema must be up to date already."""
    target = settings.database
    if isinstance(target, Path):
        return SqliteDatabase(target)
    # The driver takes a tenth of a second to import, which SQLite need not wait for.
    from hydrasms_core.db.postgres import PostgresDatabase

    return PostgresDatabase(target, partitioned=settings.lanes > 1)


def prepare_database(settings: Settings) -> None:
    """Bring the schema to where this code can work on it; raises Problem.

    A SQLite file is this process's to change as it likes. On PostgreSQL older processes may be at work, so that
    what would be in their way is left to `hydrasms db upgrade`, unless there is nothing yet.
    """
    target = settings.database
    if isinstance(target, Path):
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        migrate.upgrade(target)
        return
    migrate.upgrade(target, phase=None if migrate.is_empty(target) else migrate.Phase.PRE)
    migrate.check_usable(target)
