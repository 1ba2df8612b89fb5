"""Serving until told to stop, whatever it is that serves."""

import asyncio
import contextlib
import gc
import signal

_GC_YOUNG_OBJECTS = 50_000

Up = tuple[str, "asyncio.Future[None]"]
"""A greeting, empty where there is nothing to say, and what is done when a background loop has died."""


async def serve_until_told(role: contextlib.AbstractAsyncContextManager[Up]) -> None:
    """Run a role until SIGTERM or SIGINT, then let it drain; raises what it died of."""
    stop = _StopSignal()
    try:
        async with role as (greeting, failure):
            stop.started()
            if greeting:
                print(greeting, flush=True)  # noqa: T201 - this is what the command is asked for
            tune()
            # A loop that died takes the server down: half a product would take messages and hand none on.
            failure.add_done_callback(lambda _: stop.received.set())
            await stop.received.wait()
    except asyncio.CancelledError:
        if not stop.received.is_set():
            raise
        # Told to stop before it was up: what was opened by then is closed again.
        return
    if failure.done():
        failure.result()


class _StopSignal:
    """SIGTERM and SIGINT: a server that is up drains, and one that still waits for something stops waiting."""

    def __init__(self) -> None:
        self.received = asyncio.Event()
        self._starting = asyncio.current_task()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, self._receive)

    def started(self) -> None:
        """Say that the server is up; from here on it is its own affair to end."""
        self._starting = None

    def _receive(self) -> None:
        self.received.set()
        starting, self._starting = self._starting, None
        if starting is not None:
            starting.cancel()


def tune() -> None:
    """Make the interpreter one that serves for a long time."""
    # What is there now stays for ever: the collector need not walk over it again.
    gc.collect()
    gc.freeze()
    # Nor look at what is young after every 700 objects: a busy server makes that many in 20 requests, and
    # hardly any is part of a cycle.
    gc.set_threshold(_GC_YOUNG_OBJECTS, 20, 50)
