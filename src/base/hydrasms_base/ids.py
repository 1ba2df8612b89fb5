"""Identifiers that sort by time: UUIDv7 (RFC 9562, section 5.7)."""

import os
import re
import threading
import time

_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", re.ASCII)
_COUNTER_BITS = 12
_POOL_IDS = 512
_DIGITS_AN_ID = 15


class IdSource:
    """Makes UUIDv7 strings that strictly increase within one process.

    The 12 bits after the time are a counter (RFC 9562, section 6.2, method 1), so that ids of one millisecond
    sort in the order in which they were made; 60 random bits follow. Two bits of randomness are given up, and texts
    are put together from parts that last, because every send makes several ids.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._last = 0
        self._ms = -1
        self._head = ""
        self._pool = ""
        self._used = 0

    def __call__(self) -> str:
        """Return a new id: 36 characters, lower case, hyphenated."""
        with self._lock:
            stamp = (time.time_ns() // 1_000_000) << _COUNTER_BITS
            # Within one millisecond, or with the clock set back, count on from the last id.
            self._last = stamp = stamp if stamp > self._last else self._last + 1
            if stamp >> _COUNTER_BITS != self._ms:
                self._ms = stamp >> _COUNTER_BITS
                self._head = f"{self._ms >> 16:08x}-{self._ms & 0xFFFF:04x}-7"
            # One system call for many ids: asking for random bytes each time is most of an id's cost.
            if self._used == len(self._pool):
                self._pool = os.urandom(_DIGITS_AN_ID * _POOL_IDS // 2).hex()
                self._used = 0
            used = self._used
            self._used = used + _DIGITS_AN_ID
            # The 8 is the variant, as the 7 in the head is the version.
            tail = f"8{self._pool[used : used + 3]}-{self._pool[used + 3 : used + 15]}"
            return f"{self._head}{stamp & 0xFFF:03x}-{tail}"


new_id = IdSource()
"""The process's source of ids."""


def _forget_the_pool() -> None:
    # Two processes of one fork must never draw the same random bytes.
    new_id.__init__()  # type: ignore[misc]


os.register_at_fork(after_in_child=_forget_the_pool)


def first_id_at(at_ms: int) -> str:
    """Return what sorts before all ids that were made at a time or later, in milliseconds since 1970, and after all
    that were made before it.
    """
    return f"{at_ms >> 16:08x}-{at_ms & 0xFFFF:04x}-7000-8000-000000000000"


def is_id(text: str) -> bool:
    """Tell whether a text has the form of an id, so that a look-up makes sense at all."""
    return _UUID.fullmatch(text) is not None
