"""The far end of a coalescer: a stub whose calls a test answers, each when and as it says."""

import asyncio
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import grpc
from grpc.aio import AioRpcError, Metadata

from hydrasms.messaging.v1 import forwarding_service_pb2 as pb
from hydrasms.messaging.v1.messaging_service_pb2 import SendMessageRequest, SendMessageResponse
from hydrasms_base.keys import generate_key
from hydrasms_base.metrics import Metrics
from hydrasms_base.secret import Secret
from hydrasms_core.errors import DomainError
from hydrasms_core.rpc.errors import to_status
from hydrasms_edge.coalescing import Coalescer, Limits
from tests.support.accounts import within_bounds
from tests.support.waiting import eventually

PHONE = "+447700900000"
TIMEOUT_S = 10.0


def accepted(item: pb.ForwardedSend) -> pb.ForwardedSendResult:
    """Return what accepts a send: a message with its text."""
    result = pb.ForwardedSendResult()
    result.accepted.message.content = item.content
    return result


def refused(error: DomainError) -> pb.ForwardedSendResult:
    """Return what refuses a send."""
    return pb.ForwardedSendResult(refused=to_status(error))


@dataclass
class ForwardCall:
    """One call as it arrived, not answered yet."""

    request: pb.ForwardSendsRequest
    timeout: float
    metadata: dict[str, str]
    outcome: "asyncio.Future[pb.ForwardSendsResponse]"

    @property
    def contents(self) -> list[str]:
        """The texts that it carries."""
        return [item.content for item in self.request.items]

    def accept(self) -> None:
        """Accept all of it."""
        self.answer(accepted(item) for item in self.request.items)

    def answer(self, results: Iterable[pb.ForwardedSendResult]) -> None:
        self.outcome.set_result(pb.ForwardSendsResponse(results=results))

    def fail(self, code: grpc.StatusCode) -> None:
        """End it with a bare status, as gRPC makes one."""
        self.outcome.set_exception(AioRpcError(code, Metadata(), Metadata(), "a secret detail"))


@dataclass
class FakeForwarding:
    """Remembers the calls, and answers them at once where it is not `holding` them for the test to answer."""

    holding: bool = True
    calls: list[ForwardCall] = field(default_factory=list)
    under_way: int = 0
    most_under_way: int = 0

    async def ForwardSends(
        self, request: pb.ForwardSendsRequest, *, timeout: float, metadata: Iterable[tuple[str, str]]
    ) -> pb.ForwardSendsResponse:
        outcome: asyncio.Future[pb.ForwardSendsResponse] = asyncio.get_running_loop().create_future()
        call = ForwardCall(request, timeout, dict(metadata), outcome)
        self.calls.append(call)
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        try:
            if not self.holding:
                # As long as an answer over a socket takes at least.
                for _ in range(3):
                    await asyncio.sleep(0)
                call.accept()
            return await outcome
        finally:
            self.under_way -= 1

    async def call(self, number: int) -> ForwardCall:
        """Return a call by its number, from 0, once it has come."""
        await eventually(lambda: len(self.calls) > number, what=f"call {number}")
        return self.calls[number]

    def times_carried(self) -> Counter[str]:
        """Count how often each text came."""
        return Counter(text for call in self.calls for text in call.contents)


class Callers:
    """Callers of a coalescer, each known by the text that it sends."""

    def __init__(
        self, forwarding: FakeForwarding, coalescer: type[Coalescer] = Coalescer, **limits: Any
    ) -> None:
        self.forwarding = forwarding
        self.metrics = Metrics()
        self.coalescer = coalescer(forwarding, Secret(generate_key()), self.metrics, Limits(**limits))  # type: ignore[arg-type]

    def send(
        self, content: str, *, key: str | None = None, timeout: float = TIMEOUT_S, digest: str = "digest"
    ) -> "asyncio.Task[SendMessageResponse]":
        """Begin to send a text."""
        request = SendMessageRequest(recipient=PHONE, content=content, idempotency_key=key)
        metadata = (
            ("authorization", "Bearer of the caller's own"),
            ("hydrasms-key-digest", digest),
            ("x-request-id", f"request-of-{content[:20]}"),
        )
        sending = self.coalescer.send(request, timeout=timeout, metadata=metadata)
        return asyncio.create_task(sending)

    async def flying(self, *contents: str, **options: Any) -> "list[asyncio.Task[SendMessageResponse]]":
        """Begin to send texts, each in a call of its own, and return when all calls are under way."""
        tasks = []
        for content in contents:
            number = len(self.forwarding.calls)
            tasks.append(self.send(content, **options))
            await self.forwarding.call(number)
        return tasks


async def content_of(sending: "asyncio.Task[SendMessageResponse]") -> str:
    """Return the text of the message that a send was answered with."""
    return (await within_bounds(sending)).message.content


async def refusal_of(sending: "asyncio.Task[SendMessageResponse]") -> AioRpcError:
    """Return what a send was refused with."""
    try:
        answer = await within_bounds(sending)
    except AioRpcError as error:
        return error
    raise AssertionError(f"it was accepted: {answer}")
