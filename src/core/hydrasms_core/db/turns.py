"""Fair turns for all who write to one SQLite file.

SQLite keeps no queue: whoever finds the write lock taken looks again after a while, so that one who takes it again at
once starves all others for seconds (docs/decisions/0008 has figures). Here two locks on files beside the database
make the queue that is missing. To write, one takes `next`, then `turn`, and lets go of `next`; so nobody has two
turns in a row while another waits, and whoever waits is served in order.

Only fairness hangs on it. What keeps writers apart is SQLite's own lock, so that a process that does not queue, or a
file that somebody removed, costs no row. Both locks are let go of by the kernel, however their holder dies.
"""

import ctypes
import fcntl
import os
import time
from pathlib import Path

from hydrasms_base.log import get_logger

# Through ctypes, and so that the interpreter's lock is kept: what fcntl.flock does around a call that never waits can
# cost its thread 0.5 ms before it runs again.
_flock = ctypes.PyDLL(None).flock
_flock.argtypes = (ctypes.c_int, ctypes.c_int)

log = get_logger(__name__)


class Turnstile:
    """The queue before one database file, as one thread uses it: `take` a turn, write, `give_back`."""

    def __init__(self, database: Path) -> None:
        self._paths = [database.with_name(f"{database.name}-{name}") for name in ("next", "turn")]
        self._locks: tuple[int, int] | None = None
        self._waiting_since: float | None = None
        self._has_complained = False

    @property
    def waited_s(self) -> float:
        """How long the thread has been waiting in `take`, for others to ask; 0 where it does not wait."""
        since = self._waiting_since
        return 0.0 if since is None else time.monotonic() - since

    def take(self) -> None:
        """Wait for a turn, however long that takes; other threads go on meanwhile.

        Where such locks cannot be had there is no order, which is logged once.
        """
        try:
            next_up, turn = self._locks or self._opened()
            self._lock(next_up)
            self._lock(turn)
            _unlock(next_up)
        except OSError as error:
            self.close()
            if not self._has_complained:
                self._has_complained = True
                log.warning("no_fair_turns", file=self._paths[0].name, reason=error.strerror)
        finally:
            self._waiting_since = None

    def give_back(self) -> None:
        """End the turn."""
        if self._locks is not None:
            _unlock(self._locks[1])

    def close(self) -> None:
        """Let go of the files; the next `take` opens them again."""
        locks, self._locks = self._locks, None
        for descriptor in locks or ():
            os.close(descriptor)

    def _opened(self) -> tuple[int, int]:
        next_up = _open(self._paths[0])
        try:
            self._locks = (next_up, _open(self._paths[1]))
        except OSError:
            os.close(next_up)
            raise
        return self._locks

    def _lock(self, descriptor: int) -> None:
        if _flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB) == 0:
            return
        if self._waiting_since is None:
            self._waiting_since = time.monotonic()
        fcntl.flock(descriptor, fcntl.LOCK_EX)


def _open(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)


def _unlock(descriptor: int) -> None:
    _flock(descriptor, fcntl.LOCK_UN)
