"""What is known about one request, kept in its ASGI scope."""

from typing import cast

from starlette.types import Scope

REQUEST_ID = "hydrasms.request_id"
ROUTE = "hydrasms.route"


def header_values(scope: Scope, name: bytes) -> list[bytes]:
    """Return every value sent under a header's lower-case name, without the white space around it."""
    # Not every listener strips the white space after a value.
    return [value.strip(b" \t") for key, value in scope["headers"] if key == name]


def request_id_of(scope: Scope) -> str:
    """Return the id that the request goes by."""
    return cast("str", scope[REQUEST_ID])
