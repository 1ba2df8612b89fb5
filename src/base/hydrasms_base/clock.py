"""Time, passed in so that tests can own it."""

import time
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """Tells the time of day and measures spans."""

    def now_ms(self) -> int:
        """Return the time of day, in milliseconds since 1970 UTC. It may jump."""
        ...

    def monotonic(self) -> float:
        """Return seconds from an arbitrary start. It never goes back."""
        ...


class SystemClock:
    """The machine's own clock."""

    def now_ms(self) -> int:
        """Return the time of day, in milliseconds since 1970 UTC."""
        return time.time_ns() // 1_000_000

    def monotonic(self) -> float:
        """Return seconds from an arbitrary start."""
        return time.monotonic()


def iso_millis(at_ms: int) -> str:
    """Return a time as the public contract writes it: UTC, milliseconds, `Z`."""
    moment = datetime.fromtimestamp(at_ms / 1000, UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{at_ms % 1000:03d}Z"
