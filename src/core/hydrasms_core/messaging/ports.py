"""What messaging needs of others."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import NamedTuple, Protocol

from hydrasms_core.db.transaction import Transaction
from hydrasms_core.errors import DomainError, InsufficientCredits


class Charge(NamedTuple):
    """The credits of one message, to spend or to give back."""

    account_id: str
    message_id: str
    credits: int
    # Who caused it, for the ledger: "account", "service" or "system".
    actor: str


class Credits(Protocol):
    """The prepaid credits of accounts, changed inside the caller's transaction."""

    def price(self, content: str) -> int:
        """Return what a text costs, in credits."""
        ...

    async def hold(self, tx: Transaction, account_ids: Collection[str]) -> Mapping[str, int] | None:
        """Keep everybody else from changing these accounts' credits until the transaction ends; returns how many they
        are, by account, where that was looked up.
        """
        ...

    async def spend(
        self,
        tx: Transaction,
        charges: Sequence[Charge],
        *,
        at_ms: int,
        held: Mapping[str, int] | None = None,
    ) -> list[InsufficientCredits | None]:
        """Debit each charge that its account can pay, in order, and say of each why not (None: it was paid).

        A charge that cannot be paid changes nothing, and a later, smaller one of the same account may still
        be paid. `held` is what `hold` returned for these accounts or more, where no credits have moved since.
        """
        ...

    async def refund(self, tx: Transaction, charges: Sequence[Charge], *, at_ms: int) -> None:
        """Give the credits of each message back. At most once a message: a second time is an IntegrityViolation."""
        ...


class Consent(Protocol):
    """Which phones want no messages of which accounts, inside the caller's transaction."""

    async def refusing(self, tx: Transaction, pairs: Collection[tuple[str, str]]) -> set[tuple[str, str]]:
        """Return those of the (account id, E.164 number) pairs where the phone wants none of the account."""
        ...

    async def hold(self, tx: Transaction, numbers: Collection[str]) -> None:
        """Let nobody change what these phones want until the transaction ends; to be called before `refusing`."""
        ...

    async def sent(self, tx: Transaction, sent: Sequence[tuple[str, str]], *, at_ms: int) -> None:
        """Remember of (account id, E.164 number) pairs, in order, that the account's message goes to the phone."""
        ...


class Happening(NamedTuple):
    """Something that happened to an account, to be told to whoever follows its events."""

    account_id: str
    type: str
    """A name of `hydrasms.messaging.v1.EventType` in lower case, without its prefix."""
    subject_id: str
    """What it is about, by type: an inbound message, a message, an endpoint, or a shortcode's word."""
    detail: Mapping[str, str | bool] = {}
    """More about it; no number and no body."""


class Happenings(Protocol):
    """Where what happened is told, inside the caller's transaction."""

    async def record(self, tx: Transaction, happenings: Sequence[Happening], *, at_ms: int) -> None:
        """Add to the events, and queue pushes for accounts that want to have theirs pushed."""
        ...


class SendingAccounts(Protocol):
    """Which accounts there are, and which may send."""

    async def require_account(self, account_id: str) -> None:
        """Return where there is such an account; raises NotFound."""
        ...

    async def require_sending(self, account_id: str) -> None:
        """Return where the account may send; raises NotFound, AccountSuspended or SendingNotEnabled."""
        ...


class Lanes(Protocol):
    """Which accounts' sends may be written together."""

    number: int
    """How many lanes there are."""

    async def of(self, account_id: str) -> int:
        """Return the lane of an account, from 0; raises StoreUnavailable."""
        ...


class SendingKeys(Protocol):
    """Which API keys there are and whether their accounts may send, for sends that come many at once."""

    async def refresh(self) -> None:
        """Let `known_sender` know as much as it can; raises StoreUnavailable."""
        ...

    def known_sender(self, digest: str) -> str | None:
        """Return at once the account that a key speaks for, where that may send; None where one has to look.

        Raises, in this order: ApiKeyDisabled; AccountSuspended, SendingNotEnabled.
        """
        ...

    async def senders_of(self, digests: Iterable[str]) -> dict[str, str | DomainError]:
        """Look, and return for each of many keys its account, or why it may not send; raises StoreUnavailable.

        That is, in this order: UnknownApiKey, ApiKeyDisabled; NotFound, AccountSuspended, SendingNotEnabled.
        """
        ...
