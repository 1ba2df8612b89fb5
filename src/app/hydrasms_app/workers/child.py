"""A worker: everything in one process, or an edge, on ports that it shares with its siblings.

Started by the parent as `python -m hydrasms_app.workers.child ORDERS`.
"""

import asyncio
import contextlib
import ctypes
import os
import signal
import socket
import sys
from collections import deque
from collections.abc import AsyncIterator
from typing import Any

import uvloop

from hydrasms_app.compose import running, running_edge
from hydrasms_app.compose.process import Siblings
from hydrasms_app.damage import damage_told
from hydrasms_app.problems import Problem
from hydrasms_app.serving import Up, serve_until_told
from hydrasms_app.settings import Settings, load_settings
from hydrasms_app.workers.exposition import merged
from hydrasms_app.workers.line import Line
from hydrasms_app.workers.orders import Orders
from hydrasms_base.log import configure_logging
from hydrasms_base.metrics import Metrics

_PR_SET_PDEATHSIG = 1
_SCRAPE_S = 3.0

Serving = tuple[dict[str, Any], "asyncio.Future[None]"]
"""What a worker says of itself once it is up, and what is done when a background loop has died."""


def main(text: str) -> None:
    """Serve as the orders say until told to stop, and exit."""
    orders = Orders.parse(text)
    _die_with(orders.parent)
    try:
        settings = load_settings()
        configure_logging(settings.log_level, settings.log_format, worker=orders.number)
        with damage_told(settings):
            uvloop.run(serve_until_told(_worker(settings, orders)))
    except Problem as problem:
        sys.exit(f"hydrasms: worker {orders.number}: {problem}")


@contextlib.asynccontextmanager
async def _worker(settings: Settings, orders: Orders) -> AsyncIterator[Up]:
    line = ParentLine(orders.number, await Line.over(socket.socket(fileno=orders.line)), Metrics())
    listening = asyncio.create_task(line.listen(), name="line")
    siblings = Siblings(socket.socket(fileno=orders.http), line.metrics, line.exposition)
    serving = _edge(settings, siblings) if orders.role == "edge" else _everything(settings, orders, siblings)
    try:
        async with serving as (said, failure):
            line.ready(**said)
            yield "", failure
    finally:
        listening.cancel()
        await asyncio.wait([listening])
        await line.close()


@contextlib.asynccontextmanager
async def _everything(settings: Settings, orders: Orders, siblings: Siblings) -> AsyncIterator[Serving]:
    async with running(
        settings, dispatcher=orders.dispatcher, demo=orders.demo, alone=False, siblings=siblings
    ) as server:
        yield {"core_addresses": server.core_addresses, "demo_key": server.demo_key}, server.failure


@contextlib.asynccontextmanager
async def _edge(settings: Settings, siblings: Siblings) -> AsyncIterator[Serving]:
    async with running_edge(settings, siblings=siblings) as server:
        yield {}, server.failure


class ParentLine:
    """A worker's end of the line to its parent, through which it also learns what its siblings have counted."""

    def __init__(self, number: int, line: Line, metrics: Metrics) -> None:
        self.metrics = metrics
        self._number = number
        self._line = line
        self._scrapes: deque[asyncio.Future[dict[int, str | None]]] = deque()

    def ready(self, **more: Any) -> None:
        """Say that this worker serves."""
        self._line.say("ready", pid=os.getpid(), **more)

    async def listen(self) -> None:
        """Answer the parent until it is gone, and then end this process in order."""
        async for message in self._line.heard():
            if message["say"] == "report":
                self._line.say("report", text=self.metrics.render().decode())
            else:
                scrape = self._scrapes.popleft()
                if not scrape.done():
                    scrape.set_result({int(number): text for number, text in message["reports"].items()})
        signal.raise_signal(signal.SIGTERM)

    async def exposition(self) -> bytes:
        """Return the metrics of all workers; those of this one alone where the parent does not answer."""
        scrape: asyncio.Future[dict[int, str | None]] = asyncio.get_running_loop().create_future()
        self._scrapes.append(scrape)
        self._line.say("scrape")
        reports: dict[int, str | None] = {}
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_SCRAPE_S):
                reports = await scrape
        return merged({**reports, self._number: self.metrics.render().decode()})

    async def close(self) -> None:
        """End the line."""
        await self._line.close()


def _die_with(parent: int) -> None:
    """Have the kernel kill this process when its parent dies, even if it is stopped or hangs then.

    Elsewhere than on Linux the end of the line has to do.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
        if os.getppid() != parent:
            sys.exit("hydrasms: the parent of this worker is gone")


if __name__ == "__main__":
    main(sys.argv[1])
