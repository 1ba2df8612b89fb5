"""How a server ends while clients call it: it says so first, and closes when they have gone elsewhere.

`grpc.aio.Server.stop` alone lets the calls in progress end, but those that have arrived and not begun are CANCELLED.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
from grpc_health.v1.health import aio as health_aio

_HEALTH = "/grpc.health."
_LOOK_EVERY_S = 0.03
_QUIET_LOOKS = 10
_MOST_LOOKS = 170
"""Some five seconds."""

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
    """Counts the calls that come, and leaves all else to another interceptor."""

    def __init__(self, interceptor: grpc.aio.ServerInterceptor) -> None:
        self._interceptor = interceptor
        self._calls = 0

    async def intercept_service(
        self, continuation: Continuation, handler_call_details: grpc.HandlerCallDetails
    ) -> Any:
        """Return the other's handler."""
        if not handler_call_details.method.startswith(_HEALTH):
            self._calls += 1
        return await self._interceptor.intercept_service(continuation, handler_call_details)

    async def end(self) -> None:
        """Return when no call has come for a while, from now on; after a few seconds in any case."""
        calls, quiet_looks = self._calls, 0
        for _ in range(_MOST_LOOKS):
            # Many short looks: a process that stood still for that while has not seen what came meanwhile.
            await asyncio.sleep(_LOOK_EVERY_S)
            quiet_looks = quiet_looks + 1 if self._calls == calls else 0
            if quiet_looks == _QUIET_LOOKS:
                return
            calls = self._calls
