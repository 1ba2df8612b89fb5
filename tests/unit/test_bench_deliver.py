"""The receivers and the clockwork of the `deliver` benchmark."""

import asyncio

import orjson
import pytest

from bench.deliver_idle import Arrivals
from bench.deliver_run import TimedPoster
from bench.receivers import listen
from hydrasms_core.webhooks.ports import Answered, Refusal, Unanswered

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"


def request(body: bytes) -> bytes:
    return b"POST /hook HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)


@pytest.mark.parametrize("piece", [1, 7, 1_000])
async def test_a_receiver_answers_every_request_however_it_is_cut(piece):
    taken: list[bytes] = []
    server, port = await listen(taken.append)
    async with server, asyncio.timeout(10):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        sent = request(b'{"a":1}') + request(b"") + request(b"\r\n\r\nthird")
        for begin in range(0, len(sent), piece):
            writer.write(sent[begin : begin + piece])
            await writer.drain()
        assert await reader.readexactly(3 * len(OK)) == 3 * OK
        writer.close()
        await writer.wait_closed()
    assert taken == [b'{"a":1}', b"", b"\r\n\r\nthird"]


async def test_a_receiver_cuts_off_who_does_not_say_how_long_a_body_is():
    taken: list[bytes] = []
    server, port = await listen(taken.append)
    async with server, asyncio.timeout(10):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"POST /hook HTTP/1.1\r\nHost: x\r\n\r\n")
        assert await reader.read() == b""
        writer.close()
    assert taken == []


async def test_only_pushes_that_were_answered_200_are_timed():
    answers = [
        Answered(200, b"", None, 0.25),
        Answered(500, b"", None, 0.5),
        Unanswered(Refusal.TIMEOUT, "The time was up.", 15.0),
    ]

    class Told:
        async def post(self, url, headers, body):
            return answers[len(timed.latencies_s) + timed.failed]

    timed = TimedPoster(Told())
    assert [await timed.post("http://x/", {}, b"") for _ in answers] == answers
    assert (timed.latencies_s, timed.failed) == ([0.25], 2)


async def test_an_arrival_is_that_of_its_own_text_and_counts_once():
    arrivals = Arrivals()
    first, second = arrivals.of("first"), arrivals.of("second")
    arrivals.take(orjson.dumps({"messageContent": "second"}))
    assert (first.done(), second.done()) == (False, True)
    arrivals.take(orjson.dumps({"messageContent": "second"}))
    arrivals.take(orjson.dumps({"messageContent": "first"}))
    assert await first >= await second
