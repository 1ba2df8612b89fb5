"""A lane for every partition; `messaging/lanes.py` says what a lane is."""

from collections import OrderedDict

import sqlalchemy as sa

from hydrasms_core.db.transaction import Database, Transaction

_MAX_REMEMBERED = 100_000

_LANE_OF = sa.text(
    "SELECT lane FROM generate_series(0, CAST(:lanes AS integer) - 1) AS lane"
    " WHERE satisfies_hash_partition('messages'\\:\\:regclass, CAST(:lanes AS integer), lane,"
    " CAST(:account_id AS varchar))"
)


class PartitionLanes:
    """A lane for each of so many hash partitions of PostgreSQL, which says itself where an account belongs.

    An account never moves, so that each is asked for once.
    """

    def __init__(self, database: Database, number: int) -> None:
        self.number = number
        self._database = database
        self._known: OrderedDict[str, int] = OrderedDict()

    async def of(self, account_id: str) -> int:
        """Return the lane of an account; raises StoreUnavailable."""
        lane = self._known.get(account_id)
        if lane is None:
            lane = await self._database.read(lambda tx: self._find(tx, account_id))
            if len(self._known) >= _MAX_REMEMBERED:
                self._known.popitem(last=False)
            self._known[account_id] = lane
        return lane

    async def _find(self, tx: Transaction, account_id: str) -> int:
        found = await tx.execute(_LANE_OF, {"lanes": self.number, "account_id": account_id})
        return int(found.scalar_one())
