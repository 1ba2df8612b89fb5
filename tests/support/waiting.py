"""Waiting for what other tasks and threads bring about: bounded, and over as soon as it is true."""

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar, overload

T = TypeVar("T")

BOUND_S = 20.0
_LOOK_EVERY_S = 0.01


@overload
async def eventually(probe: Callable[[], Awaitable[T]], *, within_s: float = ..., what: str = ...) -> T: ...


@overload
async def eventually(probe: Callable[[], T], *, within_s: float = ..., what: str = ...) -> T: ...


async def eventually(
    probe: Callable[[], Any], *, within_s: float = BOUND_S, what: str = "the condition"
) -> Any:
    """Return the first true value of a probe, async or plain; fails where none comes within the bound."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + within_s
    while True:
        value = probe()
        if inspect.isawaitable(value):
            try:
                value = await asyncio.wait_for(value, max(deadline - loop.time(), _LOOK_EVERY_S))
            except TimeoutError:
                value = None
        if value:
            return value
        assert loop.time() < deadline, f"{what} did not come true within {within_s} s"
        await asyncio.sleep(_LOOK_EVERY_S)
