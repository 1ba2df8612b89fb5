"""Bodies: what is read of them, how strictly, and what the core is asked for."""

import json
from urllib.parse import urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hydrasms_edge.body import MAX_FORM_FIELDS, MessageFields, parse_form, parse_json
from hydrasms_edge.errors import ApiError
from tests.support.edge import FORM, KEY, make_edge

JSON = "application/json"
NUMBER = "+447700900000"


async def asked_for(body, content_type):
    """Return recipient and content of the one call that a body leads to."""
    edge = make_edge()
    await edge.send(body, content_type=content_type)
    ((request, _),) = edge.core.calls
    return request.recipient, request.content


async def assert_invalid_body(body, content_type):
    edge = make_edge()
    reply = await edge.send(body, content_type=content_type)
    assert (reply.status, reply.json["code"]) == (400, "INVALID_BODY")
    assert edge.core.calls == []


# ---- media types -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content_type",
    [
        FORM,
        f"{FORM}; charset=utf-8",
        f"{FORM};charset=UTF-8",
        f'{FORM} ; Charset="UTF-8" ',
        "Application/X-WWW-Form-Urlencoded",
        f"{FORM};",
        f"{FORM}; version=1",
    ],
)
async def test_a_content_type_may_be_written_in_any_way_that_means_utf_8(content_type):
    assert (await make_edge().send(content_type=content_type)).status == 200
    as_json = content_type.lower().replace(FORM, JSON)
    body = {"recipient": NUMBER, "content": "Hi"}
    assert (await make_edge().send(json.dumps(body).encode(), content_type=as_json)).status == 200


@pytest.mark.parametrize(
    "content_type",
    [
        None,
        "",
        ";",
        "text/plain",
        "multipart/form-data; boundary=x",
        "application/jsonx",
        "application/json-patch+json",
        "application/json, application/json",
        "application /json",
        "json",
        f"{FORM}; charset=latin-1",
        f"{FORM}; charset=utf-16",
        f"{JSON}; charset=",
        f"{JSON}; charset",
        f"{JSON}; charset =iso-8859-1",
        f"{JSON}; charset=utf-8; charset=latin-1",
        f'{JSON}; charset="utf-8',
        "é/é",
    ],
)
async def test_any_other_content_type_is_415(content_type):
    reply = await make_edge().send(content_type=content_type)
    assert (reply.status, reply.json["code"]) == (415, "UNSUPPORTED_MEDIA_TYPE")


async def test_two_content_types_are_415():
    reply = await make_edge().send(headers=[("Content-Type", FORM)])
    assert (reply.status, reply.json["code"]) == (415, "UNSUPPORTED_MEDIA_TYPE")


# ---- size ------------------------------------------------------------------------------------------------


async def test_a_body_of_exactly_the_limit_is_read():
    filler = b"recipient=%2B447700900000&content=Hi&other="
    body = filler + b"x" * (65_536 - len(filler))
    assert (await make_edge().send(body)).status == 200
    assert (await make_edge().send([body[:1], body[1:40_000], body[40_000:], b""])).status == 200


async def test_one_byte_more_is_413():
    body = b"x" * 65_537
    for sent in (body, [body], [body[:65_536], body[65_536:]]):
        reply = await make_edge().send(sent)
        assert (reply.status, reply.json["code"]) == (413, "BODY_TOO_LARGE")


async def test_a_declared_length_beyond_the_limit_is_413_without_a_byte_read():
    def untouched():
        yield b""
        raise AssertionError("the body was read")

    for length in ("65537", "9" * 5000):
        reply = await make_edge().send(untouched(), headers=[("Content-Length", length)])
        assert (reply.status, reply.json["code"]) == (413, "BODY_TOO_LARGE")


async def test_a_body_without_end_is_cut_off_after_its_limit():
    read = 0

    def endless():
        nonlocal read
        while True:
            read += 4096
            yield b"x" * 4096

    reply = await make_edge().send(endless())
    assert (reply.status, reply.json["code"]) == (413, "BODY_TOO_LARGE")
    assert read <= 65_536 + 2 * 4096


async def test_a_client_that_leaves_before_its_body_is_whole_gets_no_answer_and_causes_no_call():
    edge = make_edge()

    async def receive():
        return {"type": "http.disconnect"}

    sent: list[object] = []
    headers = [(b"authorization", KEY.encode()), (b"content-type", FORM.encode())]
    await edge.app(
        {"type": "http", "method": "POST", "path": "/api/messages", "headers": headers}, receive, sent.append
    )
    assert sent == []
    assert edge.core.calls == []


# ---- forms -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "recipient"),
    [
        (b"recipient=+447700900000", NUMBER),
        (b"recipient=%2B447700900000", NUMBER),
        (b"recipient=%20447700900000", NUMBER),
        (b"recipient=++447700900000", "+ 447700900000"),
        (b"recipient=447700900000", "447700900000"),
        (b"recipient=+%2B447700900000", "++447700900000"),
        (b"recipient=447700900000+", "447700900000 "),
        (b"recipient=", ""),
        (b"recipient", ""),
        (b"", ""),
        (b"&&&", ""),
        (b"Recipient=1", ""),
        (b"r%65cipient=1", "1"),
        (b"recipient=%0A1", "\n1"),
    ],
)
def test_one_leading_space_of_a_recipient_stands_for_the_plus_sign_in_a_form(body, recipient):
    assert parse_form(body).recipient == recipient


async def test_a_leading_space_stands_for_nothing_in_json_nor_in_content():
    body = json.dumps({"recipient": " 447700900000", "content": "x"}).encode()
    assert await asked_for(body, JSON) == (" 447700900000", "x")
    assert await asked_for(b"recipient=1&content=+x", FORM) == ("1", " x")


@pytest.mark.parametrize(
    ("encoded", "content"),
    [
        (b"Hello from Hep.gg", "Hello from Hep.gg"),
        (b"a+b%20c", "a b c"),
        (b"1%2B1=2", "1+1=2"),
        ("é😀".encode(), "é😀"),
        (b"%C3%A9%F0%9F%98%80", "é😀"),
        (b"100% sure", "100% sure"),
        (b"%", "%"),
        (b"%zz%4", "%zz%4"),
        (b"a;b", "a;b"),
        (b"%00", "\0"),
        (b"%26", "&"),
    ],
)
def test_content_is_decoded_as_forms_are(encoded, content):
    assert parse_form(b"content=" + encoded).content == content


@pytest.mark.parametrize(
    "body",
    [
        b"content=%FF",
        b"content=\xff",
        b"content=%ED%A0%80",
        b"content=%C3",
        b"content=%C0%80",
        b"\xff=1",
        b"other=%FF",
        b"content=a&content=a",
        b"recipient=1&recipient=",
        b"x=1&x=2",
        b"x&x",
        b"content=1&c%6Fntent=2",
    ],
)
async def test_a_form_that_is_not_utf_8_or_has_a_field_twice_is_refused(body):
    await assert_invalid_body(body, FORM)


async def test_a_form_has_a_bounded_number_of_fields():
    fields = [b"%d=" % number for number in range(MAX_FORM_FIELDS)]
    assert parse_form(b"&".join(fields)) == MessageFields("", "")
    await assert_invalid_body(b"&".join([*fields, b"x="]), FORM)
    await assert_invalid_body(b"&" * 60_000, FORM)


async def test_200_000_fields_are_refused():
    for content_type in (FORM, JSON):
        reply = await make_edge().send(b"a=1&" * 200_000, content_type=content_type)
        assert (reply.status, reply.json["code"]) == (413, "BODY_TOO_LARGE")


# ---- JSON ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b" ",
        b"{",
        b"[]",
        b"null",
        b'"recipient"',
        b"1",
        b'[{"recipient": "1"}]',
        b"{'recipient': '1'}",
        b'{"recipient": "1",}',
        b'{"recipient": "1"} x',
        b'{"recipient": "1"}{}',
        b'{"content": "a\nb"}',
        b'{"content": "\\x"}',
        b'{"content": "\xff"}',
        b'{"content": "\xed\xa0\x80"}',
        b'\xef\xbb\xbf{"content": "x"}',
        '{"content": "x"}'.encode("utf-16"),
        '{"content": "x"}'.encode("utf-16-le"),
        '{"content": "x"}'.encode("utf-32-be"),
        b'{"content": "x", "content": "x"}',
        b'{"content": "x", "c\\u006fntent": "y"}',
        b'{"other": {"a": 1, "a": 2}}',
        b'{"other": [[{"a": [], "b": 0, "a": {}}]]}',
        b'{"other": NaN}',
        b'{"other": -Infinity}',
        b'{"other": 01}',
        b'{"other": .5}',
        b"[" * 60_000,
        b'{"a":' * 12_000,
        b'{"other": ' + b"[" * 30_000 + b"]" * 30_000 + b"}",
    ],
    ids=lambda body: repr(body[:40]),
)
async def test_what_is_not_one_strict_json_object_is_refused(body):
    await assert_invalid_body(body, JSON)


@pytest.mark.parametrize("field", ["recipient", "content"])
@pytest.mark.parametrize("value", ["1", "null", "true", "[]", "{}", "1.5", '["x"]', "9" * 5000])
async def test_a_field_that_is_no_string_is_refused(field, value):
    other = "content" if field == "recipient" else "recipient"
    await assert_invalid_body(f'{{"{field}": {value}, "{other}": "x"}}'.encode(), JSON)


async def test_unknown_fields_are_ignored_whatever_they_hold():
    digits = "9" * 20_000
    body = f"""{{"recipient": "{NUMBER}", "content": "x", "sender": 1, "Recipient": [], "n": {digits},
        "e": 1e999999, "deep": {"[" * 50 + "]" * 50}, "": null, "\\ud800": "\\udfff"}}"""
    assert await asked_for(body.encode(), JSON) == (NUMBER, "x")


async def test_missing_fields_are_sent_empty_and_refused_by_the_core():
    for body, content_type in ((b"{}", JSON), (b"", FORM)):
        reply = await make_edge().send(body, content_type=content_type)
        assert (reply.status, reply.json["code"]) == (400, "INVALID_RECIPIENT")
    for body, content_type in (
        (json.dumps({"recipient": NUMBER}).encode(), JSON),
        (b"recipient=%2B447700900000", FORM),
    ):
        reply = await make_edge().send(body, content_type=content_type)
        assert (reply.status, reply.json["code"]) == (400, "INVALID_CONTENT")


@pytest.mark.parametrize("text", ["\\ud800", "a\\udfffb", "\\ude00\\ud83d", "é\\ud83d!"])
async def test_half_of_a_surrogate_pair_is_refused_as_the_field_it_stands_in(text):
    reply = await make_edge().send(
        f'{{"recipient": "{NUMBER}", "content": "{text}"}}'.encode(), content_type=JSON
    )
    assert (reply.status, reply.json["code"]) == (400, "INVALID_CONTENT")
    assert "surrogate" in reply.json["response"]
    reply = await make_edge().send(f'{{"recipient": "{text}", "content": "x"}}'.encode(), content_type=JSON)
    assert (reply.status, reply.json["code"]) == (400, "INVALID_RECIPIENT")


async def test_a_whole_surrogate_pair_is_one_character():
    assert await asked_for(b'{"content": "\\ud83d\\ude00"}', JSON) == ("", "😀")


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (f'{{"recipient": "{NUMBER}", "content": "a\\u0000b"}}'.encode(), JSON),
        (b"recipient=%2B447700900000&content=a%00b", FORM),
        (b"recipient=%2B447700900000&content=a\0b", FORM),
    ],
)
async def test_nul_in_content_is_refused_by_the_core(body, content_type):
    reply = await make_edge().send(body, content_type=content_type)
    assert (reply.status, reply.json["code"]) == (400, "INVALID_CONTENT")
    assert "NUL" in reply.json["response"]


# ---- properties ------------------------------------------------------------------------------------------

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)


@given(st.text(), st.text(), st.dictionaries(st.text(min_size=12), json_values, max_size=3))
def test_whatever_json_a_client_writes_its_texts_arrive_unchanged(recipient, content, others):
    document = {**others, "recipient": recipient, "content": content}
    for ascii_only in (True, False):
        body = json.dumps(document, ensure_ascii=ascii_only).encode()
        assert parse_json(body) == MessageFields(recipient, content)


@given(st.text(), st.text(), st.booleans())
def test_whatever_form_a_client_writes_its_texts_arrive_unchanged(recipient, content, reverse):
    pairs = [("recipient", recipient), ("content", content)]
    body = urlencode(pairs[::-1] if reverse else pairs).encode()
    # The one exception is the rule about the plus sign.
    expected = "+" + recipient[1:] if recipient.startswith(" ") else recipient
    assert parse_form(body) == MessageFields(expected, content)


@pytest.mark.parametrize("parse", [parse_form, parse_json])
@given(body=st.binary(max_size=300))
def test_bytes_are_parsed_or_refused_and_nothing_else(parse, body):
    reason = None
    try:
        assert isinstance(parse(body), MessageFields)
    except ApiError as error:
        reason = error.reason
    assert reason in (None, "INVALID_BODY")
