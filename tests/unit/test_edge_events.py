"""GET /v1/events on a real port: the format, going on after a cut, and how streams end."""

import asyncio
import contextlib
import socket
from typing import Any

import grpc
import pytest

from hydrasms.messaging.v1 import event_pb2, message_pb2
from hydrasms.messaging.v1 import messaging_service_pb2 as pb
from hydrasms_base.keys import digest_key
from hydrasms_base.metrics import Metrics
from hydrasms_core.errors import AccountSuspended, ApiKeyDisabled
from hydrasms_edge.admission import Admission
from hydrasms_edge.server import HttpServer
from tests.support.edge import (
    BROKE_KEY,
    FIRST_BODY,
    KEY,
    UNKNOWN_KEY,
    WAIT_S,
    exchange,
    make_edge,
    parse,
    served,
)
from tests.support.sse import reading
from tests.support.waiting import eventually

QUICK: dict[str, Any] = {"poll_s": 0.2, "heartbeat_s": 60.0}
STATUS: dict[str, Any] = {
    "account_id": "account-1",
    "type": event_pb2.EVENT_TYPE_MESSAGE_STATUS_CHANGED,
    "message_status": event_pb2.MessageStatusChange(
        message_id="m", status=message_pb2.MESSAGE_STATUS_REJECTED, failure="line\nbreak"
    ),
}


@pytest.fixture
async def edge():
    return make_edge(**QUICK)


@pytest.fixture
async def port(edge):
    async with served(edge.app) as port:
        yield port


# ---- the format ----------------------------------------------------------------------------------------------


async def test_a_stream_begins_with_where_it_stands_and_tells_what_happens_from_now_on(edge, port):
    edge.core.feed.add(**STATUS)
    async with reading(port, KEY) as stream:
        assert stream.headers["Content-Type"] == "text/event-stream"
        assert stream.headers["Cache-Control"] == "no-store"
        assert stream.headers["X-Request-Id"]
        assert "Content-Length" not in stream.headers
        first = await stream.block()
        assert (first.id, first.retry, first.data) == ("1", "2000", None)
        edge.core.feed.add(**STATUS)
        block = await stream.block()
        assert (block.id, block.event) == ("2", "message_status_changed")
        assert block.data == {
            "id": "2",
            "accountId": "account-1",
            "type": "EVENT_TYPE_MESSAGE_STATUS_CHANGED",
            "messageStatus": {
                "messageId": "m",
                "status": "MESSAGE_STATUS_REJECTED",
                "refunded": False,
                "failure": "line\nbreak",
            },
        }


async def test_the_last_event_id_says_where_to_go_on(edge, port):
    for _ in range(250):
        edge.core.feed.add(**STATUS)
    async with reading(port, KEY, last_event_id="3") as stream:
        first = await stream.block()
        # Who is cut off here has seen none of them.
        assert (first.retry, first.id) == ("2000", "3")
        assert [(await stream.event()).id for _ in range(247)] == [str(number) for number in range(4, 251)]


async def test_who_was_cut_off_before_the_first_event_misses_none(edge, port):
    async with reading(port, KEY) as stream:
        await stream.block()
    edge.core.feed.add(**STATUS)
    async with reading(port, KEY, last_event_id=stream.last_id) as stream:
        assert (await stream.event()).id == "1"


async def test_a_type_that_this_edge_does_not_know_is_passed_on(edge, port):
    async with reading(port, KEY) as stream:
        await stream.block()
        edge.core.feed.add(account_id="account-1", type=99)
        block = await stream.event()
        assert (block.event, block.data["type"]) == ("unknown", 99)


async def test_a_silent_stream_shows_that_it_lives():
    edge = make_edge(poll_s=5.0, heartbeat_s=0.1)
    async with served(edge.app) as port, reading(port, KEY) as stream:
        assert (await stream.block()).retry
        for _ in range(3):
            assert (await stream.block()).comment == ""


# ---- what is refused before it begins ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "headers", "status", "code"),
    [
        (None, [], 401, "MISSING_API_KEY"),
        (f"Bearer {KEY}", [], 401, "UNKNOWN_API_KEY"),
        (UNKNOWN_KEY, [], 401, "UNKNOWN_API_KEY"),
        (KEY, [("Last-Event-ID", "x")], 400, "INVALID_PAGE_TOKEN"),
        (KEY, [("Last-Event-ID", b"\xc3\xa9")], 400, "INVALID_PAGE_TOKEN"),
        (KEY, [("Last-Event-ID", "1"), ("Last-Event-ID", "2")], 400, "INVALID_PAGE_TOKEN"),
        (UNKNOWN_KEY, [("Last-Event-ID", "x")], 401, "UNKNOWN_API_KEY"),
    ],
)
async def test_a_refusal_is_the_contracts(edge, key, headers, status, code):
    reply = await edge.call("GET", "/v1/events", key=key, headers=headers)
    assert (reply.status, reply.json["code"]) == (status, code)
    assert set(reply.json) == {"response", "code", "request_id"}
    assert reply.headers["cache-control"] == "no-store"


@pytest.mark.parametrize(
    ("error", "code"),
    [(ApiKeyDisabled("off"), "API_KEY_DISABLED"), (AccountSuspended("suspended"), "ACCOUNT_SUSPENDED")],
)
async def test_a_key_or_account_that_is_not_good_is_403(edge, error, code):
    edge.core.refusals[digest_key(KEY)] = error
    reply = await edge.call("GET", "/v1/events", key=KEY)
    assert (reply.status, reply.json["code"]) == (403, code)


async def test_a_core_that_is_away_when_a_stream_begins_is_503(edge):
    async def away(context):
        await context.abort(grpc.StatusCode.UNAVAILABLE, "away")

    edge.core.instead = away
    reply = await edge.call("GET", "/v1/events", key=KEY)
    assert (reply.status, reply.json["code"]) == (503, "UNAVAILABLE")
    assert int(reply.headers["retry-after"]) >= 1


async def test_head_is_the_head_of_get_and_no_other_method_is_there(edge, port):
    raw = await asyncio.wait_for(
        exchange(
            port,
            f"HEAD /v1/events HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: {KEY}\r\n\r\n".encode(),
        ),
        WAIT_S,
    )
    reply = parse(raw)
    assert (reply.status, reply.headers["content-type"], reply.body) == (200, "text/event-stream", b"")
    assert (await edge.call("HEAD", "/v1/events", key=UNKNOWN_KEY)).status == 401
    for method in ("POST", "OPTIONS", "DELETE"):
        reply = await edge.call(method, "/v1/events", key=KEY)
        assert (reply.status, reply.headers["allow"]) == (405, "GET, HEAD")
    assert (await edge.call("GET", "/v1/events/", key=KEY)).status == 404


# ---- how many ------------------------------------------------------------------------------------------------


async def test_there_are_only_so_many_streams_and_a_place_comes_free_when_one_ends():
    edge = make_edge(max_streams=2, **QUICK)
    async with served(edge.app) as port:
        async with reading(port, KEY) as first, reading(port, BROKE_KEY):
            await first.block()
            reply = await edge.call("GET", "/v1/events", key=KEY)
            assert (reply.status, reply.json["code"]) == (503, "UNAVAILABLE")
            assert "retry-after" in reply.headers
            assert edge.metrics.registry.get_sample_value("hydrasms_event_streams") == 2
        await eventually(lambda: edge.streams.open == 0, what="the streams' end")
        async with reading(port, KEY):
            assert edge.streams.open == 1


async def test_one_key_does_not_take_the_places_of_all():
    edge = make_edge(max_streams_a_key=1, **QUICK)
    async with served(edge.app) as port, reading(port, KEY):
        reply = await edge.call("GET", "/v1/events", key=KEY)
        assert (reply.status, reply.json["code"]) == (429, "RATE_LIMITED")
        assert "retry-after" in reply.headers
        async with reading(port, BROKE_KEY) as other:
            assert (await other.block()).retry


@pytest.mark.parametrize(("counted_apart", "status"), [(True, 200), (False, 503)])
async def test_streams_are_not_counted_among_the_requests_in_progress(counted_apart, status):
    """The control counts them."""
    edge = make_edge(**QUICK)
    admission = Admission(2, Metrics(), edge.streams if counted_apart else None)
    async with served(edge.app, admission=admission) as port, contextlib.AsyncExitStack() as open_streams:
        for _ in range(3):
            await (await open_streams.enter_async_context(reading(port, KEY))).block()
        head = f"POST /api/messages HTTP/1.1\r\nHost: x\r\nAuthorization: {KEY}\r\nConnection: close\r\n"
        form = f"Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {len(FIRST_BODY)}\r\n\r\n"
        assert parse(await exchange(port, (head + form).encode() + FIRST_BODY)).status == status


# ---- how they end --------------------------------------------------------------------------------------------


async def test_a_key_that_is_disabled_meanwhile_ends_its_stream(edge, port):
    async with reading(port, KEY) as stream:
        await stream.block()
        edge.core.refusals[digest_key(KEY)] = ApiKeyDisabled("off")
        block = await stream.block()
        assert block.comment == "API_KEY_DISABLED"
        assert await stream.ends()
    await eventually(lambda: edge.streams.open == 0)


async def test_a_core_that_goes_away_is_waited_for_and_nothing_is_missed(edge, port):
    async def away(context):
        await context.abort(grpc.StatusCode.UNAVAILABLE, "away")

    async with reading(port, KEY) as stream:
        await stream.block()
        edge.core.instead = away
        assert (await stream.block()).comment == "UNAVAILABLE, trying again"
        edge.core.feed.add(**STATUS)
        edge.core.instead = None
        assert (await stream.event()).id == "1"


async def test_a_process_that_ends_ends_its_streams_at_once():
    edge = make_edge(poll_s=30.0, heartbeat_s=60.0)
    server = HttpServer(edge.app, "127.0.0.1", 0)
    port = await server.start()
    async with reading(port, KEY) as stream:
        await stream.block()
        edge.streams.end()
        async with asyncio.timeout(5):
            await server.stop()
        assert await stream.ends()
    assert edge.streams.open == 0


async def test_a_client_that_leaves_gives_its_place_back_at_once():
    edge = make_edge(poll_s=30.0, heartbeat_s=60.0)
    async with served(edge.app) as port:
        async with reading(port, KEY) as stream:
            await stream.block()
            assert edge.streams.open == 1
        await eventually(lambda: edge.streams.open == 0, within_s=5, what="the place")
        # Its call to the core has ended with it.
        assert not [task for task in asyncio.all_tasks() if "_write_all" in repr(task)]


async def test_a_reader_that_takes_nothing_costs_little_and_is_closed_in_the_end():
    edge = make_edge(write_timeout_s=0.5, **QUICK)
    long = {
        "account_id": "account-1",
        "type": event_pb2.EVENT_TYPE_INBOUND_RECEIVED,
        "inbound_message": message_pb2.InboundMessage(id="i", content="x" * 10_000),
    }
    for _ in range(2_000):
        edge.core.feed.add(**long)
    async with served(edge.app) as port:
        deaf = socket.socket()
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        deaf.connect(("127.0.0.1", port))
        head = f"GET /v1/events HTTP/1.1\r\nHost: x\r\nAuthorization: {KEY}\r\nLast-Event-ID: 0\r\n\r\n"
        deaf.sendall(head.encode())
        await eventually(lambda: edge.streams.open == 1)
        await eventually(lambda: edge.streams.open == 0, what="the stream's end")
        # Only what fits into buffers was fetched: a small part of 20 MB.
        fetched = sum(1 for request, _ in edge.core.calls if request.page_size)
        assert fetched < 15
        deaf.close()


async def test_a_core_that_answers_at_once_is_not_asked_without_pause(edge, port, monkeypatch):
    async def at_once(request):
        return pb.ListEventsResponse(next_after="0")

    monkeypatch.setattr(edge.core.feed, "listed", at_once)
    async with reading(port, KEY) as stream:
        await stream.block()
        before = len(edge.core.calls)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(stream.block(), 1.0)
        assert 0 < len(edge.core.calls) - before < 10
