"""Verifies the ledger: recomputes everything, changes nothing, and says in words what is wrong."""

from collections.abc import Iterator

from hydrasms_billing import audit, audit_guards
from hydrasms_billing.audit import MalformedTransfer, UnsettledMessage, WrongBalance
from hydrasms_billing.model import MAX_DISCREPANCIES, Discrepancy, DiscrepancyKind, VerifyReport
from hydrasms_core.db.transaction import Database, Transaction


async def verify_ledger(database: Database) -> VerifyReport:
    """Hold balances, transfers, messages and guards against each other, in one consistent state.

    It needs a database and nothing else, so it also runs without a core. The report names the first 100
    discrepancies.
    """
    return await database.read(_verify)


async def _verify(tx: Transaction) -> VerifyReport:
    missing = await audit_guards.find_missing_guards(tx)
    malformed = await audit.find_malformed_transfers(tx, MAX_DISCREPANCIES)
    wrong = await audit.find_wrong_balances(tx, MAX_DISCREPANCIES)
    unsettled = await audit.find_unsettled_messages(tx, MAX_DISCREPANCIES)
    counts = await audit.count(tx)
    found = [
        *(_missing_guard(name) for name in missing),
        *(_malformed(transfer) for transfer in malformed),
        *(_wrong_balance(balance) for balance in wrong),
        *(discrepancy for message in unsettled for discrepancy in _unsettled(message)),
    ]
    return VerifyReport(found[:MAX_DISCREPANCIES], counts.accounts, counts.transfers, counts.messages)


def _missing_guard(name: str) -> Discrepancy:
    detail = "The guard is not in the database, or not as it must be."
    return Discrepancy(DiscrepancyKind.GUARD, "", name, detail)


def _malformed(transfer: MalformedTransfer) -> Discrepancy:
    return Discrepancy(
        DiscrepancyKind.TRANSFER,
        transfer.account_id,
        transfer.id,
        f"The transfer breaks the ledger's rule {transfer.rule!r}.",
    )


def _wrong_balance(wrong: WrongBalance) -> Discrepancy:
    if wrong.balance is None:
        detail = f"The account has no balance; its transfers sum to {wrong.total}."
    elif wrong.balance == wrong.total:
        detail = f"The balance is {wrong.balance}, below zero."
    else:
        detail = f"The balance is {wrong.balance}; the transfers sum to {wrong.total}."
    return Discrepancy(DiscrepancyKind.BALANCE, wrong.account_id, "", detail)


def _unsettled(message: UnsettledMessage) -> Iterator[Discrepancy]:
    for kind, detail in (*_doubled(message), *_wrong_spend(message), *_wrong_refund(message)):
        yield Discrepancy(kind, message.account_id, message.message_id, detail)


def _doubled(message: UnsettledMessage) -> Iterator[tuple[DiscrepancyKind, str]]:
    if message.spends > 1:
        yield DiscrepancyKind.TRANSFER, f"The message has {message.spends} spends."
    if message.refunds > 1:
        yield DiscrepancyKind.TRANSFER, f"The message has {message.refunds} refunds."


def _wrong_spend(message: UnsettledMessage) -> Iterator[tuple[DiscrepancyKind, str]]:
    if not message.exists:
        if message.spends:
            yield DiscrepancyKind.SPEND, f"There is a spend of {message.spent} but no such message."
    elif not message.spends:
        yield DiscrepancyKind.SPEND, f"The message costs {message.credits} and has no spend."
    elif message.spent != message.credits:
        yield DiscrepancyKind.SPEND, f"The message costs {message.credits}; its spend is of {message.spent}."


def _wrong_refund(message: UnsettledMessage) -> Iterator[tuple[DiscrepancyKind, str]]:
    if not message.exists:
        if message.refunds:
            yield DiscrepancyKind.REFUND, f"There is a refund of {message.refunded} but no such message."
    elif message.refund_due and not message.refunds:
        yield DiscrepancyKind.REFUND, f"A refund of {message.credits} is due and missing."
    elif message.refunds and not message.refund_due:
        yield DiscrepancyKind.REFUND, f"There is a refund of {message.refunded} that is not due."
    elif message.refunds and message.refunded != message.credits:
        yield (
            DiscrepancyKind.REFUND,
            f"The message costs {message.credits}; its refund is of {message.refunded}.",
        )
