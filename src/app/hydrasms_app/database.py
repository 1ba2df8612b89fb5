"""The database that the settings name: brought up to date, waited for, and opened."""

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

from hydrasms_app import migrate
from hydrasms_app.locks import lock_file
from hydrasms_app.migrate import Phase
from hydrasms_app.problems import NotYet, Problem
from hydrasms_app.settings import Settings
from hydrasms_base.log import get_logger
from hydrasms_core.db.sqlite import SqliteDatabase
from hydrasms_core.db.transaction import Database
from hydrasms_core.messaging.lanes import OneLane
from hydrasms_core.messaging.ports import Lanes

if TYPE_CHECKING:
    from hydrasms_core.db.postgres_signal import PostgresSignal

# One lane keeps one connection busy; the others are for the worker's loops and for changes of accounts.
_WRITERS = 8
_FIRST_BACK_OFF_S = 0.2
_MAX_BACK_OFF_S = 2.0

log = get_logger(__name__)


def open_database(settings: Settings) -> Database:
    """Return the settings' database, open for business; its schema must be up to date already."""
    target = settings.database
    if isinstance(target, Path):
        return SqliteDatabase(target)
    # The driver takes a tenth of a second to import, which SQLite need not wait for.
    from hydrasms_core.db.postgres import PostgresDatabase

    lanes = settings.lanes
    return PostgresDatabase(target, partitioned=lanes > 1, writers=max(_WRITERS, lanes + _WRITERS // 2))


def open_signal(settings: Settings) -> "PostgresSignal | None":
    """Return what wakes workers in other processes; None for SQLite, where they look by themselves."""
    target = settings.database
    if isinstance(target, Path):
        return None
    from hydrasms_core.db.postgres_signal import PostgresSignal

    return PostgresSignal(target)


def lanes_of(settings: Settings, database: Database) -> Lanes:
    """Return the lanes that sends are written in; raises Problem where the database has no partitions."""
    if settings.lanes == 1:
        return OneLane()
    if isinstance(settings.database, Path):
        raise Problem("HYDRASMS_LANES is for a partitioned PostgreSQL database; SQLite has one lane.")
    from hydrasms_core.db.postgres_lanes import PartitionLanes

    return PartitionLanes(database, settings.lanes)


def upgrade_database(settings: Settings, phase: Phase | None = None) -> str:
    """Apply the migrations that the database lacks and return its revision; raises NotYet and Problem."""
    target = settings.database
    if isinstance(target, str):
        return migrate.upgrade(target, phase=phase, lanes=settings.lanes)
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with lock_file(target.with_name(f"{target.name}-upgrade.lock"), wait=True):
        return migrate.upgrade(target, phase=phase)


def prepare_database(settings: Settings) -> None:
    """See to it that the database is there and up to date; raises NotYet where that may come by itself, or Problem.

    A file is brought up to date here. In PostgreSQL older processes may be at work, so that whatever would be in
    their way is left to `hydrasms db upgrade`, unless there is nothing yet.
    """
    target = settings.database
    if isinstance(target, Path):
        upgrade_database(settings)
        return
    upgrade_database(settings, None if migrate.is_empty(target) else Phase.PRE)
    migrate.check_usable(target)
    migrate.check_lanes(target, settings.lanes)


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
