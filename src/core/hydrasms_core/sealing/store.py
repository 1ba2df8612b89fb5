"""All SQL about sealing keys."""

import sqlalchemy as sa

from hydrasms_core.db.transaction import Transaction
from hydrasms_core.sealing.tables import sealing_checks

_REMEMBER = sa.text("INSERT INTO sealing_checks (id, digest) VALUES (1, :digest) ON CONFLICT (id) DO NOTHING")


async def first_check(tx: Transaction, check: str) -> str:
    """Return the check of the key that the database was first used with; where it was none, this one's."""
    await tx.execute(_REMEMBER, {"digest": check})
    known = await known_check(tx)
    assert known is not None
    return known


async def known_check(tx: Transaction) -> str | None:
    """Return the check of the key that the database was first used with; None where it was with none yet."""
    found = await tx.execute(sa.select(sealing_checks.c.digest))
    return found.scalar_one_or_none()
