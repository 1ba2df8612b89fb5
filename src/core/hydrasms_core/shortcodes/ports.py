"""What shortcodes need of others."""

from collections.abc import Collection, Mapping
from typing import NamedTuple, Protocol

from hydrasms_base.secret import Secret
from hydrasms_core.db.transaction import Transaction


class Hook(NamedTuple):
    """The webhook of a shortcode, as its owner sees it."""

    url: str
    retries: bool
    disabled_at_ms: int | None
    disabled_reason: str


class MadeSecrets(NamedTuple):
    """The secrets that a call made, to be shown this once; None where it made none."""

    auth: Secret | None
    signing: Secret | None


class Hooks(Protocol):
    """The webhooks of shortcodes, changed inside the caller's transaction."""

    async def find(
        self, tx: Transaction, account_id: str, endpoint_ids: Collection[str]
    ) -> Mapping[str, Hook]:
        """Return those of the account's endpoints that exist, by id."""
        ...

    async def put(
        self,
        tx: Transaction,
        account_id: str,
        endpoint_id: str,
        *,
        word: str,
        url: str | None,
        auth: Secret | None,
        retries: bool | None,
        at_ms: int,
    ) -> MadeSecrets:
        """Create the endpoint, where there is none and a URL is given, or change what is not None of it.

        An empty URL takes it away, and with it what it has still to push. Setting a URL enables it again. Raises
        InvalidWebhookUrl, and InvalidArgument for an auth word that is out of bounds or where there is no webhook.
        """
        ...

    async def remove(self, tx: Transaction, account_id: str, endpoint_id: str, *, at_ms: int) -> None:
        """Take the endpoint away, where there is one; what it has still to push is dead."""
        ...


class Accounts(Protocol):
    """Which accounts there are."""

    async def require_account(self, account_id: str) -> None:
        """Return where there is such an account; raises NotFound."""
        ...


class Plans(Protocol):
    """The plans of accounts, inside the caller's transaction."""

    async def hold_limit(self, tx: Transaction, account_id: str) -> int:
        """Return how many shortcodes the account's plan covers, and keep the plan, and everybody else who asks this,
        waiting until the transaction ends; raises NotFound.
        """
        ...
