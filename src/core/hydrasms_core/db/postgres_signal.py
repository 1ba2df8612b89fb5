"""Wakes workers in other processes, over PostgreSQL's LISTEN and NOTIFY.

A signal says that there may be something to do and nothing more: it may be lost, for whoever listens looks by
itself every few seconds. It goes out on a connection of its own after the commit: NOTIFY within a transaction makes
all that notify commit one after the other.
"""

import asyncio
from collections.abc import Callable
from typing import Any

import asyncpg
import sqlalchemy as sa

from hydrasms_base.log import get_logger

_CHANNEL = "hydrasms_outbox"
_CONNECT_S = 5.0
# Under load one signal serves all that is committed meanwhile; the dispatcher waits as long between two claims.
_PACE_S = 0.1
_CHECK_EVERY_S = 30.0
_FIRST_BACK_OFF_S = 0.1
_MAX_BACK_OFF_S = 5.0
_BROKEN = (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError)

log = get_logger(__name__)


class PostgresSignal:
    """Sends signals, or listens for them, on a connection of its own."""

    def __init__(self, url: str) -> None:
        self._url = sa.make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)
        self._wanted = asyncio.Event()

    def send(self) -> None:
        """Have the workers look soon. Call it on the loop's thread, after the commit."""
        self._wanted.set()

    async def run_sending(self) -> None:
        """Send what is asked for until cancelled."""

        async def serve(connection: "asyncpg.Connection[Any]") -> None:
            while True:
                await self._wanted.wait()
                self._wanted.clear()
                await connection.execute(f"NOTIFY {_CHANNEL}", timeout=_CONNECT_S)
                await asyncio.sleep(_PACE_S)

        await self._keep_up(serve)

    async def run_listening(self, wake: Callable[[], None]) -> None:
        """Call `wake` for every signal, and whenever one may have been missed, until cancelled."""

        async def serve(connection: "asyncpg.Connection[Any]") -> None:
            await connection.add_listener(_CHANNEL, lambda *_: wake())
            wake()
            while True:
                # A server that vanished without a word would never be missed by somebody who only listens.
                await asyncio.sleep(_CHECK_EVERY_S)
                await connection.execute("SELECT 1", timeout=_CONNECT_S)

        await self._keep_up(serve)

    async def _keep_up(self, serve: Callable[["asyncpg.Connection[Any]"], Any]) -> None:
        back_off_s = _FIRST_BACK_OFF_S
        while True:
            try:
                connection = await asyncpg.connect(self._url, timeout=_CONNECT_S)
                back_off_s = _FIRST_BACK_OFF_S
                await self._until_broken(connection, serve)
            except _BROKEN as error:
                log.warning("signal_interrupted", error=type(error).__name__, retry_s=back_off_s)
            await asyncio.sleep(back_off_s)
            back_off_s = min(back_off_s * 2, _MAX_BACK_OFF_S)

    async def _until_broken(
        self, connection: "asyncpg.Connection[Any]", serve: Callable[["asyncpg.Connection[Any]"], Any]
    ) -> None:
        serving = asyncio.ensure_future(serve(connection))
        connection.add_termination_listener(lambda _: serving.cancel())
        try:
            await asyncio.wait([serving])
            if not serving.cancelled():
                serving.result()
        finally:
            serving.cancel()
            connection.terminate()
