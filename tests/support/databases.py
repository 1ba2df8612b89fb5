"""Databases for tests."""

from pathlib import Path

from hydrasms_app import migrate


def make_template(path: Path) -> Path:
    """Make a SQLite file with the current schema, as a server makes it."""
    migrate.upgrade(path)
    return path
