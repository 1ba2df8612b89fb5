"""One run of the deliver benchmark, in its own process: `python -m bench.deliver_run WAY SECONDS FOLDER PORTS`.

WAY is `queue` or `bare`, and PORTS a file with one port a line.
"""

import asyncio
import dataclasses
import gc
import itertools
import json
import random
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import aiohttp
import orjson
import sqlalchemy as sa
import uvloop

from bench.hammer import hammer
from bench.inbound_run import AllMaySend
from bench.sample import Sample, of_latencies
from bench.servers import ServerFailed
from bench.texts import random_recipient, random_text
from hydrasms_app import migrate
from hydrasms_app.serving import tune
from hydrasms_base.clock import SystemClock
from hydrasms_base.ids import new_id
from hydrasms_base.metrics import Metrics
from hydrasms_base.networks import networks
from hydrasms_base.sealing import Sealer
from hydrasms_base.secret import Secret
from hydrasms_core.carriers.base import InboundText
from hydrasms_core.consent.service import ConsentBook
from hydrasms_core.db.sqlite import SqliteDatabase
from hydrasms_core.db.transaction import Database, Transaction
from hydrasms_core.events.bell import Bell
from hydrasms_core.events.recording import RecordedHappenings
from hydrasms_core.inbound.service import Inbound
from hydrasms_core.settings import InboundSettings, WebhookSettings
from hydrasms_core.shortcodes import store as shortcodes
from hydrasms_core.webhooks.addresses import Guard
from hydrasms_core.webhooks.connector import Connector
from hydrasms_core.webhooks.deliverer import Deliverer
from hydrasms_core.webhooks.endpoints import Endpoints
from hydrasms_core.webhooks.model import DeliveryStatus
from hydrasms_core.webhooks.ports import Answered, Poster, Unanswered
from hydrasms_core.webhooks.pushes import PushQueue
from hydrasms_core.webhooks.sealed import EndpointSecrets
from hydrasms_core.webhooks.tables import webhook_deliveries

_WARM_UP_S = 0.5
# More than can be delivered: a queue that runs dry would be measured as a slow one.
_QUEUED_A_SECOND = 10_000
_RECEIVING = 256
_PREPARED = 512

_clock = SystemClock()


class TimedPoster:
    """Another poster, with a note of how long every post took."""

    def __init__(self, poster: Poster) -> None:
        self._poster = poster
        self.latencies_s: list[float] = []
        self.failed = 0

    async def post(self, url: str, headers: Mapping[str, str], body: bytes) -> Answered | Unanswered:
        """Post once."""
        answer = await self._poster.post(url, headers, body)
        if isinstance(answer, Answered) and answer.status == 200:
            self.latencies_s.append(answer.duration_s)
        else:
            self.failed += 1
        return answer


async def open_receivers(database: Database, secrets: EndpointSecrets, ports: Sequence[int]) -> list[str]:
    """Give one account for every port a shortcode with a webhook there; returns the words."""
    endpoints = Endpoints(secrets)
    words = [f"word{number}" for number in range(len(ports))]

    async def work(tx: Transaction) -> None:
        for word, port in zip(words, ports, strict=True):
            account_id, shortcode_id, now_ms = new_id(), new_id(), _clock.now_ms()
            await shortcodes.claim(tx, shortcode_id, account_id, word, at_ms=now_ms)
            await endpoints.put(
                tx,
                account_id,
                shortcode_id,
                word=word,
                url=_url(port),
                auth=None,
                retries=True,
                at_ms=now_ms,
            )

    await database.write(work)
    return words


async def fill_queue(database: Database, sealer: Sealer, words: Sequence[str], count: int) -> None:
    """Take in texts for all the words in turn, each of which is queued for its webhook."""
    inbound = Inbound(
        database,
        AllMaySend(),
        shortcodes,
        ConsentBook(sealer),
        PushQueue(),
        RecordedHappenings(Bell()),
        _clock,
        InboundSettings(),
        _nothing,
    )
    turns = itertools.islice(itertools.cycle(words), count)

    async def receive() -> None:
        for word in turns:
            text = f"{word} {random_text()}"
            await inbound.receive(InboundText("bench", new_id(), random_recipient(), text, 0))

    await asyncio.gather(*(receive() for _ in range(_RECEIVING)))
    await inbound.drain()


async def run_queue(seconds: float, path: Path, ports: Sequence[int]) -> Sample:
    """Deliver what waits in a fresh database; what counts is recorded as delivered."""
    database = SqliteDatabase(path)
    sealer = Sealer(Secret("a key of the benchmark"))
    secrets = EndpointSecrets(sealer)
    connector = Connector(Guard(networks("127.0.0.0/8")), _clock)
    poster = TimedPoster(connector)
    try:
        words = await open_receivers(database, secrets, ports)
        count = round(_QUEUED_A_SECOND * (seconds + _WARM_UP_S))
        await fill_queue(database, sealer, words, count)
        deliverer = Deliverer(database, poster, secrets, RecordedHappenings(Bell()), _clock, Metrics())
        running = asyncio.create_task(deliverer.run())
        try:
            return await _measured(database, poster, seconds, count)
        finally:
            await deliverer.stop()
            await running
    finally:
        await connector.close()
        await database.close()


async def run_bare(seconds: float, ports: Sequence[int]) -> Sample:
    """Post what pushes say with aiohttp alone, as many at once as the deliverer has under way at most."""
    bodies = [
        orjson.dumps(
            {
                "sender": random_recipient(),
                "auth": "x" * 32,
                "shortcode": f"word{number % len(ports)}",
                "messageContent": random_text(),
            }
        )
        for number in range(_PREPARED)
    ]
    headers = {"Content-Type": "application/json"}
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:

        async def post(caller: int) -> bool:
            url = _url(ports[caller % len(ports)])
            async with session.post(url, data=random.choice(bodies), headers=headers) as response:
                await response.read()
                return response.status == 200

        return await hammer(post, callers=WebhookSettings().max_in_flight, seconds=seconds)


async def _measured(database: Database, poster: TimedPoster, seconds: float, queued: int) -> Sample:
    await asyncio.sleep(_WARM_UP_S)
    gc.collect()
    gc.freeze()
    poster.latencies_s.clear()
    before, began, cpu = await _delivered(database), time.perf_counter(), time.process_time()
    await asyncio.sleep(seconds)
    after, elapsed, cpu = (
        await _delivered(database),
        time.perf_counter() - began,
        time.process_time() - cpu,
    )
    if after == queued:
        raise ServerFailed(f"all {queued} pushes were delivered before the time was up: queue more")
    sample = of_latencies(poster.latencies_s, elapsed, errors=poster.failed, cpu_s=cpu)
    return dataclasses.replace(sample, count=after - before)


async def _delivered(database: Database) -> int:
    status = webhook_deliveries.c.status
    query = sa.select(sa.func.count()).where(status == DeliveryStatus.DELIVERED.value)

    async def work(tx: Transaction) -> int:
        return int((await tx.execute(query)).scalar_one())

    return await database.read(work)


def _url(port: int) -> str:
    return f"http://127.0.0.1:{port}/hook"


def _nothing() -> None:
    """Wake nobody."""


def main() -> None:
    """Measure what the command line names and print the sample as JSON."""
    way, seconds, folder = sys.argv[1], float(sys.argv[2]), Path(sys.argv[3])
    # As every role of the server does.
    tune()
    ports = [int(port) for port in Path(sys.argv[4]).read_text().split()]
    if way == "bare":
        sample = uvloop.run(run_bare(seconds, ports))
    else:
        path = folder / f"{way}-{new_id()}.db"
        migrate.upgrade(path)
        sample = uvloop.run(run_queue(seconds, path, ports))
        for file in folder.glob(f"{path.name}*"):
            file.unlink()
    print(json.dumps(dataclasses.asdict(sample)))


if __name__ == "__main__":
    main()
