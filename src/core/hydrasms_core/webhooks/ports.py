"""What webhooks need of others."""

import enum
from collections.abc import Mapping
from typing import NamedTuple, Protocol

MAX_ANSWER_BYTES = 2_000
"""How much of an answer is kept."""


class Refusal(enum.StrEnum):
    """Why a post got no answer."""

    ADDRESS = "address"
    """The host has no address that may be posted to."""
    CONNECT = "connect"
    """No connection, or none with a certificate that holds."""
    TIMEOUT = "timeout"
    """The time was up before the answer's status was there."""
    PROTOCOL = "protocol"
    """What came back is no HTTP."""


class Answered(NamedTuple):
    """A receiver answered. No redirect was followed."""

    status: int
    body: bytes
    """Its first bytes, 2,000 at most; fewer where the time was up."""
    retry_after_s: float | None
    """What its Retry-After asks for, from now, 0 or more; None where it asks for nothing, or in no known form."""
    duration_s: float


class Unanswered(NamedTuple):
    """No answer came."""

    refusal: Refusal
    failure: str
    """What went wrong, in words for the receiver's owner, 200 characters at most; it names no address of ours."""
    duration_s: float


class Poster(Protocol):
    """Posts to customers' servers, and to nobody else."""

    async def post(self, url: str, headers: Mapping[str, str], body: bytes) -> Answered | Unanswered:
        """Post once, within one budget of wall-clock time for all of it: looking up the name, connecting, TLS,
        sending, and reading the answer.

        Nothing is ever raised for what a URL, a name server or a receiver does.
        """
        ...


class KnownAccounts(Protocol):
    """Which accounts there are."""

    async def require_account(self, account_id: str) -> None:
        """Return where there is such an account; raises NotFound."""
        ...
