"""Databases for tests."""

from pathlib import Path

from hydrasms_core.db.metadata import metadata
from hydrasms_core.db.sqlite import sync_engine


def make_template(path: Path) -> Path:
    """Make a SQLite file with the current schema."""
    engine = sync_engine(path)
    metadata.create_all(engine)
    engine.dispose()
    return path
