"""The edge: the REST API before a channel to the core."""

from typing import Any

import grpc

from hydrasms_app.channel import Way, way_to_core
from hydrasms_app.compose.core import Core
from hydrasms_app.compose.process import Process
from hydrasms_app.listening import port_taken
from hydrasms_app.settings import Settings
from hydrasms_base.secret import Secret
from hydrasms_edge.admission import Admission
from hydrasms_edge.app import create_app, streams_of
from hydrasms_edge.server import HttpServer
from hydrasms_edge.settings import EdgeSettings


def channel_to_core(process: Process, settings: Settings, core: Core | None) -> grpc.aio.Channel:
    """Return the channel to the core: the loopback where it is in this process, else one over a socket."""
    if core is not None:
        loopback: Any = core.server.loopback
        return loopback  # type: ignore[no-any-return]
    channel = _channel(way_to_core(settings))
    process.stack.push_async_callback(channel.close)
    return channel


async def start_edge(
    process: Process, settings: Settings, channel: grpc.aio.Channel, token: Secret | None
) -> int:
    """Serve the REST API and return its port; raises Problem.

    When the process ends, no new connection is taken, streams end, and the requests in progress are answered.
    """
    siblings, edge = process.siblings, EdgeSettings(coalesce=settings.coalesce)
    exposition = None if siblings is None else siblings.exposition
    streams = streams_of(edge, process.metrics)
    http = HttpServer(
        create_app(channel, token, process.metrics, edge, exposition, streams),
        settings.http_host,
        settings.http_port,
        listening=None if siblings is None else siblings.http,
        admission=Admission(edge.max_in_progress, process.metrics, streams),
    )
    try:
        port = await http.start()
    except OSError:
        raise port_taken("HYDRASMS_HTTP_PORT", settings.http_port) from None
    process.own_ports.add(port)
    process.stack.push_async_callback(http.stop)
    # Streams never end by themselves: they are told to before the requests in progress are waited for.
    process.stack.callback(streams.end)
    return port


def _channel(way: Way) -> grpc.aio.Channel:
    if way.credentials is None:
        return grpc.aio.insecure_channel(way.address.target, options=way.options)
    return grpc.aio.secure_channel(way.address.target, way.credentials, options=way.options)
