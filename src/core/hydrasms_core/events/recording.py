"""Recording what happened, in the transaction in which it happens."""

from collections.abc import Sequence
from typing import Protocol

from hydrasms_core.db.transaction import Transaction
from hydrasms_core.events import store
from hydrasms_core.events.bell import Bell
from hydrasms_core.messaging.ports import Happening


class Follower(Protocol):
    """Does something of its own about what happens, inside the same transaction."""

    async def __call__(self, tx: Transaction, happenings: Sequence[Happening], *, at_ms: int) -> None:
        """Take note of happenings, in order."""
        ...


class RecordedHappenings:
    """Adds what happens to the events, tells the followers, and rings once it is committed.

    It implements `messaging.ports.Happenings`.
    """

    def __init__(self, bell: Bell, followers: Sequence[Follower] = ()) -> None:
        self._bell = bell
        self._followers = tuple(followers)

    async def record(self, tx: Transaction, happenings: Sequence[Happening], *, at_ms: int) -> None:
        """Add to the events, in one statement for all; nothing where nothing happened."""
        if not happenings:
            return
        await store.add(tx, happenings, at_ms=at_ms)
        for follower in self._followers:
            await follower(tx, happenings, at_ms=at_ms)
        accounts = {happening.account_id for happening in happenings}
        tx.after_commit(lambda: self._bell.ring(accounts))
