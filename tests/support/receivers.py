"""Receivers of webhooks on real sockets: a canary that nothing may reach, and those that misbehave."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class Canary:
    """Listens on every address of this host and counts whoever connects."""

    def __init__(self) -> None:
        self.port = 0
        self.reached: list[str] = []

    async def handle(self, _: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reached.append(str(writer.get_extra_info("sockname")[0]))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\nConnection: close\r\n\r\nsecret")
        with contextlib.suppress(OSError):
            await writer.drain()
        writer.close()


@contextlib.asynccontextmanager
async def canary_on_every_address() -> AsyncIterator[Canary]:
    """Run a canary on all of this host's addresses, IPv4 and IPv6, on one port."""
    canary = Canary()
    first = await asyncio.start_server(canary.handle, "0.0.0.0")  # noqa: S104 - it is to be reached by any way
    canary.port = first.sockets[0].getsockname()[1]
    second = await asyncio.start_server(canary.handle, "::", canary.port)
    async with first, second:
        yield canary


class FakeNames:
    """Answers names as a test says: each name with a list of answers, one look-up after the other."""

    def __init__(self, answers: dict[str, Sequence[Sequence[str]]]) -> None:
        self._answers = answers
        self.asked: list[str] = []

    async def addresses(self, host: str) -> Sequence[str]:
        answers = self._answers[host]
        answer = answers[min(self.asked.count(host), len(answers) - 1)]
        self.asked.append(host)
        return answer

    async def close(self) -> None:
        """Nothing is open."""


class Receiver:
    """A receiver that does what a handler says, on 127.0.0.1; it counts connections and requests."""

    def __init__(self, handler: Handler) -> None:
        self._handler = handler
        self.port = 0
        self.connections = 0
        self.open = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook"

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.open += 1
        try:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                await self._handler(reader, writer)
        finally:
            self.open -= 1
            writer.close()


@contextlib.asynccontextmanager
async def receiving(handler: Handler, tls: ssl.SSLContext | None = None) -> AsyncIterator[Receiver]:
    """Run a receiver until the block ends."""
    receiver = Receiver(handler)
    server = await asyncio.start_server(receiver.handle, "127.0.0.1", ssl=tls)
    receiver.port = server.sockets[0].getsockname()[1]
    try:
        yield receiver
    finally:
        server.close()


async def request_of(reader: asyncio.StreamReader) -> bytes:
    """Read one request and return it whole; raises IncompleteReadError where none comes."""
    head = await reader.readuntil(b"\r\n\r\n")
    lines = head.lower().split(b"\r\n")
    length = next((int(line.split(b":")[1]) for line in lines if line.startswith(b"content-length:")), 0)
    return head + await reader.readexactly(length)


def answering(*answers: bytes) -> Handler:
    """Return a handler that gives these answers, one a request, and the last one to all further ones."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        left = list(answers)
        while True:
            await request_of(reader)
            writer.write(left.pop(0) if len(left) > 1 else left[0])
            await writer.drain()

    return handle


def endless(head: bytes, piece: bytes, every_s: float = 0.0) -> tuple[Handler, list[int]]:
    """Return a handler that sends a head and then the same piece for ever, and where it counts the bytes sent."""
    sent = [0]

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request_of(reader)
        writer.write(head)
        while not writer.is_closing():
            writer.write(piece)
            await writer.drain()
            sent[0] += len(piece)
            if every_s:
                await asyncio.sleep(every_s)

    return handle, sent


async def black_hole(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Take whatever comes and never answer."""
    while await reader.read(65_536):
        pass
