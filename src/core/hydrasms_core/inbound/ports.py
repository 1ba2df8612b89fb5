"""What receiving needs of others."""

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple, Protocol

from hydrasms_core.db.transaction import Transaction


class Holder(NamedTuple):
    """Who holds a shortcode."""

    account_id: str
    shortcode_id: str
    active: bool
    """False where the account's plan does not cover it: its texts are stored and not pushed."""


class Shortcodes(Protocol):
    """Who holds which shortcode."""

    async def holders(self, tx: Transaction, words: Collection[str]) -> Mapping[str, Holder]:
        """Return who holds each of these folded words; words that nobody holds are left out."""
        ...


class Push(NamedTuple):
    """An inbound message to push to the webhook of a shortcode."""

    account_id: str
    endpoint_id: str
    inbound_message_id: str


class Pushes(Protocol):
    """Where inbound messages are queued for webhooks, inside the caller's transaction."""

    async def enqueue(self, tx: Transaction, pushes: Sequence[Push], *, at_ms: int) -> None:
        """Queue each whose endpoint exists and works; the others are passed over."""
        ...
