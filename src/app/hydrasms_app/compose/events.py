"""Where what happens is recorded, and who follows it."""

import asyncio
from collections.abc import Callable, Sequence

from hydrasms_app.compose.process import Process
from hydrasms_core.db.transaction import Transaction
from hydrasms_core.events.recording import RecordedHappenings
from hydrasms_core.messaging.ports import Happening
from hydrasms_core.webhooks.pushes import PushQueue


def happenings_of(process: Process, wake: Callable[[], None]) -> RecordedHappenings:
    """Return what records, in this process, what happens to accounts.

    It queues pushes for accounts that want to hear of their messages, and calls `wake`, on the loop's thread, once
    such are committed.
    """
    return RecordedHappenings(process.bell, [_StatusPushes(wake)])


class _StatusPushes:
    def __init__(self, wake: Callable[[], None]) -> None:
        self._queue = PushQueue()
        self._wake = wake
        self._loop = asyncio.get_running_loop()

    async def __call__(self, tx: Transaction, happenings: Sequence[Happening], *, at_ms: int) -> None:
        if await self._queue.status_pushes(tx, happenings, at_ms=at_ms):
            tx.after_commit(self._wake_soon)

    def _wake_soon(self) -> None:
        self._loop.call_soon_threadsafe(self._wake)
