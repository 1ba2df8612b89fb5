"""Holding a transaction open from a test."""

import asyncio
import threading

_BOUND_S = 20.0


class Gate:
    """Stops the first who passes until it is opened; `reached` waits for that first one."""

    def __init__(self) -> None:
        self._reached = threading.Event()
        self._open = threading.Event()

    def pass_through(self) -> None:
        """Wait here, on the writer's thread, until the gate is open."""
        self._reached.set()
        assert self._open.wait(_BOUND_S), "nobody opened the gate"

    async def reached(self) -> None:
        """Wait until somebody stands at the gate."""
        assert await asyncio.to_thread(self._reached.wait, _BOUND_S), "nobody came to the gate"

    def open(self) -> None:
        self._open.set()
