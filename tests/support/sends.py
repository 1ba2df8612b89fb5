"""Sends as messaging hands them to its writer."""

from hydrasms_base.ids import new_id
from hydrasms_billing.credits import LedgerCredits
from hydrasms_core.idempotency.model import fingerprint
from hydrasms_core.messaging.accept import Send
from hydrasms_core.messaging.model import Message, Status
from hydrasms_core.messaging.numbering import PhoneNumber
from hydrasms_core.messaging.text import measure

NUMBER = PhoneNumber("+447700900000", "GB", "GBR", 44)
AT_MS = 1_780_000_000_000

_ledger = LedgerCredits()


def a_send(account_id: str, content: str = "Hello", key: str | None = None) -> Send:
    """Return a checked send of a text."""
    shape = measure(content)
    message = Message(
        id=new_id(),
        account_id=account_id,
        sender="+2899682626",
        recipient=NUMBER,
        content=content,
        status=Status.QUEUED,
        credits=_ledger.price(content),
        encoding=shape.encoding,
        segments=shape.segments,
        created_at_ms=AT_MS,
        updated_at_ms=AT_MS,
        expires_at_ms=AT_MS + 1_000,
    )
    return Send(message, "account", key, "" if key is None else fingerprint(NUMBER.e164, content))


def costing(account_id: str, credits: int, key: str | None = None, letter: str = "x") -> Send:
    """Return a send that costs so many credits."""
    return a_send(account_id, letter * (credits * 160), key)
