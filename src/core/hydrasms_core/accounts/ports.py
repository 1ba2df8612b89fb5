"""What accounts need of others."""

from typing import Protocol

from hydrasms_core.db.transaction import Transaction


class OpeningLedger(Protocol):
    """The ledger of credits, as far as a new account needs it."""

    async def open(
        self, tx: Transaction, account_id: str, *, initial_credits: int, actor: str, at_ms: int
    ) -> None:
        """Open an account's balance at zero and grant it its first credits, 0 to 10**12, where there are any.

        Whatever it raises undoes the account as well. `actor` is who the ledger records as the cause.
        """
        ...


class PlanFollowers(Protocol):
    """Who must follow when an account's plan changes."""

    async def plan_changed(self, tx: Transaction, account_id: str, *, at_ms: int) -> None:
        """Do what the account's new plan, which is stored already, makes necessary; in the same transaction."""
        ...
