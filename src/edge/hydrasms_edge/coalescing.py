"""Sends to a core in another process: what many callers ask for at once goes there in one call.

A call over a socket costs several times what a send does, so sends gather while calls are under way. Where none is, a
send goes at once; beside one, a second goes that carries as much, or whatever waits once the first takes long. Every
send keeps what it would have alone: its key, its request id, its deadline, its refusal.
"""

import asyncio
import random
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import grpc
from google.rpc import status_pb2
from grpc.aio import AioRpcError, Metadata

from hydrasms.messaging.v1.forwarding_service_pb2 import ForwardSendsRequest, ForwardSendsResponse
from hydrasms.messaging.v1.messaging_service_pb2 import SendMessageRequest, SendMessageResponse
from hydrasms_base.ids import new_id
from hydrasms_base.log import get_logger
from hydrasms_base.metrics import Metrics
from hydrasms_base.secret import Secret
from hydrasms_edge.auth import credential

if TYPE_CHECKING:
    # Known to type checkers alone.
    from hydrasms.messaging.v1.forwarding_service_pb2_grpc import ForwardingServiceAsyncStub

_ITEM_BYTES = 256
"""What an item may take beside its request: digest, request id, and what sets them off."""
_MAX_TIMEOUT_MS = 2**31 - 1
_CORE_GONE = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)
"""What a call ends with that the core did not answer: it could not be reached, or it went away and let go."""
_CODES = {code.value[0]: code for code in grpc.StatusCode if code is not grpc.StatusCode.OK}

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Limits:
    """How sends gather, how far, and how they are tried again."""

    max_in_flight: int = 2
    """How many calls may be under way, not counting those that are overdue."""
    patience_s: float = 0.03
    """How long sends wait until they are as many as a call under way carries, to go beside it, in seconds; then they
    go whatever their number."""
    overdue_after_s: float = 1.0
    """When a call that is not answered is taken for stuck, in seconds; others then go past it."""
    max_calls: int = 32
    """How many calls may be under way, counting those that are overdue."""
    max_items: int = 1_000
    """How many sends go in one call."""
    max_bytes: int = 1024 * 1024
    """How large a call may be; its answer is little larger, and gRPC takes 4 MiB either way."""
    max_waiting: int = 10_000
    """How many sends may wait for a call; past it they are refused at once."""
    first_pause_s: float = 0.05
    """How long a send with an idempotency key rests before it goes again, in seconds; twice as long each time."""
    max_pause_s: float = 0.5
    """How long it rests at most, in seconds."""


class _Send:
    """One caller's send on its way."""

    __slots__ = ("answer", "deadline", "failure", "key_digest", "request", "request_id", "tries")

    def __init__(
        self,
        request: SendMessageRequest,
        key_digest: str,
        request_id: str,
        deadline: float,
        answer: "asyncio.Future[SendMessageResponse]",
    ) -> None:
        self.request = request
        self.key_digest = key_digest
        self.request_id = request_id
        self.deadline = deadline
        self.answer = answer
        self.tries = 0
        self.failure: AioRpcError | None = None
        """Why the last call that carried it came to nothing."""


@dataclass(slots=True)
class _UnderWay:
    """A call that is not answered yet, and when others may go beside or past it."""

    beside: int
    """How many sends at least another call must carry to go beside it: a call costs as much as twenty sends do, so
    that few go in small ones."""
    overdue_at: float
    alarms: tuple[asyncio.TimerHandle, ...] = ()


class Coalescer:
    """Sends messages as the core's stub does, with fewer calls; made inside the event loop that it works in.

    `reach` is awaited before each call: it returns when a core can be reached, or when it has waited long enough.
    """

    def __init__(
        self,
        forwarding: "ForwardingServiceAsyncStub",
        token: Secret | None,
        metrics: Metrics,
        limits: Limits | None = None,
        reach: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self._forwarding = forwarding
        self._reach = reach
        self._credential = credential(token)
        self._limits = limits or Limits()
        self._loop = asyncio.get_running_loop()
        self._waiting: OrderedDict[_Send, None] = OrderedDict()
        # Those that go again after a pause.
        self._resting: set[_Send] = set()
        self._calls: dict[asyncio.Task[None], _UnderWay] = {}
        self._is_due = False
        self._batches = metrics.counter(
            "forwarded_batches", "Calls that carried sends, by status.", ("code",)
        )
        self._sends = metrics.counter(
            "forwarded_sends", "Sends that calls carried, each as often as it went."
        )

    async def send(
        self, request: SendMessageRequest, *, timeout: float, metadata: Iterable[tuple[str, str]]
    ) -> SendMessageResponse:
        """Do as the stub's SendMessage, whose shape this has; `metadata` holds the caller's key digest.

        A send with an idempotency key goes again, until its deadline, where the core could not be reached or did
        not answer. One without is refused then: nobody knows whether it was accepted. A caller that is cancelled
        takes its send back, unless a call carries it already.
        """
        if len(self._waiting) + len(self._resting) >= self._limits.max_waiting:
            raise _failure(grpc.StatusCode.UNAVAILABLE, "Too many sends wait for the core.")
        beside = dict(metadata)
        loop = self._loop
        deadline = loop.time() + timeout
        sent = _Send(
            request, beside["hydrasms-key-digest"], beside["x-request-id"], deadline, loop.create_future()
        )
        alarm = loop.call_at(deadline, _expire, sent)
        self._waiting[sent] = None
        self._call_soon()
        try:
            return await sent.answer
        finally:
            alarm.cancel()
            self._waiting.pop(sent, None)
            self._resting.discard(sent)

    def _call_soon(self) -> None:
        # When all that is ready to run has run: requests that came in together go together.
        if not self._is_due and self._may_call():
            self._is_due = True
            self._loop.call_soon(self._call)

    def _call(self) -> None:
        """Make as many calls as may be made for those that wait."""
        self._is_due = False
        loop = self._loop
        while self._may_call():
            batch = self._next_batch()
            if batch:
                task = loop.create_task(self._forward(batch))
                now = loop.time()
                call = _UnderWay(len(batch), now + self._limits.overdue_after_s)
                call.alarms = (
                    loop.call_at(now + self._limits.patience_s, self._call_beside, call),
                    loop.call_at(call.overdue_at, self._call),
                )
                self._calls[task] = call
                task.add_done_callback(self._ended)

    def _call_beside(self, call: _UnderWay) -> None:
        call.beside = 0
        self._call()

    def _may_call(self) -> bool:
        if not self._waiting or len(self._calls) >= self._limits.max_calls:
            return False
        if not self._calls:
            return True
        now = self._loop.time()
        going = [call.beside for call in self._calls.values() if call.overdue_at > now]
        return len(going) < self._limits.max_in_flight and len(self._waiting) >= max(going, default=0)

    def _next_batch(self) -> list[_Send]:
        batch: list[_Send] = []
        room = self._limits.max_bytes
        while self._waiting and len(batch) < self._limits.max_items:
            sent = next(iter(self._waiting))
            room -= sent.request.ByteSize() + _ITEM_BYTES
            if room < 0 and batch:
                break
            del self._waiting[sent]
            batch.append(sent)
        return batch

    def _ended(self, task: "asyncio.Task[None]") -> None:
        call = self._calls.pop(task, None)
        if call is not None:
            for alarm in call.alarms:
                alarm.cancel()
            self._call()

    async def _forward(self, batch: Sequence[_Send]) -> None:
        """Carry sends to the core and answer each."""
        carried, code = batch, grpc.StatusCode.OK
        try:
            if self._reach is not None:
                await self._reach()
            carried, request, longest_s = _packed(batch, self._loop.time())
            if not carried:
                return
            metadata = (*self._credential, ("x-request-id", new_id()))
            response = await self._forwarding.ForwardSends(request, timeout=longest_s, metadata=metadata)
            # What waits goes before these answers do: to write them all takes as long as the core's own work, and the
            # core would stand still meanwhile. In the turn that is given up here the next call begins.
            self._ended(cast("asyncio.Task[None]", asyncio.current_task()))
            await asyncio.sleep(0)
            _hand_out(carried, response)
        except AioRpcError as error:
            code = error.code()
            self._go_again_or_fail(carried, error)
        except asyncio.CancelledError:
            # The channel was closed under the call, or the process ends.
            _fail(carried, _failure(grpc.StatusCode.CANCELLED, "The call was given up."))
            raise
        except Exception as error:
            # Whatever it is, the callers must be answered.
            code = grpc.StatusCode.INTERNAL
            log.error("forwarding_failed", exc_info=error)
            _fail(carried, _failure(code, "The sends could not be passed on, or their answer made no sense."))
        self._batches.labels(code.name).inc()
        self._sends.inc(len(carried))

    def _go_again_or_fail(self, carried: Sequence[_Send], error: AioRpcError) -> None:
        again: list[_Send] = []
        for sent in carried:
            # Without a key nobody could tell a second send of the same message from the first.
            if error.code() in _CORE_GONE and sent.request.idempotency_key:
                sent.failure = error
                sent.tries += 1
                again.append(sent)
            else:
                _fail([sent], error)
        if again:
            self._resting.update(sent for sent in again if not sent.answer.done())
            most = max(sent.tries for sent in again)
            pause_s = min(self._limits.max_pause_s, self._limits.first_pause_s * 2 ** min(most - 1, 10))
            # Edges that lost the same core should not all come back in the same moment.
            self._loop.call_later(pause_s * random.uniform(0.5, 1.0), self._wake, again)  # noqa: S311

    def _wake(self, rested: Sequence[_Send]) -> None:
        for sent in rested:
            if sent in self._resting:
                self._resting.remove(sent)
                self._waiting[sent] = None
        self._call_soon()


def _packed(batch: Sequence[_Send], now: float) -> tuple[list[_Send], ForwardSendsRequest, float]:
    """Return those of a batch that somebody still waits for, what carries them, and the longest wait, in seconds."""
    request = ForwardSendsRequest()
    carried: list[_Send] = []
    longest_s = 0.0
    add = request.items.add
    for sent in batch:
        left_s = sent.deadline - now
        if left_s <= 0:
            _expire(sent)
        if sent.answer.done():
            continue
        longest_s = max(longest_s, left_s)
        wanted = sent.request
        add(
            key_digest=sent.key_digest,
            request_id=sent.request_id,
            recipient=wanted.recipient,
            content=wanted.content,
            idempotency_key=wanted.idempotency_key if wanted.HasField("idempotency_key") else None,
            timeout_ms=min(max(1, int(left_s * 1000)), _MAX_TIMEOUT_MS),
        )
        carried.append(sent)
    return carried, request, longest_s


def _hand_out(carried: Sequence[_Send], response: ForwardSendsResponse) -> None:
    """Give each caller its own answer; raises ValueError where there is not one for each."""
    if len(response.results) != len(carried):
        raise ValueError("the core's results are not as many as the sends")
    for sent, result in zip(carried, response.results, strict=True):
        if sent.answer.done():
            continue
        if result.HasField("accepted"):
            sent.answer.set_result(result.accepted)
        else:
            sent.answer.set_exception(_refusal(result.refused))


def _expire(sent: _Send) -> None:
    """Answer a send whose time is up: with why it came to nothing, where that is known."""
    late = _failure(grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded")
    _fail([sent], sent.failure or late)


def _fail(sends: Sequence[_Send], error: AioRpcError) -> None:
    for sent in sends:
        if not sent.answer.done():
            # Each its own, because raising an exception changes it.
            sent.answer.set_exception(
                AioRpcError(
                    error.code(), error.initial_metadata(), error.trailing_metadata(), error.details()
                )
            )


def _refusal(status: status_pb2.Status) -> AioRpcError:
    """Return a send's refusal as the stub would have raised it."""
    trailing = Metadata(("grpc-status-details-bin", status.SerializeToString()))
    code = _CODES.get(status.code, grpc.StatusCode.UNKNOWN)
    return AioRpcError(code, Metadata(), trailing, status.message)


def _failure(code: grpc.StatusCode, details: str) -> AioRpcError:
    return AioRpcError(code, Metadata(), Metadata(), details)
