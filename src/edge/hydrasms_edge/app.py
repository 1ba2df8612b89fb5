"""The edge as an ASGI application: its paths, what each answers to, and what becomes of errors."""

import contextlib
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import grpc
from grpc.aio import AioRpcError
from grpc_health.v1.health_pb2 import HealthCheckRequest
from grpc_health.v1.health_pb2_grpc import HealthStub
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from hydrasms.messaging.v1.forwarding_service_pb2_grpc import ForwardingServiceStub
from hydrasms.messaging.v1.messaging_service_pb2_grpc import MessagingServiceStub
from hydrasms_base.log import get_logger
from hydrasms_base.metrics import Metrics
from hydrasms_base.secret import Secret
from hydrasms_edge.coalescing import Coalescer
from hydrasms_edge.errors import ApiError, core_reason, from_core, present
from hydrasms_edge.events import EventFeed
from hydrasms_edge.observe import Observation
from hydrasms_edge.operations import Exposition, Operations, Ready, core_serves, only
from hydrasms_edge.public import PublicMessages, SendMessage, online
from hydrasms_edge.scope import ROUTE, request_id_of
from hydrasms_edge.settings import EdgeSettings
from hydrasms_edge.streams import Streams

Handler = Callable[[Request], Awaitable[Response]]

_PATIENCE_S = 1.0

log = get_logger(__name__)


def create_app(
    channel: grpc.aio.Channel,
    token: Secret | None,
    metrics: Metrics,
    settings: EdgeSettings,
    exposition: Exposition | None = None,
    streams: Streams | None = None,
) -> ASGIApp:
    """Return the edge for a core behind a channel, which the service token opens, or the channel's certificate.

    `exposition` is what it shows as its metrics; its own ones unless given. `streams` are its streams of events, for
    whoever is to end them.
    """
    messaging: Any = MessagingServiceStub(channel)
    send: SendMessage = messaging.SendMessage
    # A core in this process is called without a socket, and nothing is saved by calling it less often.
    if settings.coalesce and isinstance(channel, grpc.aio.Channel):
        forwarding: Any = ForwardingServiceStub(channel)
        send = Coalescer(forwarding, token, metrics, reach=_reaching(channel)).send
    public = PublicMessages(messaging, send, token, settings)
    feed = EventFeed(messaging, token, settings, streams or streams_of(settings, metrics))
    ready = core_serves(channel, settings.readiness_deadline_s)
    paths = {
        **_operations(ready, exposition or only(metrics)),
        "/api/messages": Resource("/api/messages", {"GET": public.list_inbound, "POST": public.send}),
        "/v1/events": Resource("/v1/events", {"GET": feed.follow}),
        "/": Resource("/", {"GET": online}),
    }
    # Outermost first: whatever the layers below let through, Observation answers and notes.
    return Observation(Paths(paths), metrics)


def streams_of(settings: EdgeSettings, metrics: Metrics) -> Streams:
    """Return what counts an edge's streams of events."""
    return Streams(settings.max_streams, settings.max_streams_a_key, metrics)


def create_operations_app(ready: Ready, metrics: Metrics) -> ASGIApp:
    """Return what a process without a REST API answers to operators and their tools."""
    return Observation(Paths(_operations(ready, only(metrics))), metrics)


def _operations(ready: Ready, exposition: Exposition) -> "dict[str, Resource]":
    operations = Operations(ready, exposition)
    return {
        "/livez": Resource("/livez", {"GET": operations.livez}),
        "/readyz": Resource("/readyz", {"GET": operations.readyz}),
        "/metrics": Resource("/metrics", {"GET": operations.metrics}),
    }


class Resource:
    """One path and what its methods do."""

    def __init__(self, path: str, handlers: Mapping[str, Handler]) -> None:
        self.path = path
        self._handlers = dict(handlers)
        if "GET" in handlers:
            self._handlers["HEAD"] = handlers["GET"]
        self._allow = ", ".join(sorted(self._handlers))

    def handler(self, method: str) -> Handler:
        """Return what a method does; raises ApiError: METHOD_NOT_ALLOWED."""
        handler = self._handlers.get(method)
        if handler is None:
            raise ApiError(
                "METHOD_NOT_ALLOWED",
                "This path has no such method; Allow names those it has.",
                allow=self._allow,
            )
        return handler


class Paths:
    """Answers each request by its path, matched as a whole: `/livez` is neither `/livez/` nor `/livez\\n`.

    Starlette's router and exception middleware do the same and more, at twice the cost of all that is done here.
    """

    def __init__(self, resources: Mapping[str, Resource]) -> None:
        self._resources = dict(resources)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, whether with what it asked for or with the reason why not."""
        try:
            resource = self._resources.get(scope["path"])
            if resource is None:
                raise ApiError("NOT_FOUND", "There is no such path.")
            scope[ROUTE] = resource.path
            response = await resource.handler(scope["method"])(Request(scope, receive))
        except ApiError as error:
            response = present(error, scope)
        except AioRpcError as error:
            response = _core_failed(error, scope)
        await response(scope, receive, send)


def _reaching(channel: grpc.aio.Channel) -> Callable[[], Awaitable[None]]:
    """Return what waits a moment for a core where none can be reached.

    Nothing has been sent by then, so that waiting is safe: one core may be about to end while another, just started,
    has not been found again.
    """
    health: Any = HealthStub(channel)

    async def reach() -> None:
        if channel.get_state(try_to_connect=True) is not grpc.ChannelConnectivity.READY:
            # Whether it comes in time the call itself will show.
            with contextlib.suppress(AioRpcError):
                await health.Check(HealthCheckRequest(), timeout=_PATIENCE_S, wait_for_ready=True)

    return reach


def _core_failed(error: AioRpcError, scope: Scope) -> Response:
    shown = from_core(error)
    reason = core_reason(error)
    # That the core is away or busy is no fault, and the request's own line says so: a line more for each request
    # would come when there is least room for it.
    if shown.status >= 500 and reason not in ("UNAVAILABLE", "DEADLINE_EXCEEDED"):
        # The details of a status may hold anything, so its reason and code are all that is logged.
        log.error(
            "core_failed",
            reason=reason,
            grpc_code=error.code().name,
            request_id=request_id_of(scope),
        )
    return present(shown, scope)
