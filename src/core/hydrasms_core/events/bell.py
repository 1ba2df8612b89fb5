"""Wakes those of this process who wait for an account's events."""

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import Collection, Iterator


class Bell:
    """Rung where something has been committed; whoever listens then looks for itself.

    Made and listened to on the loop's thread; it may be rung on any.
    """

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._listening: defaultdict[str | None, set[asyncio.Event]] = defaultdict(set)

    @property
    def is_heard(self) -> bool:
        """Whether anybody listens."""
        return bool(self._listening)

    @contextlib.contextmanager
    def listening(self, account_id: str | None) -> Iterator[asyncio.Event]:
        """Give an event that is set whenever it rings for an account, or (None) for any, until the block ends."""
        self._loop = asyncio.get_running_loop()
        rung = asyncio.Event()
        self._listening[account_id].add(rung)
        try:
            yield rung
        finally:
            listeners = self._listening[account_id]
            listeners.discard(rung)
            if not listeners:
                del self._listening[account_id]

    def ring(self, account_ids: Collection[str]) -> None:
        """Ring for accounts. Whoever begins to listen later looks later as well, so that it misses nothing."""
        if self._listening and self._loop is not None:
            # Its loop may be about to end.
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._ring, account_ids)

    def ring_for_all(self) -> None:
        """Ring for everybody; on the loop's thread."""
        self._ring(list(filter(None, self._listening)))

    def _ring(self, account_ids: Collection[str]) -> None:
        for listener in (None, *account_ids):
            for rung in self._listening.get(listener, ()):
                rung.set()
