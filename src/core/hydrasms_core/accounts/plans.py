"""What accounts' plans cover, for whoever keeps what is covered."""

from hydrasms_base.ids import is_id
from hydrasms_core.accounts import store
from hydrasms_core.accounts.model import SHORTCODE_LIMITS
from hydrasms_core.db.transaction import Transaction
from hydrasms_core.errors import NotFound


class AccountPlans:
    """The plans of accounts, inside the caller's transaction."""

    async def hold_limit(self, tx: Transaction, account_id: str) -> int:
        """Return how many shortcodes the account's plan covers, and keep the plan, and everybody else who asks this,
        waiting until the transaction ends; raises NotFound.
        """
        account = await store.hold_account(tx, account_id) if is_id(account_id) else None
        if account is None:
            raise NotFound("account")
        return SHORTCODE_LIMITS[account.plan]
