"""Where webhooks may go, and what posts them."""

from pathlib import Path

from hydrasms_app.compose.process import Process
from hydrasms_app.settings import Settings
from hydrasms_base.networks import Network, networks
from hydrasms_core.webhooks.addresses import Guard
from hydrasms_core.webhooks.connector import Connector

_THIS_HOST = networks("127.0.0.0/8, ::1/128")


def allowed_networks(settings: Settings, *, all_in_one: bool) -> tuple[Network, ...]:
    """Return the networks beside the public internet that webhooks may go to.

    Unless the operator says so there are none, but for a trial: everything in one process on a SQLite file lets
    webhooks go to this host, so that the first receiver can be a program beside it.
    """
    said = settings.webhook_networks
    if said is not None:
        return said
    return _THIS_HOST if all_in_one and isinstance(settings.database, Path) else ()


def open_poster(process: Process, settings: Settings, *, all_in_one: bool) -> Connector:
    """Return what posts webhooks, until the process ends."""
    allowed = allowed_networks(settings, all_in_one=all_in_one)
    # Ports that the system chooses are added as they are taken.
    process.own_ports.update(filter(None, (settings.http_port, settings.grpc_port, settings.ops_port)))
    connector = Connector(Guard(allowed, process.own_ports), process.clock)
    process.stack.push_async_callback(connector.close)
    return connector
