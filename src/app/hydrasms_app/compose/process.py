"""What all parts of one process share."""

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from hydrasms_base.clock import SystemClock
from hydrasms_base.log import get_logger
from hydrasms_base.metrics import Metrics
from hydrasms_core.events.bell import Bell

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Siblings:
    """What a process has from those that serve on the same ports as it does."""

    http: socket.socket
    """Its own listening socket on the port of all."""
    metrics: Metrics
    """Its own metrics, which the others ask for."""
    exposition: Callable[[], Awaitable[bytes]]
    """Returns the metrics of all."""


class Process:
    """The clock, the metrics, what is to be closed at the end, and the loops whose death ends everything.

    Whatever a part opens it puts on `stack`, which closes it in reverse order, also where a later step fails.
    """

    def __init__(self, stack: contextlib.AsyncExitStack, siblings: Siblings | None = None) -> None:
        self.stack = stack
        self.siblings = siblings
        self.clock = SystemClock()
        self.metrics = siblings.metrics if siblings is not None else Metrics()
        self.own_ports: set[int] = set()
        """The ports that are listened on, at which no webhook may knock."""
        self.bell = Bell()
        """Rung where something has happened to an account."""
        self.failure: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Done when a background loop has died; it then holds the reason."""

    def keep_running(
        self,
        name: str,
        work: Coroutine[Any, Any, None],
        *,
        drain: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        """Run a loop in the background until the stack unwinds; should it die before, `failure` tells."""
        task = asyncio.create_task(work, name=name)

        def ended(task: asyncio.Task[None]) -> None:
            if task.cancelled() or self.failure.done():
                return
            error = task.exception()
            if error is not None:
                log.error("background_loop_died", loop=name, exc_info=error)
                self.failure.set_exception(error)

        async def close() -> None:
            if drain is not None:
                await drain()
            task.cancel()
            await asyncio.wait([task])

        task.add_done_callback(ended)
        self.stack.push_async_callback(close)
