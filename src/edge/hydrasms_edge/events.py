"""GET /v1/events: what happens to an account, as server-sent events.

The format is that of https://html.spec.whatwg.org/multipage/server-sent-events.html. A stream is a loop of ListEvents
calls; all that it keeps is where to go on, and each event is written before the next is looked at, so that a slow
reader holds up nothing but its own stream.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import orjson
from google.protobuf.json_format import MessageToDict
from grpc.aio import AioRpcError
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from hydrasms.messaging.v1.event_pb2 import Event, EventType
from hydrasms.messaging.v1.messaging_service_pb2 import ListEventsRequest, ListEventsResponse
from hydrasms_base.secret import Secret
from hydrasms_edge.auth import credential, key_digest
from hydrasms_edge.errors import from_core
from hydrasms_edge.scope import header_values, request_id_of
from hydrasms_edge.settings import EdgeSettings
from hydrasms_edge.streams import Streams

if TYPE_CHECKING:
    from hydrasms.messaging.v1.messaging_service_pb2_grpc import MessagingServiceAsyncStub

_PAGE_SIZE = 100
_RETRY_MS = 2_000
"""How long a client waits before it connects again."""
_FIRST_BACK_OFF_S = 1.0
_MAX_BACK_OFF_S = 10.0
# A core that is about to end answers at once instead of waiting.
_PAUSE_S = 0.5
# The process that ends waits for nobody who reads nothing.
_FAREWELL_S = 1.0
_HEADERS = (
    (b"content-type", b"text/event-stream"),
    (b"cache-control", b"no-store"),
    # nginx would else collect what is meant to arrive at once.
    (b"x-accel-buffering", b"no"),
)
# No cursor is written so: the core refuses it in its turn, after the key and the account.
_NO_CURSOR = "?"
_FINAL = (400, 401, 403, 404)
"""Statuses of what will not get better by asking again."""

ListFrom = Callable[[ListEventsRequest, float], Awaitable[ListEventsResponse]]
"""Makes one call for whoever holds the key; it may take so many seconds."""


class EventFeed:
    """Opens streams for whoever holds a request's API key."""

    def __init__(
        self,
        messaging: "MessagingServiceAsyncStub",
        token: Secret | None,
        settings: EdgeSettings,
        streams: Streams,
    ) -> None:
        self._messaging = messaging
        self._credential = credential(token)
        self._settings = settings
        self._streams = streams

    async def follow(self, request: Request) -> Response:
        """GET /v1/events: follow the account's events, from Last-Event-ID or from now on.

        What is wrong with the key, the account or the place shows before the stream begins.
        """
        scope = request.scope
        digest = key_digest(scope)
        metadata = (
            *self._credential,
            ("hydrasms-key-digest", digest),
            ("x-request-id", request_id_of(scope)),
        )

        async def listed(asked: ListEventsRequest, within_s: float) -> ListEventsResponse:
            return await self._messaging.ListEvents(asked, timeout=within_s, metadata=metadata)

        after = _last_event_id(scope)
        first = await listed(
            ListEventsRequest(after=after, from_now=not after, page_size=_PAGE_SIZE),
            self._settings.deadline_s,
        )
        if scope["method"] == "HEAD":
            return _Head()
        self._streams.take(digest)
        return _Stream(listed, after or first.next_after, first, self._settings, self._streams, digest)


class _Head(Response):
    """The head of a stream, for those who ask for no more."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": list(_HEADERS)})
        await send({"type": "http.response.body", "body": b""})


class _Stream(Response):
    """One stream, which ends when its client leaves, when the process ends, or when its key is no longer good."""

    def __init__(
        self,
        listed: ListFrom,
        begins: str,
        first: ListEventsResponse,
        settings: EdgeSettings,
        streams: Streams,
        digest: str,
    ) -> None:
        self._listed = listed
        self._begins = begins
        self._page = first
        self._settings = settings
        self._streams = streams
        self._digest = digest
        self._back_off_s = _FIRST_BACK_OFF_S
        self._written_at = 0.0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        parts = [
            asyncio.create_task(part)
            for part in (self._write_all(send), _gone(receive), self._streams.ended())
        ]
        try:
            await asyncio.wait(parts, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._streams.give_back(self._digest)
            for part in parts:
                part.cancel()
            await asyncio.wait(parts)
        writing, gone, _ = parts
        if not writing.cancelled() and (failure := writing.exception()) is not None:
            # A reader that takes nothing any more cannot be told of the end either.
            if not isinstance(failure, TimeoutError):
                raise failure
        elif gone.cancelled():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_FAREWELL_S):
                    await send({"type": "http.response.body", "body": b""})

    async def _write_all(self, send: Send) -> None:
        """Write events as they come, and return when no more are to come."""
        await send({"type": "http.response.start", "status": 200, "headers": list(_HEADERS)})
        # The place without an event: who is cut off before the first one goes on from here.
        await self._write(send, f"retry: {_RETRY_MS}\nid: {self._begins}\n\n".encode())
        page: ListEventsResponse | None = self._page
        while page is not None:
            self._page = page
            for event in page.events:
                await self._write(send, _block(event))
            if self._quiet_s >= self._settings.heartbeat_s:
                await self._write(send, b":\n\n")
            page = await self._next(send)

    async def _next(self, send: Send) -> ListEventsResponse | None:
        """Return what comes next, perhaps nothing yet; None where the key opens no stream any more."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        wait_s = min(self._settings.poll_s, max(self._settings.heartbeat_s - self._quiet_s, 0.001))
        after = self._page.next_after
        asked = ListEventsRequest(after=after, wait_ms=max(int(wait_s * 1000), 1), page_size=_PAGE_SIZE)
        try:
            page = await self._listed(asked, wait_s + self._settings.deadline_s)
        except AioRpcError as error:
            refusal = from_core(error)
            if refusal.status in _FINAL:
                await self._write(send, f": {refusal.reason}\n\n".encode())
                return None
            # The core is away: a stream outlasts that, for many clients never try again after a 503.
            await self._write(send, f": {refusal.reason}, trying again\n\n".encode())
            await asyncio.sleep(self._back_off_s)
            self._back_off_s = min(self._back_off_s * 2, _MAX_BACK_OFF_S)
            return ListEventsResponse(next_after=after)
        self._back_off_s = _FIRST_BACK_OFF_S
        if not page.events and loop.time() - began < wait_s / 2:
            await asyncio.sleep(min(_PAUSE_S, wait_s))
        return page

    async def _write(self, send: Send, block: bytes) -> None:
        """Write a block; raises TimeoutError where the reader takes nothing for too long."""
        async with asyncio.timeout(self._settings.write_timeout_s):
            await send({"type": "http.response.body", "body": block, "more_body": True})
            # The listener writes what has gathered in a turn of the loop: only then does it know that it is too much.
            await asyncio.sleep(0)
        self._written_at = asyncio.get_running_loop().time()

    @property
    def _quiet_s(self) -> float:
        """How long nothing has been written."""
        return asyncio.get_running_loop().time() - self._written_at


async def _gone(receive: Receive) -> None:
    """Return when the client has left."""
    while (await receive())["type"] != "http.disconnect":
        pass


def _last_event_id(scope: Scope) -> str:
    """Return where the client wants to go on; empty where it says nothing."""
    values = header_values(scope, b"last-event-id")
    if not values:
        return ""
    return values[0].decode() if len(values) == 1 and values[0].isascii() else _NO_CURSOR


def _block(event: Event) -> bytes:
    """Return an event as it is written, its message in protobuf's JSON on one line."""
    data = orjson.dumps(MessageToDict(event, always_print_fields_with_no_presence=True))
    return b"id: %b\nevent: %b\ndata: %b\n\n" % (event.id.encode(), _kind(event.type).encode(), data)


def _kind(number: int) -> str:
    """Return the name of a type as streams have it; what a newer core knows has none."""
    known = EventType.DESCRIPTOR.values_by_number.get(number)
    return "unknown" if known is None else known.name.removeprefix("EVENT_TYPE_").lower()
