"""The HTTP server: the listener on its port, in the event loop of whoever starts it."""

import asyncio
import functools
import socket
from collections.abc import Iterator
from typing import Any, cast

import uvicorn
from starlette.types import ASGIApp

from hydrasms_edge.admission import Admission
from hydrasms_edge.listener import Listener, Outgoing

BACKLOG = 2_048
_CANCELLED_WITHIN_S = 1.0


class HttpServer:
    """Serves an application over HTTP/1.1, on a host and port or on a socket that listens already.

    A connection may be idle for `keep_alive_s`, and a request has `receive_timeout_s` to come in. Stopping waits
    `drain_s` for the requests in progress.
    """

    def __init__(
        self,
        app: ASGIApp,
        host: str,
        port: int,
        *,
        listening: socket.socket | None = None,
        keep_alive_s: int = 10,
        receive_timeout_s: float = 10.0,
        drain_s: int = 10,
        admission: Admission | None = None,
    ) -> None:
        self._host = host
        self._port = port
        self._listening = listening
        listener = functools.partial(
            Listener, receive_timeout_s=receive_timeout_s, outgoing=Outgoing(), admission=admission
        )
        config = uvicorn.Config(
            cast("Any", app),
            http=cast("type[asyncio.Protocol]", listener),
            ws="none",
            lifespan="off",
            interface="asgi3",
            log_config=None,
            # Broken requests are their sender's affair; a warning for each would let anybody fill the log.
            log_level="error",
            access_log=False,
            proxy_headers=False,
            server_header=False,
            backlog=BACKLOG,
            timeout_keep_alive=keep_alive_s,
            timeout_graceful_shutdown=drain_s,
        )
        self._server = uvicorn.Server(config)
        self._sockets: list[socket.socket] = []
        self._ticking: asyncio.Task[None] | None = None

    async def start(self) -> int:
        """Listen and return the port (port 0 takes any free one); raises OSError where that cannot be."""
        listening = self._listening or await _listening_socket(self._host, self._port)
        self._sockets = [listening]
        # These are the steps of uvicorn's own `serve`, without its signal handlers: signals are the process's.
        self._server.config.load()
        self._server.lifespan = self._server.config.lifespan_class(self._server.config)
        await self._server.startup(sockets=self._sockets)
        self._ticking = asyncio.create_task(self._server.main_loop(), name="http-server")
        return cast("int", listening.getsockname()[1])

    async def stop(self) -> None:
        """Accept no more connections, answer the requests in progress, then let go of the port."""
        if self._ticking is None:
            return
        self._server.should_exit = True
        await self._ticking
        self._ticking = None
        # Who was let in by the system, but not yet by us, would be cut off when the socket closes.
        waiting = [connection for listening in self._sockets for connection in _waiting(listening)]
        for server in self._server.servers:
            server.close()
        for connection in waiting:
            await asyncio.get_running_loop().connect_accepted_socket(self._protocol, connection)
        await self._server.shutdown(sockets=self._sockets)
        # What did not end in time is cancelled by now and answers that it cannot.
        if self._server.server_state.tasks:
            await asyncio.wait(self._server.server_state.tasks, timeout=_CANCELLED_WITHIN_S)

    def _protocol(self) -> asyncio.Protocol:
        """Return what serves one connection, as uvicorn makes it for those that it takes itself."""
        make = cast("type[Any]", self._server.config.http_protocol_class)
        return cast(
            "asyncio.Protocol",
            make(
                config=self._server.config,
                server_state=self._server.server_state,
                app_state=self._server.lifespan.state,
            ),
        )


def _waiting(listening: socket.socket) -> Iterator[socket.socket]:
    """Yield the connections that wait at a socket now."""
    while True:
        try:
            connection, _ = listening.accept()
        except OSError:
            return
        connection.setblocking(False)
        yield connection


async def _listening_socket(host: str, port: int) -> socket.socket:
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    family, _, _, _, address = found[0]
    return socket.create_server(address, family=family, backlog=BACKLOG)
