"""A relay before a PostgreSQL server that loses what is said about a COMMIT."""

import asyncio
import contextlib
import enum
from collections.abc import AsyncIterator

import sqlalchemy as sa

_COMMIT = b"COMMIT\0"
_BOUND_S = 20.0


class Fate(enum.Enum):
    """What becomes of a COMMIT."""

    ANSWER_LOST = enum.auto()
    """The server commits, and its answer is lost with the connection."""
    NEVER_ASKED = enum.auto()
    """The connection breaks before the server has heard of it; the server undoes the transaction."""
    LATE = enum.auto()
    """The client's end breaks; the server hears of it when the test says so."""


class Relay:
    """Passes everything on, but for the COMMITs that have a fate."""

    def __init__(self, url: str) -> None:
        self._server = sa.make_url(url)
        self._fates: list[Fate] = []
        self._release = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._port = 0
        self.refusing = False
        """Whether new connections end at once."""

    @property
    def url(self) -> str:
        """The server's URL by way of the relay."""
        return self._server.set(host="127.0.0.1", port=self._port).render_as_string(hide_password=False)

    def next_commit(self, fate: Fate) -> None:
        """Have the next COMMIT meet a fate."""
        self._fates.append(fate)

    def release(self) -> None:
        """Let the server hear of what is late."""
        self._release.set()

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator["Relay"]:
        """Listen until the block ends."""
        listener = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self._port = listener.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            listener.close()
            self._release.set()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        try:
            if not self.refusing:
                await self._serve(reader, writer)
        finally:
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server_reader, server_writer = await asyncio.open_connection(self._server.host, self._server.port)
        answering = asyncio.create_task(_pass_on(server_reader, writer))
        try:
            while data := await reader.read(65_536):
                if self._fates and _COMMIT in data:
                    answering.cancel()
                    await asyncio.wait([answering])
                    await self._meet(self._fates.pop(0), data, server_reader, server_writer, writer)
                    return
                server_writer.write(data)
                await server_writer.drain()
        except ConnectionError:
            return
        finally:
            answering.cancel()
            server_writer.transport.abort()

    async def _meet(
        self,
        fate: Fate,
        data: bytes,
        server_reader: asyncio.StreamReader,
        server_writer: asyncio.StreamWriter,
        writer: asyncio.StreamWriter,
    ) -> None:
        if fate is Fate.NEVER_ASKED:
            return
        if fate is Fate.LATE:
            writer.transport.abort()
            await asyncio.wait_for(self._release.wait(), _BOUND_S)
        server_writer.write(data)
        await asyncio.wait_for(server_reader.read(65_536), _BOUND_S)


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()
    writer.transport.abort()
