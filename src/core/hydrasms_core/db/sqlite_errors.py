"""What SQLite's errors mean to us."""

import math
import sqlite3
import time

from sqlalchemy import exc

from hydrasms_base.log import get_logger
from hydrasms_core.db.transaction import IntegrityViolation, StoreCorrupt
from hydrasms_core.errors import StoreUnavailable

_DAMAGED = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
_PRIMARY = 0xFF
# Nothing that we store is anything but UTF-8. This is the driver's own complaint about a value, without a code of
# SQLite's; where it is SQLite's complaint that quotes damage the driver fails with a UnicodeDecodeError instead.
_NOT_UTF8 = "Could not decode to UTF-8"
_SAID_EVERY_S = 10.0

log = get_logger(__name__)


class SqliteErrors:
    """Translates a driver's errors, and says in the log why the database refuses: a full disk concerns its operator.

    A cause is logged once in ten seconds, because under load every transaction meets it.
    """

    def __init__(self) -> None:
        self._said: dict[str, float] = {}

    def translated(self, error: Exception) -> Exception:
        """Return what an error is to the callers of a database; one that is a fault of ours stays as it is."""
        original = error.orig if isinstance(error, exc.DBAPIError) and error.orig is not None else error
        code = getattr(original, "sqlite_errorcode", 0) & _PRIMARY
        # Only the code's name is told: the words may quote what is stored.
        name = getattr(original, "sqlite_errorname", type(original).__name__)
        if code in _DAMAGED or _is_not_utf8(original):
            self._say("store_corrupt", name)
            return StoreCorrupt(name)
        if isinstance(original, sqlite3.IntegrityError):
            return IntegrityViolation(str(original))
        if isinstance(original, sqlite3.OperationalError):
            # Locked, full, unreadable, read-only, out of memory: all that may pass.
            self._say("store_unavailable", name)
            return StoreUnavailable()
        return error

    def _say(self, event: str, name: str) -> None:
        now = time.monotonic()
        if now - self._said.get(name, -math.inf) >= _SAID_EVERY_S:
            self._said[name] = now
            log.error(event, error=name)


def _is_not_utf8(error: BaseException) -> bool:
    return isinstance(error, UnicodeDecodeError) or str(error).startswith(_NOT_UTF8)
