"""The public contract, answer by answer.

Whether the core is in memory or behind a socket, and whether sends go there together, makes no difference.
"""

import asyncio

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from grpc_health.v1 import health_pb2

from hydrasms.messaging.v1 import message_pb2
from hydrasms_base.keys import digest_key
from hydrasms_core.errors import AccountSuspended, ApiKeyDisabled, SendingNotEnabled
from tests.support.edge import (
    BROKE_KEY,
    FIRST_BODY,
    KEY,
    MESSAGE_ID,
    TOKEN,
    UNKNOWN_KEY,
    edge_over_a_socket,
    make_edge,
)

TOO_LARGE = b"content=" + b"x" * 65_536


@pytest.fixture(params=["loopback", "socket", "socket, coalescing"])
async def edge(request):
    if request.param == "loopback":
        yield make_edge()
    else:
        async with edge_over_a_socket(coalesce=request.param != "socket") as opened:
            yield opened


def assert_refused(reply, status, code):
    assert (reply.status, reply.json["code"]) == (status, code)
    assert isinstance(reply.json["response"], str)
    assert reply.json["response"]
    assert reply.json["request_id"] == reply.headers["x-request-id"]
    assert reply.headers["content-type"] == "application/json"
    assert reply.headers["cache-control"] == "no-store"


# ---- sending ---------------------------------------------------------------------------------------------


async def test_a_send_is_answered_with_exactly_the_documented_fields_in_order(edge):
    reply = await edge.send()
    assert reply.status == 200
    expected = {
        "ID": MESSAGE_ID,
        "sent_from": "+2899682626",
        "sent_to": "+447700900000",
        "sent_to_parsed": {
            "isValid": True,
            "phoneNumber": "+447700900000",
            "countryIso2": "GB",
            "countryIso3": "GBR",
            "countryCode": "+44",
        },
        "content": "Hello from Hep.gg",
        "owner": "account-1",
        "creditCost": 1,
    }
    assert reply.json == expected
    assert list(reply.json) == list(expected)
    assert list(reply.json["sent_to_parsed"]) == [
        "isValid",
        "phoneNumber",
        "countryIso2",
        "countryIso3",
        "countryCode",
    ]
    assert "idempotent-replayed" not in reply.headers
    assert reply.headers["cache-control"] == "no-store"


async def test_form_and_json_ask_the_core_for_the_same(edge):
    assert (await edge.send()).status == 200
    document = {"recipient": "+447700900000", "content": "Hello from Hep.gg", "sender": "+1", "from": "x"}
    assert (await edge.send_json(document)).status == 200
    (first, _), (second, _) = edge.core.calls
    assert first == second


async def test_the_core_is_told_the_digest_of_the_key_the_service_token_and_the_request_id(edge):
    reply = await edge.send(headers=[("X-Request-Id", "abc-1")])
    (_, metadata) = edge.core.calls[0]
    assert metadata["authorization"] == f"Bearer {TOKEN}"
    assert metadata["hydrasms-key-digest"] == digest_key(KEY)
    assert metadata["x-request-id"] == reply.headers["x-request-id"] == "abc-1"
    assert not any(KEY in value for value in metadata.values())


async def test_a_key_with_white_space_around_it_is_that_key(edge):
    assert (await edge.send(key=f"  {KEY}\t ")).status == 200


async def test_a_replay_says_so_in_a_header(edge):
    edge.core.replay = True
    reply = await edge.send(headers=[("Idempotency-Key", "once")])
    assert reply.headers["idempotent-replayed"] == "true"
    assert edge.core.calls[0][0].idempotency_key == "once"


async def test_no_idempotency_key_is_sent_where_none_came(edge):
    await edge.send()
    assert not edge.core.calls[0][0].HasField("idempotency_key")


@pytest.mark.parametrize(
    "values",
    [[b""], [b"  "], [b"a", b"b"], [b"a", b"a"], [b"\xc3\xa9"], [b"a b"], [b"a\x7f"], [b"x" * 256]],
    ids=["empty", "blank", "two", "twice", "not ASCII", "a space", "a control", "too long"],
)
async def test_a_bad_idempotency_key_is_refused(edge, values):
    reply = await edge.send(headers=[("Idempotency-Key", value) for value in values])
    assert_refused(reply, 400, "INVALID_IDEMPOTENCY_KEY")


@pytest.mark.parametrize("value", ["x", "~" * 255, "!"])
async def test_an_idempotency_key_may_be_any_1_to_255_visible_characters(edge, value):
    assert (await edge.send(headers=[("Idempotency-Key", value)])).status == 200
    assert edge.core.calls[0][0].idempotency_key == value


async def test_the_longest_content_is_sent_and_one_character_more_is_refused(edge):
    assert (await edge.send_json({"recipient": "+447700900000", "content": "😀" * 799})).status == 200
    reply = await edge.send_json({"recipient": "+447700900000", "content": "😀" * 800})
    assert_refused(reply, 400, "INVALID_CONTENT")


async def test_too_few_credits_are_refused_with_the_figures(edge):
    reply = await edge.send(key=BROKE_KEY)
    assert_refused(reply, 400, "INSUFFICIENT_CREDITS")
    assert reply.json["balance"] == 2
    assert reply.json["creditCost"] == 3


# ---- listing ---------------------------------------------------------------------------------------------


def inbound(**more):
    return message_pb2.InboundMessage(
        id="018f-1",
        account_id="account-1",
        sender="+447700900000",
        shortcode="order",
        content="large pepperoni",
        created_at=Timestamp(seconds=1_780_049_700, nanos=7_999_999),
        **more,
    )


async def test_the_list_has_exactly_the_documented_fields_in_order(edge):
    edge.core.inbound = [inbound(webhook_status=200), inbound()]
    reply = await edge.call("GET", "/api/messages", key=KEY)
    assert reply.status == 200
    expected = {
        "id": "018f-1",
        "userID": "account-1",
        "sender": "+447700900000",
        "shortcode": "order",
        "content": "large pepperoni",
        "webhook_status": 200,
        "created_at": "2026-05-29T10:15:00.007Z",
    }
    assert reply.json == [expected, {**expected, "webhook_status": None}]
    assert [list(message) for message in reply.json] == [list(expected)] * 2


async def test_the_list_asks_for_the_newest_hundred_and_ignores_a_query_and_a_body(edge):
    edge.core.inbound = [inbound()]
    reply = await edge.call("GET", "/api/messages", key=KEY, body=b"{", content_type="text/plain")
    assert reply.status == 200
    request = edge.core.calls[0][0]
    assert (request.page_size, request.page_token, request.account_id) == (100, "", "")


async def test_an_empty_list_is_404_with_the_documented_words(edge):
    reply = await edge.call("GET", "/api/messages", key=KEY)
    assert_refused(reply, 404, "NO_MESSAGES")
    assert reply.json["response"] == "No received messages with your short code or previous short codes."


# ---- keys ------------------------------------------------------------------------------------------------

BAD_KEYS = {
    "Bearer": f"Bearer {KEY}",
    "bearer in lower case": f"bearer {KEY}",
    "a scheme alone": "Bearer",
    "wrong check digits": KEY[:-1] + ("A" if KEY[-1] != "A" else "B"),
    "too short": "abc",
    "a space inside": "abcd efgh",
    "not ASCII": "é" * 20,
    "Latin-1": b"\xe9" * 20,
    "not UTF-8": b"hsms_\xff\xfe",
    "a tab inside": "abcd\tefgh",
    "8 kB": "k" * 8192,
    "our prefix, too long": KEY + "x",
}


@pytest.mark.parametrize("key", BAD_KEYS.values(), ids=BAD_KEYS)
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_a_key_that_cannot_exist_is_401_without_a_call(edge, method, key):
    reply = await edge.call(method, "/api/messages", key=key, body=FIRST_BODY)
    assert_refused(reply, 401, "UNKNOWN_API_KEY")
    assert "alone" in reply.json["response"]
    assert edge.core.calls == []


@pytest.mark.parametrize("key", [None, "", "   "], ids=["no header", "empty", "blank"])
async def test_no_key_is_401(edge, key):
    reply = await edge.send(key=key)
    assert_refused(reply, 401, "MISSING_API_KEY")
    assert edge.core.calls == []


async def test_two_authorization_headers_are_401_even_where_both_are_right(edge):
    reply = await edge.send(headers=[("Authorization", KEY)])
    assert_refused(reply, 401, "UNKNOWN_API_KEY")
    assert "more than one" in reply.json["response"]
    assert edge.core.calls == []


REFUSALS = {
    "API_KEY_DISABLED": ApiKeyDisabled("This API key is disabled."),
    "SENDING_NOT_ENABLED": SendingNotEnabled("This account may not send yet."),
    "ACCOUNT_SUSPENDED": AccountSuspended("This account is suspended."),
}


@pytest.mark.parametrize("code", REFUSALS)
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_a_refused_account_is_403(edge, method, code):
    edge.core.refusals[digest_key(KEY)] = REFUSALS[code]
    reply = await edge.call(method, "/api/messages", key=KEY, body=FIRST_BODY, **FORM_TYPE)
    assert_refused(reply, 403, code)
    assert reply.json["response"] == REFUSALS[code].message


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_a_key_that_nobody_has_is_401(edge, method):
    reply = await edge.call(method, "/api/messages", key=UNKNOWN_KEY, body=FIRST_BODY, **FORM_TYPE)
    assert_refused(reply, 401, "UNKNOWN_API_KEY")


FORM_TYPE = {"content_type": "application/x-www-form-urlencoded"}

# ---- paths and methods -----------------------------------------------------------------------------------


async def test_the_front_page_has_exactly_two_fields_and_may_be_stored():
    reply = await make_edge().call("GET", "/")
    assert (reply.status, reply.body) == (200, b'{"data":"SMS API Online","server":"Team Hydra"}')
    assert reply.headers["content-type"] == "application/json"
    assert reply.headers["x-request-id"]
    assert "cache-control" not in reply.headers


async def test_the_front_page_answers_while_the_core_is_down():
    async with grpc.aio.insecure_channel("127.0.0.1:1") as channel:
        edge = make_edge(channel)
        assert (await edge.call("GET", "/")).status == 200
        assert (await edge.call("GET", "/livez")).status == 200
        assert_refused(await edge.call("GET", "/readyz"), 503, "UNAVAILABLE")
        assert_refused(await edge.send(), 503, "UNAVAILABLE")


@pytest.mark.parametrize("path", ["/", "/api/messages", "/livez", "/readyz", "/metrics"])
async def test_head_is_answered_as_get_without_a_body(edge, path):
    edge.core.inbound = [inbound()]
    got = await edge.call("GET", path, key=KEY)
    headed = await edge.call("HEAD", path, key=KEY)
    assert (headed.status, headed.body) == (got.status, b"")
    assert set(headed.headers) == set(got.headers)
    if path != "/metrics":
        assert headed.headers["content-length"] == str(len(got.body))


@pytest.mark.parametrize("path", ["/nothing", "/api/messages"])
async def test_head_of_an_error_has_no_body_either(edge, path):
    reply = await edge.call("HEAD", path)
    assert reply.status == (404 if path == "/nothing" else 401)
    assert reply.body == b""


@pytest.mark.parametrize("method", ["OPTIONS", "PUT", "DELETE", "PATCH", "TRACE", "get", "BREW"])
@pytest.mark.parametrize(
    ("path", "allow"),
    [
        ("/", "GET, HEAD"),
        ("/api/messages", "GET, HEAD, POST"),
        ("/livez", "GET, HEAD"),
        ("/readyz", "GET, HEAD"),
        ("/metrics", "GET, HEAD"),
    ],
)
async def test_another_method_is_405_with_those_allowed(method, path, allow):
    reply = await make_edge().call(method, path)
    assert_refused(reply, 405, "METHOD_NOT_ALLOWED")
    assert reply.headers["allow"] == allow


@pytest.mark.parametrize(
    "path",
    [
        "/api/messages/",
        "/api/messages\n",
        "/api",
        "//",
        "/livez/",
        "/API/messages",
        "*",
        "",
        "/api/messages/1",
        "/é",
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS", "HEAD"])
async def test_any_other_path_is_404(method, path):
    reply = await make_edge().call(method, path, key=KEY)
    assert reply.status == 404
    if method != "HEAD":
        assert_refused(reply, 404, "NOT_FOUND")


# ---- which error wins ------------------------------------------------------------------------------------

# Each step alone makes a request fail, in the order of the contract; `key` and `refusal` are settled last.
STEPS = {
    "path": (404, "NOT_FOUND"),
    "method": (405, "METHOD_NOT_ALLOWED"),
    "key": (401, "MISSING_API_KEY"),
    "size": (413, "BODY_TOO_LARGE"),
    "media type": (415, "UNSUPPORTED_MEDIA_TYPE"),
    "body": (400, "INVALID_BODY"),
    "unknown key": (401, "UNKNOWN_API_KEY"),
    "account": (403, "SENDING_NOT_ENABLED"),
    "idempotency key": (400, "INVALID_IDEMPOTENCY_KEY"),
    "recipient": (400, "INVALID_RECIPIENT"),
    "content": (400, "INVALID_CONTENT"),
    "balance": (400, "INSUFFICIENT_CREDITS"),
}
ORDER = list(STEPS)
PAIRS = [(first, second) for index, first in enumerate(ORDER) for second in ORDER[index + 1 :]]


async def fail_at(edge, *steps):
    """Make one request that fails at each of the steps."""
    path = "/api/message" if "path" in steps else "/api/messages"
    method = "DELETE" if "method" in steps else "POST"
    key: str | None = BROKE_KEY if "balance" in steps else KEY
    edge.core.refusals.clear()
    if "account" in steps:
        edge.core.refusals[digest_key(str(key))] = REFUSALS["SENDING_NOT_ENABLED"]
    if "unknown key" in steps:
        key = UNKNOWN_KEY
    if "key" in steps:
        key = None
    recipient = "\\ud800" if "recipient" in steps else "+447700900000"
    content = "\\udc00" if "content" in steps else "Hello"
    body = f'{{"recipient": "{recipient}", "content": "{content}"}}'.encode()
    if "body" in steps:
        body += b"}"
    if "size" in steps:
        body += b" " * 65_536
    return await edge.call(
        method,
        path,
        key=key,
        body=body,
        content_type="text/plain" if "media type" in steps else "application/json",
        headers=[("Idempotency-Key", "é")] if "idempotency key" in steps else [],
    )


@pytest.mark.parametrize("step", STEPS)
async def test_each_step_fails_on_its_own(step):
    assert_refused(await fail_at(make_edge(), step), *STEPS[step])


@pytest.mark.parametrize(("first", "second"), PAIRS, ids=[f"{one} before {two}" for one, two in PAIRS])
async def test_the_earlier_step_wins(first, second):
    assert_refused(await fail_at(make_edge(), first, second), *STEPS[first])


async def test_of_all_steps_the_first_that_is_left_wins():
    edge = make_edge()
    for index, step in enumerate(ORDER):
        assert_refused(await fail_at(edge, *ORDER[index:]), *STEPS[step])


async def test_a_body_too_large_that_does_not_say_so_still_fails_before_its_media_type():
    pieces = [b"x" * 4096] * 17
    reply = await make_edge().send(pieces, content_type="text/plain")
    assert_refused(reply, 413, "BODY_TOO_LARGE")


# ---- liveness, readiness, metrics ------------------------------------------------------------------------


async def test_the_edge_is_alive_and_ready(edge):
    for path, status in (("/livez", "alive"), ("/readyz", "ready")):
        reply = await edge.call("GET", path)
        assert (reply.status, reply.json) == (200, {"status": status})
        assert reply.headers["cache-control"] == "no-store"


async def test_an_edge_whose_core_does_not_serve_is_not_ready(edge):
    await edge.health.set("", health_pb2.HealthCheckResponse.NOT_SERVING)
    reply = await edge.call("GET", "/readyz")
    assert_refused(reply, 503, "UNAVAILABLE")
    assert reply.headers["retry-after"] == "1"


async def test_a_core_that_takes_connections_and_says_nothing_is_waited_for_no_longer_than_the_deadlines():
    opened = []
    silent = await asyncio.start_server(lambda _, writer: opened.append(writer), "127.0.0.1", 0)
    port = silent.sockets[0].getsockname()[1]
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        edge = make_edge(channel, readiness_deadline_s=0.1, deadline_s=0.1)
        assert_refused(await edge.call("GET", "/readyz"), 503, "UNAVAILABLE")
        reply = await edge.send()
        assert_refused(reply, 504, "DEADLINE_EXCEEDED")
        assert reply.headers["retry-after"] == "1"
    silent.close()
    for writer in opened:
        writer.close()


async def test_what_is_counted_is_served_for_prometheus(edge):
    await edge.call("GET", "/livez")
    reply = await edge.call("GET", "/metrics")
    assert reply.status == 200
    assert reply.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert reply.headers["cache-control"] == "no-store"
    assert b'hydrasms_http_requests_total{method="GET",route="/livez",status="200"} 1.0' in reply.body
