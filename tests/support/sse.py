"""A reader of server-sent events, as the HTML standard has them."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import aiohttp
import orjson

from tests.support.waiting import BOUND_S


@dataclass
class Block:
    """What stands between two empty lines."""

    id: str = ""
    event: str = ""
    data: Any = None
    retry: str = ""
    comment: str | None = None


class Reader:
    """Reads a stream, and knows where to go on after it."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._response = response
        self.headers = response.headers
        self.last_id = ""

    async def ends(self) -> bool:
        """Tell whether the stream has ended, and not with half a block."""
        return await asyncio.wait_for(self._response.content.readline(), BOUND_S) == b""

    async def block(self) -> Block:
        """Return the next block."""
        block = Block()
        while True:
            line = await asyncio.wait_for(self._response.content.readline(), BOUND_S)
            text = line.decode().removesuffix("\n")
            assert line, "the stream has ended"
            if not text:
                self.last_id = block.id or self.last_id
                return block
            name, _, value = text.partition(":")
            value = value.removeprefix(" ")
            if not name:
                block.comment = value
            else:
                assert name in ("id", "event", "data", "retry"), text
                setattr(block, name, orjson.loads(value) if name == "data" else value)

    async def event(self) -> Block:
        """Return the next block that is an event."""
        while (block := await self.block()).data is None:
            pass
        return block


@contextlib.asynccontextmanager
async def reading(port: int, key: str, **headers: str) -> AsyncIterator[Reader]:
    """Open a stream until the block ends; keyword `last_event_id` says where to go on."""
    sent = {"Authorization": key, **{name.replace("_", "-"): value for name, value in headers.items()}}
    async with (
        aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=None)) as session,
        session.get(f"http://127.0.0.1:{port}/v1/events", headers=sent) as response,
    ):
        assert response.status == 200, await response.text()
        yield Reader(response)
