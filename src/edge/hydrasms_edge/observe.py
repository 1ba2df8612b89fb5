"""Around every request: its id, its line in the log, its place in the metrics, and an answer whatever fails."""

import asyncio
import time

from prometheus_client import Counter, Histogram
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from hydrasms_base.log import RequestLog, get_logger, whereabouts
from hydrasms_base.metrics import Metrics
from hydrasms_edge.errors import ApiError, internal_error, present, unavailable
from hydrasms_edge.scope import REQUEST_ID, ROUTE, request_id_for

# What nginx calls a request whose client left before the answer.
CLIENT_CLOSED_REQUEST = 499
# Whatever a caller sends as path or method, metrics and log know only so many of them.
OTHER = "other"
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})

log = get_logger(__name__)
requests = RequestLog(__name__)


class Observation:
    """The outermost layer, in pure ASGI: nothing that happens inside goes unseen or unanswered."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._requests = metrics.counter("http_requests", "Requests answered.", ("method", "route", "status"))
        self._seconds = metrics.histogram("http_seconds", "Time to answer a request.", ("route",))
        self._counters: dict[tuple[str, str, int], Counter] = {}
        self._timers: dict[str, Histogram] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()
        request_id = scope[REQUEST_ID] = request_id_for(scope)
        outlet = _Outlet(send, request_id, is_head=scope["method"] == "HEAD")
        try:
            await self._app(scope, receive, outlet.send)
        except ClientDisconnect:
            pass  # Nobody is left to answer; the status says so.
        except asyncio.CancelledError:
            # The server stops, or the channel was closed under a call.
            await outlet.answer(unavailable(), scope, receive)
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
        except Exception as error:  # noqa: BLE001 - whatever it is, the caller gets the contract's answer
            log.error(
                "internal_error", request_id=request_id, error=type(error).__name__, where=whereabouts(error)
            )
            await outlet.answer(internal_error(), scope, receive)
        finally:
            self._observe(scope, outlet.status, time.perf_counter() - began)

    def _observe(self, scope: Scope, status: int, elapsed_s: float) -> None:
        method = scope["method"] if scope["method"] in _METHODS else OTHER
        route = scope.get(ROUTE, OTHER)
        # Looking a labelled child up costs more than counting does.
        counter = self._counters.get((method, route, status))
        if counter is None:
            counter = self._counters[method, route, status] = self._requests.labels(method, route, status)
        timer = self._timers.get(route)
        if timer is None:
            timer = self._timers[route] = self._seconds.labels(route)
        counter.inc()
        timer.observe(elapsed_s)
        requests.info(
            "http",
            {
                "method": method,
                "route": route,
                "status": status,
                "ms": round(elapsed_s * 1000, 2),
                "request_id": scope[REQUEST_ID],
            },
        )


class _Outlet:
    """The way out of one request: it adds the request id and remembers what was answered."""

    __slots__ = ("_is_head", "_request_id", "_send", "_started", "status")

    def __init__(self, send: Send, request_id: str, *, is_head: bool) -> None:
        self._send = send
        self._request_id = request_id.encode()
        self._is_head = is_head
        self._started = False
        self.status = CLIENT_CLOSED_REQUEST

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._started = True
            self.status = message["status"]
            message["headers"] = [*message["headers"], (b"x-request-id", self._request_id)]
        elif self._is_head:
            # Headers as for GET, and no body.
            message["body"] = b""
        await self._send(message)

    async def answer(self, error: ApiError, scope: Scope, receive: Receive) -> None:
        """Show an error, unless another answer is under way."""
        if not self._started:
            await present(error, scope)(scope, receive, self.send)
