"""A damaged database, in an operator's words."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from hydrasms_app.problems import Problem
from hydrasms_app.settings import Settings
from hydrasms_core.db.sqlite_file import find_damage
from hydrasms_core.db.transaction import StoreCorrupt


@contextlib.contextmanager
def damage_told(settings: Settings) -> Iterator[None]:
    """Say in one line that the database is damaged, where that is what ends the block; raises Problem."""
    try:
        yield
    except Exception as error:
        corrupt = _corrupt_in(error)
        if corrupt is None:
            raise
        raise _damaged(settings, str(corrupt)) from None


def require_sound(settings: Settings) -> None:
    """Raise Problem where SQLite finds damage in its file; it reads all of it. PostgreSQL looks after its own."""
    target = settings.database
    found = find_damage(target) if isinstance(target, Path) else None
    if found is not None:
        raise _damaged(settings, found)


def _damaged(settings: Settings, how: str) -> Problem:
    target = settings.database
    name = f"the database at {target}" if isinstance(target, Path) else "the PostgreSQL database"
    return Problem(
        f"{name} is damaged ({how}): keep a copy of it and restore a backup, as docs/operations.md says"
    )


def _corrupt_in(error: BaseException) -> StoreCorrupt | None:
    """Return the damage that an error tells of, also one of several that happened together."""
    if isinstance(error, StoreCorrupt):
        return error
    if isinstance(error, BaseExceptionGroup):
        return next((found for found in map(_corrupt_in, error.exceptions) if found is not None), None)
    return None
