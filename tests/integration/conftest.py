"""Fixtures of the integration tests."""

import pytest

from tests.support.delivery import ObservedDatabase, RecordedCredits
from tests.support.world import World


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
