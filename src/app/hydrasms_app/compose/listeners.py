"""Where a core listens."""

from pathlib import Path
from typing import NamedTuple

from hydrasms_app.compose.process import Process
from hydrasms_app.listening import for_owner_alone, owned_socket, port_taken
from hydrasms_app.settings import Settings
from hydrasms_app.tls import Identity, load_identity
from hydrasms_core.rpc.server import AddressInUse, GrpcServer


class TcpListener(NamedTuple):
    """A TCP port, over TLS where there is an identity; 0 takes any that is free."""

    host: str
    port: int
    identity: Identity | None = None

    def take(self, process: Process, server: GrpcServer) -> str:
        """Bind it and return its address; raises Problem."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        credentials = None if self.identity is None else self.identity.for_server()
        try:
            port = server.listen(f"{host}:{self.port}", credentials)
        except AddressInUse:
            raise port_taken("HYDRASMS_GRPC_PORT", self.port) from None
        process.own_ports.add(port)
        return f"{host}:{port}"


class UnixListener(NamedTuple):
    """A Unix socket that its owner alone may use."""

    path: Path

    def take(self, process: Process, server: GrpcServer) -> str:
        """Bind it, hold its path for as long as the process runs, and return its address; raises Problem."""
        process.stack.enter_context(owned_socket(self.path))
        address = f"unix:{self.path}"
        with for_owner_alone():
            server.listen(address)
        return address


Listener = TcpListener | UnixListener


def listener_of(settings: Settings) -> Listener:
    """Return where the settings let a core listen: on its Unix socket where it has one, else on its port."""
    if settings.grpc_socket is not None:
        return UnixListener(settings.grpc_socket)
    return TcpListener(settings.grpc_host, settings.grpc_port, load_identity(settings))
