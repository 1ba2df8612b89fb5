"""An edge before a core that is only a servicer, with the real core's rules for keys, numbers and texts."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Any

import grpc
import orjson
from grpc_health.v1 import health_pb2_grpc
from grpc_health.v1.health import aio as health_aio
from starlette.types import ASGIApp

from hydrasms.messaging.v1 import (
    event_pb2,
    forwarding_service_pb2_grpc,
    message_pb2,
    messaging_service_pb2_grpc,
)
from hydrasms.messaging.v1 import forwarding_service_pb2 as forwarding_pb
from hydrasms.messaging.v1 import messaging_service_pb2 as pb
from hydrasms.type.v1 import phone_number_pb2
from hydrasms_base.keys import digest_key, generate_key
from hydrasms_base.metrics import Metrics
from hydrasms_base.secret import Secret
from hydrasms_core.errors import (
    DomainError,
    InsufficientCredits,
    InvalidPageToken,
    InvalidRecipient,
    UnknownApiKey,
)
from hydrasms_core.idempotency.model import check_key
from hydrasms_core.messaging.model import check_content
from hydrasms_core.messaging.numbering import parse_recipient
from hydrasms_core.rpc.errors import to_status
from hydrasms_core.rpc.interceptors import Errors, Pipeline
from hydrasms_core.rpc.loopback import Loopback
from hydrasms_edge.app import create_app, streams_of
from hydrasms_edge.server import HttpServer
from hydrasms_edge.settings import EdgeSettings
from hydrasms_edge.streams import Streams

TOKEN = "the-service-token"
KEY = generate_key()
UNKNOWN_KEY = generate_key()
BROKE_KEY = generate_key()
MESSAGE_ID = "018f0000-0000-7000-8000-000000000001"
FORM = "application/x-www-form-urlencoded"
FIRST_BODY = b"recipient=+447700900000&content=Hello from Hep.gg"
WAIT_S = 20.0


class FakeFeed:
    """Events in a list; the places in it are their cursors."""

    def __init__(self) -> None:
        self.events: list[event_pb2.Event] = []
        self._added = asyncio.Event()

    def add(self, **fields: Any) -> None:
        """Let something happen."""
        self.events.append(event_pb2.Event(id=str(len(self.events) + 1), **fields))
        self._added.set()
        self._added = asyncio.Event()

    async def listed(self, request: pb.ListEventsRequest) -> pb.ListEventsResponse:
        """Answer as the core does."""
        if request.after and not request.after.isdigit():
            raise InvalidPageToken("Send the id of an event.", field="after")
        place = len(self.events) if request.from_now and not request.after else int(request.after or 0)
        if place >= len(self.events):
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._added.wait(), request.wait_ms / 1000)
        found = self.events[place : place + request.page_size]
        return pb.ListEventsResponse(events=found, next_after=str(place + len(found)))


class FakeCore(
    messaging_service_pb2_grpc.MessagingServiceServicer, forwarding_service_pb2_grpc.ForwardingServiceServicer
):
    """Answers as the core does, in the core's order: key, account, fields, balance."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, dict[str, str]]] = []
        self.refusals: dict[str, Exception] = {}
        """What a key's account is refused with, by the key's digest."""
        self.inbound: list[message_pb2.InboundMessage] = []
        self.replay = False
        self.feed = FakeFeed()
        self.instead: Callable[[grpc.aio.ServicerContext[Any, Any]], Awaitable[None]] | None = None
        """Runs before anything else in a call, to misbehave."""

    async def SendMessage(self, request, context):
        await self._misbehave(context)
        return self._send(request, dict(context.invocation_metadata()))

    async def ForwardSends(self, request, context):
        await self._misbehave(context)
        beside = dict(context.invocation_metadata())
        return forwarding_pb.ForwardSendsResponse(
            results=[self._forwarded(item, beside) for item in request.items]
        )

    def _forwarded(self, item, beside):
        """Answer an item as the call that it stands for."""
        request = pb.SendMessageRequest(recipient=item.recipient, content=item.content)
        if item.HasField("idempotency_key"):
            request.idempotency_key = item.idempotency_key
        alone = {**beside, "hydrasms-key-digest": item.key_digest, "x-request-id": item.request_id}
        try:
            return forwarding_pb.ForwardedSendResult(accepted=self._send(request, alone))
        except DomainError as error:
            return forwarding_pb.ForwardedSendResult(refused=to_status(error))

    def _send(self, request, metadata):
        digest = self._admit(request, metadata)
        check_key(request.idempotency_key if request.HasField("idempotency_key") else None)
        try:
            number = parse_recipient(request.recipient)
        except ValueError as error:
            raise InvalidRecipient(str(error), field="recipient") from None
        content = check_content(request.content)
        if digest == digest_key(BROKE_KEY):
            raise InsufficientCredits(2, 3)
        recipient = phone_number_pb2.PhoneNumber(
            e164=number.e164,
            country_iso2=number.country_iso2,
            country_iso3=number.country_iso3,
            calling_code=number.calling_code,
        )
        message = message_pb2.Message(
            id=MESSAGE_ID,
            account_id="account-1",
            sender="+2899682626",
            recipient=recipient,
            content=content,
            credits=1,
        )
        return pb.SendMessageResponse(message=message, idempotent_replayed=self.replay)

    async def ListInboundMessages(self, request, context):
        await self._misbehave(context)
        self._admit(request, dict(context.invocation_metadata()))
        return pb.ListInboundMessagesResponse(messages=self.inbound)

    async def ListEvents(self, request, context):
        await self._misbehave(context)
        self._admit(request, dict(context.invocation_metadata()))
        return await self.feed.listed(request)

    async def _misbehave(self, context):
        if self.instead is not None:
            await self.instead(context)

    def _admit(self, request, metadata):
        self.calls.append((request, metadata))
        digest = metadata["hydrasms-key-digest"]
        if digest in self.refusals:
            raise self.refusals[digest]
        if digest not in (digest_key(KEY), digest_key(BROKE_KEY)):
            raise UnknownApiKey("No account has this API key.")
        return digest


@dataclass
class Reply:
    """What came back: header names in lower case, the last value of each."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return orjson.loads(self.body)


@dataclass
class Edge:
    """An edge that is called as an ASGI server would call it, without one."""

    app: Any
    core: FakeCore
    metrics: Metrics
    health: health_aio.HealthServicer
    streams: Streams

    async def call(
        self,
        method: str,
        path: str,
        *,
        key: str | bytes | None = None,
        headers: Iterable[tuple[str, str | bytes]] = (),
        body: bytes | Iterable[bytes] = b"",
        content_type: str | None = None,
    ) -> Reply:
        """Make one request; a body in pieces comes without a length, as a chunked one does."""
        raw = [(name.lower().encode(), _bytes(value)) for name, value in headers]
        if key is not None:
            raw.append((b"authorization", _bytes(key)))
        if content_type is not None:
            raw.append((b"content-type", content_type.encode()))
        if isinstance(body, bytes):
            raw.append((b"content-length", str(len(body)).encode()))
            pieces = iter([body])
        else:
            pieces = iter(body)
        scope = {"type": "http", "method": method, "path": path, "query_string": b"", "headers": raw}
        following: bytes | None = next(pieces, b"")

        async def receive():
            nonlocal following
            piece, following = following, next(pieces, None)
            if piece is None:
                return {"type": "http.disconnect"}
            return {"type": "http.request", "body": piece, "more_body": following is not None}

        sent = []

        async def send(message):
            sent.append(message)

        await self.app(scope, receive, send)
        if not sent:
            return Reply(0, {}, b"")
        received = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
        return Reply(sent[0]["status"], received, b"".join(message["body"] for message in sent[1:]))

    async def send(
        self, body: bytes | Iterable[bytes] = FIRST_BODY, *, key: str | bytes | None = KEY, **more: Any
    ) -> Reply:
        """POST /api/messages."""
        return await self.call("POST", "/api/messages", key=key, body=body, **{"content_type": FORM, **more})

    async def send_json(self, document: Any, **more: Any) -> Reply:
        """POST /api/messages as JSON; bytes are sent as they are."""
        body = document if isinstance(document, bytes) else orjson.dumps(document)
        return await self.send(body, content_type="application/json", **more)


def _bytes(value: str | bytes) -> bytes:
    return value if isinstance(value, bytes) else value.encode()


def fake_core() -> FakeCore:
    """Return a core that has only what the edge calls."""
    return FakeCore()  # type: ignore[abstract]


def make_edge(channel: Any = None, core: FakeCore | None = None, **settings: Any) -> Edge:
    """Return an edge whose core is in memory, or behind a channel."""
    core = core or fake_core()
    health = health_aio.HealthServicer()
    if channel is None:
        channel = Loopback([_pipeline()])
        _add(core, health, channel)
    metrics = Metrics()
    edge = EdgeSettings(**settings)
    streams = streams_of(edge, metrics)
    app = create_app(channel, Secret(TOKEN), metrics, edge, streams=streams)
    return Edge(app, core, metrics, health, streams)


@contextlib.asynccontextmanager
async def edge_over_a_socket(**settings: Any) -> AsyncIterator[Edge]:
    """An edge whose core is behind a TCP socket."""
    core, health = fake_core(), health_aio.HealthServicer()
    server = grpc.aio.server(interceptors=[_pipeline()])
    _add(core, health, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        edge = make_edge(channel, core, **settings)
        edge.health = health
        yield edge
    await server.stop(None)
    # The server's destructor wants its loop; letting it finish here keeps shutdown quiet.
    await asyncio.sleep(0)


def _pipeline() -> Pipeline:
    return Pipeline([Errors()], guard=lambda _method, handler: handler)


def _add(core: FakeCore, health: health_aio.HealthServicer, server: Any) -> None:
    messaging_service_pb2_grpc.add_MessagingServiceServicer_to_server(core, server)
    forwarding_service_pb2_grpc.add_ForwardingServiceServicer_to_server(core, server)
    health_pb2_grpc.add_HealthServicer_to_server(health, server)


@contextlib.asynccontextmanager
async def served(app: ASGIApp, **limits: Any) -> AsyncIterator[int]:
    """Serve an application on a port of its own."""
    server = HttpServer(app, "127.0.0.1", 0, **limits)
    port = await server.start()
    try:
        yield port
    finally:
        await server.stop()


async def exchange(port: int, *pieces: bytes) -> bytes:
    """Send bytes over a new connection and return all that comes back until the server closes it."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
        return await asyncio.wait_for(reader.read(), WAIT_S)
    finally:
        writer.close()


def parse(raw: bytes) -> Reply:
    """Return the first answer in what a connection gave back."""
    head, _, body = raw.partition(b"\r\n\r\n")
    status, *lines = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
    return Reply(int(status.split()[1]), headers, body[: int(headers.get("content-length", len(body)))])
