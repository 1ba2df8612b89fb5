"""Receivers of webhooks that are no bottleneck: `python -m bench.receivers COUNT FILE` listens on so many ports.

Once it listens it writes the ports into the file, one a line.
"""

import asyncio
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import cast

import uvloop

_ANSWER = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)\r\n", re.IGNORECASE)
_BLANK_LINE = b"\r\n\r\n"


class Receiver(asyncio.Protocol):
    """One connection: takes the body of every request, and answers 200 to each."""

    def __init__(self, take: Callable[[bytes], None]) -> None:
        self._take = take
        self._received = bytearray()
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the way back."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Answer the requests that are complete; whoever sends no length is cut off."""
        assert self._transport is not None
        self._received += data
        while (blank := self._received.find(_BLANK_LINE)) >= 0:
            begin = blank + len(_BLANK_LINE)
            length = _LENGTH.search(self._received, 0, begin)
            if length is None:
                self._transport.close()
                return
            end = begin + int(length[1])
            if len(self._received) < end:
                return
            self._take(bytes(self._received[begin:end]))
            del self._received[:end]
            self._transport.write(_ANSWER)


async def listen(take: Callable[[bytes], None]) -> tuple[asyncio.Server, int]:
    """Listen on a port of this host that is free, and return it with what closes it."""
    server = await asyncio.get_running_loop().create_server(lambda: Receiver(take), "127.0.0.1", 0)
    return server, int(server.sockets[0].getsockname()[1])


async def run(count: int, file: Path) -> None:
    """Listen until the process is ended."""
    ports = [port for _, port in [await listen(_ignore) for _ in range(count)]]
    # Whoever sees the file sees all of it.
    written = file.with_suffix(".new")
    written.write_text("".join(f"{port}\n" for port in ports))
    written.rename(file)
    await asyncio.Event().wait()


def _ignore(_: bytes) -> None:
    """Take it, and that is all."""


def main() -> None:
    """Listen on as many ports as the command line says."""
    uvloop.run(run(int(sys.argv[1]), Path(sys.argv[2])))


if __name__ == "__main__":
    main()
