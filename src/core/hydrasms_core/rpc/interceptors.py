"""What every call passes through, outermost first.

The order, which `compose/core.py` repeats:

1. RequestIds   first, so that everything below can name the call.
2. Observation  sees the final status, so it stands outside of the errors.
3. Errors       turns what is raised below into statuses; nothing below touches a status.
4. Deadlines    bounds a call whose caller set no deadline, authentication included.
5. Authentication (`auth.py`) last: behind it is only the servicer.
"""

import asyncio
import re
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol, cast

import grpc

from hydrasms_base.ids import new_id
from hydrasms_base.log import RequestLog, get_logger, request_id
from hydrasms_base.metrics import Metrics
from hydrasms_core.errors import DeadlinePassed, DomainError, InternalError
from hydrasms_core.rpc.errors import abort
from hydrasms_core.rpc.loopback import LOOPBACK_PEER

if TYPE_CHECKING:
    Context = grpc.aio.ServicerContext[Any, Any]
    Handler = grpc.RpcMethodHandler[Any, Any]
else:  # The classes are generic in their stubs alone.
    Context = grpc.aio.ServicerContext
    Handler = grpc.RpcMethodHandler
Proceed = Callable[[Any, Context], Awaitable[Any]]
Continuation = Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]]
"""Finds a call's handler; None where there is none, whatever the stubs of grpc say."""

REQUEST_ID = "x-request-id"
_REQUEST_ID_FORM = re.compile(r"[A-Za-z0-9._-]{1,128}", re.ASCII)

log = get_logger(__name__)
calls = RequestLog(__name__)


class Interceptor(Protocol):
    """Stands around every unary call."""

    async def around(self, method: str, request: Any, context: Context, proceed: Proceed) -> Any:
        """Do something before and after `await proceed(request, context)`."""
        ...


class Pipeline(grpc.aio.ServerInterceptor):
    """All interceptors of a server, outermost first, as the one that gRPC knows of.

    `guard` stands around a stream, for which the interceptors are not made; it wraps the stream's handler.
    """

    def __init__(self, interceptors: Sequence[Interceptor], guard: Callable[[str, Handler], Handler]) -> None:
        self._interceptors = tuple(interceptors)
        self._guard = guard
        # By method: a handler, and the same inside all interceptors. gRPC asks at every call.
        self._made: dict[str, tuple[Handler, Handler]] = {}

    async def intercept_service(
        self, continuation: Continuation, handler_call_details: grpc.HandlerCallDetails
    ) -> Handler | None:
        """Return a method's handler inside all interceptors; None where nobody has the method."""
        handler = await continuation(handler_call_details)
        if handler is None:
            return None
        method = handler_call_details.method
        if handler.unary_unary is None:
            return self._guard(method, handler)
        made = self._made.get(method)
        if made is None or made[0] is not handler:
            made = self._made[method] = (handler, self._inside_all(method, handler))
        return made[1]

    def _inside_all(self, method: str, handler: Handler) -> Handler:
        outermost = cast("Proceed", handler.unary_unary)
        for interceptor in reversed(self._interceptors):
            outermost = _inside(interceptor, method, outermost)

        async def behaviour(request: Any, context: Context) -> Any:
            return await outermost(request, context)

        return grpc.unary_unary_rpc_method_handler(
            cast("Any", behaviour), handler.request_deserializer, handler.response_serializer
        )


def _inside(interceptor: Interceptor, method: str, proceed: Proceed) -> Proceed:
    # Returns the coroutine as it is: one more `async def` a layer would be paid for on every call.
    return lambda request, context: interceptor.around(method, request, context, proceed)


class RequestIds:
    """Gives every call an id, the caller's own where it sent a proper one, and puts it on every log line."""

    async def around(self, method: str, request: Any, context: Context, proceed: Proceed) -> Any:
        """Bind the id to the log's context for the length of the call."""
        given = metadata_value(context, REQUEST_ID)
        taken = given if given and _REQUEST_ID_FORM.fullmatch(given) else new_id()
        token = request_id.set(taken)
        try:
            return await proceed(request, context)
        finally:
            request_id.reset(token)


class Observation:
    """Counts and times every call, and logs it."""

    def __init__(self, metrics: Metrics) -> None:
        self._calls = metrics.counter(
            "rpc_calls", "Calls answered, by method and status.", ("method", "code")
        )
        self._seconds = metrics.histogram("rpc_seconds", "Time to answer a call.", ("method",))
        self._counters: dict[tuple[str, str], Any] = {}
        self._timers: dict[str, Any] = {}

    async def around(self, method: str, request: Any, context: Context, proceed: Proceed) -> Any:
        """Note when the call began and how it ended."""
        began = time.perf_counter()
        code = "OK"
        try:
            return await proceed(request, context)
        except asyncio.CancelledError:
            code = "CANCELLED"
            raise
        except BaseException:
            code = _code_name(context)
            raise
        finally:
            elapsed = time.perf_counter() - began
            self._observe(method, code, elapsed)
            # What comes over the loopback has a line of its own already: the edge's.
            if context.peer() != LOOPBACK_PEER:
                fields = {"method": method, "code": code, "ms": round(elapsed * 1000, 2)}
                calls.info("rpc", {**fields, "request_id": request_id.get()})

    def _observe(self, method: str, code: str, elapsed: float) -> None:
        # Looking a labelled child up costs more than counting does.
        counter = self._counters.get((method, code))
        if counter is None:
            counter = self._counters[method, code] = self._calls.labels(method, code)
        timer = self._timers.get(method)
        if timer is None:
            timer = self._timers[method] = self._seconds.labels(method)
        counter.inc()
        timer.observe(elapsed)


class Errors:
    """Turns domain errors into statuses; anything else is logged and shown as an internal error."""

    async def around(self, method: str, request: Any, context: Context, proceed: Proceed) -> Any:
        """End the call with a status where something is raised below."""
        try:
            return await proceed(request, context)
        except DomainError as error:
            await abort(context, error)
        except grpc.aio.AbortError:
            raise
        except Exception:
            log.exception("internal_error", method=method)
            await abort(context, InternalError())


class Deadlines:
    """Bounds calls whose callers set no deadline; one that a caller set is kept by gRPC itself."""

    def __init__(self, default_s: float = 30.0) -> None:
        self._default_s = default_s

    async def around(self, method: str, request: Any, context: Context, proceed: Proceed) -> Any:
        """Give up after the default time."""
        if context.time_remaining() is not None:
            return await proceed(request, context)
        limit = asyncio.timeout(self._default_s)
        try:
            async with limit:
                return await proceed(request, context)
        except TimeoutError:
            if not limit.expired():
                raise
            raise DeadlinePassed from None


def metadata_value(context: Context, key: str) -> str | None:
    """Return the one value that a caller sent under a key; None where it sent none.

    Several stand for an empty one, which is never right: were they none, a call with two keys would be a service's.
    """
    found: str | None = None
    for name, value in context.invocation_metadata() or ():
        if name == key:
            if found is not None:
                return ""
            found = value if isinstance(value, str) else value.decode("ascii", "replace")
    return found


def _code_name(context: Context) -> str:
    code: Any = context.code()
    if isinstance(code, grpc.StatusCode):
        return code.name
    names = {status.value[0]: status.name for status in grpc.StatusCode}
    return names.get(code, "UNKNOWN")
