"""How many streams of events a process has open, and how they end when it does."""

import asyncio
from collections import Counter

from hydrasms_base.metrics import Metrics
from hydrasms_edge.errors import ApiError, unavailable


class Streams:
    """The streams of one process: at most `most` at once, and `most_a_key` for one API key.

    They last for as long as their clients like, so that they are counted apart from requests that end by themselves.
    """

    def __init__(self, most: int, most_a_key: int, metrics: Metrics) -> None:
        self._most = most
        self._most_a_key = most_a_key
        self._by_key: Counter[str] = Counter()
        self._ending = asyncio.Event()
        self._gauge = metrics.gauge("event_streams", "Streams of events that are open.")
        self.open = 0
        """How many are open."""

    def take(self, digest: str) -> None:
        """Take a place for a stream of the key with this digest; raises ApiError: UNAVAILABLE, RATE_LIMITED."""
        if self.open >= self._most or self._ending.is_set():
            raise unavailable()
        if self._by_key[digest] >= self._most_a_key:
            raise ApiError(
                "RATE_LIMITED",
                f"This key has {self._most_a_key} streams of events open, which is the most. Close one of them.",
            )
        self.open += 1
        self._by_key[digest] += 1
        self._gauge.set(self.open)

    def give_back(self, digest: str) -> None:
        """Give a place back."""
        self.open -= 1
        self._by_key[digest] -= 1
        if not self._by_key[digest]:
            del self._by_key[digest]
        self._gauge.set(self.open)

    def end(self) -> None:
        """Have all streams end now, and let no other begin."""
        self._ending.set()

    async def ended(self) -> None:
        """Return when all streams are to end."""
        await self._ending.wait()
