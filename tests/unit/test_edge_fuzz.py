"""Whatever comes in: never a fault of ours, always an answer in the contract's form."""

import asyncio
import contextlib

import orjson
import pytest
import uvloop
from hypothesis import example, given, settings
from hypothesis import strategies as st

from hydrasms_edge.errors import HTTP_STATUS
from tests.support.edge import FORM, KEY, Edge, Reply, exchange, make_edge, parse, served

EXAMPLES = settings(max_examples=300, deadline=None)

json_values = st.one_of(
    st.text(max_size=900), st.none(), st.integers(-(2**53), 2**53), st.lists(st.text(max_size=3), max_size=3)
)
bodies = st.one_of(
    st.binary(max_size=2_000),
    st.text(alphabet='{}[]":,\\u0123 recipientcontent+-.eE\n', max_size=400).map(str.encode),
    st.text(alphabet="recipient=content&+%0123456789ABCDEF", max_size=400).map(str.encode),
    st.dictionaries(st.sampled_from(["recipient", "content", "x"]), json_values).map(orjson.dumps),
)
content_types = st.one_of(
    st.none(),
    st.sampled_from([FORM, "application/json", f"{FORM}; charset=utf-8", "application/json; charset=x"]),
    st.text(max_size=40),
)
header_values = st.binary(max_size=60).map(lambda value: value.translate(None, b"\r\n\0"))
header_names = st.sampled_from(
    ["Idempotency-Key", "X-Request-Id", "Content-Length", "Authorization", "Content-Type"]
)
extra_headers = st.lists(st.tuples(header_names, header_values), max_size=3)


def assert_in_the_contracts_form(reply: Reply) -> None:
    assert reply.status < 500, reply
    assert reply.headers["x-request-id"]
    if reply.status == 200:
        assert reply.json["ID"]
        return
    assert reply.headers["content-type"] == "application/json"
    answer = reply.json
    assert isinstance(answer, dict)
    assert set(answer) >= {"response", "code", "request_id"}
    assert all(isinstance(answer[name], str) and answer[name] for name in ("response", "code", "request_id"))
    assert HTTP_STATUS[answer["code"]] == reply.status
    assert answer["request_id"] == reply.headers["x-request-id"]


@pytest.fixture(scope="module")
def edge() -> Edge:
    return make_edge()


@EXAMPLES
@given(bodies, content_types, extra_headers)
@example(b'{"recipient":"+447700900000","content":"Hi"}', "application/json", [])
@example(b'{"recipient":"\\ud800","content":"\\udfff"}', "application/json", [("Idempotency-Key", b"\xff")])
@example(
    b"recipient=+447700900000&content=Hi", FORM, [("Content-Length", b"\xb2"), ("X-Request-Id", b"\x7f")]
)
def test_any_body_and_headers_are_answered_in_the_contracts_form(edge, body, content_type, headers):
    edge.core.calls.clear()
    reply = asyncio.run(edge.send(body, content_type=content_type, headers=headers))
    assert_in_the_contracts_form(reply)
    assert len(edge.core.calls) <= 1


@EXAMPLES
@given(header_values, st.sampled_from(["GET", "POST"]))
@example(KEY.encode(), "GET")
@example(b"hsms_" + b"\xe9" * 36, "POST")
def test_any_key_is_answered_in_the_contracts_form(edge, key, method):
    reply = asyncio.run(edge.call(method, "/api/messages", key=key))
    assert_in_the_contracts_form(reply)
    assert reply.status in (401, 404, 415)


@EXAMPLES
@given(st.text(max_size=20), st.text(max_size=60))
def test_any_method_and_path_are_answered_in_the_contracts_form(edge, method, path):
    reply = asyncio.run(edge.call(method, f"/x{path}", key=KEY))
    assert reply.status == 404
    assert_in_the_contracts_form(reply)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.binary(min_size=1, max_size=300), min_size=40, max_size=40))
def test_any_bytes_on_the_socket_are_refused_and_the_server_goes_on(streams):
    heads = [
        b"",
        b"GET / HTTP/1.1\r\n",
        f"POST /api/messages HTTP/1.1\r\nHost: x\r\nAuthorization: {KEY}\r\n".encode(),
        f"POST /api/messages HTTP/1.1\r\nHost: x\r\nAuthorization: {KEY}\r\nContent-Type: {FORM}\r\n"
        "Transfer-Encoding: chunked\r\n\r\n".encode(),
    ]

    async def throw(port, raw):
        with contextlib.suppress(ConnectionError):
            back = await exchange(port, raw)
            assert not back or parse(back).status < 500

    async def throw_all():
        async with served(make_edge().app, receive_timeout_s=0.1, keep_alive_s=1) as port:
            raws = [heads[index % len(heads)] + stream for index, stream in enumerate(streams)]
            await asyncio.gather(*(throw(port, raw) for raw in raws))
            alive = await exchange(port, b"GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            assert parse(alive).status == 200

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(throw_all())
