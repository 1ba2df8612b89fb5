"""The body of a send: read within its limit and parsed without mercy."""

import json
from collections.abc import Callable
from typing import Any, NamedTuple
from urllib.parse import unquote_to_bytes

from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope

from hydrasms_edge.errors import ApiError
from hydrasms_edge.scope import header_values

MAX_FORM_FIELDS = 1_000
# More digits than this are more bytes than any limit; int() refuses numbers of thousands of digits.
_MAX_LENGTH_DIGITS = 18


class MessageFields(NamedTuple):
    """The two fields of a send, as they came; empty where missing."""

    recipient: str
    content: str


async def read_message_fields(scope: Scope, receive: Receive, max_bytes: int) -> MessageFields:
    """Return what a request asks to send.

    Raises ApiError in this order: BODY_TOO_LARGE, UNSUPPORTED_MEDIA_TYPE, INVALID_BODY; and ClientDisconnect
    where the client leaves before its body is whole.
    """
    body = await _read(scope, receive, max_bytes)
    return _parser(scope)(body)


async def _read(scope: Scope, receive: Receive, max_bytes: int) -> bytes:
    for declared in header_values(scope, b"content-length"):
        if declared.isdigit() and (len(declared) > _MAX_LENGTH_DIGITS or int(declared) > max_bytes):
            raise _too_large(max_bytes)
    gathered = bytearray()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        body = message.get("body", b"")
        if len(gathered) + len(body) > max_bytes:
            raise _too_large(max_bytes)
        if not message.get("more_body", False):
            # Nearly every body comes in one piece and is not copied.
            return bytes(gathered + body) if gathered else body
        gathered += body


def _too_large(max_bytes: int) -> ApiError:
    return ApiError("BODY_TOO_LARGE", f"The body is larger than {max_bytes} bytes.")


def _parser(scope: Scope) -> Callable[[bytes], MessageFields]:
    """Return what parses a body of the request's content type; raises ApiError: UNSUPPORTED_MEDIA_TYPE."""
    values = header_values(scope, b"content-type")
    parse = None
    if len(values) == 1:
        media_type, *parameters = values[0].lower().split(b";")
        if all(map(_is_allowed, parameters)):
            parse = _PARSERS.get(media_type.rstrip(b" \t"))
    if parse is None:
        raise ApiError(
            "UNSUPPORTED_MEDIA_TYPE",
            "Send the body as application/x-www-form-urlencoded or application/json, in UTF-8.",
        )
    return parse


def _is_allowed(parameter: bytes) -> bool:
    name, _, value = parameter.partition(b"=")
    return name.strip(b" \t") != b"charset" or value.strip(b" \t") in (b"utf-8", b'"utf-8"')


def parse_form(body: bytes) -> MessageFields:
    """Return the fields of a form, the WHATWG's but strict about UTF-8; raises ApiError: INVALID_BODY."""
    if body.count(b"&") >= MAX_FORM_FIELDS:
        raise _invalid(f"The body has more than {MAX_FORM_FIELDS} fields.")
    fields: dict[str, str] = {}
    for pair in body.split(b"&"):
        if not pair:
            continue
        encoded_name, _, encoded_value = pair.partition(b"=")
        name = _decoded(encoded_name)
        if name in fields:
            raise _invalid("The body has a field twice.")
        fields[name] = _decoded(encoded_value)
    recipient = fields.get("recipient", "")
    if recipient.startswith(" "):
        # The plus sign of a number, typed as it is, means a space in this content type.
        recipient = "+" + recipient[1:]
    return MessageFields(recipient, fields.get("content", ""))


def _decoded(encoded: bytes) -> str:
    try:
        spaced = encoded.replace(b"+", b" ")
        return (unquote_to_bytes(spaced) if b"%" in spaced else spaced).decode()
    except UnicodeDecodeError:
        raise _invalid("The body is not UTF-8.") from None


def parse_json(body: bytes) -> MessageFields:
    """Return the fields of a JSON object that has no name twice; raises ApiError: INVALID_BODY."""
    try:
        # Decoded here, because the json module would guess at UTF-16 and UTF-32.
        document = _JSON.decode(body.decode())
    except UnicodeDecodeError:
        raise _invalid("The body is not UTF-8.") from None
    except RecursionError:
        raise _invalid("The body is nested too deep.") from None
    except ValueError:
        raise _invalid("The body is not JSON, or holds a name twice.") from None
    if not isinstance(document, dict):
        raise _invalid("The body is not a JSON object.")
    return MessageFields(_text(document, "recipient"), _text(document, "content"))


def _text(document: dict[str, Any], name: str) -> str:
    value = document.get(name, "")
    if not isinstance(value, str):
        raise _invalid(f"{name} is not a string.")
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError
    return members


def _refuse_constant(_: str) -> None:
    # NaN and the infinities, which the json module takes though JSON has no such thing.
    raise ValueError


def _number(_: str) -> int:
    # No field of ours is a number, so its value does not matter and huge ones cost nothing.
    return 0


_JSON = json.JSONDecoder(
    object_pairs_hook=_object, parse_constant=_refuse_constant, parse_int=_number, parse_float=_number
)

_PARSERS: dict[bytes, Callable[[bytes], MessageFields]] = {
    b"application/x-www-form-urlencoded": parse_form,
    b"application/json": parse_json,
}


def _invalid(message: str) -> ApiError:
    return ApiError("INVALID_BODY", message)
