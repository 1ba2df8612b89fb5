"""Receivers that hold attempts up, for as long as they can and as many as they get, delay nobody else's pushes.

97 healthy receivers and some hostile ones, all on sockets of their own, share one deliverer and the real connector.
Far more waits for each hostile receiver than for any other, and was there first.
"""

import asyncio
import contextlib
import gzip
import math
import time
from collections import Counter

import pytest

from hydrasms_base.clock import SystemClock
from hydrasms_base.networks import networks
from hydrasms_core.settings import WebhookSettings
from hydrasms_core.webhooks import in_hand, sharing
from hydrasms_core.webhooks.addresses import Guard
from hydrasms_core.webhooks.connector import BUDGET_S, Connector
from hydrasms_core.webhooks.ports import MAX_ANSWER_BYTES
from hydrasms_core.webhooks.tables import webhook_attempts
from tests.support.delivery import rows_of
from tests.support.receivers import OK, answering, black_hole, endless, receiving, request_of
from tests.support.waiting import eventually
from tests.support.webhooks import PushWorld

HEALTHY = 97
WAVES = 3
WAVE_EVERY_S = 1.0
# For each hostile receiver, before each wave: in all more than may be under way at once.
FLOOD = 20
P99_S = 2.0
SMALL_BUDGET_S = 3.0
# What two busy cores may add to a time that is measured.
SLACK_S = 1.0
IN_FLIGHT = 40
HOLDING = ("tarpit", "tarpit of a head", "black hole")


class TimedPoster:
    """The connector, and for how long it was at each post, by URL."""

    def __init__(self, budget_s):
        self._connector = Connector(Guard(networks("127.0.0.0/8")), SystemClock(), budget_s=budget_s)
        self.took_s = []
        self.under_way: Counter[str] = Counter()
        self.most_under_way: Counter[str] = Counter()

    async def post(self, url, headers, body):
        began = time.monotonic()
        self.under_way[url] += 1
        self.most_under_way[url] = max(self.most_under_way[url], self.under_way[url])
        try:
            return await self._connector.post(url, headers, body)
        finally:
            self.under_way[url] -= 1
            self.took_s.append((url, time.monotonic() - began))

    async def close(self):
        await self._connector.close()


def recording(arrived):
    """Return a handler that writes down when each request arrived, and answers."""

    async def handle(reader, writer):
        while True:
            await request_of(reader)
            arrived.append(time.monotonic())
            writer.write(OK)
            await writer.drain()

    return handle


def hostile_handlers():
    """Return the hostile receivers' handlers by what they are."""
    bomb = gzip.compress(b"\0" * 20_000_000)
    ok = b"HTTP/1.1 200 OK\r\n"
    return {
        "tarpit": endless(ok + b"Content-Length: 1000\r\n\r\n", b"x", every_s=0.2)[0],
        "tarpit of a head": endless(ok + b"X: ", b"x", every_s=0.2)[0],
        "black hole": black_hole,
        "500": answering(b"HTTP/1.1 500 Oh\r\nContent-Length: 2\r\n\r\nno"),
        "1 GB": endless(ok + b"Content-Length: 1000000000\r\n\r\n", b"x" * 65_536)[0],
        "gzip bomb": answering(
            ok + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(bomb) + bomb
        ),
    }


class Street:
    """All receivers, their endpoints, and when pushes to the healthy ones were queued and arrived."""

    def __init__(self, world, hostile, holding, healthy):
        self.world = world
        self.hostile = hostile
        """URLs by endpoint."""
        self.holding = holding
        """URLs of those that hold each attempt for as long as it lasts."""
        self._healthy = healthy
        """When pushes arrived, by endpoint."""
        self._queued = []

    async def wave(self):
        """Queue pushes for all, those for the hostile first."""
        await self.world.push(*[each for each in self.hostile for _ in range(FLOOD)])
        self._queued.append(time.monotonic())
        await self.world.pushed(*self._healthy)

    def delays_s(self):
        """Return how long each push to a healthy receiver took, the shortest first; for ever where it is missing."""
        delays = []
        for arrived in self._healthy.values():
            missing = [math.inf] * (len(self._queued) - len(arrived))
            pairs = zip(self._queued, [*sorted(arrived), *missing], strict=True)
            delays += [end - begin for begin, end in pairs]
        return sorted(delays)

    def p99_s(self):
        delays = self.delays_s()
        return delays[math.ceil(len(delays) * 0.99) - 1]


@contextlib.asynccontextmanager
async def street(observed, budget_s, **settings):
    """Open all receivers, with a webhook for each."""
    poster = TimedPoster(budget_s)
    world = PushWorld(observed, SystemClock(), poster, **({"pace_s": WebhookSettings().pace_s} | settings))
    async with contextlib.AsyncExitStack() as stack:
        receivers = []

        async def endpoint(handler):
            receiver = await stack.enter_async_context(receiving(handler))
            receivers.append(receiver)
            endpoint_id, _ = await world.endpoint(receiver.url, word=f"w{receiver.port}")
            return endpoint_id, receiver.url

        hostile = {}
        holding = []
        for name, handler in hostile_handlers().items():
            endpoint_id, url = await endpoint(handler)
            hostile[endpoint_id] = url
            if name in HOLDING:
                holding.append(url)
        healthy = {}
        for _ in range(HEALTHY):
            arrived: list[float] = []
            endpoint_id, _ = await endpoint(recording(arrived))
            healthy[endpoint_id] = arrived
        try:
            yield Street(world, hostile, holding, healthy)
        finally:
            await poster.close()
            await eventually(lambda: not any(each.open for each in receivers), what="the connections' ends")


async def send_waves(there, number):
    """Let waves come at a steady pace, whatever became of the ones before, and wait for what arrives in time."""
    for _ in range(number):
        await there.wave()
        await asyncio.sleep(WAVE_EVERY_S)
    with contextlib.suppress(AssertionError):
        await eventually(lambda: there.delays_s()[-1] < math.inf, within_s=2 * P99_S)


async def check(observed, budget_s, **settings):
    async with street(observed, budget_s, **settings) as there:
        poster = there.world.poster
        async with there.world.running():
            await send_waves(there, WAVES)
        # All that had begun has ended by now, however long it was held up.
        assert there.p99_s() < P99_S
        assert there.delays_s()[-1] < math.inf
        tried = {url for url, _ in poster.took_s}
        assert tried >= set(there.hostile.values())
        took_s = [took_s for _, took_s in poster.took_s]
        assert budget_s <= max(took_s) < budget_s + SLACK_S
        assert max(poster.most_under_way.values()) == WebhookSettings().max_per_receiver
        attempts = await rows_of(there.world.database, webhook_attempts)
        assert len(attempts) == len(took_s)
        assert max(each["duration_ms"] for each in attempts) < (budget_s + SLACK_S) * 1000
        assert max(len(each["answer"]) for each in attempts) == MAX_ANSWER_BYTES


async def test_97_healthy_receivers_get_theirs_at_once_beside_hostile_ones(observed):
    await check(observed, SMALL_BUDGET_S, max_in_flight=IN_FLIGHT)


@pytest.mark.faults
async def test_97_healthy_receivers_get_theirs_at_once_whatever_is_held_up_for_a_full_budget(observed):
    await check(observed, BUDGET_S)


def in_order(queues, busy, *, free, free_for_failing, most):
    """Share attempts out as they come: all that is free to whoever has waited longest."""
    shares = {}
    for queue in queues:
        share = min(most - busy.get(queue.endpoint_id, 0), free)
        if share > 0:
            shares[queue] = share
            free -= share
    return shares


@pytest.mark.parametrize("share_out", [sharing.share_out, in_order], ids=["in turns", "as they come"])
async def test_without_a_limit_to_each_receiver_the_healthy_would_wait(observed, monkeypatch, share_out):
    """The control: taking turns is not enough, for who holds an attempt longest ends up with all of them."""
    monkeypatch.setattr(in_hand, "share_out", share_out)
    limits = {"max_in_flight": IN_FLIGHT, "max_per_receiver": IN_FLIGHT}
    async with street(observed, BUDGET_S, **limits) as there, there.world.killed():
        await there.wave()
        under_way = there.world.poster.under_way
        await eventually(lambda: sum(under_way[url] for url in there.holding) == IN_FLIGHT)
        await there.wave()
        with contextlib.suppress(AssertionError):
            await eventually(lambda: there.delays_s()[-1] < math.inf, within_s=1.5 * P99_S)
        assert there.p99_s() > P99_S
