"""What a process can be: everything in one, or a core, an edge or a worker."""

import asyncio
import contextlib
import gc
import signal
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Literal

import uvloop

from hydrasms.billing.v1 import billing_service_pb2
from hydrasms_app import greetings, migrate
from hydrasms_app.compose import running, running_core, running_edge, running_worker
from hydrasms_app.damage import damage_told, require_sound
from hydrasms_app.data_dir import held_data_dir
from hydrasms_app.database import await_database, open_database
from hydrasms_app.settings import Settings
from hydrasms_base.log import configure_logging, get_logger
from hydrasms_billing import wire as billing_wire
from hydrasms_billing.verify import verify_ledger

_SWITCH_INTERVAL_S = 0.0005
_GC_YOUNG_OBJECTS = 50_000

Role = Literal["core", "edge", "worker"]
Up = tuple[str, "asyncio.Future[None]"]
"""A greeting, and what is done when a background loop has died."""

log = get_logger(__name__)


def serve(
    settings: Settings, role: Role | None = None, *, dispatcher: bool = True, demo: bool = True
) -> None:
    """Run one role, or everything, in this process until SIGTERM or SIGINT, then drain; raises Problem."""
    configure_logging(settings.log_level, settings.log_format)
    with damage_told(settings):
        if role is None:
            uvloop.run(_serve(_everything(settings, dispatcher=dispatcher, demo=demo)))
        else:
            uvloop.run(_serve(_ROLES[role](settings)))


def verify_offline(settings: Settings) -> billing_service_pb2.VerifyLedgerResponse:
    """Verify the ledger, and that its file is sound, without a core; raises Problem."""
    migrate.check_usable(settings.database)
    require_sound(settings)

    async def work() -> billing_service_pb2.VerifyLedgerResponse:
        database = open_database(settings)
        try:
            return billing_wire.verify_response(await verify_ledger(database))
        finally:
            await database.close()

    with damage_told(settings):
        return asyncio.run(work())


@contextlib.asynccontextmanager
async def _everything(settings: Settings, *, dispatcher: bool, demo: bool) -> AsyncIterator[Up]:
    with held_data_dir(settings.data_dir, shared=False):
        await await_database(settings)
        # The lock on the data directory keeps others from a SQLite file, and from nothing else.
        alone = isinstance(settings.database, Path)
        async with running(settings, dispatcher=dispatcher, demo=demo, alone=alone) as server:
            yield greetings.everything(settings, server), server.failure


@contextlib.asynccontextmanager
async def _core(settings: Settings) -> AsyncIterator[Up]:
    with held_data_dir(settings.data_dir, shared=True):
        await await_database(settings)
        async with running_core(settings) as server:
            yield greetings.core(settings, server), server.failure


@contextlib.asynccontextmanager
async def _worker(settings: Settings) -> AsyncIterator[Up]:
    with held_data_dir(settings.data_dir, shared=True):
        await await_database(settings)
        async with running_worker(settings) as server:
            yield greetings.worker(settings, server), server.failure


@contextlib.asynccontextmanager
async def _edge(settings: Settings) -> AsyncIterator[Up]:
    async with running_edge(settings) as server:
        yield greetings.edge(settings, server), server.failure


_ROLES: dict[Role, Callable[[Settings], contextlib.AbstractAsyncContextManager[Up]]] = {
    "core": _core,
    "edge": _edge,
    "worker": _worker,
}


async def _serve(role: contextlib.AbstractAsyncContextManager[Up]) -> None:
    stop = _StopSignal()
    try:
        async with role as (greeting, failure):
            stop.started()
            print(greeting, flush=True)  # noqa: T201 - this is what the command is asked for
            _tune()
            # A loop that died takes the server down: half a product would take messages and hand none on.
            failure.add_done_callback(lambda _: stop.received.set())
            await stop.received.wait()
    except asyncio.CancelledError:
        if not stop.received.is_set():
            raise
        # Told to stop before it was up: what was opened by then is closed again.
        return
    if failure.done():
        failure.result()


class _StopSignal:
    """SIGTERM and SIGINT: a server that is up drains, and one that still waits for something stops waiting."""

    def __init__(self) -> None:
        self.received = asyncio.Event()
        self._starting = asyncio.current_task()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, self._receive)

    def started(self) -> None:
        """Say that the server is up; from here on it is its own affair to end."""
        self._starting = None

    def _receive(self) -> None:
        self.received.set()
        starting, self._starting = self._starting, None
        if starting is not None:
            starting.cancel()


def _tune() -> None:
    """Make the interpreter one that serves for a long time."""
    # What is there now stays for ever: the collector need not walk over it again.
    gc.collect()
    gc.freeze()
    # Nor look at what is young after every 700 objects: a busy server makes that many in 20 requests, and
    # hardly any is part of a cycle.
    gc.set_threshold(_GC_YOUNG_OBJECTS, 20, 50)
    # The loop is busy and the writer's thread has an answer for many: it should not wait 5 ms for its turn.
    sys.setswitchinterval(_SWITCH_INTERVAL_S)
