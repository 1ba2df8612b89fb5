"""Fixtures of the end-to-end tests."""

from collections.abc import Callable
from pathlib import Path

import pytest

Note = Callable[[str], None]

_NOTES: list[str] = []


@pytest.fixture
def note(request: pytest.FixtureRequest) -> Note:
    """Says a figure that was measured, which no assertion depends on; all are listed when the run ends."""
    return lambda text: _NOTES.append(f"{request.node.name}: {text}")


@pytest.fixture
def database_url(database_target: Path | str) -> str | None:
    """What HYDRASMS_DATABASE_URL is to be: a new PostgreSQL database, or None for the data directory's own file."""
    return database_target if isinstance(database_target, str) else None


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """List what was measured."""
    if _NOTES:
        terminalreporter.section("measured")
        for text in _NOTES:
            terminalreporter.line(text)
