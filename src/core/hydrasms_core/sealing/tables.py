"""The table that tells keys apart."""

import sqlalchemy as sa

from hydrasms_core.db.metadata import COUNT, metadata

# What says that all processes seal with the same key: a digest that the key itself makes. One row.
sealing_checks = sa.Table(
    "sealing_checks",
    metadata,
    sa.Column("id", COUNT, nullable=False, autoincrement=False),
    sa.Column("digest", sa.String(64), nullable=False),
    sa.PrimaryKeyConstraint("id"),
    sa.CheckConstraint("id = 1", name="one_row"),
)
