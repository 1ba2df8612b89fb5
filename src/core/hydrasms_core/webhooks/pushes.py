"""Queueing pushes, inside the caller's transaction; it implements `inbound.ports.Pushes`.

Nothing here wakes a deliverer: whoever commits the transaction does, afterwards.
"""

from collections.abc import Mapping, Sequence

import orjson

from hydrasms_base.clock import iso_millis
from hydrasms_base.ids import new_id
from hydrasms_core.db.transaction import Transaction
from hydrasms_core.inbound.ports import Push
from hydrasms_core.messaging.ports import Happening
from hydrasms_core.webhooks import queue_store
from hydrasms_core.webhooks.model import DeliveryType
from hydrasms_core.webhooks.queue_store import NewDelivery

_STATUS_CHANGED = "message_status_changed"
_PUSHED = frozenset({"delivered", "undelivered"})


class PushQueue:
    """Where pushes wait for a deliverer."""

    async def enqueue(self, tx: Transaction, pushes: Sequence[Push], *, at_ms: int) -> None:
        """Queue each whose endpoint exists and works; the others are passed over."""
        if pushes:
            queued = [
                NewDelivery(
                    each.account_id,
                    new_id(),
                    each.endpoint_id,
                    DeliveryType.INBOUND,
                    each.inbound_message_id,
                    "",
                )
                for each in pushes
            ]
            await queue_store.queue(tx, queued, at_ms=at_ms)

    async def status_pushes(self, tx: Transaction, happenings: Sequence[Happening], *, at_ms: int) -> bool:
        """Queue what accounts with a webhook of their own want to hear: messages that were delivered, undelivered or
        refunded. Tells whether anything was queued.

        One statement where no account has such a webhook, and none where nothing of the kind has happened.
        """
        changes = [each for each in happenings if each.type == _STATUS_CHANGED and _is_pushed(each.detail)]
        if not changes:
            return False
        # Few accounts have one, and what is pushed costs more to put together than to look for them.
        told = await queue_store.with_own_webhook(tx, {each.account_id for each in changes})
        queued = [
            NewDelivery(
                each.account_id,
                new_id(),
                each.account_id,
                DeliveryType.MESSAGE_STATUS,
                each.subject_id,
                _payload(each.subject_id, each.detail, at_ms),
            )
            for each in changes
            if each.account_id in told
        ]
        return bool(queued and await queue_store.queue(tx, queued, at_ms=at_ms))


def _is_pushed(detail: Mapping[str, str | bool]) -> bool:
    """Tell whether a change of a message's status is one to push."""
    return detail.get("status") in _PUSHED or bool(detail.get("refunded", False))


def _payload(message_id: str, detail: Mapping[str, str | bool], at_ms: int) -> str:
    """Return what is pushed about a message's new status."""
    status, refunded = detail.get("status", ""), bool(detail.get("refunded", False))
    event = {
        "type": f"message.{status if status in _PUSHED else 'refunded'}",
        "timestamp": iso_millis(at_ms),
        "data": {
            "id": message_id,
            "status": status,
            "refunded": refunded,
            "failure": detail.get("failure", ""),
        },
    }
    return orjson.dumps(event).decode()
