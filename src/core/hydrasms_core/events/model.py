"""Events: what they are, and the order in which they are read."""

import base64
import binascii
import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from hydrasms_base.ids import is_id
from hydrasms_core.errors import InvalidArgument, InvalidPageToken
from hydrasms_core.messaging.model import InboundMessage

KEPT_MS = 7 * 24 * 3_600_000
"""How long events are kept."""

MAX_WAIT_MS = 30_000
DEFAULT_SIZE = 100
MAX_SIZE = 1_000

_INT64 = 1 << 63


class EventType(enum.StrEnum):
    """What kind of thing happened; the names of `hydrasms.messaging.v1.EventType` without their prefix."""

    INBOUND_RECEIVED = "inbound_received"
    MESSAGE_STATUS_CHANGED = "message_status_changed"
    WEBHOOK_DISABLED = "webhook_disabled"
    RECIPIENT_OPTED_OUT = "recipient_opted_out"
    RECIPIENT_OPTED_IN = "recipient_opted_in"
    SHORTCODE_DEACTIVATED = "shortcode_deactivated"
    SHORTCODE_REACTIVATED = "shortcode_reactivated"


ABOUT_INBOUND = frozenset(
    {EventType.INBOUND_RECEIVED, EventType.RECIPIENT_OPTED_OUT, EventType.RECIPIENT_OPTED_IN}
)
"""Those whose subject is a text from a phone."""


class Place(NamedTuple):
    """A place in the order of events: an event's, or the one before all events."""

    position: int
    id: str


BEGINNING = Place(-_INT64, "")
"""Before the oldest event that is kept."""


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened to an account.

    `inbound` is the text that it is about, for those types whose subject one is, unless that has been deleted.
    """

    place: Place
    account_id: str
    type: EventType
    subject_id: str
    detail: Mapping[str, str | bool]
    created_at_ms: int
    inbound: InboundMessage | None = None


@dataclass(frozen=True, slots=True)
class EventPage:
    """Events, oldest first, and where to go on."""

    events: Sequence[Event]
    next_place: Place


@dataclass(frozen=True, slots=True)
class EventQuery:
    """Which events are asked for. `after` is an event's id, or empty."""

    after: str = ""
    wait_ms: int = 0
    page_size: int = 0
    from_now: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.wait_ms <= MAX_WAIT_MS:
            raise InvalidArgument(f"wait_ms is 0 to {MAX_WAIT_MS:,}.", field="wait_ms")
        if not 0 <= self.page_size <= MAX_SIZE:
            raise InvalidArgument(
                f"A page holds 1 to {MAX_SIZE:,} events; 0 means {DEFAULT_SIZE}.", field="page_size"
            )

    @property
    def size(self) -> int:
        """How many events there may be at most."""
        return self.page_size or DEFAULT_SIZE


def cursor(place: Place) -> str:
    """Return a place as callers see it: opaque, in letters, digits, `-` and `_`."""
    return base64.urlsafe_b64encode(f"{place.position}.{place.id}".encode()).decode().rstrip("=")


def place_of(text: str) -> Place:
    """Return the place that a cursor stands for; raises InvalidPageToken."""
    try:
        decoded = base64.b64decode(text + "=" * (-len(text) % 4), b"-_", validate=True).decode("ascii")
        position, _, its_id = decoded.partition(".")
        place = Place(int(position), its_id)
    except (binascii.Error, ValueError):
        place = None
    # Only what `cursor` makes comes back: no other spelling of the same place.
    if place is None or cursor(place) != text or not (place == BEGINNING or _names_an_event(place)):
        raise InvalidPageToken(
            "Send the id of an event, or the next_after of an earlier answer.", field="after"
        )
    return place


def _names_an_event(place: Place) -> bool:
    return -_INT64 < place.position < _INT64 and is_id(place.id)
