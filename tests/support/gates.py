"""Holding a transaction open from a test."""

import threading

from hydrasms_core.db.transaction import Transaction
from tests.support.waiting import BOUND_S, eventually


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
            assert self._open.wait(BOUND_S), "nobody opened the gate"
        else:
            await eventually(self._open.is_set, what="an open gate")

    async def reached(self) -> None:
        """Wait until somebody stands at the gate."""
        await eventually(self._reached.is_set, what="somebody at the gate")

    def open(self) -> None:
        self._open.set()
