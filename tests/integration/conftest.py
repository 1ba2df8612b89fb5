"""Fixtures of the integration tests."""

import asyncio
from collections.abc import Callable, Mapping

import pytest
import uvloop

from tests.support.delivery import ObservedDatabase, RecordedCredits
from tests.support.world import World


def pytest_asyncio_loop_factories(item: pytest.Item) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Run what depends on how a loop connects and closes on the one that serves in earnest as well."""
    plain = {"asyncio": asyncio.new_event_loop}
    if item.path.name in ("test_webhook_receivers.py", "test_webhook_targets.py"):
        return {**plain, "uvloop": uvloop.new_event_loop}
    if item.path.name == "test_noisy_neighbours.py":
        return {"uvloop": uvloop.new_event_loop}
    return plain


@pytest.fixture
def observed(database):
    return ObservedDatabase(database)


@pytest.fixture
async def ledger(observed):
    return await RecordedCredits(observed).open()


@pytest.fixture
def world(observed, ledger, clock):
    return World(observed, ledger, clock)


@pytest.fixture
def make_world(observed, ledger, clock):
    return lambda carrier=None, **settings: World(observed, ledger, clock, carrier, **settings)
