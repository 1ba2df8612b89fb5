"""All SQL of the ledger's verification, but for that of its guards (`audit_guards.py`).

Each question is one statement over whole tables: the database sums, sorts and compares, spilling to its temporary
files where it must, and only differences come back. None relies on an index, a trigger or a CHECK: those may be
what is missing.
"""

from dataclasses import dataclass

import sqlalchemy as sa

from hydrasms_billing.tables import TRANSFER_RULES
from hydrasms_core.db.transaction import Transaction
from hydrasms_core.messaging.model import Status

_COUNTS = sa.text(
    "SELECT (SELECT COUNT(*) FROM balances) AS accounts, (SELECT COUNT(*) FROM transfers) AS transfers,"
    " (SELECT COUNT(*) FROM messages) AS messages"
)

# The sum is taken in halves of 32 bits, because SQLite refuses a sum past 64 bits, and an altered amount may well
# bring one about; the halves' total, where it is that large, is a rounded number and equals no balance. The sign is
# the halves' too, because the least of all 64-bit numbers has no opposite.
# Accounts are among the parts, so that one without a balance is found even where it has no transfers.
_WRONG_BALANCES = sa.text(
    """
    SELECT account_id, balance, total FROM (
        SELECT account_id, MAX(balance) AS balance, SUM(high) * 4294967296 + SUM(low) AS total
        FROM (
            SELECT account_id, balance, 0 AS high, 0 AS low FROM balances
            UNION ALL
            SELECT id, NULL, 0, 0 FROM accounts
            UNION ALL
            SELECT account_id, NULL, sign * (amount >> 32), sign * (amount & 4294967295)
            FROM (
                SELECT account_id, amount, CASE WHEN credit_account = account_id THEN 1 ELSE -1 END AS sign
                FROM transfers
            ) AS changes
        ) AS parts
        GROUP BY account_id
    ) AS sums
    WHERE balance IS NULL OR balance <> total OR balance < 0
    LIMIT :most
    """
)

_BROKEN_RULE = " ".join(f"WHEN ({rule}) IS NOT TRUE THEN '{name}'" for name, rule in TRANSFER_RULES.items())
_MALFORMED_TRANSFERS = sa.text(
    "SELECT account_id, id, rule"
    f" FROM (SELECT account_id, id, CASE {_BROKEN_RULE} END AS rule FROM transfers) AS judged"
    " WHERE rule IS NOT NULL LIMIT :most"
)

# One row a message, from the message itself, its transfers and, where it expired, whether a carrier took it.
# Sorting all of them together finds what is missing on either side and what is there twice, and costs the same
# whether or not the unique index is there.
_UNSETTLED_MESSAGES = sa.text(
    """
    SELECT account_id, message_id, messages, credits, spends, spent, refunds, refunded, due FROM (
        SELECT account_id, message_id, messages, credits, spends, spent, refunds, refunded,
            CASE
                WHEN status IN (:rejected, :cancelled) THEN 1
                WHEN status = :expired AND taken = 0 THEN 1
                ELSE 0
            END AS due
        FROM (
            SELECT account_id, message_id, SUM(messages) AS messages, MAX(credits) AS credits,
                MAX(status) AS status, MAX(taken) AS taken, SUM(spends) AS spends, MAX(spent) AS spent,
                SUM(refunds) AS refunds, MAX(refunded) AS refunded
            FROM (
                SELECT account_id, id AS message_id, 1 AS messages, credits, status, 0 AS taken,
                    0 AS spends, 0 AS spent, 0 AS refunds, 0 AS refunded
                FROM messages
                UNION ALL
                SELECT account_id, message_id, 0, 0, '', 1, 0, 0, 0, 0
                FROM carrier_references
                WHERE message_id IN (SELECT id FROM messages WHERE status = :expired)
                UNION ALL
                SELECT account_id, message_id, 0, 0, '', 0,
                    CASE WHEN kind = 'spend' THEN 1 ELSE 0 END,
                    CASE WHEN kind = 'spend' THEN amount ELSE 0 END,
                    CASE WHEN kind = 'refund' THEN 1 ELSE 0 END,
                    CASE WHEN kind = 'refund' THEN amount ELSE 0 END
                FROM transfers WHERE message_id <> ''
            ) AS parts
            GROUP BY account_id, message_id
        ) AS sums
    ) AS settled
    WHERE spends <> messages OR refunds <> due
        OR (spends > 0 AND spent <> credits) OR (refunds > 0 AND refunded <> credits)
    LIMIT :most
    """
)


@dataclass(frozen=True, slots=True)
class Counts:
    """How much there is to look at."""

    accounts: int
    transfers: int
    messages: int


@dataclass(frozen=True, slots=True)
class WrongBalance:
    """An account whose balance (None: it has none) is not the sum of its transfers, or is below zero."""

    account_id: str
    balance: int | None
    total: int


@dataclass(frozen=True, slots=True)
class MalformedTransfer:
    """A transfer and the first rule of `TRANSFER_RULES` that it breaks."""

    account_id: str
    id: str
    rule: str


@dataclass(frozen=True, slots=True)
class UnsettledMessage:
    """A message whose transfers are not as they must be; with `exists` False, transfers of no message."""

    account_id: str
    message_id: str
    exists: bool
    credits: int
    spends: int
    spent: int
    refunds: int
    refunded: int
    refund_due: bool


async def count(tx: Transaction) -> Counts:
    """Count what the other questions look at."""
    row = (await tx.execute(_COUNTS)).one()
    return Counts(row.accounts, row.transfers, row.messages)


async def find_wrong_balances(tx: Transaction, most: int) -> list[WrongBalance]:
    """Return accounts whose balance is not there, below zero, or not the sum of their transfers."""
    found = await tx.execute(_WRONG_BALANCES, {"most": most})
    return [WrongBalance(row.account_id, row.balance, row.total) for row in found]


async def find_malformed_transfers(tx: Transaction, most: int) -> list[MalformedTransfer]:
    """Return transfers that a CHECK of the table would refuse."""
    found = await tx.execute(_MALFORMED_TRANSFERS, {"most": most})
    return [MalformedTransfer(row.account_id, row.id, row.rule) for row in found]


async def find_unsettled_messages(tx: Transaction, most: int) -> list[UnsettledMessage]:
    """Return messages without exactly one spend of what they cost and exactly one refund where it is due.

    Due it is for a message that was refused, cancelled, or expired before a carrier took it. Of an expired
    message its status does not tell which of the two ways of expiring it went, nor do its attempts, since a
    carrier that answers "later" takes nothing. What a carrier took has a reference, and so that decides.
    """
    found = await tx.execute(
        _UNSETTLED_MESSAGES,
        {
            "rejected": Status.REJECTED.value,
            "cancelled": Status.CANCELLED.value,
            "expired": Status.EXPIRED.value,
            "most": most,
        },
    )
    return [
        UnsettledMessage(
            account_id=row.account_id,
            message_id=row.message_id,
            exists=bool(row.messages),
            credits=row.credits,
            spends=row.spends,
            spent=row.spent,
            refunds=row.refunds,
            refunded=row.refunded,
            refund_due=bool(row.due),
        )
        for row in found
    ]
