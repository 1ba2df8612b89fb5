"""Fixtures of the migrations' tests."""

import pytest

from tests.support import databases


@pytest.fixture
def target(database_kind, tmp_path):
    """Where an empty database is: a file, or a URL."""
    with databases.empty_of(database_kind, tmp_path) as target:
        yield target
