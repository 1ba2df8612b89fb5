"""Too many requests at once: those beyond the limit are refused at the door, and nothing else changes."""

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator

import pytest
import structlog

from hydrasms_base.metrics import Metrics
from hydrasms_edge import admission
from hydrasms_edge.admission import Admission
from tests.support.edge import FIRST_BODY, KEY, WAIT_S, exchange, make_edge, parse, served
from tests.support.waiting import eventually

HEAD = f"POST /api/messages HTTP/1.1\r\nHost: x\r\nAuthorization: {KEY}\r\n".encode()
FORM = b"Content-Type: application/x-www-form-urlencoded\r\n"
LENGTH = b"Content-Length: %d\r\n" % len(FIRST_BODY)
CLOSE = b"Connection: close\r\n"
KEPT = HEAD + FORM + LENGTH + b"\r\n" + FIRST_BODY
WHOLE = HEAD + CLOSE + FORM + LENGTH + b"\r\n" + FIRST_BODY
MOST = 2


class Full:
    """An edge with as many requests in progress as may be, until they are let go."""

    def __init__(self, edge, metrics, port):
        self.edge = edge
        self.metrics = metrics
        self.port = port
        self._go_on = asyncio.Event()
        self._held = []

    async def hold(self, requests=MOST):
        async def wait(_context):
            await self._go_on.wait()

        self.edge.core.instead = wait
        self._held += [asyncio.create_task(exchange(self.port, WHOLE)) for _ in range(requests)]
        await eventually(lambda: self.waiting == len(self._held), what="the requests in progress")

    @property
    def waiting(self):
        return len([task for task in asyncio.all_tasks() if "run_asgi" in repr(task.get_coro())])

    async def let_go(self):
        self._go_on.set()
        return [parse(raw).status for raw in await asyncio.gather(*self._held)]


@contextlib.asynccontextmanager
async def full(most=MOST) -> AsyncIterator[Full]:
    edge, metrics = make_edge(), Metrics()
    async with served(
        edge.app, receive_timeout_s=600.0, keep_alive_s=600, admission=Admission(most, metrics)
    ) as port:
        it = Full(edge, metrics, port)
        await it.hold(MOST)
        yield it
        await it.let_go()


@pytest.fixture
async def edge():
    async with full() as it:
        yield it


async def test_one_request_too_many_is_refused_at_once_and_not_looked_at(edge):
    reply = parse(await exchange(edge.port, WHOLE))
    assert (reply.status, reply.json["code"]) == (503, "UNAVAILABLE")
    assert reply.json["response"].startswith("The service cannot answer for now.")
    assert reply.headers["retry-after"] == "1"
    assert reply.headers["cache-control"] == "no-store"
    assert reply.headers["content-type"] == "application/json"
    assert reply.headers["connection"] == "close"
    assert reply.headers["date"]
    assert reply.headers["x-request-id"] == reply.json["request_id"]
    assert await edge.let_go() == [200] * MOST
    assert len(edge.edge.core.calls) == MOST


async def test_the_control_with_room_for_one_more_it_waits_like_the_others():
    async with full(MOST + 1) as edge:
        await edge.hold(1)
        assert await edge.let_go() == [200] * (MOST + 1)


async def test_a_refusal_is_what_the_application_says_when_it_cannot_answer(edge):
    refused = parse(await exchange(edge.port, WHOLE))
    unready = await make_edge_without_a_core()
    assert (unready.status, set(unready.json)) == (refused.status, set(refused.json))
    assert {**unready.json, "request_id": ""} == {**refused.json, "request_id": ""}
    assert set(unready.headers) - {"date"} == set(refused.headers) - {"date", "connection"}


async def make_edge_without_a_core():
    edge = make_edge()
    await edge.health.enter_graceful_shutdown()
    return await edge.call("GET", "/readyz")


@pytest.mark.parametrize("path", [b"/", b"/livez", b"/readyz", b"/metrics"])
async def test_who_looks_after_the_edge_is_answered_all_the_same(edge, path):
    raw = await exchange(edge.port, b"GET %b HTTP/1.1\r\nHost: x\r\n%b\r\n" % (path, CLOSE))
    assert parse(raw).status == 200


async def test_a_connection_goes_on_after_a_refusal(edge):
    reader, writer = await asyncio.open_connection("127.0.0.1", edge.port)
    for _ in range(3):
        writer.write(KEPT)
        reply = parse(await answer(reader))
        assert reply.status == 503
        assert "connection" not in reply.headers
    await edge.let_go()
    await eventually(lambda: edge.waiting == 0, what="room")
    writer.write(KEPT)
    assert parse(await answer(reader)).status == 200
    writer.close()


async def answer(reader):
    head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), WAIT_S)
    return head + await reader.readexactly(int(parse(head).headers["content-length"]))


@pytest.mark.parametrize(
    "given",
    ["mine-1", "a b", "é", "x" * 129],
)
async def test_a_refusal_goes_by_the_id_that_the_request_brought_where_that_is_one(edge, given):
    raw = WHOLE.replace(b"\r\n", b"\r\nX-Request-Id: %b\r\n" % given.encode(), 1)
    taken = parse(await exchange(edge.port, raw)).json["request_id"]
    assert (taken == given) == (given == "mine-1")
    assert re.fullmatch("[A-Za-z0-9._-]{1,128}", taken)


@pytest.mark.parametrize("size", [1, 7, 1_000])
async def test_what_a_refused_request_still_sends_is_passed_over(edge, size):
    body = b"7\r\nGET / H\r\n5\r\nTTP/1\r\n0\r\n\r\n"
    chunked = HEAD + FORM + b"Transfer-Encoding: chunked\r\n\r\n" + body
    whole = chunked + KEPT + WHOLE
    pieces = [whole[index : index + size] for index in range(0, len(whole), size)]
    raw = await exchange(edge.port, *pieces)
    assert re.findall(rb"HTTP/1\.1 (\d+)", raw) == [b"503"] * 3
    assert raw.count(b'"UNAVAILABLE"') == 3


async def test_a_wish_for_another_protocol_changes_nothing_about_a_refusal(edge):
    wish = b"\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAEAAEAA\r\n"
    raw = await exchange(edge.port, KEPT.replace(b"\r\n", wish, 1) + WHOLE)
    assert re.findall(rb"HTTP/1\.1 (\d+)", raw) == [b"503"] * 2


async def test_a_client_that_asks_before_it_sends_its_body_is_not_told_to_go_on(edge):
    reader, writer = await asyncio.open_connection("127.0.0.1", edge.port)
    writer.write(HEAD + FORM + b"Expect: 100-continue\r\n" + LENGTH + b"\r\n")
    reply = parse(await answer(reader))
    assert (reply.status, reply.headers["connection"]) == (503, "close")
    # One that sends it all the same has it passed over.
    writer.write(FIRST_BODY)
    assert await asyncio.wait_for(reader.read(), WAIT_S) == b""
    writer.close()


async def test_a_refusal_of_head_has_no_body_and_one_of_http_1_0_ends_the_connection(edge):
    head = await exchange(edge.port, b"HEAD /api/messages HTTP/1.1\r\nHost: x\r\n%b\r\n" % CLOSE)
    assert parse(head).status == 503
    assert head.endswith(b"\r\n\r\n")
    old = parse(await exchange(edge.port, b"GET /api/messages HTTP/1.0\r\n\r\n"))
    assert (old.status, old.headers["connection"]) == (503, "close")


async def test_a_request_behind_another_on_its_connection_waits_for_its_turn(edge):
    reader, writer = await asyncio.open_connection("127.0.0.1", edge.port)
    # The first is let in, because it is for operators; the second is read before that one is answered.
    writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" + WHOLE)
    assert parse(await answer(reader)).status == 200
    await edge.let_go()
    assert parse(await answer(reader)).status == 200
    writer.close()


async def test_broken_http_is_still_400(edge):
    assert parse(await exchange(edge.port, HEAD + CLOSE + b"Content-Length: x\r\n\r\n")).status == 400


async def test_refusals_are_counted_and_said_once_a_second(edge, monkeypatch):
    monkeypatch.setattr(admission, "_SAID_EVERY_S", 3_600.0)
    with structlog.testing.capture_logs() as lines:
        for _ in range(5):
            await exchange(edge.port, WHOLE)
    said = [line for line in lines if line["event"] == "overloaded"]
    assert [(line["log_level"], line["refused"], line["in_progress"]) for line in said] == [
        ("warning", 1, MOST)
    ]
    assert b"hydrasms_http_refused_total 5.0" in edge.metrics.render()


async def test_a_server_that_stops_refuses_what_comes_meanwhile_and_answers_what_it_let_in():
    edge = make_edge()
    async with served(edge.app, admission=Admission(MOST, Metrics())) as port:
        it = Full(edge, Metrics(), port)
        await it.hold()
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(KEPT[:-1])
        refused = await answer(reader)
        answers = asyncio.create_task(it.let_go())
    assert parse(refused).status == 503
    assert await answers == [200] * MOST
    writer.close()
