"""Transactions and verification reports, and the bounds of what an operator may ask for."""

import enum
from collections.abc import Sequence
from dataclasses import dataclass

from hydrasms_core.errors import InvalidArgument

MAX_GRANT = 10**12
MAX_REASON_CHARACTERS = 500
MAX_BALANCE = 2**62
"""The most credits that an account may hold: every refund still fits into 64 bits above it."""

MAX_DISCREPANCIES = 100
"""How many differences a report names at most."""


class TransactionKind(enum.StrEnum):
    """Why credits moved."""

    GRANT = "grant"
    TOP_UP = "top_up"
    SPEND = "spend"
    REFUND = "refund"
    ADJUSTMENT = "adjustment"


@dataclass(frozen=True, slots=True)
class Transaction:
    """A transfer as its account sees it. `amount` is in credits and signed: a spend is negative."""

    id: str
    account_id: str
    kind: TransactionKind
    amount: int
    actor: str
    created_at_ms: int
    message_id: str = ""
    payment_id: str = ""
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Granted:
    """A grant, the balance, and whether an earlier request with the same key had made it."""

    transaction: Transaction
    balance: int
    replayed: bool


class DiscrepancyKind(enum.Enum):
    """What is wrong with a ledger."""

    BALANCE = enum.auto()
    SPEND = enum.auto()
    REFUND = enum.auto()
    TRANSFER = enum.auto()
    GUARD = enum.auto()


@dataclass(frozen=True, slots=True)
class Discrepancy:
    """One difference. `subject` is the transfer, message or guard concerned; empty where none is."""

    kind: DiscrepancyKind
    account_id: str
    subject: str
    detail: str


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """What a verification found, at most 100 discrepancies, and how much it looked at."""

    discrepancies: Sequence[Discrepancy]
    accounts: int
    transfers: int
    messages: int

    @property
    def ok(self) -> bool:
        """True where nothing is wrong."""
        return not self.discrepancies


def check_grant_amount(amount: int) -> int:
    """Return an amount that may be granted; raises InvalidArgument."""
    if not 1 <= amount <= MAX_GRANT:
        raise InvalidArgument(f"A grant is of 1 to {MAX_GRANT:,} credits.", field="amount")
    return amount


def check_reason(reason: str) -> str:
    """Return a reason that may be stored; raises InvalidArgument.

    NUL and lone surrogates are refused because not every database can hold them.
    """
    if not 1 <= len(reason) <= MAX_REASON_CHARACTERS:
        raise InvalidArgument(f"Give a reason of 1 to {MAX_REASON_CHARACTERS} characters.", field="reason")
    if "\0" in reason or any("\ud800" <= character <= "\udfff" for character in reason):
        raise InvalidArgument("The reason holds a NUL or half of a surrogate pair.", field="reason")
    return reason
