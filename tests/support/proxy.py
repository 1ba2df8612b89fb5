"""A TCP proxy that treats connections badly, on command: what lies between a program and its database."""

import asyncio
import contextlib
import enum
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from typing import Any, TypeVar

T = TypeVar("T")

_CHUNK = 64 * 1024
# How PostgreSQL's simple protocol says it; nothing else that is sent holds these octets.
_BEGIN_READING, _BEGIN_WRITING, _COMMIT = b"READ ONLY\0", b"BEGIN\0", b"COMMIT\0"
_BOUND_S = 20.0


class CommitFault(enum.Enum):
    """What becomes of a connection whose client says COMMIT."""

    NEVER_ARRIVES = enum.auto()
    """Both sides are cut before the server hears of it."""
    ANSWER_IS_LOST = enum.auto()
    """The server commits, and the client is cut before it is told."""
    ARRIVES_LATE = enum.auto()
    """The client is cut at once, and the server hears of it after `late_s`."""


class Proxy:
    """Passes bytes on between clients and one server, until told otherwise."""

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._passing = asyncio.Event()
        self._passing.set()
        self.delay_s = 0.0
        """How long every chunk of bytes is held up."""
        self.late_s = 1.0
        """How late a commit that arrives late is."""
        self.faults: list[CommitFault] = []
        """What becomes of the next commits of transactions that write, one each; those after them are left alone."""
        self.refuses = False
        """Whether new connections are closed at once."""

    @property
    def port(self) -> int:
        """The port that it listens on."""
        assert self._server is not None
        return int(self._server.sockets[0].getsockname()[1])

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)

    async def stop(self) -> None:
        assert self._server is not None
        self._server.close()
        self.pass_on()
        self.cut()
        for task in list(self._tasks):
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=_BOUND_S)

    def cut(self) -> None:
        """Cut every connection, at both ends and without a word of farewell."""
        for writer in list(self._open):
            writer.transport.abort()

    def swallow(self) -> None:
        """Pass nothing on any more, and let nobody know."""
        self._passing.clear()

    def pass_on(self) -> None:
        """Pass on again, also what came meanwhile."""
        self._passing.set()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.refuses:
            writer.transport.abort()
            return
        await self._passing.wait()
        try:
            server_reader, server_writer = await asyncio.open_connection(*self._target)
        except OSError:
            writer.transport.abort()
            return
        self._open |= {writer, server_writer}
        self._spawn(self._requests(reader, writer, server_writer))
        self._spawn(self._pump(server_reader, writer, server_writer))

    async def _requests(
        self, reader: asyncio.StreamReader, client: asyncio.StreamWriter, server: asyncio.StreamWriter
    ) -> None:
        """Pass on what a client says, but for commits that are to go wrong."""
        writing = False
        with contextlib.suppress(OSError):
            while chunk := await reader.read(_CHUNK):
                await self._hold_up()
                writing = (writing or _BEGIN_WRITING in chunk) and _BEGIN_READING not in chunk
                if writing and _COMMIT in chunk and self.faults:
                    await self._spoil(self.faults.pop(0), chunk, client, server)
                    return
                server.write(chunk)
                await server.drain()
        self._end(server)

    async def _spoil(
        self, fault: CommitFault, chunk: bytes, client: asyncio.StreamWriter, server: asyncio.StreamWriter
    ) -> None:
        if fault is CommitFault.NEVER_ARRIVES:
            server.transport.abort()
            client.transport.abort()
            return
        client.transport.abort()
        if fault is CommitFault.ARRIVES_LATE:
            await asyncio.sleep(self.late_s)
        server.write(chunk)
        await server.drain()
        # In order, after the commit: were the connection cut, the server might not come to read it.
        server.write_eof()

    async def _pump(
        self, reader: asyncio.StreamReader, client: asyncio.StreamWriter, server: asyncio.StreamWriter
    ) -> None:
        """Pass on what the server says, for as long as there is somebody to hear it."""
        with contextlib.suppress(OSError):
            while chunk := await reader.read(_CHUNK):
                await self._hold_up()
                if not client.transport.is_closing():
                    client.write(chunk)
                    await client.drain()
        self._end(client)
        self._end(server)

    async def _hold_up(self) -> None:
        await self._passing.wait()
        if self.delay_s:
            await asyncio.sleep(self.delay_s)

    def _end(self, writer: asyncio.StreamWriter) -> None:
        self._open.discard(writer)
        writer.close()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


@contextlib.asynccontextmanager
async def proxy_to(host: str, port: int) -> AsyncIterator[Proxy]:
    """Run a proxy in this loop until the block ends."""
    proxy = Proxy(host, port)
    await proxy.start()
    try:
        yield proxy
    finally:
        await proxy.stop()


class ProxyThread:
    """A proxy in a loop and a thread of its own, for tests that are not asynchronous."""

    def __init__(self, proxy: Proxy, loop: asyncio.AbstractEventLoop) -> None:
        self._proxy = proxy
        self._loop = loop
        self.port = proxy.port

    def tell(self, what: Callable[[Proxy], T]) -> T:
        """Have something done to the proxy, in its own thread; returns what it returns."""

        async def do() -> T:
            return what(self._proxy)

        return asyncio.run_coroutine_threadsafe(do(), self._loop).result(_BOUND_S)


@contextlib.contextmanager
def proxy_thread_to(host: str, port: int) -> Iterator[ProxyThread]:
    """Run a proxy in a thread until the block ends."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()

    def run(work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, loop).result(2 * _BOUND_S)

    async def make() -> Proxy:
        proxy = Proxy(host, port)
        await proxy.start()
        return proxy

    proxy = run(make())
    try:
        yield ProxyThread(proxy, loop)
    finally:
        run(proxy.stop())
        loop.call_soon_threadsafe(loop.stop)
        thread.join(_BOUND_S)
        loop.close()
