"""What operators and their tools ask of a process: is it alive, is it ready, what does it count."""

from collections.abc import Awaitable, Callable
from typing import Any

import grpc
from grpc.aio import AioRpcError
from grpc_health.v1 import health_pb2
from grpc_health.v1.health_pb2_grpc import HealthStub
from starlette.requests import Request
from starlette.responses import Response

from hydrasms_base.metrics import CONTENT_TYPE, Metrics
from hydrasms_edge.answers import NO_STORE, Answer
from hydrasms_edge.errors import unavailable

Exposition = Callable[[], Awaitable[bytes]]
"""Returns what was counted, in Prometheus' form."""


Ready = Callable[[], Awaitable[bool]]
"""Tells whether a process can do its work at this moment."""


def core_serves(channel: grpc.aio.Channel, deadline_s: float) -> Ready:
    """Return what tells whether the core behind a channel says, in time, that it serves."""
    # Typed as Any because the stub's types lack its methods.
    health: Any = HealthStub(channel)

    async def ready() -> bool:
        try:
            checked = await health.Check(health_pb2.HealthCheckRequest(), timeout=deadline_s)
        except AioRpcError:
            return False
        return bool(checked.status == health_pb2.HealthCheckResponse.SERVING)

    return ready


def only(metrics: Metrics) -> Exposition:
    """Return the exposition of one process's metrics."""

    async def exposition() -> bytes:
        return metrics.render()

    return exposition


class Operations:
    """The endpoints that take no key and tell nothing about any account."""

    def __init__(self, ready: Ready, exposition: Exposition) -> None:
        self._ready = ready
        self._exposition = exposition

    async def livez(self, _: Request) -> Response:
        """GET /livez: this process runs."""
        return Answer({"status": "alive"})

    async def readyz(self, _: Request) -> Response:
        """GET /readyz: this process can do its work; for an edge, its core says that it serves."""
        if not await self._ready():
            raise unavailable()
        return Answer({"status": "ready"})

    async def metrics(self, _: Request) -> Response:
        """GET /metrics: what was counted, for Prometheus."""
        return Response(await self._exposition(), headers=NO_STORE, media_type=CONTENT_TYPE)
