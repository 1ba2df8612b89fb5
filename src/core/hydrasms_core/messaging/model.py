"""Messages: what they are, what they may become, and the bounds of what is sent."""

import enum
from dataclasses import dataclass
from typing import NamedTuple

from hydrasms_core.errors import InvalidContent
from hydrasms_core.messaging.numbering import PhoneNumber
from hydrasms_core.messaging.text import Encoding

MAX_CONTENT_CHARACTERS = 799
MAX_BATCH = 1_000


class Status(enum.StrEnum):
    """Where a message is on its way."""

    QUEUED = "queued"
    SUBMITTING = "submitting"
    SUBMITTED = "submitted"
    DELIVERED = "delivered"
    UNDELIVERED = "undelivered"
    REJECTED = "rejected"
    EXPIRED = "expired"
    CANCELLED = "cancelled"
    UNKNOWN = "unknown"


TRANSITIONS: dict[Status, frozenset[Status]] = {
    Status.QUEUED: frozenset({Status.SUBMITTING, Status.CANCELLED, Status.EXPIRED, Status.REJECTED}),
    Status.SUBMITTING: frozenset({Status.SUBMITTED, Status.QUEUED, Status.REJECTED, Status.UNKNOWN}),
    Status.SUBMITTED: frozenset({Status.DELIVERED, Status.UNDELIVERED, Status.EXPIRED, Status.UNKNOWN}),
    Status.UNKNOWN: frozenset({Status.DELIVERED, Status.UNDELIVERED, Status.EXPIRED}),
    Status.DELIVERED: frozenset(),
    Status.UNDELIVERED: frozenset(),
    Status.REJECTED: frozenset(),
    Status.EXPIRED: frozenset(),
    Status.CANCELLED: frozenset(),
}
"""The whole state machine: what a message in each state may become. Nothing else moves."""

_REFUNDED = frozenset(
    {
        (Status.SUBMITTING, Status.REJECTED),
        (Status.QUEUED, Status.CANCELLED),
        (Status.QUEUED, Status.EXPIRED),
        (Status.QUEUED, Status.REJECTED),
    }
)


def may_become(current: Status, following: Status) -> bool:
    """Tell whether a message may go from one state to another."""
    return following in TRANSITIONS[current]


def is_refunded(current: Status, following: Status) -> bool:
    """Tell whether a transition gives the credits back: no carrier took the message."""
    return (current, following) in _REFUNDED


# Drafts and messages are named tuples: a frozen dataclass of twenty fields takes five times as long to make, and
# every send makes one.
class Draft(NamedTuple):
    """What a caller asks to send, unchecked."""

    recipient: str
    content: str
    idempotency_key: str | None = None


class Forwarded(NamedTuple):
    """A draft that an edge passes on for the holder of an API key, who waits so long for what becomes of it."""

    key_digest: str
    request_id: str
    draft: Draft
    timeout_ms: int


class Message(NamedTuple):
    """A message that was accepted. Times are milliseconds since 1970 UTC."""

    id: str
    account_id: str
    sender: str
    recipient: PhoneNumber
    content: str
    status: Status
    credits: int
    encoding: Encoding
    segments: int
    created_at_ms: int
    updated_at_ms: int
    expires_at_ms: int
    carrier: str = ""
    attempts: int = 0
    duplicate_risk: bool = False
    failure: str = ""


class Accepted(NamedTuple):
    """A message that a send was answered with, and whether an earlier send had made it."""

    message: Message
    replayed: bool


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a text would cost and how it would travel."""

    credits: int
    encoding: Encoding
    segments: int
    units: int
    non_gsm_index: int | None
    non_gsm_character: str


class InboundMessage(NamedTuple):
    """A message from a phone. `account_id` is empty where no account held the shortcode."""

    id: str
    account_id: str
    sender: str
    shortcode: str
    content: str
    webhook_status: int | None
    created_at_ms: int


def check_content(content: str) -> str:
    """Return a text that may be sent as it is; raises InvalidContent.

    Characters are Unicode code points. NUL and lone surrogates are refused because not every database and no
    encoding of the wire can hold them.
    """
    if not content:
        raise InvalidContent("content is required: the text to send, 1 to 799 characters.", field="content")
    if len(content) > MAX_CONTENT_CHARACTERS:
        raise InvalidContent(
            f"content has {len(content)} characters; {MAX_CONTENT_CHARACTERS} are the most.", field="content"
        )
    if not content.isascii():
        try:
            content.encode()
        except UnicodeEncodeError:
            raise InvalidContent("content holds half of a surrogate pair.", field="content") from None
    if "\0" in content:
        raise InvalidContent("content holds a NUL character.", field="content")
    return content
