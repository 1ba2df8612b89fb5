"""Looking up the names of webhooks' hosts."""

import asyncio
import contextlib
import socket
import threading
from collections.abc import Sequence
from typing import Protocol

_MOST_AT_ONCE = 64


class Names(Protocol):
    """Looks names up."""

    async def addresses(self, host: str) -> Sequence[str]:
        """Return all addresses of a name, as text; none where there is no such name. Raises OSError where nobody
        can tell."""
        ...

    async def close(self) -> None:
        """Give up what is still being looked up."""
        ...


class SystemNames:
    """Asks the system's resolver, every name on a thread of its own.

    The loop's own threads are few, and a customer whose name server never answers would keep one for half a minute.
    So there are more here, nobody asks for a name twice at once, and the process ends without waiting for them.
    """

    def __init__(self, most_at_once: int = _MOST_AT_ONCE) -> None:
        self._room = asyncio.Semaphore(most_at_once)
        self._running: dict[str, asyncio.Task[Sequence[str]]] = {}

    async def addresses(self, host: str) -> Sequence[str]:
        """Return all addresses of a name, as text; see `Names`."""
        task = self._running.get(host)
        if task is None:
            task = self._running[host] = asyncio.create_task(self._look_up(host))
            task.add_done_callback(lambda task: self._done(host, task))
        return await asyncio.shield(task)

    async def close(self) -> None:
        """Give up what is still being looked up; its threads end by themselves."""
        tasks = list(self._running.values())
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    def _done(self, host: str, task: asyncio.Task[Sequence[str]]) -> None:
        del self._running[host]
        # Nobody may be waiting for the answer any more.
        if not task.cancelled():
            task.exception()

    async def _look_up(self, host: str) -> Sequence[str]:
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Sequence[str]] = loop.create_future()

        def give(found: Sequence[str] | OSError) -> None:
            self._room.release()
            if answer.done():
                return
            if isinstance(found, OSError):
                answer.set_exception(found)
            else:
                answer.set_result(found)

        def ask() -> None:
            found = _asked(host)
            # The loop may have ended meanwhile.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(give, found)

        await self._room.acquire()
        threading.Thread(target=ask, name="webhook-names", daemon=True).start()
        return await answer


def _asked(host: str) -> Sequence[str] | OSError:
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except socket.gaierror as error:
        return [] if error.errno in (socket.EAI_NONAME, socket.EAI_NODATA) else error
    except OSError as error:
        return error
    except UnicodeError:
        # The codec for names in other scripts runs even over ASCII, and does not like every name.
        return []
    return list(dict.fromkeys(str(address[0]) for *_, address in found))
