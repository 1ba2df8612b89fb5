"""How a server ends while clients call it: it says so first, and closes when they have gone elsewhere.

`grpc.aio.Server.stop` alone lets the calls in progress end, but those that have arrived and not begun are CANCELLED.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
from grpc_health.v1.health import aio as health_aio

_HEALTH = "/grpc.health."
_QUIET_S = 0.3
_LEFT_WITHIN_S = 5.0

Continuation = Callable[[grpc.HandlerCallDetails], Awaitable[Any]]


class Health(health_aio.HealthServicer):
    """The health service, which knows how many clients watch it: those learn of an end before it comes."""

    def __init__(self) -> None:
        super().__init__()
        self.watchers = 0

    async def Watch(self, request: Any, context: Any) -> None:  # noqa: N802 - the proto's name
        """Tell a client of every change of a service's state."""
        self.watchers += 1
        try:
            await super().Watch(request, context)
        finally:
            self.watchers -= 1


class Arrivals(grpc.aio.ServerInterceptor):
    """Notes when a call came last, and leaves all else to another interceptor."""

    def __init__(self, interceptor: grpc.aio.ServerInterceptor) -> None:
        self._interceptor = interceptor
        self._last = time.monotonic()

    async def intercept_service(
        self, continuation: Continuation, handler_call_details: grpc.HandlerCallDetails
    ) -> Any:
        """Return the other's handler."""
        if not handler_call_details.method.startswith(_HEALTH):
            self._last = time.monotonic()
        return await self._interceptor.intercept_service(continuation, handler_call_details)

    async def end(self) -> None:
        """Return when no call has come for a while, from now on; after a few seconds in any case."""
        began = time.monotonic()
        while (now := time.monotonic()) < began + _LEFT_WITHIN_S:
            rest_s = max(self._last, began) + _QUIET_S - now
            if rest_s <= 0:
                return
            await asyncio.sleep(rest_s)
