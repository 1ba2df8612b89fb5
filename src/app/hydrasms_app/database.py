"""Opens the database that the settings name."""

from hydrasms_app.settings import Settings
from hydrasms_core.db.sqlite import SqliteDatabase
from hydrasms_core.db.transaction import Database


def open_database(settings: Settings) -> Database:
    """Return the settings' database, open for business; its schema must be up to date already."""
    return SqliteDatabase(settings.database_path)
