"""The core: accounts, billing and messaging over one database, behind one gRPC server."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydrasms.accounts.v1 import account_service_pb2, account_service_pb2_grpc
from hydrasms.billing.v1 import billing_service_pb2, billing_service_pb2_grpc
from hydrasms.carriers.v1 import simulator_service_pb2, simulator_service_pb2_grpc
from hydrasms.messaging.v1 import (
    forwarding_service_pb2,
    forwarding_service_pb2_grpc,
    messaging_service_pb2,
    messaging_service_pb2_grpc,
    shortcode_service_pb2,
    shortcode_service_pb2_grpc,
)
from hydrasms.webhooks.v1 import webhook_service_pb2, webhook_service_pb2_grpc
from hydrasms_app.compose.events import happenings_of
from hydrasms_app.compose.inbound import inbound_of
from hydrasms_app.compose.listeners import Listener
from hydrasms_app.compose.process import Process
from hydrasms_app.compose.wakes import Wakes
from hydrasms_app.database import lanes_of, open_signal
from hydrasms_app.sealing import sealer_of
from hydrasms_app.settings import Settings
from hydrasms_app.token import service_token
from hydrasms_base.sealing import Sealer
from hydrasms_base.secret import Secret
from hydrasms_billing.credits import LedgerCredits
from hydrasms_billing.service import Billing
from hydrasms_billing.servicer import BillingServicer
from hydrasms_core.accounts import store as accounts_store
from hydrasms_core.accounts.directory import AccessDirectory
from hydrasms_core.accounts.plans import AccountPlans
from hydrasms_core.accounts.service import Accounts
from hydrasms_core.accounts.servicer import AccountServicer
from hydrasms_core.carriers.simulator.servicer import SimulatorServicer
from hydrasms_core.consent.service import ConsentBook
from hydrasms_core.db.list_keeper import ListKeeper
from hydrasms_core.db.transaction import Database
from hydrasms_core.events.service import Events
from hydrasms_core.messaging.forwarding import Forwarding
from hydrasms_core.messaging.service import Messaging
from hydrasms_core.messaging.servicer import ForwardingServicer, MessagingServicer
from hydrasms_core.rpc.auth import Authentication, ServiceTokens, account_methods
from hydrasms_core.rpc.interceptors import Deadlines, Errors, Observation, Pipeline, RequestIds
from hydrasms_core.rpc.server import GrpcServer
from hydrasms_core.settings import MessagingSettings
from hydrasms_core.shortcodes.service import Shortcodes
from hydrasms_core.shortcodes.servicer import ShortcodeServicer
from hydrasms_core.webhooks.endpoints import Endpoints
from hydrasms_core.webhooks.sealed import EndpointSecrets
from hydrasms_core.webhooks.service import Webhooks
from hydrasms_core.webhooks.servicer import WebhookServicer

_FILES = (
    account_service_pb2.DESCRIPTOR,
    billing_service_pb2.DESCRIPTOR,
    messaging_service_pb2.DESCRIPTOR,
    forwarding_service_pb2.DESCRIPTOR,
    shortcode_service_pb2.DESCRIPTOR,
    simulator_service_pb2.DESCRIPTOR,
    webhook_service_pb2.DESCRIPTOR,
)
_DRAIN_S = 10.0


@dataclass(frozen=True, slots=True)
class Core:
    """A core that serves."""

    server: GrpcServer
    addresses: tuple[str, ...]
    """Where it listens, as HYDRASMS_CORE would name it."""
    token: Secret


async def start_core(
    process: Process,
    settings: Settings,
    database: Database,
    wakes: Wakes,
    listeners: Sequence[Listener],
) -> Core:
    """Serve the core's calls, and call `wakes` when workers have something to do; raises Problem.

    When the process ends, no call is let in any more, those in progress are answered and the batches in flight
    are finished.
    """
    token = service_token(settings)
    sealer = await sealer_of(settings, database)
    server, messaging, events = _server(process, settings, database, sealer, wakes)
    process.keep_running("events", events.run())
    if isinstance(settings.database, Path):
        process.keep_running("lists", ListKeeper(database).run())
    process.stack.push_async_callback(messaging.drain)
    addresses = tuple(listener.take(process, server) for listener in listeners)
    process.stack.push_async_callback(server.stop, _DRAIN_S)
    # Before the server waits for the calls in progress: those that wait for events are to end.
    process.stack.callback(events.stop)
    await server.start()
    return Core(server, addresses, token)


def wake_others(process: Process, settings: Settings) -> Wakes:
    """Return what wakes the loops of other processes, for a core that has none in its own."""
    signal = open_signal(settings)
    if signal is None:
        return Wakes(_nobody_to_wake, _nobody_to_wake)
    process.keep_running("signal", signal.run_sending())
    return Wakes(signal.send, signal.send)


def _nobody_to_wake() -> None:
    """Do nothing: whoever has something to do looks by itself."""


def _server(
    process: Process, settings: Settings, database: Database, sealer: Sealer, wakes: Wakes
) -> tuple[GrpcServer, Messaging, Events]:
    clock, ledger, consent = process.clock, LedgerCredits(), ConsentBook(sealer)
    directory = AccessDirectory(database, accounts_store, clock)
    happenings = happenings_of(process, wakes.texts)
    messaging = Messaging(
        database,
        ledger,
        consent,
        directory,
        clock,
        MessagingSettings(sent_from=settings.sent_from),
        wakes.messages,
        lanes_of(settings, database),
        happenings,
    )
    inbound = inbound_of(process, settings, database, consent, wakes.texts)
    events = Events(database, directory, process.bell)
    endpoints = Endpoints(EndpointSecrets(sealer))
    shortcodes = Shortcodes(database, directory, AccountPlans(), endpoints, happenings, clock)
    accounts = Accounts(database, ledger, clock, directory.recheck, followers=[shortcodes])

    def add_servicers(server: Any) -> None:
        account_service_pb2_grpc.add_AccountServiceServicer_to_server(AccountServicer(accounts), server)
        billing_service_pb2_grpc.add_BillingServiceServicer_to_server(
            BillingServicer(Billing(database, clock)), server
        )
        messaging_service_pb2_grpc.add_MessagingServiceServicer_to_server(
            MessagingServicer(messaging, inbound, events), server
        )
        forwarding_service_pb2_grpc.add_ForwardingServiceServicer_to_server(
            ForwardingServicer(Forwarding(messaging, directory, clock)), server
        )
        shortcode_service_pb2_grpc.add_ShortcodeServiceServicer_to_server(
            ShortcodeServicer(shortcodes), server
        )
        simulator_service_pb2_grpc.add_SimulatorServiceServicer_to_server(SimulatorServicer(database), server)
        webhook_service_pb2_grpc.add_WebhookServiceServicer_to_server(
            WebhookServicer(Webhooks(database, directory, endpoints, clock, wakes.texts), clock), server
        )

    authentication = Authentication(
        ServiceTokens(settings.token_file, clock),
        directory,
        account_methods(_FILES),
        trusted_names=settings.tls_allowed_names,
    )
    server = GrpcServer(
        Pipeline(
            [RequestIds(), Observation(process.metrics), Errors(), Deadlines(), authentication],
            guard=authentication.guard_stream,
        ),
        add_servicers,
        services=[service.full_name for file in _FILES for service in file.services_by_name.values()],
        reflect=settings.reflection,
        share_port=process.siblings is not None,
    )
    return server, messaging, events
