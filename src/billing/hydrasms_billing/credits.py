"""The ledger as messaging and accounts see it.

It implements `hydrasms_core.messaging.ports.Credits` and `hydrasms_core.accounts.ports.OpeningLedger`.
"""

from collections.abc import Collection, Mapping, Sequence

from hydrasms_base.ids import new_id
from hydrasms_billing import store
from hydrasms_billing.ledger import BalanceMissing, plan_spends, totals
from hydrasms_billing.model import Transaction, TransactionKind
from hydrasms_billing.pricing import price
from hydrasms_core.db.transaction import Transaction as OpenTransaction
from hydrasms_core.errors import InsufficientCredits
from hydrasms_core.messaging.ports import Charge

_OPENING_REASON = "Opening credits"


class LedgerCredits:
    """Moves credits inside the caller's transaction: every balance changes together with its transfers."""

    def price(self, content: str) -> int:
        """Return what a text costs, in credits."""
        return price(content)

    async def hold(self, tx: OpenTransaction, account_ids: Collection[str]) -> Mapping[str, int] | None:
        """Keep everybody else from changing these balances until the transaction ends; returns them if it looks."""
        # On SQLite nobody can.
        return await store.hold_balances(tx, account_ids) if tx.dialect == "postgresql" else None

    async def spend(
        self,
        tx: OpenTransaction,
        charges: Sequence[Charge],
        *,
        at_ms: int,
        held: Mapping[str, int] | None = None,
    ) -> list[InsufficientCredits | None]:
        """Debit each charge that its account can pay, in order, and say of each why not (None: it was paid).

        Three statements, however many charges, or two where the balances are `held` already. Planning in memory is
        safe because they are held; the table's CHECK stands behind the plan. An account without a balance has nothing
        to spend.
        """
        accounts = {charge.account_id for charge in charges}
        if held is None:
            held = await store.hold_balances(tx, accounts) if accounts else {}
        plan = plan_spends(charges, held)
        if plan.paid:
            debits = {account_id: -spent for account_id, spent in totals(plan.paid).items()}
            await store.change_balances(tx, debits, at_ms=at_ms)
            await store.insert_spends(tx, plan.paid, at_ms=at_ms)
        return list(plan.refusals)

    async def refund(self, tx: OpenTransaction, charges: Sequence[Charge], *, at_ms: int) -> None:
        """Give the credits of each message back, in three statements.

        A second refund of a message is an IntegrityViolation, an account without a balance BalanceMissing;
        either dooms the whole transaction.
        """
        if charges:
            returned = totals(charges)
            held = await store.hold_balances(tx, returned.keys())
            if len(held) != len(returned):
                raise BalanceMissing(
                    f"{len(returned) - len(held)} of {len(returned)} accounts have no balance"
                )
            await store.change_balances(tx, returned, at_ms=at_ms)
            await store.insert_refunds(tx, charges, at_ms=at_ms)

    async def open(
        self, tx: OpenTransaction, account_id: str, *, initial_credits: int, actor: str, at_ms: int
    ) -> None:
        """Give a new account its balance and, where they are more than 0, its first credits as a grant.

        An IntegrityViolation where the account has a balance already.
        """
        await store.open_balance(tx, account_id, at_ms=at_ms)
        if initial_credits:
            opening = Transaction(
                id=new_id(),
                account_id=account_id,
                kind=TransactionKind.GRANT,
                amount=initial_credits,
                actor=actor,
                created_at_ms=at_ms,
                reason=_OPENING_REASON,
            )
            await store.change_balances(tx, {account_id: initial_credits}, at_ms=at_ms)
            await store.insert_transaction(tx, opening)
