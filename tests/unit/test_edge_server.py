"""The listener on a real port: framing, slow clients, large bodies, and a shutdown that loses nothing."""

import asyncio
import contextlib
import re
import resource
import signal
import socket
import time

import pytest
import uvicorn
import uvloop
from uvicorn.server import ServerState

from hydrasms_base.keys import is_plausible
from hydrasms_edge.listener import MAX_HEAD_BYTES, Listener, Outgoing
from hydrasms_edge.server import HttpServer
from tests.support.edge import FIRST_BODY, KEY, WAIT_S, exchange, make_edge, parse, served
from tests.support.waiting import eventually

HEAD = f"POST /api/messages HTTP/1.1\r\nHost: x\r\nAuthorization: {KEY}\r\n".encode()
FORM_TYPE = b"Content-Type: application/x-www-form-urlencoded\r\n"
LENGTH = b"Content-Length: %d\r\n\r\n"
CLOSE = b"Connection: close\r\n"
KEPT = HEAD + FORM_TYPE + LENGTH % len(FIRST_BODY) + FIRST_BODY
WHOLE = HEAD + CLOSE + FORM_TYPE + LENGTH % len(FIRST_BODY) + FIRST_BODY
FRONT = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
KEPT_FRONT = FRONT.replace(CLOSE, b"")


def chunked(*pieces: bytes) -> bytes:
    return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in (*pieces, b""))


def replies(raw: bytes):
    """Return all answers that a connection gave."""
    found = []
    while raw:
        head, _, rest = raw.partition(b"\r\n\r\n")
        # An interim answer has neither a length nor a body.
        reply = parse(raw if b"content-length" in head else head)
        found.append(reply)
        raw = rest[len(reply.body) :]
    return found


@pytest.fixture
async def edge():
    return make_edge()


@pytest.fixture
async def port(edge):
    # So patient that no connection of a test ends because its time is up.
    async with served(edge.app, receive_timeout_s=600.0, keep_alive_s=600) as port:
        yield port


# ---- what it serves --------------------------------------------------------------------------------------


async def test_these_tests_run_on_the_loop_that_serves_in_earnest():
    assert isinstance(asyncio.get_running_loop(), uvloop.Loop)


async def test_a_message_is_sent_over_a_socket(port, edge):
    reply = parse(await exchange(port, WHOLE))
    assert (reply.status, reply.json["sent_to"]) == (200, "+447700900000")
    assert reply.headers["date"]
    assert "server" not in reply.headers
    assert len(edge.core.calls) == 1


async def test_requests_share_a_connection_one_after_another_and_all_at_once(port):
    assert [reply.status for reply in replies(await exchange(port, KEPT, KEPT_FRONT, WHOLE))] == [
        200,
        200,
        200,
    ]
    assert [reply.status for reply in replies(await exchange(port, KEPT + KEPT_FRONT + WHOLE))] == [
        200,
        200,
        200,
    ]


async def test_a_chunked_body_is_read(port, edge):
    head = HEAD + CLOSE + FORM_TYPE + b"Transfer-Encoding: chunked\r\n\r\n"
    body = chunked(FIRST_BODY[:5], FIRST_BODY[5:])
    assert parse(await exchange(port, head + body)).status == 200
    assert (
        parse(await exchange(port, head, *(body[index : index + 1] for index in range(len(body))))).status
        == 200
    )
    assert edge.core.calls[0][0] == edge.core.calls[1][0]


async def test_a_client_that_waits_for_100_continue_gets_it_only_where_its_body_is_wanted(edge):
    async with served(edge.app, receive_timeout_s=0.2) as port:
        wanted = HEAD + CLOSE + FORM_TYPE + b"Expect: 100-continue\r\n" + LENGTH % len(FIRST_BODY)
        raw = await exchange(port, wanted, FIRST_BODY)
        assert [reply.status for reply in replies(raw)] == [100, 200]
        unwanted = HEAD + CLOSE + FORM_TYPE + b"Expect: 100-continue\r\n" + LENGTH % 70_000
        assert [reply.status for reply in replies(await exchange(port, unwanted))] == [413]


async def test_http_1_0_needs_no_host_and_ends_with_its_answer(port):
    reply = parse(await exchange(port, b"GET / HTTP/1.0\r\n\r\n"))
    assert (reply.status, reply.headers["connection"]) == (200, "close")


async def test_head_has_the_headers_of_get_and_no_body(port):
    raw = await exchange(port, FRONT.replace(b"GET", b"HEAD"))
    assert raw.endswith(b"\r\n\r\n")
    whole = await exchange(port, FRONT)
    assert parse(raw).headers["content-length"] == str(len(parse(whole).body))


# Java's HTTP client asks for h2c in every first request, and `curl --http2` does.
UPGRADE = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAEAAEAA\r\n"


@pytest.mark.parametrize("framing", ["length", "chunked"])
@pytest.mark.parametrize("cut", ["whole", "head and body", "bytes"])
async def test_a_wish_for_another_protocol_is_ignored_and_the_request_served(port, edge, framing, cut):
    head, body = HEAD + UPGRADE + FORM_TYPE, FIRST_BODY
    if framing == "length":
        head += LENGTH % len(body)
    else:
        head, body = head + b"Transfer-Encoding: chunked\r\n\r\n", chunked(body[:7], body[7:])
    pieces = {
        "whole": [head + body + WHOLE],
        "head and body": [head, body, WHOLE],
        "bytes": [(head + body + WHOLE)[index : index + 1] for index in range(len(head + body + WHOLE))],
    }[cut]
    first, second = replies(await exchange(port, *pieces))
    assert (first.status, second.status) == (200, 200)
    assert edge.core.calls[0][0] == edge.core.calls[1][0]


async def test_a_wish_for_another_protocol_may_come_again_and_without_a_body(port):
    bare = KEPT_FRONT[:-2] + UPGRADE + b"\r\n"
    websocket = bare.replace(b"h2c", b"websocket")
    raw = await exchange(port, bare + bare + websocket, FRONT)
    assert [reply.status for reply in replies(raw)] == [200, 200, 200, 200]


async def test_a_broken_body_after_such_a_wish_reaches_no_handler(port, edge):
    head = HEAD + UPGRADE + FORM_TYPE + b"Transfer-Encoding: chunked\r\n\r\n"
    assert parse(await exchange(port, head + b"zz\r\n")).status == 400
    assert edge.core.calls == []


# ---- what it refuses -------------------------------------------------------------------------------------

SEND = HEAD + FORM_TYPE
BROKEN = {
    "no Host": b"GET / HTTP/1.1\r\n\r\n",
    "two Hosts": FRONT[:-2] + b"Host: y\r\n\r\n",
    "two Hosts in HTTP/1.0": b"GET / HTTP/1.0\r\nHost: x\r\nHost: x\r\n\r\n",
    "bare LF": b"GET / HTTP/1.1\nHost: x\n\n",
    "bare LF after a header": b"GET / HTTP/1.1\r\nHost: x\nA: b\r\n\r\n",
    "bare LF at the end of the head": b"GET / HTTP/1.1\r\nHost: x\r\n\n",
    "bare CR in a header": b"GET / HTTP/1.1\r\nHost: x\r\nA: b\rC: d\r\n\r\n",
    "length and chunked": SEND + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
    "chunked and length": SEND + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "two lengths": SEND + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\na=b",
    "the same length twice": SEND + b"Content-Length: 3\r\nContent-Length: 3\r\n\r\na=b",
    "a list of lengths": SEND + b"Content-Length: 3, 3\r\n\r\na=b",
    "a negative length": SEND + b"Content-Length: -3\r\n\r\na=b",
    "a signed length": SEND + b"Content-Length: +3\r\n\r\na=b",
    "a hexadecimal length": SEND + b"Content-Length: 0x3\r\n\r\na=b",
    "a huge length": SEND + b"Content-Length: 99999999999999999999999\r\n\r\na=b",
    "an unknown coding": SEND + b"Transfer-Encoding: gzip\r\n\r\na=b",
    "an unknown coding of a GET": FRONT[:-2] + b"Transfer-Encoding: gzip\r\n\r\n",
    "two codings": SEND + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "chunked twice": SEND + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunked in HTTP/1.0": SEND.replace(b"1.1", b"1.0") + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "a chunk size of no number": SEND + b"Transfer-Encoding: chunked\r\n\r\nx\r\n\r\n",
    "a chunk longer than it says": SEND + b"Transfer-Encoding: chunked\r\n\r\n1\r\nab\r\n0\r\n\r\n",
    "white space before a colon": b"GET / HTTP/1.1\r\nHost : x\r\n\r\n",
    "a folded header": b"GET / HTTP/1.1\r\nHost: x\r\nA: b\r\n c\r\n\r\n",
    "NUL in a header": b"GET / HTTP/1.1\r\nHost: x\r\nAuthorization: a\x00b\r\n\r\n",
    "NUL in a name": b"GET / HTTP/1.1\r\nHost: x\r\nA\x00: b\r\n\r\n",
    "NUL in a path": b"GET /\x00 HTTP/1.1\r\nHost: x\r\n\r\n",
    "no name": b"GET / HTTP/1.1\r\nHost: x\r\n: b\r\n\r\n",
    "a path that is not ASCII": b"GET /\xc3\xa9 HTTP/1.1\r\nHost: x\r\n\r\n",
    "an unknown method": b"BREW / HTTP/1.1\r\nHost: x\r\n\r\n",
    "a method in lower case": b"get / HTTP/1.1\r\nHost: x\r\n\r\n",
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "HTTP/2.0 of a GET": FRONT.replace(b"1.1", b"2.0"),
    "HTTP/0.9": b"GET /\r\n\r\n",
    "another protocol": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "CONNECT": b"CONNECT x:443 HTTP/1.1\r\nHost: x\r\n\r\n",
    "a request after nonsense": b"\r\nnonsense\r\n" + FRONT,
    "a tab before a colon": b"GET / HTTP/1.1\r\nHost\t: x\r\n\r\n",
    "white space before the first header": b"GET / HTTP/1.1\r\n Host: x\r\n\r\n",
    "a header without a colon": b"GET / HTTP/1.1\r\nHost: x\r\nabc\r\n\r\n",
    "a name in quotes": b'GET / HTTP/1.1\r\nHost: x\r\n"A": b\r\n\r\n',
    "a name with a bracket": b"GET / HTTP/1.1\r\nHost: x\r\nA(: b\r\n\r\n",
    "a name that is not ASCII": b"GET / HTTP/1.1\r\nHost: x\r\n\xc3\xa9: b\r\n\r\n",
    "a control in a header": b"GET / HTTP/1.1\r\nHost: x\r\nA: \x01\r\n\r\n",
    "DEL in a header": b"GET / HTTP/1.1\r\nHost: x\r\nA: \x7f\r\n\r\n",
    "CR alone at the end of the head": b"GET / HTTP/1.1\r\nHost: x\r\n\rX",
    "CR LF in a path": b"GET /\r\n/ HTTP/1.1\r\nHost: x\r\n\r\n",
    "a space in a path": b"GET /a b HTTP/1.1\r\nHost: x\r\n\r\n",
    "a control in a path": b"GET /\x01 HTTP/1.1\r\nHost: x\r\n\r\n",
    "no path": b"GET HTTP/1.1\r\nHost: x\r\n\r\n",
    "no version": b"GET / \r\nHost: x\r\n\r\n",
    "a version of letters": b"GET / HTTP/x.y\r\nHost: x\r\n\r\n",
    "HTTP/1.2": b"GET / HTTP/1.2\r\nHost: x\r\n\r\n",
    "HTTP/3.0": b"GET / HTTP/3.0\r\nHost: x\r\n\r\n",
    "http in lower case": b"GET / http/1.1\r\nHost: x\r\n\r\n",
    "another word than HTTP": b"GET / HTPT/1.1\r\nHost: x\r\n\r\n",
    "a method cut short": b"GE / HTTP/1.1\r\nHost: x\r\n\r\n",
    "a method with a space before": b" GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    "a length of letters": SEND + b"Content-Length: abc\r\n\r\na=b",
    "an empty length": SEND + b"Content-Length: \r\n\r\na=b",
    "a length with a space inside": SEND + b"Content-Length: 1 0\r\n\r\na=b",
    "a length in other digits": SEND + "Content-Length: ٣\r\n\r\na=b".encode(),
    "a length that is a fraction": SEND + b"Content-Length: 3.0\r\n\r\na=b",
    "chunked in quotes": SEND + b'Transfer-Encoding: "chunked"\r\n\r\n0\r\n\r\n',
    "chunked with a control": SEND + b"Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
    "chunked and identity": SEND + b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    "an empty coding": SEND + b"Transfer-Encoding: \r\n\r\na=b",
    "a negative chunk": SEND + b"Transfer-Encoding: chunked\r\n\r\n-1\r\n\r\n",
    "a chunk in 0x": SEND + b"Transfer-Encoding: chunked\r\n\r\n0x1\r\na\r\n0\r\n\r\n",
    "a huge chunk": SEND + b"Transfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\na",
    "a space before a chunk's size": SEND + b"Transfer-Encoding: chunked\r\n\r\n 1\r\na\r\n0\r\n\r\n",
    "bare LF after a chunk's size": SEND + b"Transfer-Encoding: chunked\r\n\r\n1\na\r\n0\r\n\r\n",
    "bare LF after a chunk": SEND + b"Transfer-Encoding: chunked\r\n\r\n1\r\na\n0\r\n\r\n",
    "a head without end": b"GET / HTTP/1.1\r\nHost: x\r\nA: " + b"a" * (MAX_HEAD_BYTES + 300_000),
}


def counted_statuses(edge):
    text = edge.metrics.render().decode()
    return set(re.findall(r'hydrasms_http_requests_total\{.*status="(\d+)"', text))


def test_there_are_enough_ways_to_be_broken():
    assert len(BROKEN) >= 60


@pytest.mark.parametrize("raw", BROKEN.values(), ids=BROKEN)
async def test_broken_http_is_400_or_closed_and_reaches_no_handler(port, edge, raw):
    try:
        back = await exchange(port, raw)
    except ConnectionError:
        back = b""
    assert not back or (parse(back).status == 400 and parse(back).headers["connection"] == "close")
    assert back.count(b"HTTP/1.1 ") <= 1
    assert edge.core.calls == []
    # Where the body is broken the head has begun a request, which then ends without its body.
    assert counted_statuses(edge) <= {"499"}
    # The control: the server is there, and what is whole is counted.
    assert parse(await exchange(port, WHOLE)).status == 200
    assert counted_statuses(edge) - {"499"} == {"200"}


class Wire(asyncio.Transport):
    """A transport whose other end is the test: what one read holds is for the test to say."""

    def __init__(self):
        super().__init__()
        self.written = b""
        self.closed = False

    def write(self, data):
        self.written += data

    def close(self):
        self.closed = True

    def is_closing(self):
        return self.closed

    def pause_reading(self):
        """Do nothing: the test alone says what is read."""

    resume_reading = pause_reading


@pytest.fixture
async def listener(edge):
    config = uvicorn.Config(edge.app, lifespan="off", log_config=None, ws="none")
    config.load()
    made = Listener(
        config=config, server_state=ServerState(), app_state={}, receive_timeout_s=600.0, outgoing=Outgoing()
    )
    made.connection_made(Wire())
    yield made
    made.connection_lost(None)


FILLER = b"A: " + b"a" * 4_091 + b"\r\n"


@pytest.mark.parametrize("before", [b"", KEPT_FRONT], ids=["first request", "second request"])
async def test_a_head_that_comes_in_many_reads_has_a_limit(listener, before):
    listener.data_received(before)
    for _ in range(MAX_HEAD_BYTES // len(FILLER)):
        listener.data_received(FILLER if _ else KEPT_FRONT[:-2] + FILLER[: -len(KEPT_FRONT)] + b"\r\n")
        assert not listener.transport.closed
    listener.data_received(FILLER)
    assert listener.transport.closed
    assert b"HTTP/1.1 400 " in listener.transport.written


async def test_heads_within_the_limit_do_not_add_up(listener):
    for _ in range(3 * MAX_HEAD_BYTES // len(FILLER)):
        listener.data_received(KEPT_FRONT[:-2])
        listener.data_received(FILLER)
        assert not listener.transport.closed
        listener.data_received(b"\r\n")
    assert not listener.transport.closed
    assert listener.transport.written == b""


@pytest.mark.parametrize(
    "first", [KEPT, KEPT.replace(b"\r\n", b"\r\n" + UPGRADE, 1)], ids=["plain", "after a wish"]
)
async def test_what_follows_a_request_that_ends_the_connection_is_ignored(port, edge, first):
    answers = replies(await exchange(port, first + WHOLE + b"nonsense" + WHOLE))
    assert [reply.status for reply in answers] == [200, 200]
    assert len(edge.core.calls) == 2


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        (b"Authorization: \xc3\xa9" + b"\xc3\xa9" * 20, "UNKNOWN_API_KEY"),
        (b"Authorization: \xe9\xff\xfe\xfd\xfc\xfb\xfa\xf9", "UNKNOWN_API_KEY"),
        (b"Authorization: " + KEY.encode() + b"\r\nauthorization: " + KEY.encode(), "UNKNOWN_API_KEY"),
        (b"Authorization: " + b"k" * 8192, "UNKNOWN_API_KEY"),
        (b"Authorization:", "MISSING_API_KEY"),
        (b"Authorization: \t ", "MISSING_API_KEY"),
        (b"X: y", "MISSING_API_KEY"),
    ],
    ids=["é in UTF-8", "Latin-1", "two", "8 kB", "empty", "blank", "none"],
)
async def test_a_bad_key_is_401_over_a_socket_too(port, edge, headers, code):
    raw = b"GET /api/messages HTTP/1.1\r\nHost: x\r\n" + CLOSE + headers + b"\r\n\r\n"
    reply = parse(await exchange(port, raw))
    assert (reply.status, reply.json["code"]) == (401, code)
    assert edge.core.calls == []
    assert is_plausible("k" * 512)


async def test_options_of_everything_is_no_path_of_ours(port):
    assert parse(await exchange(port, FRONT.replace(b"GET /", b"OPTIONS *"))).status == 404


async def test_a_line_feed_in_a_path_makes_it_another_path(port):
    reply = parse(await exchange(port, FRONT.replace(b" / ", b" /livez%0A ")))
    assert reply.status == 404


# ---- large bodies ----------------------------------------------------------------------------------------

MEGABYTE = b"x" * 1_048_576


async def _upload(port, head, pieces, back):
    """Write a body until the server is done with it; put what came back into a list."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(head)

    async def write():
        with contextlib.suppress(ConnectionError):
            for piece in pieces:
                writer.write(piece)
                await writer.drain()

    writing = asyncio.create_task(write())
    back.append(await asyncio.wait_for(reader.readuntil(b"}"), WAIT_S))
    await asyncio.wait_for(writing, WAIT_S)
    writer.close()


@pytest.mark.parametrize("framing", ["length", "chunked"])
async def test_64_megabytes_are_refused_at_once_and_never_held(port, edge, framing):
    if framing == "length":
        head, pieces = HEAD + FORM_TYPE + LENGTH % (64 * len(MEGABYTE)), [MEGABYTE] * 64
    else:
        head = HEAD + FORM_TYPE + b"Transfer-Encoding: chunked\r\n\r\n"
        pieces = [chunked(MEGABYTE)[: -len(b"0\r\n\r\n")]] * 64 + [b"0\r\n\r\n"]
    await _upload(port, head, pieces, [])
    before_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    back: list[bytes] = []
    began = time.monotonic()
    await _upload(port, head, pieces, back)
    assert time.monotonic() - began < 10
    reply = parse(back[0])
    assert (reply.status, reply.json["code"]) == (413, "BODY_TOO_LARGE")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kb < 16_000
    assert edge.core.calls == []


@pytest.mark.parametrize(
    ("head", "status"),
    [(HEAD, 413), (HEAD.replace(b"Auth", b"X-Auth"), 401), (HEAD.replace(b"POST", b"PUT"), 405)],
    ids=["413", "401", "405"],
)
async def test_a_client_that_asks_to_be_closed_gets_its_answer_while_it_still_writes(port, head, status):
    body = b"x" * 2_000_000
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(head + CLOSE + FORM_TYPE + LENGTH % len(body))
    answer = await asyncio.wait_for(reader.readuntil(b"}"), WAIT_S)
    assert parse(answer).status == status
    for index in range(0, len(body), 100_000):
        writer.write(body[index : index + 100_000])
        await writer.drain()
    # Closed by the server, in order, when the request was whole.
    assert await asyncio.wait_for(reader.read(), WAIT_S) == b""
    writer.close()


async def test_after_a_body_that_was_too_large_the_connection_goes_on(port):
    large = HEAD + FORM_TYPE + LENGTH % 200_000 + b"x" * 200_000
    assert [reply.status for reply in replies(await exchange(port, large, FRONT))] == [413, 200]


async def test_60_000_brackets_and_60_000_fields_are_refused(port):
    for body, media_type in ((b"[" * 60_000, b"application/json"), (b"&a=1" * 16_000, FORM_TYPE[14:-2])):
        raw = HEAD + CLOSE + b"Content-Type: " + media_type + b"\r\n" + LENGTH % len(body) + body
        reply = parse(await exchange(port, raw))
        assert (reply.status, reply.json["code"]) == (400, "INVALID_BODY")


# ---- slow clients ----------------------------------------------------------------------------------------

SLOW = {
    "silent from the start": b"",
    "in the middle of a head": b"GET / HTTP/1.1\r\nHo",
    "before the body": HEAD + FORM_TYPE + LENGTH % 5,
    "in the middle of a body": HEAD + FORM_TYPE + LENGTH % 500 + b"recipient=",
    "in the middle of a chunk": HEAD + FORM_TYPE + b"Transfer-Encoding: chunked\r\n\r\n10\r\nabc",
    "in the rest of a body that was refused": HEAD + FORM_TYPE + LENGTH % 500_000 + b"x",
    "after a wish for another protocol": HEAD + UPGRADE + FORM_TYPE + LENGTH % 500 + b"a",
    "after a whole request": KEPT,
    "in the second request": KEPT + HEAD,
}


@pytest.mark.parametrize("raw", SLOW.values(), ids=SLOW)
async def test_a_client_that_falls_silent_is_closed(edge, raw):
    async with served(edge.app, receive_timeout_s=0.2, keep_alive_s=1) as port:
        with contextlib.suppress(ConnectionError):
            await exchange(port, raw)


async def test_a_client_that_drips_is_closed_as_early_as_one_that_is_silent(edge):
    async with served(edge.app, receive_timeout_s=0.2) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)

        async def drip():
            with contextlib.suppress(ConnectionError):
                writer.write(b"GET / HTTP/1.1\r\nHost: x\r\nA: ")
                for _ in range(2_000):
                    writer.write(b"a")
                    await writer.drain()
                    await asyncio.wait([closed], timeout=0.01)

        closed = asyncio.create_task(reader.read())
        began = time.monotonic()
        dripping = asyncio.create_task(drip())
        with contextlib.suppress(ConnectionError):
            await asyncio.wait_for(closed, WAIT_S)
        assert time.monotonic() - began < 10
        dripping.cancel()
        writer.close()


async def test_a_request_in_progress_may_take_longer_than_a_request_may_take_to_come_in(edge):
    entered, go_on = asyncio.Event(), asyncio.Event()

    async def wait(context):
        entered.set()
        await go_on.wait()

    edge.core.instead = wait
    async with served(edge.app, receive_timeout_s=0.05, keep_alive_s=1) as port:
        asking = asyncio.create_task(exchange(port, KEPT))
        await asyncio.wait_for(entered.wait(), WAIT_S)
        # That another client is cut off shows that the time has passed.
        with contextlib.suppress(ConnectionError):
            await exchange(port, HEAD)
        go_on.set()
        assert parse(await asyncio.wait_for(asking, WAIT_S)).status == 200


# ---- starting and stopping -------------------------------------------------------------------------------


async def test_a_port_that_is_taken_is_an_error_to_whoever_starts(edge, port):
    with pytest.raises(OSError, match="in use"):
        await HttpServer(edge.app, "127.0.0.1", port).start()


async def test_a_host_that_is_not_ours_is_an_error_to_whoever_starts(edge):
    with pytest.raises(OSError, match="assign"):
        await HttpServer(edge.app, "192.0.2.1", 0).start()


async def test_a_stopped_server_lets_go_of_its_port(edge):
    first = HttpServer(edge.app, "127.0.0.1", 0)
    port = await first.start()
    await first.stop()
    with pytest.raises(ConnectionError):
        await exchange(port, FRONT)
    second = HttpServer(edge.app, "127.0.0.1", port)
    assert await second.start() == port
    await second.stop()
    await second.stop()


async def test_a_server_that_never_started_stops(edge):
    server = HttpServer(edge.app, "127.0.0.1", 0)
    await server.stop()


async def test_stopping_answers_the_requests_in_progress_and_closes_idle_connections(edge):
    entered, go_on = asyncio.Event(), asyncio.Event()

    async def wait(context):
        entered.set()
        await go_on.wait()

    edge.core.instead = wait
    server = HttpServer(edge.app, "127.0.0.1", 0)
    port = await server.start()
    idle_reader, idle_writer = await asyncio.open_connection("127.0.0.1", port)
    asking = asyncio.create_task(exchange(port, KEPT))
    await asyncio.wait_for(entered.wait(), WAIT_S)
    stopping = asyncio.create_task(server.stop())
    assert await asyncio.wait_for(idle_reader.read(), WAIT_S) == b""
    idle_writer.close()
    with pytest.raises(ConnectionError):
        await exchange(port, FRONT)
    assert not stopping.done()
    go_on.set()
    reply = parse(await asyncio.wait_for(asking, WAIT_S))
    assert (reply.status, reply.headers["connection"]) == (200, "close")
    await asyncio.wait_for(stopping, WAIT_S)


async def test_a_request_that_was_sent_as_the_server_began_to_stop_is_answered(edge):
    server = HttpServer(edge.app, "127.0.0.1", 0)
    port = await server.start()
    kept = await asyncio.open_connection("127.0.0.1", port)
    kept[1].write(KEPT)
    await asyncio.wait_for(kept[0].readuntil(b'"creditCost":1}'), WAIT_S)
    fresh = await asyncio.open_connection("127.0.0.1", port)
    stopping = asyncio.create_task(server.stop())
    await eventually(lambda: not is_listening(port), what="a server that takes no more connections")
    for reader, writer in (kept, fresh):
        writer.write(KEPT)
        reply = parse(await asyncio.wait_for(reader.read(), WAIT_S))
        assert (reply.status, reply.headers["connection"]) == (200, "close")
        writer.close()
    await asyncio.wait_for(stopping, WAIT_S)


async def test_a_connection_that_waits_to_be_taken_as_the_server_stops_is_served(edge):
    server = HttpServer(edge.app, "127.0.0.1", 0)
    port = await server.start()
    # The tick that uvicorn ends with would be a turn of the loop, in which it takes who waits.
    ticking, server._ticking = server._ticking, already_done()
    assert ticking is not None
    ticking.cancel()
    # All that follows until the socket closes is one turn of the loop: only the system has accepted these.
    waiting = [socket.create_connection(("127.0.0.1", port)) for _ in range(20)]
    for connection in waiting:
        connection.sendall(KEPT)
    await asyncio.wait_for(server.stop(), WAIT_S)
    for connection in waiting:
        with connection:
            connection.settimeout(WAIT_S)
            assert parse(connection.recv(65_536)).status == 200


def already_done():
    done = asyncio.get_running_loop().create_future()
    done.set_result(None)
    return done


def is_listening(port):
    with contextlib.suppress(ConnectionError):
        socket.create_connection(("127.0.0.1", port)).close()
        return True
    return False


async def test_what_is_not_answered_in_time_is_told_that_the_service_is_unavailable(edge):
    entered = asyncio.Event()

    async def hang(context):
        entered.set()
        await asyncio.Event().wait()

    edge.core.instead = hang
    server = HttpServer(edge.app, "127.0.0.1", 0, drain_s=1)
    port = await server.start()
    asking = asyncio.create_task(exchange(port, KEPT))
    await asyncio.wait_for(entered.wait(), WAIT_S)
    # Awaited in this very task, so that nothing else runs between its end and the next line.
    async with asyncio.timeout(WAIT_S):
        await server.stop()
    # When the server has stopped nothing runs any more, so whoever started it may close what the requests use.
    assert counted_statuses(edge) == {"503"}
    reply = parse(await asyncio.wait_for(asking, WAIT_S))
    assert (reply.status, reply.json["code"]) == (503, "UNAVAILABLE")


async def test_signals_stay_with_the_process(edge):
    def handlers():
        return [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]

    before = handlers()
    async with served(edge.app):
        assert handlers() == before
    assert handlers() == before
