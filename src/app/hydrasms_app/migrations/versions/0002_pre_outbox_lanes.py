"""What waits for a carrier or its receipts knows its lane, and a database knows which code may still use it."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_INT64 = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Add the lane and the floor. What older code queues meanwhile goes to lane 0, which is right as well."""
    for table in ("outbox", "carrier_references"):
        op.add_column(table, sa.Column("lane", _INT64, server_default="0", nullable=False))
    op.create_table(
        "schema_floor",
        sa.Column("id", _INT64, autoincrement=False, nullable=False),
        sa.Column("revision", sa.String(length=32), nullable=False),
        sa.CheckConstraint("id = 1", name=op.f("ck_schema_floor_one_row")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_schema_floor")),
    )


def downgrade() -> None:
    """Take both away."""
    op.drop_table("schema_floor")
    for table in ("outbox", "carrier_references"):
        op.drop_column(table, "lane")
