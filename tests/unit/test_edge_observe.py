"""What an edge leaves behind of each request: an id, a line, a count; and an answer whatever fails inside."""

import asyncio
import logging
from typing import Any

import pytest
import structlog
from starlette.requests import ClientDisconnect

from hydrasms_base.ids import is_id
from hydrasms_base.keys import digest_key
from hydrasms_base.log import get_logger
from hydrasms_base.metrics import Metrics
from hydrasms_base.secret import Secret
from hydrasms_core.errors import InvalidServiceToken
from hydrasms_core.rpc.loopback import Loopback
from hydrasms_edge.app import create_app
from hydrasms_edge.observe import Observation
from hydrasms_edge.settings import EdgeSettings
from tests.support.edge import KEY, TOKEN, UNKNOWN_KEY, make_edge, served

RECIPIENT = "+447700900123"
CONTENT = "the quick brown fox"


@pytest.fixture
def lines():
    with structlog.testing.capture_logs() as captured:
        yield captured


def events(lines, name="http"):
    return [line for line in lines if line["event"] == name]


# ---- request ids -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("given", ["a", "x" * 128, "A.b_c-9"])
async def test_a_proper_request_id_is_taken_over(given):
    edge = make_edge()
    reply = await edge.send(headers=[("X-Request-Id", given)])
    assert reply.headers["x-request-id"] == edge.core.calls[0][1]["x-request-id"] == given


@pytest.mark.parametrize(
    "given", [b"", b"x" * 129, b"a b", b"a\n", b"\xc3\xa9", b"a/b", b"a,b", b"{}", b"a\0"], ids=repr
)
async def test_any_other_request_id_is_replaced(given):
    edge = make_edge()
    reply = await edge.send(headers=[("X-Request-Id", given)])
    assert is_id(reply.headers["x-request-id"])
    assert edge.core.calls[0][1]["x-request-id"] == reply.headers["x-request-id"]


async def test_a_request_id_sent_twice_is_replaced():
    reply = await make_edge().call("GET", "/", headers=[("X-Request-Id", "a"), ("X-Request-Id", "a")])
    assert is_id(reply.headers["x-request-id"])


async def test_a_request_id_is_on_every_answer_and_in_every_error():
    edge = make_edge()
    for method, path in (
        ("GET", "/nothing"),
        ("PUT", "/"),
        ("GET", "/api/messages"),
        ("POST", "/api/messages"),
    ):
        reply = await edge.call(method, path, headers=[("X-Request-Id", "mine")])
        assert reply.headers["x-request-id"] == reply.json["request_id"] == "mine"


# ---- log and metrics -------------------------------------------------------------------------------------


async def test_a_request_leaves_one_line(lines):
    reply = await make_edge().send()
    (line,) = events(lines)
    assert line.pop("ms") >= 0
    assert line == {
        "event": "http",
        "log_level": "info",
        "module": "hydrasms_edge.observe",
        "method": "POST",
        "route": "/api/messages",
        "status": 200,
        "request_id": reply.headers["x-request-id"],
    }


async def test_unknown_paths_and_methods_share_one_label(lines):
    edge = make_edge()
    for number in range(50):
        await edge.call(f"M{number}", f"/path/{number}")
        await edge.call("GET", f"/api/messages/{number}")
    assert {(line["method"], line["route"], line["status"]) for line in events(lines)} == {
        ("other", "other", 404),
        ("GET", "other", 404),
    }
    text = edge.metrics.render().decode()
    assert 'hydrasms_http_requests_total{method="other",route="other",status="404"} 50.0' in text
    assert 'hydrasms_http_requests_total{method="GET",route="other",status="404"} 50.0' in text
    assert 'hydrasms_http_seconds_count{route="other"} 100.0' in text
    assert "path" not in text


async def test_requests_are_counted_by_method_route_and_status():
    edge = make_edge()
    for key in (KEY, KEY, UNKNOWN_KEY, None):
        await edge.send(key=key)
    text = edge.metrics.render().decode()
    for status, count in ((200, 2), (401, 2)):
        assert (
            f'http_requests_total{{method="POST",route="/api/messages",status="{status}"}} {count}.0' in text
        )
    assert 'hydrasms_http_seconds_count{route="/api/messages"} 4.0' in text


async def test_no_key_number_or_body_reaches_the_log(lines, caplog):
    caplog.set_level(logging.DEBUG)
    secrets = (RECIPIENT, RECIPIENT[1:], CONTENT, KEY, UNKNOWN_KEY, TOKEN, digest_key(KEY))

    def leaks():
        written = f"{lines} {caplog.text}"
        return [secret for secret in secrets if secret in written]

    edge = make_edge()
    headers = [("Idempotency-Key", CONTENT.replace(" ", ""))]
    for key in (KEY, UNKNOWN_KEY, f"Bearer {KEY}", KEY + "x", None):
        for document in (
            {"recipient": RECIPIENT, "content": CONTENT},
            {"recipient": RECIPIENT * 9, "content": CONTENT},
            {"recipient": RECIPIENT, "content": CONTENT * 99},
            {"recipient": RECIPIENT, "content": [CONTENT]},
            b'{"recipient": "%b", "content": "\xff"}' % RECIPIENT.encode(),
        ):
            await edge.send_json(document, key=key, headers=headers)
        await edge.call("GET", f"/{RECIPIENT}?{key}", key=key)
    assert len(events(lines)) == 30
    async with served(edge.app) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(f"POST /{RECIPIENT} HTTP/1.1\r\n{KEY}: {CONTENT}\x00\r\n\r\n".encode())
        assert b" 400 " in await asyncio.wait_for(reader.readline(), 10)
        writer.close()

    async def fail(context):
        raise ValueError(f"{RECIPIENT} {CONTENT} {KEY}")

    edge.core.instead = fail
    assert (await edge.send()).status == 500
    edge.core.instead = None
    # A fault of the edge itself: it cannot be made by a request, so it is planted.
    broken = Observation(_raising(RuntimeError(f"{RECIPIENT} {CONTENT} {KEY} {TOKEN}")), Metrics())
    await make_edge_of(broken).send()
    assert len(events(lines, "internal_error")) == 2
    assert leaks() == []
    # The control: what is planted is found.
    get_logger("planted").info("http", number=RECIPIENT)
    assert leaks() == [RECIPIENT, RECIPIENT[1:]]
    logging.getLogger("planted").warning("%s", KEY)
    assert leaks() == [RECIPIENT, RECIPIENT[1:], KEY]


async def test_a_refused_service_token_is_logged(lines):
    edge = make_edge()
    edge.core.refusals[digest_key(KEY)] = InvalidServiceToken("Send the service token.")
    reply = await edge.send()
    assert (reply.status, reply.json["code"]) == (503, "UNAVAILABLE")
    assert "token" not in reply.json["response"]
    (line,) = events(lines, "core_failed")
    assert line["log_level"] == "error"
    assert (line["reason"], line["grpc_code"]) == ("INVALID_SERVICE_TOKEN", "UNAUTHENTICATED")
    assert line["request_id"] == reply.headers["x-request-id"]


# ---- when something fails inside -------------------------------------------------------------------------


def _raising(error, *, after=()):
    async def app(scope, receive, send):
        for message in after:
            await send(message)
        raise error

    return app


def make_edge_of(app):
    edge = make_edge()
    edge.app = app
    return edge


async def test_a_fault_of_ours_is_500_in_the_contracts_form_and_logged_under_its_id(lines):
    for edge in (
        make_edge_of(Observation(_raising(ZeroDivisionError("a secret")), Metrics())),
        _broken_edge(),
    ):
        lines.clear()
        reply = await edge.send(headers=[("X-Request-Id", "r-1")])
        assert reply.status == 500
        assert reply.json == {
            "response": "Internal error. The log has more under this request's id.",
            "code": "INTERNAL",
            "request_id": "r-1",
        }
        assert reply.headers["cache-control"] == "no-store"
        (line,) = events(lines, "internal_error")
        assert (line["request_id"], line["error"], line["log_level"]) == ("r-1", "ZeroDivisionError", "error")
        assert line["where"]
        assert "secret" not in str(lines)
        assert events(lines)[0]["status"] == 500


def _broken_edge():
    """An edge with a fault inside its routes, where a framework would answer in its own plain text."""

    async def broken(*_, **__):
        raise ZeroDivisionError("a secret")

    # The channel is the one thing that the edge is given and that every send goes through.
    channel: Any = Loopback()
    channel.unary_unary = lambda *_, **__: broken
    return make_edge_of(create_app(channel, Secret(TOKEN), Metrics(), EdgeSettings()))


async def test_a_fault_after_the_answer_has_begun_does_not_begin_another(lines):
    start = {"type": "http.response.start", "status": 200, "headers": []}
    reply = await make_edge_of(Observation(_raising(KeyError("x"), after=[start]), Metrics())).send()
    assert (reply.status, reply.body) == (200, b"")
    assert events(lines, "internal_error")


async def test_a_cancelled_request_is_answered_and_stays_cancelled(lines):
    edge = make_edge()
    entered = asyncio.Event()

    async def hang(context):
        entered.set()
        await asyncio.Event().wait()

    edge.core.instead = hang
    sent = []

    async def send(message):
        sent.append(message)

    async def receive():
        return {"type": "http.request", "body": b"", "more_body": False}

    headers = [(b"authorization", KEY.encode())]
    scope = {"type": "http", "method": "GET", "path": "/api/messages", "headers": headers}
    task = asyncio.create_task(edge.app(scope, receive, send))
    await asyncio.wait_for(entered.wait(), 10)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(task, 10)
    assert sent[0]["status"] == 503
    assert b'"code":"UNAVAILABLE"' in sent[1]["body"]
    assert events(lines)[0]["status"] == 503
    assert events(lines, "internal_error") == []


async def test_a_call_that_is_cancelled_below_is_answered_as_unavailable(lines):
    reply = await make_edge_of(Observation(_raising(asyncio.CancelledError()), Metrics())).send()
    assert (reply.status, reply.json["code"], reply.headers["retry-after"]) == (503, "UNAVAILABLE", "1")


async def test_a_client_that_leaves_is_noted_and_is_no_error(lines):
    reply = await make_edge_of(Observation(_raising(ClientDisconnect()), Metrics())).send()
    assert reply.status == 0
    (line,) = lines
    assert (line["event"], line["log_level"], line["status"]) == ("http", "info", 499)


async def test_what_is_not_http_passes_through():
    seen = []

    async def app(scope, receive, send):
        seen.append(scope["type"])

    edge = make_edge_of(Observation(app, Metrics()))
    await edge.app({"type": "lifespan"}, None, None)
    assert seen == ["lifespan"]
