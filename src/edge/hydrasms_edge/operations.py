"""What operators and their tools ask of an edge: is it alive, is it ready, what does it count."""

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


def only(metrics: Metrics) -> Exposition:
    """Return the exposition of one process's metrics."""

    async def exposition() -> bytes:
        return metrics.render()

    return exposition


class Operations:
    """The endpoints that take no key and tell nothing about any account."""

    def __init__(
        self, channel: grpc.aio.Channel, exposition: Exposition, readiness_deadline_s: float
    ) -> None:
        # Typed as Any because the stub's types lack its methods.
        self._health: Any = HealthStub(channel)
        self._exposition = exposition
        self._readiness_deadline_s = readiness_deadline_s

    async def livez(self, _: Request) -> Response:
        """GET /livez: this process runs."""
        return Answer({"status": "alive"})

    async def readyz(self, _: Request) -> Response:
        """GET /readyz: the core says that it serves."""
        try:
            checked = await self._health.Check(
                health_pb2.HealthCheckRequest(), timeout=self._readiness_deadline_s
            )
        except AioRpcError:
            raise unavailable() from None
        if checked.status != health_pb2.HealthCheckResponse.SERVING:
            raise unavailable()
        return Answer({"status": "ready"})

    async def metrics(self, _: Request) -> Response:
        """GET /metrics: what was counted, for Prometheus."""
        return Response(await self._exposition(), headers=NO_STORE, media_type=CONTENT_TYPE)
