"""Just enough of an HTTP/1.1 client to know of every request how it ended: wrk hangs up on its last ones."""

import asyncio
from dataclasses import dataclass
from types import TracebackType


class Broken(Exception):
    """The connection failed: nobody knows what became of the request."""


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer; header names are lower-case."""

    status: int
    headers: dict[str, str]
    body: bytes


class Connection:
    """One kept-alive connection to a server on this machine; opened anew after it broke."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def __aenter__(self) -> "Connection":
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()

    async def post(self, path: str, headers: dict[str, str], body: bytes, *, timeout_s: float) -> Answer:
        """Send one request and return its answer; raises Broken."""
        lines = [f"POST {path} HTTP/1.1", f"Host: 127.0.0.1:{self._port}", f"Content-Length: {len(body)}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        request = "\r\n".join([*lines, "", ""]).encode() + body
        try:
            async with asyncio.timeout(timeout_s):
                return await self._exchange(request)
        except (OSError, TimeoutError, ValueError, asyncio.IncompleteReadError) as error:
            self._close()
            raise Broken(type(error).__name__) from error

    async def _exchange(self, request: bytes) -> Answer:
        if self._streams is None:
            self._streams = await asyncio.open_connection("127.0.0.1", self._port)
        reader, writer = self._streams
        writer.write(request)
        await writer.drain()
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        pairs = (line.split(":", 1) for line in head[1:] if line)
        headers = {name.lower(): value.strip() for name, value in pairs}
        body = await reader.readexactly(int(headers["content-length"]))
        if headers.get("connection") == "close":
            self._close()
        return Answer(int(head[0].split(" ", 2)[1]), headers, body)

    def _close(self) -> None:
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None
