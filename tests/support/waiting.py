"""Waiting for what other tasks and threads bring about: bounded, and over as soon as it is true."""

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

T = TypeVar("T")

BOUND_S = 20.0
_LOOK_EVERY_S = 0.01


async def eventually(
    probe: Callable[[], T | Awaitable[T]], *, within_s: float = BOUND_S, what: str = "the condition"
) -> T:
    """Return the first true value of a probe, plain or async; fails where none comes within the bound."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + within_s
    while True:
        value: Any = probe()
        if inspect.isawaitable(value):
            value = await asyncio.wait_for(value, max(deadline - loop.time(), _LOOK_EVERY_S))
        if value:
            found: T = value
            return found
        assert loop.time() < deadline, f"{what} did not come true within {within_s} s"
        await asyncio.sleep(_LOOK_EVERY_S)
