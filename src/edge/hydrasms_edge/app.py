"""The edge as an ASGI application: its paths, what each answers to, and what becomes of errors."""

from collections.abc import Awaitable, Callable, Mapping

import grpc
from grpc.aio import AioRpcError
from starlette.middleware.exceptions import ExceptionMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Match, Router
from starlette.types import ASGIApp, Receive, Scope, Send

from hydrasms.messaging.v1.messaging_service_pb2_grpc import MessagingServiceStub
from hydrasms_base.log import get_logger
from hydrasms_base.metrics import Metrics
from hydrasms_base.secret import Secret
from hydrasms_edge.errors import ApiError, core_reason, from_core, present
from hydrasms_edge.observe import Observation
from hydrasms_edge.operations import Operations
from hydrasms_edge.public import PublicMessages, online
from hydrasms_edge.scope import ROUTE, request_id_of
from hydrasms_edge.settings import EdgeSettings

Handler = Callable[[Request], Awaitable[Response]]

log = get_logger(__name__)


def create_app(channel: grpc.aio.Channel, token: Secret, metrics: Metrics, settings: EdgeSettings) -> ASGIApp:
    """Return the edge for a core behind a channel, which the service token opens."""
    public = PublicMessages(MessagingServiceStub(channel), token, settings)
    operations = Operations(channel, metrics, settings.readiness_deadline_s)
    routes = [
        Resource("/api/messages", {"GET": public.list_inbound, "POST": public.send}),
        Resource("/", {"GET": online}),
        Resource("/livez", {"GET": operations.livez}),
        Resource("/readyz", {"GET": operations.readyz}),
        Resource("/metrics", {"GET": operations.metrics}),
    ]
    router = Router(routes, redirect_slashes=False, default=_no_such_path)
    # Outermost first: whatever the layers below let through, Observation answers and notes.
    return Observation(ExceptionMiddleware(router, {ApiError: _refused, AioRpcError: _core_failed}), metrics)


class Resource(BaseRoute):
    """One path and what its methods do. It is matched as a whole: `/livez` is neither `/livez/` nor `/livez\\n`."""

    def __init__(self, path: str, handlers: Mapping[str, Handler]) -> None:
        self.path = path
        self._handlers = dict(handlers)
        if "GET" in handlers:
            self._handlers["HEAD"] = handlers["GET"]
        self._allow = ", ".join(sorted(self._handlers))

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Tell whether a request is for this path."""
        if scope["type"] == "http" and scope["path"] == self.path:
            return Match.FULL, {ROUTE: self.path}
        return Match.NONE, {}

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request; raises ApiError: METHOD_NOT_ALLOWED."""
        handler = self._handlers.get(scope["method"])
        if handler is None:
            raise ApiError(
                "METHOD_NOT_ALLOWED",
                "This path has no such method; Allow names those it has.",
                allow=self._allow,
            )
        response = await handler(Request(scope, receive))
        await response(scope, receive, send)


async def _no_such_path(scope: Scope, receive: Receive, send: Send) -> None:
    raise ApiError("NOT_FOUND", "There is no such path.")


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, ApiError)
    return present(error, request.scope)


async def _core_failed(request: Request, error: Exception) -> Response:
    assert isinstance(error, AioRpcError)
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
            request_id=request_id_of(request.scope),
        )
    return present(shown, request.scope)
