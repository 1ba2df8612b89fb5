"""The contract that every carrier keeps."""

import enum
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from hydrasms_core.messaging.text import Encoding


# Submissions and receipts are tuples and no dataclasses: thousands are made a second, at a third of the cost.
class Submission(NamedTuple):
    """A message to hand on. `attempt` counts from 1; `expires_at_ms` is when nobody wants it any more."""

    message_id: str
    sender: str
    recipient: str
    content: str
    encoding: Encoding
    segments: int
    attempt: int
    expires_at_ms: int


@dataclass(frozen=True, slots=True)
class Submitted:
    """The carrier has it, under its own reference."""

    reference: str


@dataclass(frozen=True, slots=True)
class Throttled:
    """The carrier wants it later: the same carrier again, after a while."""

    failure: str
    retry_after_ms: int = 1_000


@dataclass(frozen=True, slots=True)
class Refused:
    """The carrier will never take it: final, and the credits go back."""

    failure: str


@dataclass(frozen=True, slots=True)
class AnswerLost:
    """Nobody knows whether the carrier has it."""

    failure: str


Answer = Submitted | Throttled | Refused | AnswerLost
"""What came of handing one message on; a closed list, each member saying what to do next."""


class ReceiptStatus(enum.StrEnum):
    """What a carrier may report of a message that it took."""

    DELIVERED = "delivered"
    UNDELIVERED = "undelivered"
    EXPIRED = "expired"


class Receipt(NamedTuple):
    """A carrier's report. `reference` is the carrier's own, from `Submitted`."""

    carrier: str
    reference: str
    status: ReceiptStatus
    received_at_ms: int
    failure: str = ""


class InboundText(NamedTuple):
    """A text that a phone sent, whole. `reference` is what the carrier calls it; empty where it has no names.

    `sender` is an E.164 number, or what the carrier gave in its place. Parts of a long text are the carrier's to put
    together.
    """

    carrier: str
    reference: str
    sender: str
    content: str
    received_at_ms: int


class Reports(Protocol):
    """Where carriers bring what they learn."""

    async def receive(self, receipts: Sequence[Receipt]) -> None:
        """Take reports in; durable when this returns, so only then may a carrier acknowledge them.

        Repeated, late, unmatched or contradictory reports are welcome: each is stored and at most one moves the
        message.
        """
        ...

    async def receive_text(self, text: InboundText) -> None:
        """Take a text in; durable when this returns, so only then may a carrier acknowledge it.

        A text that was brought before, by its reference, changes nothing. Raises InvalidArgument for one out of
        bounds, and StoreUnavailable and Overloaded: then it was not taken in, and the carrier must bring it again.
        """
        ...


class Carrier(Protocol):
    """A way out to phones."""

    name: str

    async def submit(self, submissions: Sequence[Submission]) -> Sequence[Answer]:
        """Hand messages on and return one answer each, in order. One message's failure is an answer, never raised."""
        ...

    async def run(self, reports: Reports) -> None:
        """Bring in reports and texts until cancelled."""
        ...
