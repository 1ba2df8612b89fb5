"""A bound on how long a block of code may take."""

import asyncio
from types import TracebackType
from typing import Any


class Alarm:
    """Cancels what stands in its block when the time is up, and raises TimeoutError there: `asyncio.timeout` at half
    its cost, for where every call has one.

    It cannot be moved, and `seconds` is not None. Once left, `has_rung` tells whether the time was up.
    """

    __slots__ = ("_cancelling", "_seconds", "_task", "_timer", "has_rung")

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self.has_rung = False

    def __enter__(self) -> None:
        task = asyncio.current_task()
        assert task is not None, "only tasks can be cancelled"
        self._task: asyncio.Task[Any] = task
        self._cancelling = task.cancelling()
        self._timer = asyncio.get_running_loop().call_later(self._seconds, self._ring)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        self._timer.cancel()
        # Cancelled by somebody else as well, it ends as they wish.
        if (
            self.has_rung
            and self._task.uncancel() <= self._cancelling
            and kind is not None
            and issubclass(kind, asyncio.CancelledError)
        ):
            raise TimeoutError from error

    def _ring(self) -> None:
        self.has_rung = True
        self._task.cancel()
