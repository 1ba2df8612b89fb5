"""The ports that workers share: taken by the parent, and refused to everybody else.

Each worker has a listening socket of its own for HTTP, among which the kernel shares connections out. The parent made
them and keeps them open, so that connections wait for a worker that is being replaced instead of being reset. gRPC
opens its sockets itself, so that its port is only kept free for the workers.
"""

import contextlib
import socket
from collections.abc import Iterator
from dataclasses import dataclass

from hydrasms_app.listening import port_taken
from hydrasms_app.problems import Problem
from hydrasms_app.settings import Settings

_BACKLOG = 2_048


@dataclass(frozen=True, slots=True)
class SharedPorts:
    """The ports, and the listening socket of each worker's REST API."""

    http: list[socket.socket]
    http_port: int
    grpc_port: int | None
    """None where no core is served."""

    @property
    def taken(self) -> dict[str, int]:
        """The settings that name the ports, now that it is known which they are."""
        taken = {"http_port": self.http_port}
        return taken if self.grpc_port is None else {**taken, "grpc_port": self.grpc_port}

    def close(self) -> None:
        """Take no more connections; the workers do so until each has closed its own."""
        for listening in self.http:
            listening.close()


@contextlib.contextmanager
def shared_ports(settings: Settings, *, core: bool) -> Iterator[SharedPorts]:
    """Take the ports that the settings name, the core's only where one is served; raises Problem."""
    if core and settings.grpc_socket is not None:
        raise Problem(
            "several workers cannot share a Unix socket: give the core a port, not HYDRASMS_GRPC_SOCKET"
        )
    with contextlib.ExitStack() as stack:
        try:
            http = _listening(settings.http_host, settings.http_port, settings.workers)
        except OSError:
            raise port_taken("HYDRASMS_HTTP_PORT", settings.http_port) from None
        for each in http:
            stack.enter_context(each)
        grpc_port = None
        if core:
            try:
                grpc_port = _port(stack.enter_context(_reserved(settings.grpc_host, settings.grpc_port)))
            except OSError:
                raise port_taken("HYDRASMS_GRPC_PORT", settings.grpc_port) from None
        yield SharedPorts(http, _port(http[0]), grpc_port)


def _listening(host: str, port: int, count: int) -> list[socket.socket]:
    """Return sockets that listen on one port, which nobody else listens on."""
    first = _exclusive(host, port)
    sockets = [first]
    try:
        for _ in range(count - 1):
            sockets.append(_beside(first))
            sockets[-1].listen(_BACKLOG)
    except OSError:
        for each in sockets:
            each.close()
        raise
    return sockets


def _reserved(host: str, port: int) -> socket.socket:
    """Return a socket that keeps a port for those who share it; it does not listen itself."""
    with _exclusive(host, port) as first:
        kept = _beside(first)
    # Who would have the port alone is refused from here on, though nobody listens yet.
    kept.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
    return kept


def _exclusive(host: str, port: int) -> socket.socket:
    """Return a socket that listens where nobody else does, ready to be shared from now on."""
    family, _, _, _, address = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    listening = socket.create_server(address[:2], family=family, backlog=_BACKLOG)
    # Only now: set before, it would have let us in beside others who share their port as well.
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    return listening


def _beside(first: socket.socket) -> socket.socket:
    another = socket.socket(first.family, socket.SOCK_STREAM)
    try:
        another.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        another.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if first.family == socket.AF_INET6:
            another.setsockopt(
                socket.IPPROTO_IPV6,
                socket.IPV6_V6ONLY,
                first.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY),
            )
        another.bind(first.getsockname())
    except OSError:
        another.close()
        raise
    return another


def _port(listening: socket.socket) -> int:
    return int(listening.getsockname()[1])
