"""A channel and a server joined in memory, so that one process needs no socket.

Generated stubs see a channel, servicers and interceptors see a server, and neither can tell: messages are copied,
errors are statuses, deadlines and message sizes bind, and an exception that no interceptor catches is UNKNOWN, as
it is over a socket. Unary calls only; a stream is UNIMPLEMENTED.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn

import grpc
from grpc.aio import AioRpcError, Metadata

from hydrasms_base.alarm import Alarm

MetadataPairs = Sequence[tuple[str, str | bytes]]

LOOPBACK_PEER = "loopback"
"""What a context of the loopback says of where its caller is."""

MAX_MESSAGE_BYTES = 4 * 1024 * 1024
"""What a gRPC server takes in by default."""


class LoopbackContext:
    """The part of grpc.aio.ServicerContext that servicers and interceptors of unary calls use."""

    def __init__(self, metadata: MetadataPairs, deadline: float | None) -> None:
        self._metadata = metadata
        self._deadline = deadline
        self._trailing: tuple[tuple[str, str | bytes], ...] = ()
        self._code = grpc.StatusCode.OK
        self._details = ""

    def invocation_metadata(self) -> MetadataPairs:
        """Return what the caller sent beside its request."""
        return self._metadata

    def time_remaining(self) -> float | None:
        """Return the seconds until the caller's deadline, or None where it set none."""
        if self._deadline is None:
            return None
        return max(0.0, self._deadline - asyncio.get_running_loop().time())

    def set_trailing_metadata(self, trailing_metadata: MetadataPairs) -> None:
        """Set what goes back beside the answer."""
        self._trailing = tuple(trailing_metadata)

    def trailing_metadata(self) -> MetadataPairs:
        """Return what goes back beside the answer."""
        return self._trailing

    def set_code(self, code: grpc.StatusCode) -> None:
        """Set the status that the call ends with."""
        self._code = code

    def code(self) -> grpc.StatusCode:
        """Return the status that the call ends with."""
        return self._code

    def set_details(self, details: str) -> None:
        """Set the words of the status."""
        self._details = details

    def details(self) -> str:
        """Return the words of the status."""
        return self._details

    def peer(self) -> str:
        """Return where the caller is: in this process."""
        return LOOPBACK_PEER

    def auth_context(self) -> Mapping[str, Sequence[bytes]]:
        """Return what the transport knows of the caller's identity: nothing, for there is no certificate."""
        return {}

    async def abort(
        self, code: grpc.StatusCode, details: str = "", trailing_metadata: MetadataPairs = ()
    ) -> NoReturn:
        """End the call with a status."""
        self._code, self._details = code, details
        if trailing_metadata:
            self._trailing = tuple(trailing_metadata)
        raise grpc.aio.AbortError("Locally aborted.")


class _CallDetails:
    """What an interceptor sees when it is asked for a handler; a loopback asks once a method, not once a call."""

    invocation_metadata: MetadataPairs = ()

    def __init__(self, method: str) -> None:
        self.method = method


class Loopback:
    """Collects handlers as a server does and answers calls as a channel does."""

    def __init__(self, interceptors: Sequence[grpc.aio.ServerInterceptor] = ()) -> None:
        self._interceptors = tuple(interceptors)
        self._handlers: dict[str, Any] = {}

    def add_generic_rpc_handlers(self, generic_rpc_handlers: object) -> None:
        """Do nothing: generated code also registers the same methods by name, below."""

    def add_registered_method_handlers(self, service: str, method_handlers: Mapping[str, Any]) -> None:
        """Take the handlers of one service, as generated `add_…_to_server` functions give them."""
        for name, handler in method_handlers.items():
            self._handlers[f"/{service}/{name}"] = handler

    def unary_unary(
        self,
        method: str,
        request_serializer: object = None,
        response_deserializer: object = None,
        _registered_method: bool = False,
    ) -> Callable[..., Any]:
        """Return the callable that a generated stub keeps for one method."""
        return _LoopbackCall(self, method)

    def unary_stream(self, method: str, *_: object, **__: object) -> Callable[..., Any]:
        """Return a callable that refuses: streams need a socket."""
        return _LoopbackCall(self, f"{method} (a stream)")

    stream_unary = stream_stream = unary_stream

    async def handler(self, method: str) -> Any:
        """Return a method's handler inside all interceptors; None where there is none."""

        async def innermost(details: Any) -> Any:
            found = self._handlers.get(details.method)
            return found if found is not None and found.unary_unary is not None else None

        continuation: Any = innermost
        for interceptor in reversed(self._interceptors):
            continuation = _bound(interceptor, continuation)
        return await continuation(_CallDetails(method))


class _LoopbackCall:
    """One method of a stub."""

    def __init__(self, loopback: Loopback, method: str) -> None:
        self._loopback = loopback
        self._method = method
        self._behaviour: Any = None

    async def __call__(
        self,
        request: Any,
        *,
        timeout: float | None = None,
        metadata: MetadataPairs | None = None,
        credentials: object = None,
        wait_for_ready: bool | None = None,
        compression: object = None,
    ) -> Any:
        if self._behaviour is None:
            handler = await self._loopback.handler(self._method)
            if handler is None:
                raise _rpc_error(grpc.StatusCode.UNIMPLEMENTED, "Method not found!")
            self._behaviour = handler.unary_unary
        pairs, twin = _checked(metadata or ()), _copy(request)
        if timeout is None:
            return _copy(await self._answer(twin, LoopbackContext(pairs, None)))
        context = LoopbackContext(pairs, asyncio.get_running_loop().time() + timeout)
        try:
            with Alarm(timeout):
                return _copy(await self._answer(twin, context))
        except TimeoutError:
            # No other one comes this way: whatever a handler raises is a status by now.
            raise _rpc_error(grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded") from None

    async def _answer(self, request: Any, context: LoopbackContext) -> Any:
        try:
            reply = await self._behaviour(request, context)
        except grpc.aio.AbortError:
            raise _rpc_error(context.code(), context.details(), context.trailing_metadata()) from None
        except Exception as error:
            details = f"Unexpected {type(error)}: {error}"
            raise _rpc_error(grpc.StatusCode.UNKNOWN, details) from error
        if context.code() is not grpc.StatusCode.OK:
            raise _rpc_error(context.code(), context.details(), context.trailing_metadata())
        return reply


def _copy(message: Any) -> Any:
    # Caller and servicer must share nothing, or one could change what the other still reads.
    if message.ByteSize() > MAX_MESSAGE_BYTES:
        raise _rpc_error(
            grpc.StatusCode.RESOURCE_EXHAUSTED, f"The message is larger than {MAX_MESSAGE_BYTES} bytes"
        )
    twin = type(message)()
    twin.CopyFrom(message)
    return twin


def _checked(metadata: MetadataPairs) -> MetadataPairs:
    for key, value in metadata:
        if key != key.lower() or not key.isascii():
            raise ValueError(f"metadata key {key!r} is not lower-case ASCII")
        if isinstance(value, str) and not (value.isascii() and value.isprintable()):
            raise ValueError(f"the value of metadata {key!r} is not printable ASCII")
    return metadata


def _rpc_error(code: grpc.StatusCode, details: str, trailing: MetadataPairs = ()) -> AioRpcError:
    return AioRpcError(code, Metadata(), Metadata(*trailing), details)


def _bound(interceptor: grpc.aio.ServerInterceptor, continuation: Any) -> Any:
    async def step(details: Any) -> Any:
        return await interceptor.intercept_service(continuation, details)

    return step
