"""What is known about one request, kept in its ASGI scope."""

from typing import cast

from starlette.types import Scope

REQUEST_ID = "hydrasms.request_id"
ROUTE = "hydrasms.route"
# The headers by name, read once: five are asked for in every request.
_HEADERS = "hydrasms.headers"
_NONE: list[bytes] = []


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
