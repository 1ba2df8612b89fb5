"""The gRPC server: one set of servicers, reached over a socket and over the loopback alike."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from hydrasms_core.rpc.leaving import Arrivals, Health
from hydrasms_core.rpc.loopback import MAX_MESSAGE_BYTES, Loopback

AddServicers = Callable[[Any], None]
"""Adds servicers to a server, as generated `add_…_to_server` functions do."""

_OPTIONS = (
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_metadata_size", 16 * 1024),
    # Clients look often whether their core is still there; gRPC's default takes that for an attack.
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_ping_interval_without_data_ms", 500),
    ("grpc.http2.max_ping_strikes", 0),
)


class AddressInUse(Exception):
    """Somebody else listens on the address."""


class GrpcServer:
    """Serves over sockets and, in memory, over `loopback`; all run the same interceptors and servicers.

    `share_port` lets other servers, which want that too, listen on the same port.
    """

    def __init__(
        self,
        interceptor: grpc.aio.ServerInterceptor,
        add_servicers: AddServicers,
        *,
        services: Sequence[str],
        reflect: bool,
        share_port: bool = False,
    ) -> None:
        self.loopback = Loopback([interceptor])
        self._arrivals = Arrivals(interceptor)
        # gRPC's default lets a second server bind the port in silence.
        options = (*_OPTIONS, ("grpc.so_reuseport", int(share_port)))
        self._server = grpc.aio.server(interceptors=[self._arrivals], options=options)
        self._health = Health()
        self._services = services
        targets: tuple[Any, ...] = (self.loopback, self._server)
        for target in targets:
            add_servicers(target)
            health_pb2_grpc.add_HealthServicer_to_server(self._health, target)
        if reflect:
            names = (*services, health_pb2.DESCRIPTOR.services_by_name["Health"].full_name)
            reflection.enable_server_reflection((*names, reflection.SERVICE_NAME), self._server)

    def listen(self, address: str, credentials: grpc.ServerCredentials | None = None) -> int:
        """Take an address, before `start`: `host:port` or `unix:path`, in the clear unless there are credentials.

        Returns the port (port 0: any that is free), and something that means nothing for a Unix socket. Raises
        AddressInUse.
        """
        try:
            if credentials is None:
                return self._server.add_insecure_port(address)
            return self._server.add_secure_port(address, credentials)
        except RuntimeError as error:
            raise AddressInUse(address) from error

    async def start(self) -> None:
        """Answer calls on every address that was taken."""
        await self._server.start()
        await self.set_serving(serving=True)

    async def set_serving(self, *, serving: bool) -> None:
        """Say over the health service whether calls are welcome."""
        status = (
            health_pb2.HealthCheckResponse.SERVING if serving else health_pb2.HealthCheckResponse.NOT_SERVING
        )
        for name in ("", *self._services):
            await self._health.set(name, status)

    async def stop(self, grace_s: float) -> None:
        """Send clients away that watch our health, wait for the calls in progress, then let go of the addresses."""
        await self.set_serving(serving=False)
        if self._health.watchers:
            await self._arrivals.end()
        await self._server.stop(grace_s)
        # The server's destructor wants its loop; letting it finish here keeps shutdown quiet.
        await asyncio.sleep(0)
