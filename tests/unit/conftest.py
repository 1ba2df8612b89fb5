"""Which event loop a unit test runs on."""

import asyncio
from collections.abc import Callable, Mapping

import pytest
import uvloop


def pytest_asyncio_loop_factories(item: pytest.Item) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Run the tests of the HTTP server on the loop that serves in earnest, and all others on the plain one."""
    if item.path.name in ("test_edge_server.py", "test_edge_admission.py", "test_edge_events.py"):
        return {"uvloop": uvloop.new_event_loop}
    return {"asyncio": asyncio.new_event_loop}
