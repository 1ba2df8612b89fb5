"""The rules of double entry: which accounts a transfer runs between, and who can pay."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from hydrasms_billing.model import Transaction, TransactionKind
from hydrasms_core.errors import InsufficientCredits
from hydrasms_core.messaging.ports import Charge

COUNTER_ACCOUNTS: Mapping[TransactionKind, str] = {
    TransactionKind.GRANT: "granted",
    TransactionKind.TOP_UP: "sold",
    TransactionKind.SPEND: "spent",
    TransactionKind.REFUND: "spent",
    TransactionKind.ADJUSTMENT: "adjusted",
}
"""The ledger account on the other side of a customer's, by kind. A customer's own is named by the account id, so
these words, which are no ids, can never be one."""


class BalanceMissing(Exception):
    """An account that must have a balance row has none: the ledger is damaged, whoever asked."""


def parties(transaction: Transaction) -> tuple[str, str]:
    """Return the ledger accounts that a transaction debits and credits."""
    counter = COUNTER_ACCOUNTS[transaction.kind]
    if transaction.amount > 0:
        return counter, transaction.account_id
    return transaction.account_id, counter


@dataclass(frozen=True, slots=True)
class SpendPlan:
    """Which charges of a batch are paid, and why the others are not (None: it is paid), in order."""

    paid: Sequence[Charge]
    refusals: Sequence[InsufficientCredits | None]


def plan_spends(charges: Sequence[Charge], balances: Mapping[str, int]) -> SpendPlan:
    """Decide in order of arrival who can pay, each from what those before have left of the balance.

    An account that is in no balance has nothing to spend.
    """
    left = dict(balances)
    paid: list[Charge] = []
    refusals: list[InsufficientCredits | None] = []
    for charge in charges:
        balance = left.get(charge.account_id, 0)
        if balance < charge.credits:
            refusals.append(InsufficientCredits(balance, charge.credits))
            continue
        left[charge.account_id] = balance - charge.credits
        paid.append(charge)
        refusals.append(None)
    return SpendPlan(paid, refusals)


def totals(charges: Iterable[Charge]) -> dict[str, int]:
    """Return the credits of all charges by account."""
    sums: dict[str, int] = {}
    for charge in charges:
        sums[charge.account_id] = sums.get(charge.account_id, 0) + charge.credits
    return sums
