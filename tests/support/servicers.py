"""grpcio-testing for asynchronous servicers.

By itself its server calls an `async def` method, takes the coroutine for the response and answers OK: nothing has run
and nothing can fail. Here every method runs its coroutine to the end, inside the interceptors that a test names.
"""

import asyncio
import contextlib
import inspect
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import grpc
import grpc_testing
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.rpc import error_details_pb2, status_pb2

from hydrasms_core.caller import Caller, calling
from hydrasms_core.rpc.interceptors import Errors, Interceptor

DETAILS = "grpc-status-details-bin"


class AsyncContext:
    """The context of grpc.aio as far as servicers and interceptors use it, over grpcio-testing's own."""

    def __init__(self, context: Any) -> None:
        self._context = context

    def invocation_metadata(self) -> Any:
        return self._context.invocation_metadata()

    def time_remaining(self) -> float | None:
        remaining: float | None = self._context.time_remaining()
        return remaining

    def peer(self) -> str:
        return "grpc_testing"

    async def abort(
        self, code: grpc.StatusCode, details: str = "", trailing_metadata: Sequence[Any] = ()
    ) -> NoReturn:
        # The other abort would lose the metadata, in which all that an error says is.
        self._context.set_code(code)
        self._context.set_details(details)
        self._context.set_trailing_metadata(trailing_metadata)
        raise grpc.aio.AbortError


class Answer:
    """What a call came to: a response and OK, or another code with what its details say."""

    def __init__(self, response: Any, trailing: Any, code: grpc.StatusCode, details: str) -> None:
        self.response = response
        self.code = code
        self.details = details
        self.info, self.violations = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
        self.retry = error_details_pb2.RetryInfo()
        for name, value in trailing:
            if name == DETAILS:
                for detail in status_pb2.Status.FromString(value).details:
                    detail.Unpack(self.info)
                    detail.Unpack(self.violations)
                    detail.Unpack(self.retry)

    @property
    def fields(self) -> list[str]:
        """The fields of the request that are at fault."""
        return [violation.field for violation in self.violations.field_violations]


class Servicing:
    """One asynchronous servicer behind grpcio-testing's server."""

    def __init__(
        self,
        service: ServiceDescriptor,
        servicer: Any,
        *,
        who: Caller | None = None,
        interceptors: Sequence[Interceptor] = (Errors(),),
        time: Any = None,
    ) -> None:
        self._service = service
        self._who = who or Caller(account_id=None)
        self._interceptors = tuple(interceptors)
        adapted = _Adapted({method.name: self._adapted(servicer, method) for method in service.methods})
        self._server = grpc_testing.server_from_dictionary(
            {service: adapted}, time or grpc_testing.strict_real_time()
        )

    def begin(self, method: str, request: Any, *, timeout_s: float | None = None) -> Any:
        """Make a call and return it while it runs."""
        return self._server.invoke_unary_unary(self._service.methods_by_name[method], (), request, timeout_s)

    def call(self, method: str, request: Any) -> Answer:
        """Make a call and return what it came to."""
        return answer_of(self.begin(method, request))

    def _adapted(self, servicer: Any, method: MethodDescriptor) -> Callable[[Any, Any], Any]:
        behaviour = getattr(servicer, method.name)
        if not inspect.iscoroutinefunction(behaviour):
            raise TypeError(f"{method.full_name} is not asynchronous")
        outermost = behaviour
        for interceptor in reversed(self._interceptors):
            outermost = _inside(
                interceptor, f"/{method.containing_service.full_name}/{method.name}", outermost
            )

        def run(request: Any, context: Any) -> Any:
            with contextlib.suppress(grpc.aio.AbortError, asyncio.CancelledError):
                return asyncio.run(self._run(outermost, request, context))
            # What ends with another code than OK has no response.
            return None

        return run

    async def _run(self, behaviour: Callable[[Any, Any], Any], request: Any, context: Any) -> Any:
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        assert task is not None

        def stop() -> None:
            # It is told of every end, also of one that came after the loop's.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(task.cancel)

        context.add_callback(stop)
        with calling(self._who):
            return await behaviour(request, AsyncContext(context))


class Remembering:
    """A service that answers every use case with what it was given, and remembers what it was asked."""

    def __init__(self, **answers: Any) -> None:
        self._answers = answers
        self.asked: list[tuple[Any, ...]] = []

    def __getattr__(self, name: str) -> Any:
        async def use(*arguments: Any, **options: Any) -> Any:
            self.asked.append((name, *arguments, *sorted(options.items())))
            return self._answers[name]

        return use


def ask(
    service: ServiceDescriptor,
    servicer: Callable[[Any], Any],
    method: str,
    request: Any,
    who: Caller,
    answers: dict[str, Any],
) -> tuple[tuple[Any, ...], Any]:
    """Make a call that goes well, and return what the service was asked and what the caller was answered."""
    remembering = Remembering(**answers)
    answer = Servicing(service, servicer(remembering), who=who).call(method, request)
    assert answer.code is grpc.StatusCode.OK, answer.details
    (asked,) = remembering.asked
    return asked, answer.response


def answer_of(rpc: Any) -> Answer:
    """Wait for a call to end and return what it came to."""
    response, trailing, code, details = rpc.termination()
    return Answer(response, trailing, code, details)


class _Adapted:
    """Has one plain method for each of a servicer's coroutines."""

    def __init__(self, methods: dict[str, Callable[[Any, Any], Any]]) -> None:
        self.__dict__.update(methods)


def _inside(
    interceptor: Interceptor, method: str, proceed: Callable[[Any, Any], Any]
) -> Callable[[Any, Any], Any]:
    return lambda request, context: interceptor.around(method, request, context, proceed)
