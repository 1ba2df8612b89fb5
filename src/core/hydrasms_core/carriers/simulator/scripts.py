"""What simulated phones do, by the last four digits of their numbers. docs/howto/simulator.md is for users."""

from collections.abc import Callable
from dataclasses import dataclass

from hydrasms_core.carriers.base import ReceiptStatus

FOR_EVER = 1 << 31
"""More attempts than any message gets."""


@dataclass(frozen=True, slots=True)
class ScriptedReceipt:
    """A receipt to send, so long after the message was taken."""

    status: ReceiptStatus
    after_ms: int = 0
    failure: str = ""


def _says_nothing(_: str) -> str:
    return ""


_DELIVERED = ScriptedReceipt(ReceiptStatus.DELIVERED)
_UNDELIVERED = ScriptedReceipt(ReceiptStatus.UNDELIVERED, failure="The simulated phone is switched off.")
_LATE = ScriptedReceipt(ReceiptStatus.DELIVERED, after_ms=5_000)


@dataclass(frozen=True, slots=True)
class Script:
    """What happens to a message, in this order: refused, throttled, taken, on the phone, answered, reported, and
    texted back to, where `text_back` makes a text of the message's.
    """

    refusal: str = ""
    throttled_attempts: int = 0
    arrives: bool = True
    answered: bool = True
    receipts: tuple[ScriptedReceipt, ...] = (_DELIVERED,)
    text_back: Callable[[str], str] = _says_nothing


DELIVERED_AT_ONCE = Script()
"""What every other phone does."""

SCRIPTS = {
    "0901": Script(refusal="The simulated carrier takes nothing for this number."),
    "0902": Script(arrives=False, receipts=(_UNDELIVERED,)),
    "0903": Script(receipts=(_LATE,)),
    "0904": Script(throttled_attempts=2),
    "0905": Script(answered=False, arrives=False, receipts=()),
    "0906": Script(answered=False),
    "0907": Script(receipts=(_DELIVERED, _DELIVERED, _DELIVERED)),
    "0908": Script(receipts=(_DELIVERED, _UNDELIVERED)),
    "0909": Script(receipts=()),
    "0910": Script(throttled_attempts=FOR_EVER),
    "0911": Script(text_back=lambda _: "STOP"),
    "0912": Script(text_back=lambda _: "I am away and will read your message when I am back."),
    "0913": Script(text_back=lambda content: content.partition(" ")[0]),
}


def script_for(recipient: str) -> Script:
    """Return what the phone of a number does."""
    return SCRIPTS.get(recipient[-4:], DELIVERED_AT_ONCE)
