"""What stands where webhooks and events are not joined yet: it refuses what would be lost without a word."""

from collections.abc import Collection, Mapping, Sequence
from typing import NoReturn

from hydrasms_base.secret import Secret
from hydrasms_core.db.transaction import Transaction
from hydrasms_core.errors import InvalidArgument
from hydrasms_core.inbound.ports import Push
from hydrasms_core.shortcodes.ports import Hook


class NoHooks:
    """No shortcode has a webhook, and none can get one."""

    async def find(
        self, tx: Transaction, account_id: str, endpoint_ids: Collection[str]
    ) -> Mapping[str, Hook]:
        """Find none."""
        return {}

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
    ) -> NoReturn:
        """Refuse it."""
        raise InvalidArgument("This core does not push yet: leave webhook_url out.", field="webhook_url")

    async def remove(self, tx: Transaction, account_id: str, endpoint_id: str, *, at_ms: int) -> None:
        """Find nothing to take away."""


class NoPushes:
    """Nothing is pushed, for there are no webhooks."""

    async def enqueue(self, tx: Transaction, pushes: Sequence[Push], *, at_ms: int) -> None:
        """Pass all over."""
