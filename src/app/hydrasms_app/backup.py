"""Backups of a SQLite database, made while servers write to it."""

import contextlib
import os
import sqlite3
import tempfile
from pathlib import Path

from hydrasms_app.problems import Problem
from hydrasms_core.db.sqlite_file import copy_database, find_damage


def back_up(source: Path, target: Path) -> int:
    """Copy a database as it is now into a new file of mode 0600, durably, and return the copy's size in bytes.

    All that was committed before this began is in the copy. The file appears under its name once it is whole and
    sound, and never in the place of another. Raises Problem.
    """
    if not source.exists():
        raise Problem(f"there is no database at {source}")
    try:
        return _copy_into(source, target)
    except FileExistsError:
        raise Problem(
            f"{target} is there already, and a backup replaces nothing: name another file"
        ) from None
    except OSError as error:
        raise Problem(f"cannot write the backup {target}: {error.strerror}") from None
    except sqlite3.DatabaseError as error:
        raise Problem(f"cannot copy the database at {source} to {target}: {error}") from None


def _copy_into(source: Path, target: Path) -> int:
    if target.exists():
        raise FileExistsError
    # Made with mode 0600, beside the target because a link cannot leave its file system.
    descriptor, name = tempfile.mkstemp(prefix=f"{target.name}.", suffix=".partial", dir=target.parent)
    os.close(descriptor)
    partial = Path(name)
    try:
        copy_database(source, partial)
        damage = find_damage(partial)
        if damage is not None:
            raise Problem(f"the database at {source} is damaged ({damage}): it was not backed up")
        # Unlike a rename, a link fails where the name is taken.
        os.link(partial, target)
        _make_names_durable(target.parent)
        return target.stat().st_size
    finally:
        with contextlib.suppress(FileNotFoundError):
            partial.unlink()


def _make_names_durable(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
