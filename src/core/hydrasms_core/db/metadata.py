"""The one collection of tables, and the column types that they share."""

from sqlalchemy import BigInteger, Integer, MetaData, String

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "pk": "pk_%(table_name)s",
    }
)

ID = String(36).with_variant(String(36, collation="C"), "postgresql")
"""A UUIDv7 as text, or empty; pages of lists rely on its order, which no locale may change."""

MILLIS = BigInteger().with_variant(Integer(), "sqlite")
"""Milliseconds since 1970 UTC, and any other 64-bit integer."""

COUNT = MILLIS
"""Credits and other counts, 64 bits."""
