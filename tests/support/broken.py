"""Deliberately broken parts of the product: the controls of what tests of money must catch."""

from collections.abc import Mapping, Sequence

from hydrasms_billing import store
from hydrasms_billing.credits import LedgerCredits
from hydrasms_billing.ledger import plan_spends, totals
from hydrasms_core.db.transaction import Transaction
from hydrasms_core.errors import InsufficientCredits
from hydrasms_core.messaging.delivery import Change
from hydrasms_core.messaging.delivery_store import Key
from hydrasms_core.messaging.handover import Handover
from hydrasms_core.messaging.ports import Charge


class SpendsOnAnOldBalance(LedgerCredits):
    """Reads a balance once and decides on it ever after."""

    def __init__(self) -> None:
        self._read: dict[str, int] = {}

    async def spend(
        self,
        tx: Transaction,
        charges: Sequence[Charge],
        *,
        at_ms: int,
        held: Mapping[str, int] | None = None,
    ) -> list[InsufficientCredits | None]:
        unread = {charge.account_id for charge in charges} - self._read.keys()
        if unread:
            self._read |= await store.hold_balances(tx, unread)
        plan = plan_spends(charges, self._read)
        if plan.paid:
            debits = {account_id: -spent for account_id, spent in totals(plan.paid).items()}
            await store.change_balances(tx, debits, at_ms=at_ms)
            await store.insert_spends(tx, plan.paid, at_ms=at_ms)
        return list(plan.refusals)


class TakesTheRestForARefusedMessage(LedgerCredits):
    """Debits what is left where that does not pay the message."""

    async def spend(
        self,
        tx: Transaction,
        charges: Sequence[Charge],
        *,
        at_ms: int,
        held: Mapping[str, int] | None = None,
    ) -> list[InsufficientCredits | None]:
        refusals = await super().spend(tx, charges, at_ms=at_ms, held=held)
        for charge, refusal in zip(charges, refusals, strict=True):
            if refusal is not None:
                left = await store.hold_balances(tx, {charge.account_id})
                await store.change_balances(tx, {charge.account_id: -left[charge.account_id]}, at_ms=at_ms)
        return refusals


class SpendsWithoutTransfers(LedgerCredits):
    """Debits balances and books nothing."""

    async def spend(
        self,
        tx: Transaction,
        charges: Sequence[Charge],
        *,
        at_ms: int,
        held: Mapping[str, int] | None = None,
    ) -> list[InsufficientCredits | None]:
        plan = plan_spends(charges, await store.hold_balances(tx, {charge.account_id for charge in charges}))
        if plan.paid:
            debits = {account_id: -spent for account_id, spent in totals(plan.paid).items()}
            await store.change_balances(tx, debits, at_ms=at_ms)
        return list(plan.refusals)


class RefundsWithoutTransfers(LedgerCredits):
    """Gives credits back and books nothing, so that nothing keeps it from doing so again."""

    async def refund(self, tx: Transaction, charges: Sequence[Charge], *, at_ms: int) -> None:
        await store.change_balances(tx, totals(charges), at_ms=at_ms)


class RefundsOneCredit(LedgerCredits):
    """Gives one credit back, whatever the message has cost."""

    async def refund(self, tx: Transaction, charges: Sequence[Charge], *, at_ms: int) -> None:
        await super().refund(tx, [charge._replace(credits=1) for charge in charges], at_ms=at_ms)


class ForgetsRefunds(LedgerCredits):
    """Gives nothing back."""

    async def refund(self, tx: Transaction, charges: Sequence[Charge], *, at_ms: int) -> None:
        return


class UnfencedHandover(Handover):
    """Settles messages whether or not the claim still holds them."""

    async def _let_go(
        self, tx: Transaction, claim_id: str, changes: Sequence[tuple[Key, Change]]
    ) -> set[str]:
        await super()._let_go(tx, claim_id, changes)
        return {key[1] for key, _ in changes}
