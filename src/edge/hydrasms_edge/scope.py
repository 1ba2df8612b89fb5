"""What is known about one request, kept in its ASGI scope."""

import re
from typing import cast

from starlette.types import Scope

from hydrasms_base.ids import new_id

REQUEST_ID = "hydrasms.request_id"
ROUTE = "hydrasms.route"
# The headers by name, read once: five are asked for in every request.
_HEADERS = "hydrasms.headers"
_NONE: list[bytes] = []
_REQUEST_ID_FORM = re.compile(rb"[A-Za-z0-9._-]{1,128}")


def header_values(scope: Scope, name: bytes) -> list[bytes]:
    """Return every value sent under a header's lower-case name, without the white space around it."""
    headers = scope.get(_HEADERS)
    if headers is None:
        headers = scope[_HEADERS] = {}
        # Not every listener strips the white space after a value.
        for key, value in scope["headers"]:
            headers.setdefault(key, []).append(value.strip(b" \t"))
    return cast("list[bytes]", headers.get(name, _NONE))


def request_id_of(scope: Scope) -> str:
    """Return the id that the request goes by."""
    return cast("str", scope[REQUEST_ID])


def request_id_for(scope: Scope) -> str:
    """Return the id that a request is to go by: the one that it brings, where it may be taken over, or a new one."""
    return request_id_of_values(header_values(scope, b"x-request-id"))


def request_id_of_values(given: list[bytes]) -> str:
    """Return the id that a request is to go by that brings these values of X-Request-Id."""
    if len(given) == 1 and _REQUEST_ID_FORM.fullmatch(given[0]) is not None:
        return given[0].decode()
    return new_id()
