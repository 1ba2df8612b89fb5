"""The one place that knows every concrete class and joins them: a function for each role.

Whatever is opened is closed in reverse order when the block ends, also where a later step fails.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

import grpc

from hydrasms_app.compose.core import start_core, wake_others
from hydrasms_app.compose.edge import channel_to_core, start_edge
from hydrasms_app.compose.listeners import Listener, listener_of
from hydrasms_app.compose.operations import database_answers, start_operations
from hydrasms_app.compose.process import Process, Siblings
from hydrasms_app.compose.worker import start_worker
from hydrasms_app.database import await_database, open_database
from hydrasms_app.demo import demo_key
from hydrasms_app.settings import Settings
from hydrasms_app.token import edge_token
from hydrasms_base.log import get_logger
from hydrasms_base.secret import Secret
from hydrasms_core.db.transaction import Database
from hydrasms_edge.operations import core_serves
from hydrasms_edge.settings import EdgeSettings

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Running:
    """Everything in one process, and up: where it listens, and a channel to it that needs no socket."""

    http_port: int
    core_addresses: tuple[str, ...]
    """Where the core listens, as HYDRASMS_CORE would name it."""
    channel: grpc.aio.Channel
    token: Secret
    database: Database
    demo_key: str | None
    failure: "asyncio.Future[None]"
    """Done when a background loop has died; it then holds the reason."""


@dataclass(frozen=True, slots=True)
class RunningCore:
    """A core that serves."""

    core_addresses: tuple[str, ...]
    failure: "asyncio.Future[None]"


@dataclass(frozen=True, slots=True)
class RunningEdge:
    """An edge that serves; whether its core does is another question."""

    http_port: int
    failure: "asyncio.Future[None]"


@dataclass(frozen=True, slots=True)
class RunningWorker:
    """A worker whose loops run."""

    failure: "asyncio.Future[None]"


@contextlib.asynccontextmanager
async def running(
    settings: Settings,
    *,
    dispatcher: bool = True,
    demo: bool = False,
    alone: bool = True,
    listeners: Sequence[Listener] | None = None,
    siblings: Siblings | None = None,
) -> AsyncIterator[Running]:
    """Run everything in this process, on a database that is already up to date; raises Problem.

    Nobody is let in before the demo account, where one is wanted, is there. `alone` says that no other process
    works on the database; siblings are those that serve on the same ports. The core listens where the settings say,
    unless `listeners` says otherwise.

    Leaving the block drains: no new connection, the requests in progress answered, the batches in flight
    finished, then the database closed.
    """
    async with _process(siblings) as process:
        database = _opened(process, settings)
        wakes = (
            await start_worker(process, settings, database, alone=alone, all_in_one=True)
            if dispatcher
            else wake_others(process, settings)
        )
        core = await start_core(process, settings, database, wakes, listeners or [listener_of(settings)])
        channel = channel_to_core(process, settings, core)
        key = await demo_key(channel, core.token, settings.data_dir / "demo.key") if demo else None
        port = await start_edge(process, settings, channel, core.token)
        yield Running(port, core.addresses, channel, core.token, database, key, process.failure)
        log.info("draining")


@contextlib.asynccontextmanager
async def running_core(settings: Settings) -> AsyncIterator[RunningCore]:
    """Run a core without an edge and without loops, as soon as its database is up to date; raises Problem."""
    async with _process() as process:
        readiness = await start_operations(process, settings)
        await await_database(settings)
        database, wakes = _opened(process, settings), wake_others(process, settings)
        core = await start_core(process, settings, database, wakes, [listener_of(settings)])
        loopback = channel_to_core(process, settings, core)
        readiness.begin(process, core_serves(loopback, EdgeSettings().readiness_deadline_s))
        yield RunningCore(core.addresses, process.failure)
        log.info("draining")


@contextlib.asynccontextmanager
async def running_worker(settings: Settings) -> AsyncIterator[RunningWorker]:
    """Run the loops beside others that may do so too, as soon as the database is up to date; raises Problem."""
    async with _process() as process:
        readiness = await start_operations(process, settings)
        await await_database(settings)
        database = _opened(process, settings)
        await start_worker(process, settings, database, alone=False, all_in_one=False)
        readiness.begin(process, database_answers(database))
        yield RunningWorker(process.failure)
        log.info("draining")


@contextlib.asynccontextmanager
async def running_edge(settings: Settings, *, siblings: Siblings | None = None) -> AsyncIterator[RunningEdge]:
    """Run an edge for a core in another process, whether that is there or not; raises Problem."""
    async with _process(siblings) as process:
        channel = channel_to_core(process, settings, None)
        port = await start_edge(process, settings, channel, await edge_token(settings))
        yield RunningEdge(port, process.failure)
        log.info("draining")


@contextlib.asynccontextmanager
async def _process(siblings: Siblings | None = None) -> AsyncIterator[Process]:
    async with contextlib.AsyncExitStack() as stack:
        yield Process(stack, siblings)


def _opened(process: Process, settings: Settings) -> Database:
    database = open_database(settings)
    process.stack.push_async_callback(database.close)
    return database
