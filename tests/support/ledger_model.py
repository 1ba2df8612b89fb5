"""What must become of credits and messages, in plain Python: the other opinion that the product is held against.

Every method says what a step of the product must do and does it here; it shares no code with the product.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

VALIDITY_MS = 600_000
LEASE_MS = 30_000
RECEIPT_TIMEOUT_MS = 120_000
RESEND_AFTER_MS = 1_000
RETRY_AFTER_MS = 1_000


@dataclass(eq=False)
class ModelMessage:
    """A message that was accepted."""

    id: str
    account_id: str
    content: str
    cost: int
    due_at_ms: int
    expires_at_ms: int
    key: str | None = None
    status: str = "queued"
    step: str | None = "submit"
    claim: str = ""
    attempts: int = 0
    at_risk: bool = False
    refunded: bool = False


@dataclass
class LedgerModel:
    """Balances, messages and keys, as they must be."""

    balances: dict[str, int] = field(default_factory=dict)
    messages: dict[str, ModelMessage] = field(default_factory=dict)
    sends: dict[tuple[str, str], ModelMessage] = field(default_factory=dict)
    """What each account's idempotency keys have sent."""
    grants: dict[tuple[str, str], int] = field(default_factory=dict)
    """What each account's idempotency keys have granted."""
    granted: int = 0
    """How many grants there were."""
    references: dict[str, ModelMessage] = field(default_factory=dict)
    parked: dict[str, list[str]] = field(default_factory=dict)
    received: int = 0
    """How many receipts there were."""

    @property
    def transfers(self) -> int:
        """How many transfers there must be."""
        return self.granted + len(self.messages) + sum(m.refunded for m in self.messages.values())

    def grant(self, account_id: str, amount: int) -> None:
        self.balances[account_id] += amount
        self.granted += 1

    def accept(self, message: ModelMessage) -> None:
        self.balances[message.account_id] -= message.cost
        self.messages[message.id] = message
        if message.key is not None:
            self.sends[message.account_id, message.key] = message

    def cancel(self, message: ModelMessage) -> None:
        self._end(message, "cancelled", refund=True)

    def claim(self, claim_id: str, living: Collection[str], now_ms: int) -> set[str]:
        """Take what is due and give up what is too late; returns the messages that the claim now holds."""
        taken = set()
        for message in self.messages.values():
            if message.step != "submit" or message.due_at_ms > now_ms or message.claim in living:
                continue
            late = message.expires_at_ms <= now_ms
            if message.status == "queued" and late:
                self._end(message, "expired", refund=True)
            elif message.status == "submitting" and (late or (message.claim and message.at_risk)):
                self._end(message, "unknown")
            else:
                message.at_risk = message.at_risk or message.status == "submitting"
                message.status = "submitting"
                message.claim, message.due_at_ms = claim_id, now_ms + LEASE_MS
                message.attempts += 1
                taken.add(message.id)
        return taken

    def held(self, claim_id: str) -> set[str]:
        """Return the messages that a claim holds."""
        return {message.id for message in self.messages.values() if message.claim == claim_id}

    def answer(self, message: ModelMessage, answer: str, now_ms: int) -> None:
        """Let a carrier's answer about a message come to whoever holds it."""
        message.claim = ""
        if answer == "taken":
            message.status, message.step = "submitted", "receipt"
            message.due_at_ms = now_ms + RECEIPT_TIMEOUT_MS
            reference = reference_of(message.id, message.attempts)
            self.references[reference] = message
            for status in self.parked.pop(reference, []):
                self._report(message, status)
        elif answer == "refused":
            self._end(message, "rejected", refund=True)
        elif answer == "throttled":
            message.status = "submitting" if message.at_risk else "queued"
            pause_ms = RETRY_AFTER_MS * 2 ** (message.attempts - 1)
            message.due_at_ms = min(now_ms + pause_ms, message.expires_at_ms)
        elif message.at_risk:
            self._end(message, "unknown")
        else:
            message.due_at_ms = min(now_ms + RESEND_AFTER_MS, message.expires_at_ms)

    def restart(self, now_ms: int) -> None:
        """Let whoever held claims be dead."""
        for message in self.messages.values():
            if message.claim:
                message.due_at_ms = now_ms

    def give_up_receipts(self, now_ms: int) -> int:
        """Stop waiting for receipts that are overdue; returns how many those are."""
        overdue = [m for m in self.messages.values() if m.step == "receipt" and m.due_at_ms <= now_ms]
        for message in overdue:
            self._end(message, "unknown")
        return len(overdue)

    def report(self, reference: str, statuses: Sequence[str]) -> None:
        """Let receipts come in."""
        self.received += len(statuses)
        for status in statuses:
            if reference in self.references:
                self._report(self.references[reference], status)
            else:
                self.parked.setdefault(reference, []).append(status)

    def _report(self, message: ModelMessage, status: str) -> None:
        if message.status in ("submitted", "unknown"):
            self._end(message, status)

    def _end(self, message: ModelMessage, status: str, *, refund: bool = False) -> None:
        message.status, message.step, message.claim = status, None, ""
        if refund:
            assert not message.refunded
            message.refunded = True
            self.balances[message.account_id] += message.cost


def reference_of(message_id: str, attempt: int) -> str:
    """Return what the carrier of these tests calls a message that it took."""
    return f"{message_id}-{attempt}"
