"""What a process can be: everything in one, or a core, an edge or a worker."""

import asyncio
import contextlib
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
from hydrasms_app.serving import Up, serve_until_told
from hydrasms_app.settings import Settings
from hydrasms_base.log import configure_logging
from hydrasms_billing import wire as billing_wire
from hydrasms_billing.verify import verify_ledger

Role = Literal["core", "edge", "worker"]


def serve(
    settings: Settings, role: Role | None = None, *, dispatcher: bool = True, demo: bool = True
) -> None:
    """Run one role, or everything, in this process until SIGTERM or SIGINT, then drain; raises Problem."""
    configure_logging(settings.log_level, settings.log_format)
    with damage_told(settings):
        if role is None:
            uvloop.run(serve_until_told(_everything(settings, dispatcher=dispatcher, demo=demo)))
        else:
            uvloop.run(serve_until_told(_ROLES[role](settings)))


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
        async with running_core(settings) as server:
            yield greetings.core(settings, server), server.failure


@contextlib.asynccontextmanager
async def _worker(settings: Settings) -> AsyncIterator[Up]:
    with held_data_dir(settings.data_dir, shared=True):
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
