"""The one place that knows every concrete class and joins them.

Whatever is opened is closed in reverse order when the block ends, also where a later step fails.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Any

import grpc

from hydrasms.accounts.v1 import account_service_pb2, account_service_pb2_grpc
from hydrasms.billing.v1 import billing_service_pb2, billing_service_pb2_grpc
from hydrasms.carriers.v1 import simulator_service_pb2, simulator_service_pb2_grpc
from hydrasms.messaging.v1 import messaging_service_pb2, messaging_service_pb2_grpc
from hydrasms_app.database import open_database
from hydrasms_app.demo import demo_key
from hydrasms_app.housekeeping import Housekeeping
from hydrasms_app.problems import Problem
from hydrasms_app.settings import Settings
from hydrasms_base.clock import SystemClock
from hydrasms_base.log import get_logger
from hydrasms_base.metrics import Metrics
from hydrasms_base.secret import Secret, make_secret
from hydrasms_billing.credits import LedgerCredits
from hydrasms_billing.service import Billing
from hydrasms_billing.servicer import BillingServicer
from hydrasms_core.accounts import store as accounts_store
from hydrasms_core.accounts.directory import AccessDirectory
from hydrasms_core.accounts.service import Accounts
from hydrasms_core.accounts.servicer import AccountServicer
from hydrasms_core.carriers.registry import Carriers
from hydrasms_core.carriers.simulator.carrier import SimulatedCarrier
from hydrasms_core.carriers.simulator.servicer import SimulatorServicer
from hydrasms_core.db.transaction import Database
from hydrasms_core.messaging.dispatcher import Dispatcher
from hydrasms_core.messaging.receipts import ReceiptIntake
from hydrasms_core.messaging.service import Messaging
from hydrasms_core.messaging.servicer import MessagingServicer
from hydrasms_core.rpc.auth import Authentication, ServiceTokens, account_methods
from hydrasms_core.rpc.interceptors import Deadlines, Errors, Observation, Pipeline, RequestIds
from hydrasms_core.rpc.server import AddressInUse, GrpcServer
from hydrasms_core.settings import MessagingSettings
from hydrasms_edge.app import create_app
from hydrasms_edge.server import HttpServer
from hydrasms_edge.settings import EdgeSettings

_FILES = (
    account_service_pb2.DESCRIPTOR,
    billing_service_pb2.DESCRIPTOR,
    messaging_service_pb2.DESCRIPTOR,
    simulator_service_pb2.DESCRIPTOR,
)
_DRAIN_S = 10.0

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Running:
    """A server that is up: where it listens, and a channel to it that needs no socket."""

    http_port: int
    grpc_port: int
    channel: grpc.aio.Channel
    token: Secret
    database: Database
    demo_key: str | None
    failure: "asyncio.Future[None]"
    """Done when a background loop has died; it then holds the reason."""


@contextlib.asynccontextmanager
async def running(
    settings: Settings, *, dispatcher: bool = True, demo: bool = False
) -> AsyncIterator[Running]:
    """Run everything in this process, on a database that is already up to date; raises Problem.

    Nobody is let in before the demo account, where one is wanted, is there.

    Leaving the block drains: no new connection, the requests in progress answered, the batches in flight
    finished, then the database closed.
    """
    clock, metrics = SystemClock(), Metrics()
    failure: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    async with contextlib.AsyncExitStack() as stack:
        token = _service_token(settings)
        database = open_database(settings)
        stack.push_async_callback(database.close)

        ledger = LedgerCredits()
        directory = AccessDirectory(database, accounts_store, clock)
        simulator = SimulatedCarrier(database, clock)
        delivery = Dispatcher(database, ledger, Carriers([simulator]), clock, metrics)
        messaging = Messaging(
            database,
            ledger,
            directory,
            clock,
            MessagingSettings(sent_from=settings.sent_from),
            delivery.wake if dispatcher else _nobody_to_wake,
        )
        if dispatcher:
            await delivery.release_claims()
            receipts = ReceiptIntake(database, clock, metrics)
            housekeeping = Housekeeping(database, simulator, clock)
            _keep_running(stack, failure, "simulator", simulator.run(receipts))
            _keep_running(stack, failure, "housekeeping", housekeeping.run())
            _keep_running(stack, failure, "dispatcher", delivery.run(), drain=delivery.stop)

        def add_servicers(server: Any) -> None:
            account_service_pb2_grpc.add_AccountServiceServicer_to_server(
                AccountServicer(Accounts(database, ledger, clock, directory.recheck)), server
            )
            billing_service_pb2_grpc.add_BillingServiceServicer_to_server(
                BillingServicer(Billing(database, clock)), server
            )
            messaging_service_pb2_grpc.add_MessagingServiceServicer_to_server(
                MessagingServicer(messaging), server
            )
            simulator_service_pb2_grpc.add_SimulatorServiceServicer_to_server(
                SimulatorServicer(database), server
            )

        authentication = Authentication(
            ServiceTokens(settings.token_file, clock), directory, account_methods(_FILES)
        )
        server = GrpcServer(
            Pipeline(
                [RequestIds(), Observation(metrics), Errors(), Deadlines(), authentication],
                guard=authentication.guard_stream,
            ),
            add_servicers,
            services=[service.full_name for file in _FILES for service in file.services_by_name.values()],
            reflect=settings.reflection,
        )
        stack.push_async_callback(messaging.drain)
        grpc_port = await _listen(
            "HYDRASMS_GRPC_PORT",
            settings.grpc_port,
            server.start(f"{settings.grpc_host}:{settings.grpc_port}"),
        )
        stack.push_async_callback(server.stop, _DRAIN_S)

        channel: Any = server.loopback
        key = await demo_key(channel, token, settings.data_dir / "demo.key") if demo else None
        app = create_app(channel, token, metrics, EdgeSettings())
        http = HttpServer(app, settings.http_host, settings.http_port)
        http_port = await _listen("HYDRASMS_HTTP_PORT", settings.http_port, http.start())
        stack.push_async_callback(http.stop)
        yield Running(http_port, grpc_port, channel, token, database, key, failure)
        log.info("draining")


def _keep_running(
    stack: contextlib.AsyncExitStack,
    failure: "asyncio.Future[None]",
    name: str,
    work: Coroutine[Any, Any, None],
    *,
    drain: Callable[[], Awaitable[None]] | None = None,
) -> None:
    """Run a loop in the background until the stack unwinds; should it die before, `failure` tells."""
    task = asyncio.create_task(work, name=name)

    def ended(task: asyncio.Task[None]) -> None:
        if task.cancelled() or failure.done():
            return
        error = task.exception()
        if error is not None:
            log.error("background_loop_died", loop=name, exc_info=error)
            failure.set_exception(error)

    async def close() -> None:
        if drain is not None:
            await drain()
        task.cancel()
        await asyncio.wait([task])

    task.add_done_callback(ended)
    stack.push_async_callback(close)


def _nobody_to_wake() -> None:
    """Stand in for the dispatcher where none runs in this process."""


def _service_token(settings: Settings) -> Secret:
    try:
        return make_secret(settings.token_file)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise Problem(f"cannot use the service token {settings.token_file}: {reason}") from None


async def _listen(setting: str, port: int, start: Coroutine[Any, Any, int]) -> int:
    try:
        return await start
    except (AddressInUse, OSError):
        raise Problem(f"port {port} is in use or not allowed: name another with {setting}") from None
