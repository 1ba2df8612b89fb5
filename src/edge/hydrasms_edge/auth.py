"""Who calls: the API key, which is the whole value of the Authorization header; and what the edge itself shows."""

from starlette.types import Scope

from hydrasms_base.keys import digest_key, is_plausible
from hydrasms_base.secret import Secret
from hydrasms_edge.errors import ApiError
from hydrasms_edge.scope import header_values


def credential(token: Secret | None) -> tuple[tuple[str, str], ...]:
    """Return what opens the core to the edge, beside every call; nothing where the channel's certificate does."""
    return () if token is None else (("authorization", f"Bearer {token.reveal()}"),)


def key_digest(scope: Scope) -> str:
    """Return the digest of the request's API key; a key that cannot exist is refused without asking anybody.

    Raises ApiError: MISSING_API_KEY, UNKNOWN_API_KEY.
    """
    values = header_values(scope, b"authorization")
    if len(values) > 1:
        raise ApiError(
            "UNKNOWN_API_KEY", "There is more than one Authorization header. Send the API key once."
        )
    if not values or not values[0]:
        raise ApiError("MISSING_API_KEY", "Send your API key as the value of the Authorization header.")
    # Latin-1 reads any byte, and no key holds what is beyond ASCII.
    key = values[0].decode("latin-1")
    if not is_plausible(key):
        raise ApiError(
            "UNKNOWN_API_KEY",
            "This is no API key. Send the key alone as the value of the Authorization header, without Bearer "
            "or any other word before it.",
        )
    return digest_key(key)
