"""What followers of an account's events are told about its messages."""

from collections.abc import Iterable, Sequence

from hydrasms_core.db.transaction import Transaction
from hydrasms_core.messaging.model import Status
from hydrasms_core.messaging.ports import Happening

STATUS_CHANGED = "message_status_changed"

_TOLD = frozenset(
    {
        Status.DELIVERED,
        Status.UNDELIVERED,
        Status.REJECTED,
        Status.EXPIRED,
        Status.CANCELLED,
        Status.UNKNOWN,
    }
)
"""The final statuses, and the one of a message about which its carrier stays silent."""


class Untold:
    """Tells nobody; it stands in where nobody follows events."""

    async def record(self, tx: Transaction, happenings: Sequence[Happening], *, at_ms: int) -> None:
        """Do nothing."""


def status_changes(changes: Iterable[tuple[tuple[str, str], Status, str, bool]]) -> list[Happening]:
    """Return what is told of messages' new statuses: (account and message, status, failure, whether refunded)."""
    return [
        Happening(
            account_id,
            STATUS_CHANGED,
            message_id,
            {"status": status.value, "refunded": refunded, "failure": failure},
        )
        for (account_id, message_id), status, failure, refunded in changes
        if status in _TOLD
    ]
