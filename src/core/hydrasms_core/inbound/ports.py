"""What receiving needs of others."""

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple, Protocol

from hydrasms_core.consent.model import Wish
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


class Consent(Protocol):
    """What phones want of whom, inside the caller's transaction."""

    async def last_senders(
        self, tx: Transaction, numbers: Collection[str], *, hold: bool
    ) -> Mapping[str, str]:
        """Return the account whose message went last to each of the phones, where there was one.

        With `hold` nobody else changes what the phones want until the transaction ends.
        """
        ...

    async def follow(self, tx: Transaction, wishes: Sequence[Wish], *, at_ms: int) -> list[bool]:
        """Do as phones wish, in order, and tell of each wish whether it changed anything."""
        ...


class Accounts(Protocol):
    """Which accounts there are."""

    async def require_account(self, account_id: str) -> None:
        """Return where there is such an account; raises NotFound."""
        ...
