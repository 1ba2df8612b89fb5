"""One request under an idempotency key, within a transaction that makes one thing."""

from dataclasses import dataclass

from hydrasms_core.db.transaction import Transaction
from hydrasms_core.idempotency.store import recall, remember


@dataclass(frozen=True, slots=True)
class Once:
    """A request that may have been made before, under an idempotency key or none."""

    account_id: str
    operation: str
    key: str | None
    fingerprint: str

    async def earlier(self, tx: Transaction) -> str | None:
        """Return the id of what the request made before; raises IdempotencyMismatch."""
        if self.key is None:
            return None
        return await recall(tx, self.account_id, self.operation, self.key, self.fingerprint)

    async def remember(self, tx: Transaction, subject_id: str, at_ms: int) -> None:
        """Keep what the request made; call `earlier` first, in the same transaction."""
        if self.key is not None:
            await remember(
                tx, self.account_id, self.operation, self.key, self.fingerprint, subject_id, at_ms=at_ms
            )
