"""Whatever a receiver does, an attempt ends in its time, keeps little, and says in plain words what happened."""

import asyncio
import contextlib
import gzip
import socket
import ssl
import time
import tracemalloc

import aiohttp
import pytest

from hydrasms_app.certificates import make_trial_certificates
from hydrasms_base.clock import SystemClock
from hydrasms_base.networks import networks
from hydrasms_core.webhooks.addresses import Guard
from hydrasms_core.webhooks.connector import BUDGET_S, Connector
from hydrasms_core.webhooks.names import SystemNames
from hydrasms_core.webhooks.ports import MAX_ANSWER_BYTES, Answered, Refusal, Unanswered
from tests.support.receivers import OK, FakeNames, answering, endless, receiving, request_of
from tests.support.waiting import eventually

LOOPBACK = networks("127.0.0.0/8, ::1/128")
BODY = b'{"sender": "+447700900000"}'
SMALL_BUDGET_S = 0.5
SLACK_S = 1.0
HEAD = b"HTTP/1.1 200 OK\r\n"


@pytest.fixture
async def connect():
    made = []

    def make(budget_s=SMALL_BUDGET_S, names=None, tls=None):
        connector = Connector(Guard(LOOPBACK), SystemClock(), budget_s=budget_s, names=names, tls=tls)
        made.append(connector)
        return connector

    yield make
    for connector in made:
        await connector.close()


async def timed(connector, url):
    """Post and return the outcome, having made sure that the attempt ended in its time."""
    began = time.monotonic()
    outcome = await connector.post(url, {"Content-Type": "application/json"}, BODY)
    took = time.monotonic() - began
    assert took < SMALL_BUDGET_S + SLACK_S
    assert outcome.duration_s <= took
    if isinstance(outcome, Unanswered):
        assert outcome.failure.endswith(".")
        assert len(outcome.failure) <= 200
        assert "127.0.0.1" not in outcome.failure
    else:
        assert len(outcome.body) <= MAX_ANSWER_BYTES
    return outcome


# ---- in time -------------------------------------------------------------------------------------------------


def test_an_attempt_has_fifteen_seconds():
    assert BUDGET_S == 15.0


async def test_a_black_hole_is_left_when_the_time_is_up(connect):
    async def handle(reader, writer):
        await reader.read()

    async with receiving(handle) as receiver:
        outcome = await timed(connect(), receiver.url)
        assert outcome.refusal is Refusal.TIMEOUT
        await eventually(lambda: receiver.open == 0, what="the connection's end")


async def test_a_status_that_drips_in_is_no_answer(connect):
    handle, _ = endless(b"HTTP/1.1 200 ", b"O", every_s=0.05)
    async with receiving(handle) as receiver:
        assert (await timed(connect(), receiver.url)).refusal is Refusal.TIMEOUT


async def test_a_body_that_drips_in_is_cut_off_and_its_status_counts(connect):
    handle, _ = endless(HEAD + b"Content-Length: 1000\r\n\r\n", b"x", every_s=0.05)
    async with receiving(handle) as receiver:
        outcome = await timed(connect(), receiver.url)
        await eventually(lambda: receiver.open == 0, what="the connection's end")
    assert isinstance(outcome, Answered)
    assert outcome.status == 200
    assert 0 < len(outcome.body) < 100
    assert set(outcome.body) == {ord("x")}


async def test_headers_that_never_end_are_no_answer(connect):
    handle, _ = endless(HEAD, b"X-A: b\r\n", every_s=0.05)
    async with receiving(handle) as receiver:
        outcome = await timed(connect(), receiver.url)
    assert isinstance(outcome, Unanswered)


async def test_interim_answers_that_never_end_are_no_answer(connect):
    handle, _ = endless(b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 100)
    async with receiving(handle) as receiver:
        assert (await timed(connect(), receiver.url)).refusal is Refusal.TIMEOUT


async def test_whoever_sends_without_end_keeps_the_loop_from_others_for_a_moment_alone(connect):
    longest_s = 0.0

    async def watch():
        nonlocal longest_s
        while True:
            began = time.monotonic()
            await asyncio.sleep(0)
            longest_s = max(longest_s, time.monotonic() - began)

    def send(listening):
        connection, _ = listening.accept()
        with connection, contextlib.suppress(OSError):
            while True:
                connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n" * 5_000)

    with socket.create_server(("127.0.0.1", 0)) as listening:
        # On a thread, for on this loop it could send no faster than it is read.
        sending = asyncio.create_task(asyncio.to_thread(send, listening))
        watching = asyncio.create_task(watch())
        await timed(connect(), f"http://127.0.0.1:{listening.getsockname()[1]}/")
        await asyncio.sleep(0)
        watching.cancel()
        await sending
    assert longest_s < SMALL_BUDGET_S


async def test_a_receiver_that_never_speaks_tls_is_left_when_the_time_is_up(connect):
    async def handle(reader, writer):
        await reader.read()

    async with receiving(handle) as receiver:
        outcome = await timed(connect(), receiver.url.replace("http:", "https:"))
    assert outcome.refusal is Refusal.TIMEOUT


async def test_a_name_server_that_never_answers_is_left_when_the_time_is_up(connect):
    class Silent(FakeNames):
        async def addresses(self, host):
            await asyncio.Event().wait()

    outcome = await timed(connect(names=Silent({})), "http://slow.example.com/")
    assert outcome.refusal is Refusal.TIMEOUT


async def test_a_client_without_one_budget_would_wait_for_the_tarpit():
    """The control: a limit on each read, which a byte now and then satisfies for ever."""
    handle, _ = endless(HEAD + b"Content-Length: 1000\r\n\r\n", b"x", every_s=0.05)
    limit = aiohttp.ClientTimeout(total=None, sock_read=SMALL_BUDGET_S)
    async with receiving(handle) as receiver, aiohttp.ClientSession(timeout=limit) as session:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(SMALL_BUDGET_S + SLACK_S), session.post(receiver.url) as response:
                await response.read()


# ---- little --------------------------------------------------------------------------------------------------


async def test_an_answer_of_any_length_is_read_to_2000_bytes_and_no_further(connect):
    handle, sent = endless(HEAD + b"Content-Length: 1000000000\r\n\r\n", b"x" * 65_536)
    connector = connect()
    async with receiving(handle) as receiver:
        tracemalloc.start()
        try:
            for _ in range(20):
                outcome = await timed(connector, receiver.url)
                assert outcome.body == b"x" * MAX_ANSWER_BYTES
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        await eventually(lambda: receiver.open == 0, what="the connections' end")
    # The rest is what the two ends' buffers hold.
    assert sent[0] < 20 * 16_000_000
    assert peak < 8_000_000


async def test_what_is_packed_is_not_unpacked(connect):
    bomb = gzip.compress(b"\0" * 50_000_000)
    answer = HEAD + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(bomb) + bomb
    async with receiving(answering(answer)) as receiver:
        outcome = await timed(connect(), receiver.url)
    assert outcome.body == bomb[:MAX_ANSWER_BYTES]


async def test_headers_without_bound_are_no_answer(connect):
    for piece in (b"X-A: " + b"b" * 1_000 + b"\r\n", b"b" * 65_536):
        handle, sent = endless(HEAD + b"X-First: ", piece)
        async with receiving(handle) as receiver:
            outcome = await timed(connect(), receiver.url)
            await eventually(lambda: receiver.open == 0, what="the connection's end")
        assert isinstance(outcome, Unanswered)
        assert outcome.refusal is Refusal.PROTOCOL
        assert sent[0] < 16_000_000


# ---- what it says --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "answer",
    [
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"\x00\x01\x02",
        b"HTTP/1.1 two hundred\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        b"HTTP/1.1 200 OK\r\nno head\r\n\r\n",
        b"HTTP/9.9 200 OK\r\n\r\n",
        b"",
    ],
)
async def test_what_is_no_http_is_said_to_be_none(connect, answer):
    async def handle(reader, writer):
        await request_of(reader)
        writer.write(answer)

    async with receiving(handle) as receiver:
        outcome = await timed(connect(), receiver.url)
    assert outcome.refusal is Refusal.PROTOCOL, outcome


@pytest.mark.parametrize(
    "rest", [b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n", b"Content-Length: 100\r\n\r\nshort"]
)
async def test_a_body_that_breaks_off_leaves_the_status_standing(connect, rest):
    async def handle(reader, writer):
        await request_of(reader)
        writer.write(HEAD + rest)

    async with receiving(handle) as receiver:
        outcome = await timed(connect(), receiver.url)
    assert isinstance(outcome, Answered)
    assert outcome.status == 200


async def test_a_server_error_is_an_answer_with_its_body_and_retry_after(connect):
    answer = b"HTTP/1.1 503 Busy\r\nRetry-After: 120\r\nContent-Length: 4\r\n\r\nbusy"
    async with receiving(answering(answer)) as receiver:
        outcome = await timed(connect(), receiver.url)
    assert outcome[:3] == (503, b"busy", 120.0)


async def test_a_port_where_nobody_listens_is_said_to_refuse(connect):
    async with receiving(answering(OK)) as receiver:
        url = receiver.url
    outcome = await timed(connect(), url)
    assert outcome.refusal is Refusal.CONNECT
    assert outcome.failure == "The receiver's host refuses connections on that port."


async def test_a_name_that_nobody_has_is_an_address_that_is_not_there(connect):
    outcome = await timed(connect(names=FakeNames({"gone.example.com": [[]]})), "http://gone.example.com/")
    assert outcome.refusal is Refusal.ADDRESS


async def test_name_servers_that_fail_are_no_fault_of_the_address(connect):
    class Failing(FakeNames):
        async def addresses(self, host):
            raise OSError("temporary failure in name resolution")

    outcome = await timed(connect(names=Failing({})), "http://failing.example.com/")
    assert outcome.refusal is Refusal.CONNECT


async def test_the_systems_names_are_asked_once_for_many_who_want_the_same():
    names = SystemNames()
    answers = await asyncio.gather(*[names.addresses("localhost") for _ in range(50)])
    assert len({id(answer) for answer in answers}) == 1
    assert "127.0.0.1" in answers[0]
    assert await names.addresses("no-such-name.invalid") == []
    await names.close()


# ---- TLS -----------------------------------------------------------------------------------------------------


@pytest.fixture
def certificates(tmp_path):
    return make_trial_certificates(tmp_path / "certs", (), 1)


@pytest.fixture
def server_tls(certificates):
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificates.core, certificates.core_key)
    return context


async def test_a_certificate_is_verified(connect, server_tls):
    async with receiving(answering(OK), server_tls) as receiver:
        outcome = await timed(connect(), receiver.url.replace("http:", "https:"))
    assert outcome.refusal is Refusal.CONNECT
    assert outcome.failure.startswith("The receiver's certificate does not hold: ")


async def test_a_certificate_for_another_host_does_not_hold(connect, server_tls, certificates):
    tls = ssl.create_default_context(cafile=certificates.authority)
    connector = connect(tls=tls, names=FakeNames({"other.example.com": [["127.0.0.1"]]}))
    async with receiving(answering(OK), server_tls) as receiver:
        outcome = await timed(connector, f"https://other.example.com:{receiver.port}/")
        assert outcome.refusal is Refusal.CONNECT
        # The control: the name that it is for.
        outcome = await timed(connector, receiver.url.replace("http:", "https:"))
    assert outcome[:2] == (200, b"ok")


# ---- what is sent and read ------------------------------------------------------------------------------------


async def test_a_request_is_what_was_asked_for_and_nothing_else(connect):
    sent = []

    async def handle(reader, writer):
        sent.append(await request_of(reader))
        writer.write(OK)

    async with receiving(handle) as receiver:
        url = f"http://127.0.0.1:{receiver.port}/höök?to=ä&n=1#here"
        headers = {"Content-Type": "application/json", "User-Agent": "ours/1", "webhook-id": "msg_1"}
        assert (await connect().post(url, headers, BODY)).status == 200
        port = receiver.port
    head, _, body = sent[0].partition(b"\r\n\r\n")
    first, *rest = head.decode().split("\r\n")
    assert first == "POST /h%C3%B6%C3%B6k?to=%C3%A4&n=1 HTTP/1.1"
    assert sorted(rest) == [
        "Accept-Encoding: identity",
        "Accept: */*",
        f"Content-Length: {len(BODY)}",
        "Content-Type: application/json",
        f"Host: 127.0.0.1:{port}",
        "User-Agent: ours/1",
        "webhook-id: msg_1",
    ]
    assert body == BODY


async def test_a_line_break_in_a_header_is_never_sent(connect):
    received = []

    async def handle(reader, writer):
        received.append(await reader.read())

    async with receiving(handle) as receiver:
        outcome = await connect().post(receiver.url, {"webhook-id": "a\r\nX-Forged: b"}, BODY)
        await eventually(lambda: receiver.open == 0, what="the connection's end")
    assert isinstance(outcome, Unanswered)
    assert received == [b""]


async def test_interim_answers_are_passed_over(connect):
    interim = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nRetry-After: 9\r\n\r\n"
    connector = connect()
    async with receiving(answering(interim + OK)) as receiver:
        for _ in range(2):
            assert (await timed(connector, receiver.url))[:3] == (200, b"ok", None)
        assert receiver.connections == 1


async def test_a_change_of_protocol_is_an_answer_and_the_end_of_its_connection(connect):
    answer = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: other\r\nConnection: upgrade\r\n\r\n"
    connector = connect()
    async with receiving(answering(answer)) as receiver:
        for _ in range(2):
            assert (await timed(connector, receiver.url)).status == 101
        await eventually(lambda: receiver.open == 0, what="the connections' end")
        assert receiver.connections == 2


async def test_what_follows_an_answer_unasked_is_no_answer_to_the_next_request(connect):
    forged = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nforged"
    connector = connect()
    async with receiving(answering(OK + forged)) as receiver:
        for _ in range(3):
            assert (await timed(connector, receiver.url)).body == b"ok"


# ---- again ---------------------------------------------------------------------------------------------------


async def test_a_connection_is_used_again(connect):
    connector = connect()
    async with receiving(answering(OK)) as receiver:
        for _ in range(5):
            assert (await timed(connector, receiver.url)).status == 200
        assert receiver.connections == 1


async def test_a_connection_whose_answer_was_not_read_to_its_end_is_not(connect):
    long = HEAD + b"Content-Length: 100000\r\n\r\n" + b"x" * 100_000
    connector = connect()
    async with receiving(answering(long)) as receiver:
        for _ in range(3):
            assert len((await timed(connector, receiver.url)).body) == MAX_ANSWER_BYTES
        assert receiver.connections == 3


async def test_a_kept_connection_that_closes_as_it_is_used_costs_no_attempt(connect):
    async def handle(reader, writer):
        await request_of(reader)
        writer.write(OK)
        # Closes when the second request arrives, as a server does whose keep-alive ran out just then.
        await reader.read(1)

    connector = connect()
    async with receiving(handle) as receiver:
        for _ in range(3):
            assert (await timed(connector, receiver.url)).status == 200
        assert receiver.connections == 3


async def test_a_new_connection_that_closes_is_not_tried_again(connect):
    async def handle(reader, writer):
        await request_of(reader)

    async with receiving(handle) as receiver:
        outcome = await timed(connect(), receiver.url)
        assert outcome.refusal is Refusal.PROTOCOL
        assert receiver.connections == 1
