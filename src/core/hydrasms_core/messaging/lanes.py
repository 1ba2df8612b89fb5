"""Lanes: which accounts' sends may be written together.

A batch never mixes lanes. On one database there is one lane; on a database whose tables are partitioned by account
there is one a partition (`db/postgres_lanes.py`), so that every statement of a batch touches one partition.
"""


class OneLane:
    """Every account is in the one lane that there is."""

    number = 1

    async def of(self, account_id: str) -> int:
        """Return the lane of an account."""
        return 0
