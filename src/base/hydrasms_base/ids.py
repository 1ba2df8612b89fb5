"""Identifiers that sort by time: UUIDv7 (RFC 9562, section 5.7)."""

import os
import re
import threading
import time

_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", re.ASCII)
_COUNTER_BITS = 12
_POOL_IDS = 512


class IdSource:
    """Makes UUIDv7 strings that strictly increase within one process.

    The 12 bits after the time are a counter (RFC 9562, section 6.2, method 1), so that ids of one millisecond
    sort in the order in which they were made; 62 random bits follow.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._last = 0
        self._pool = b""
        self._used = 0

    def __call__(self) -> str:
        """Return a new id: 36 characters, lower case, hyphenated."""
        with self._lock:
            stamp = (time.time_ns() // 1_000_000) << _COUNTER_BITS
            # Within one millisecond, or with the clock set back, count on from the last id.
            self._last = stamp = stamp if stamp > self._last else self._last + 1
            # One system call for many ids: asking for 8 bytes each time is most of an id's cost.
            if self._used == len(self._pool):
                self._pool, self._used = os.urandom(8 * _POOL_IDS), 0
            tail = int.from_bytes(self._pool[self._used : self._used + 8], "big")
            self._used += 8
        head = f"{stamp >> _COUNTER_BITS:012x}7{stamp & 0xFFF:03x}"
        rest = f"{tail & 0x3FFF_FFFF_FFFF_FFFF | 0x8000_0000_0000_0000:016x}"
        return f"{head[:8]}-{head[8:12]}-{head[12:]}-{rest[:4]}-{rest[4:]}"


new_id = IdSource()
"""The process's source of ids."""


def _forget_the_pool() -> None:
    # Two processes of one fork must never draw the same random bytes.
    new_id.__init__()  # type: ignore[misc]


os.register_at_fork(after_in_child=_forget_the_pool)


def is_id(text: str) -> bool:
    """Tell whether a text has the form of an id, so that a look-up makes sense at all."""
    return _UUID.fullmatch(text) is not None
