"""However reads, changes and time interleave, no answer is older than half a second and one read.

A simulation with a seed: look-ups begin, the key changes here and elsewhere, the clock moves, and every read of the
database stops twice, before it sees the data and before its answer arrives, until chance lets it go on.
"""

import asyncio
import random
from dataclasses import dataclass

import pytest

from hydrasms_core.accounts.directory import MAX_AGE_S, AccessDirectory
from hydrasms_core.accounts.model import KeyAccess
from hydrasms_core.errors import ApiKeyDisabled
from tests.support.accounts import FakeAccessStore
from tests.support.clock import FakeClock

DIGESTS = ("aa" * 32, "bb" * 32)
ENABLED, DISABLED = KeyAccess("account", True, None), KeyAccess("account", False, None)
STEPS = 150
SEEDS = range(150)


class SteppedDatabase:
    """Lets each read go on only when told to: once to see the data, once to bring the answer."""

    def __init__(self):
        self.stops = []

    async def read(self, work):
        await self._stop()
        answer = await work(None)
        await self._stop()
        return answer

    async def _stop(self):
        stop = asyncio.get_running_loop().create_future()
        self.stops.append(stop)
        await stop

    def let_go(self, index):
        self.stops.pop(index).set_result(None)


@dataclass
class State:
    """What a key was, from when on, and whether it was this process that made it so."""

    enabled: bool
    since: float
    until: float = float("inf")


class Simulation:
    def __init__(self, directory_class, seed):
        self.chance = random.Random(seed)
        self.clock = FakeClock()
        self.store = FakeAccessStore()
        self.database = SteppedDatabase()
        self.directory = directory_class(self.database, self.store, self.clock)
        self.history = {digest: [State(True, self.clock.monotonic())] for digest in DIGESTS}
        self.own_changes = dict.fromkeys(DIGESTS, 0)
        self.store.keys = dict.fromkeys(DIGESTS, ENABLED)
        self.lookups = set()
        self.stale = 0
        self.answers = 0

    async def run(self):
        actions = [self.look_up] * 4 + [self.go_on] * 6 + [self.wait] * 2 + [self.change]
        for _ in range(STEPS):
            self.chance.choice(actions)()
            await self.settle()
        while self.database.stops:
            self.database.let_go(0)
            await self.settle()
        await asyncio.wait_for(asyncio.gather(*self.lookups), 10)
        return self

    async def settle(self):
        for _ in range(12):
            await asyncio.sleep(0)

    def look_up(self):
        task = asyncio.create_task(self.judged(self.chance.choice(DIGESTS)))
        self.lookups.add(task)

    def go_on(self):
        if self.database.stops:
            self.database.let_go(self.chance.randrange(len(self.database.stops)))

    def wait(self):
        self.clock.advance(self.chance.choice((0.01, 0.2, 0.3, 0.51, 5.0)))

    def change(self):
        digest, here = self.chance.choice(DIGESTS), self.chance.random() < 0.3
        enabled = not self.history[digest][-1].enabled
        self.history[digest][-1].until = self.clock.monotonic()
        self.history[digest].append(State(enabled, self.clock.monotonic()))
        self.store.change_key(digest, ENABLED if enabled else DISABLED)
        if here:
            self.own_changes[digest] = len(self.history[digest]) - 1
            self.directory.recheck()

    async def judged(self, digest):
        began, first = self.clock.monotonic(), self.own_changes[digest]
        try:
            answer = bool(await self.directory.account_of(digest))
        except ApiKeyDisabled:
            answer = False
        self.answers += 1
        allowed = (state for state in self.history[digest][first:] if state.until >= began - MAX_AGE_S)
        self.stale += all(state.enabled is not answer for state in allowed)


class KeepsEveryRow(AccessDirectory):
    """Keeps a row though it was overtaken by a change."""

    def _adopt(self, version, began, epoch):
        return version < self._version or super()._adopt(version, began, epoch)


class ForgetsItsOwnChanges(AccessDirectory):
    """Takes what was being read during a change of its own for what holds after it."""

    def recheck(self):
        self._checked_at = float("-inf")


class DatesReadsByTheirArrival(AccessDirectory):
    """Trusts a version for half a second from when it arrived, not from when it was asked for."""

    def _adopt(self, version, began, epoch):
        return super()._adopt(version, self._clock.monotonic(), epoch)


class JoinsAnyRead(AccessDirectory):
    """Waits for a read that is under way, however long ago it began."""

    async def _read_once(self, name, oldest, read):
        return await super()._read_once(name, float("-inf"), read)


async def test_no_answer_is_older_than_half_a_second_and_one_read():
    simulations = [await Simulation(AccessDirectory, seed).run() for seed in SEEDS]
    assert sum(simulation.stale for simulation in simulations) == 0
    assert sum(simulation.answers for simulation in simulations) > len(SEEDS) * 20


@pytest.mark.parametrize(
    "broken", [KeepsEveryRow, ForgetsItsOwnChanges, DatesReadsByTheirArrival, JoinsAnyRead]
)
async def test_control_the_simulation_catches_a_directory_that(broken):
    for seed in SEEDS:
        simulation = await Simulation(broken, seed).run()
        if simulation.stale:
            return
    pytest.fail("the simulation did not notice")
