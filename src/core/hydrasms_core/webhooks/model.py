"""Webhooks: what they are, and the bounds of what is asked of them."""

import enum
import ipaddress
import re
from dataclasses import dataclass
from urllib.parse import SplitResult, urlsplit

from hydrasms_base.secret import Secret
from hydrasms_core.errors import InvalidArgument, InvalidWebhookUrl

MAX_URL_CHARACTERS = 2_000
MAX_AUTH_CHARACTERS = 255
DEFAULT_OVERLAP_MS = 24 * 3_600_000
MAX_OVERLAP_MS = 30 * 24 * 3_600_000
MAX_REDELIVERED = 10_000
"""How many deliveries one call tries again at most."""
SHOWN_ATTEMPTS = 20
"""How many attempts of a delivery are shown, the last ones."""

_MAX_HOST_CHARACTERS = 253
# RFC 3986 has none of these unescaped in a URL, and programs differ about what they mean there.
_NEVER = re.compile(r'[\x00-\x20\x7f"<>\\^`{|}]')
_HOST = re.compile(r"[a-z0-9_-]{1,63}(?:\.[a-z0-9_-]{1,63})*\.?", re.ASCII)
_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")


class DeliveryType(enum.StrEnum):
    """What a push is about."""

    INBOUND = "inbound"
    MESSAGE_STATUS = "message_status"
    TEST = "test"


class DeliveryStatus(enum.StrEnum):
    """Where a push is on its way. Only a dead one may be tried again."""

    PENDING = "pending"
    DELIVERED = "delivered"
    DEAD = "dead"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where pushes go, without its secrets. Times are milliseconds since 1970 UTC."""

    id: str
    """The shortcode's, or the account's for its own webhook."""
    account_id: str
    shortcode: str
    """The shortcode's word; empty for the account's own webhook."""
    url: str
    retries: bool
    failing_since_ms: int | None
    """Since when every attempt has failed; None while the last one succeeded or none was made."""
    disabled_at_ms: int | None
    disabled_reason: str
    previous_until_ms: int | None
    """Until when the signing secret before the last rotation is used beside the new one; it may be over."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """One attempt to push; `http_status` is None where no answer came."""

    number: int
    at_ms: int
    duration_ms: int
    http_status: int | None
    failure: str
    answer: str


@dataclass(frozen=True, slots=True)
class Delivery:
    """A push to an endpoint. Its id is the webhook-id, the same on every attempt."""

    id: str
    account_id: str
    endpoint_id: str
    type: DeliveryType
    subject_id: str
    status: DeliveryStatus
    last_status: int | None
    """HTTP status of the last answer; None where none came."""
    next_attempt_at_ms: int | None
    """When it is tried next; None while it is being tried, and where it is not any more."""
    created_at_ms: int
    attempt_count: int
    attempts: tuple[Attempt, ...] = ()
    """The last 20, oldest first."""


@dataclass(frozen=True, slots=True)
class Rotated:
    """A new signing secret, to be shown this once, and its endpoint."""

    endpoint: Endpoint
    signing: Secret


@dataclass(frozen=True, slots=True)
class OwnWebhook:
    """An account's own webhook, None where it was taken away, and its signing secret where this call made it."""

    endpoint: Endpoint | None
    signing: Secret | None


@dataclass(frozen=True, slots=True)
class Redelivered:
    """How many dead deliveries are tried again, and whether more of them are left."""

    number: int
    more: bool


def check_url(url: str, *, field: str) -> str:
    """Return a webhook's URL as it is kept: as it was given, but for a host that is not ASCII, which becomes IDNA.

    `field` names the request's field. Whether its host may be posted to is decided by the address that it has when
    a connection is made. Raises InvalidWebhookUrl, which never quotes the URL: it may hold a token.
    """
    if len(url) > MAX_URL_CHARACTERS:
        raise _bad_url(f"has {len(url)} characters; {MAX_URL_CHARACTERS} are the most", field)
    if _NEVER.search(url):
        raise _bad_url("holds a blank, a control character, or one that must be percent-encoded", field)
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise _bad_url("has no valid host or port", field) from None
    if parts.scheme not in ("http", "https"):
        raise _bad_url("must begin with https:// or http://", field)
    if "@" in parts.netloc:
        raise _bad_url("must not hold a user name or password", field)
    if "#" in url:
        raise _bad_url("must not have a fragment (#…)", field)
    if port == 0:
        raise _bad_url("has no valid host or port", field)
    kept = parts._replace(netloc=_netloc(parts, port, field)).geturl()
    if not kept.isascii():
        raise _bad_url("holds characters outside of ASCII after its host: percent-encode them", field)
    if len(kept) > MAX_URL_CHARACTERS:
        raise _bad_url(f"has more than {MAX_URL_CHARACTERS} characters with its host in ASCII", field)
    return kept


def check_auth(auth: Secret) -> Secret:
    """Return the word that pushes carry as "auth" as it is; raises InvalidArgument, which never quotes it."""
    word = auth.reveal()
    if not 1 <= len(word) <= MAX_AUTH_CHARACTERS:
        raise InvalidArgument(
            f"secret is 1 to {MAX_AUTH_CHARACTERS} characters; leave it out to have one made.", field="secret"
        )
    if _CONTROLS.search(word):
        raise InvalidArgument("secret holds a control character or half of a surrogate pair.", field="secret")
    return auth


def check_overlap(overlap_ms: int | None) -> int:
    """Return how long a replaced signing secret is still used, in milliseconds: None is a day; raises
    InvalidArgument.
    """
    if overlap_ms is None:
        return DEFAULT_OVERLAP_MS
    if not 0 <= overlap_ms <= MAX_OVERLAP_MS:
        raise InvalidArgument("overlap is 0 to 30 days.", field="overlap")
    return overlap_ms


def _netloc(parts: SplitResult, port: int | None, field: str) -> str:
    host = _host(parts.hostname or "", field)
    return host if port is None else f"{host}:{port}"


def _host(host: str, field: str) -> str:
    if ":" in host:
        try:
            # An interface (fe80::1%eth0) is of this machine, and nobody's business.
            return f"[{ipaddress.IPv6Address(host if '%' not in host else '')}]"
        except ValueError:
            raise _bad_url("has no valid host or port", field) from None
    if not host.isascii():
        try:
            host = host.encode("idna").decode().lower()
        except UnicodeError:
            raise _bad_url("has a host that is no domain name", field) from None
    if len(host) > _MAX_HOST_CHARACTERS or _HOST.fullmatch(host) is None:
        raise _bad_url("has a host that is no domain name", field)
    return host


def _bad_url(fault: str, field: str) -> InvalidWebhookUrl:
    return InvalidWebhookUrl(f"The webhook's URL {fault}.", field=field)
