"""The database that the settings name: brought up to date, waited for, and opened."""

import asyncio

from hydrasms_app import migrate
from hydrasms_app.locks import lock_file
from hydrasms_app.problems import NotYet
from hydrasms_app.settings import Settings
from hydrasms_base.log import get_logger
from hydrasms_core.db.sqlite import SqliteDatabase
from hydrasms_core.db.transaction import Database

_FIRST_BACK_OFF_S = 0.2
_MAX_BACK_OFF_S = 2.0

log = get_logger(__name__)


def open_database(settings: Settings) -> Database:
    """Return the settings' database, open for business; its schema must be up to date already."""
    return SqliteDatabase(settings.database_path)


def prepare_database(settings: Settings) -> None:
    """See to it that the database is there and up to date; raises NotYet where that may come by itself, or Problem.

    A file is brought up to date here, by one process at a time.
    """
    path = settings.database_path
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with lock_file(path.with_name(f"{path.name}-upgrade.lock"), wait=True):
        migrate.upgrade(path)


async def await_database(settings: Settings) -> None:
    """Return when the database is there and up to date, however long that takes; raises Problem."""
    back_off_s = _FIRST_BACK_OFF_S
    while True:
        try:
            return await asyncio.to_thread(prepare_database, settings)
        except NotYet as problem:
            log.warning("waiting_for_database", reason=str(problem), retry_s=back_off_s)
        await asyncio.sleep(back_off_s)
        back_off_s = min(back_off_s * 2, _MAX_BACK_OFF_S)
