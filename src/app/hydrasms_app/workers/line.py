"""The line between the parent and a worker: messages both ways, each a JSON object on a line of its own.

A worker says `ready` once, and `scrape` when it is asked for the metrics of all; the parent then has every other
worker `report` its own. Whoever sees the line end knows that the other process has.
"""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from typing import Any

import orjson

_MAX_MESSAGE_BYTES = 16 * 1024 * 1024
"""Room for the metrics of many workers."""

Message = dict[str, Any]
"""`say` is what it is about; the rest depends on that."""


class Line:
    """One end of a line."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def over(cls, end: socket.socket) -> "Line":
        """Return the line that an end of a socket pair is; the socket belongs to it from then on."""
        return cls(*await asyncio.open_unix_connection(sock=end, limit=_MAX_MESSAGE_BYTES))

    def say(self, what: str, **more: Any) -> None:
        """Send a message; where nobody is left to hear it, nothing happens."""
        if not self._writer.is_closing():
            self._writer.write(orjson.dumps({"say": what, **more}) + b"\n")

    async def heard(self) -> AsyncIterator[Message]:
        """Yield what the other end says until it is gone."""
        with contextlib.suppress(ConnectionError):
            while text := await self._reader.readline():
                yield orjson.loads(text)

    async def close(self) -> None:
        """End the line."""
        self._writer.close()
        with contextlib.suppress(ConnectionError):
            await self._writer.wait_closed()
