"""Holding a transaction open from a test."""

import asyncio
import threading

from hydrasms_core.db.transaction import Transaction

_BOUND_S = 20.0


class Gate:
    """Stops the first who passes until it is opened; `reached` waits for that first one."""

    def __init__(self) -> None:
        self._reached = threading.Event()
        self._open = threading.Event()

    async def pass_through(self, tx: Transaction) -> None:
        """Wait here, inside of the transaction, until the gate is open."""
        self._reached.set()
        if tx.dialect == "sqlite":
            # It has a thread to itself, and may wait for nothing but its transaction.
            opened = self._open.wait(_BOUND_S)
        else:
            opened = await asyncio.to_thread(self._open.wait, _BOUND_S)
        assert opened, "nobody opened the gate"

    async def reached(self) -> None:
        """Wait until somebody stands at the gate."""
        assert await asyncio.to_thread(self._reached.wait, _BOUND_S), "nobody came to the gate"

    def open(self) -> None:
        self._open.set()
