"""What a process can be: so far everything in one."""

import asyncio
import gc
import signal
import sys
from pathlib import Path

import uvloop

from hydrasms.billing.v1 import billing_service_pb2
from hydrasms_app import migrate
from hydrasms_app.compose import Running, running
from hydrasms_app.data_dir import owned_data_dir
from hydrasms_app.database import open_database, prepare_database
from hydrasms_app.settings import Settings
from hydrasms_base.log import configure_logging, get_logger
from hydrasms_billing import wire as billing_wire
from hydrasms_billing.verify import verify_ledger

_SWITCH_INTERVAL_S = 0.0005
_GC_YOUNG_OBJECTS = 50_000
_FIRST_BODY = '-d "recipient=+447700900000" -d "content=Hello from Hep.gg"'

log = get_logger(__name__)


def serve(settings: Settings, *, dispatcher: bool = True, demo: bool = True) -> None:
    """Run everything in this process until SIGTERM or SIGINT, then drain; raises Problem."""
    configure_logging(settings.log_level, settings.log_format)
    with owned_data_dir(settings.data_dir):
        prepare_database(settings)
        uvloop.run(_serve(settings, dispatcher=dispatcher, demo=demo))


def upgrade_database(settings: Settings, phase: migrate.Phase | None) -> str:
    """Bring the database up to date and return its revision; raises Problem."""
    target = settings.database
    if isinstance(target, Path):
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    return migrate.upgrade(target, phase=phase)


def verify_offline(settings: Settings) -> billing_service_pb2.VerifyLedgerResponse:
    """Verify the ledger without a core; raises Problem."""
    migrate.check_usable(settings.database)

    async def work() -> billing_service_pb2.VerifyLedgerResponse:
        database = open_database(settings)
        try:
            return billing_wire.verify_response(await verify_ledger(database))
        finally:
            await database.close()

    return asyncio.run(work())


async def _serve(settings: Settings, *, dispatcher: bool, demo: bool) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with running(settings, dispatcher=dispatcher, demo=demo) as server:
        _greet(settings, server)
        # What is there now stays for ever: the collector need not walk over it again.
        gc.collect()
        gc.freeze()
        # Nor look at what is young after every 700 objects: a busy server makes that many in 20 requests, and
        # hardly any is part of a cycle.
        gc.set_threshold(_GC_YOUNG_OBJECTS, 20, 50)
        # The loop is busy and the writer's thread has an answer for many: it should not wait 5 ms for its turn.
        sys.setswitchinterval(_SWITCH_INTERVAL_S)
        # A loop that died takes the server down: half a product would take messages and hand none on.
        server.failure.add_done_callback(lambda _: stop.set())
        await stop.wait()
    if server.failure.done():
        server.failure.result()


def _greet(settings: Settings, server: Running) -> None:
    """Say on standard output where everything is and how to begin."""
    base = f"http://{settings.http_host}:{server.http_port}"
    key = server.demo_key
    lines = [
        "hydrasms is up.",
        f"  REST API   {base}",
        f"  gRPC core  {settings.grpc_host}:{server.grpc_port}  (service token: {settings.token_file})",
    ]
    if key is not None:
        lines += [
            f"  demo key   {key}",
            "",
            "Send a first message to a simulated phone:",
            "",
            f'  curl -X POST {base}/api/messages -H "Authorization: {key}" {_FIRST_BODY}',
            "",
            "Then look at the phone:  .venv/bin/hydrasms simulate inbox +447700900000",
        ]
    print("\n".join(lines), flush=True)  # noqa: T201 - this is what the command is asked for
