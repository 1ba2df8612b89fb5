"""A SQLite file as a whole: is it sound, and a copy of it while others write to it."""

import contextlib
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path

_BUSY_TIMEOUT_S = 5.0
_SOUND = "ok"


def find_damage(path: Path) -> str | None:
    """Return the first damage that SQLite finds in a file, or None; it reads the whole file.

    SQLite keeps no checksum of its pages: this finds what contradicts itself (trees, indexes, constraints, types),
    and not a bit that was turned over in the middle of a text. In the log it finds nothing: there are checksums
    there, and what does not match its own is as if it had never been written.
    """
    try:
        with _opened(path) as connection:
            found = connection.execute("PRAGMA integrity_check(1)").fetchone()
    except sqlite3.DatabaseError as error:
        return str(error)
    except UnicodeDecodeError:
        return "what is wrong cannot be put in UTF-8"
    return None if found == (_SOUND,) else str(found[0] if found else "no answer")


def copy_database(source: Path, target: Path) -> None:
    """Copy a SQLite file as it is at one moment into an empty file, which is durable when this returns.

    All is copied in one step under one read transaction: writers go on meanwhile, and nothing that they commit can
    make it begin again. Raises sqlite3.DatabaseError.
    """
    with _opened(source) as reading, _opened(target) as writing:
        # Nobody else knows the target yet, so that a crash on the way costs nothing but the copy.
        writing.execute("PRAGMA journal_mode=OFF")
        writing.execute("PRAGMA synchronous=OFF")
        reading.backup(writing, pages=-1)
    descriptor = os.open(target, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[sqlite3.Connection]:
    # Opened for writing also to be read: the log of a server that was killed can be read in no other way.
    connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=rw", uri=True, timeout=_BUSY_TIMEOUT_S)
    with contextlib.closing(connection):
        yield connection
