"""Calls something from many tasks at once and times every call."""

import asyncio
import gc
import time
from collections.abc import Awaitable, Callable

from bench.sample import Sample, of_latencies

_WARM_UP_S = 0.5

Call = Callable[[int], Awaitable[bool]]
"""Does something once for the caller of that number; True where it went well."""


async def hammer(call: Call, *, callers: int, seconds: float, weight: int = 1) -> Sample:
    """Have `callers` tasks call without a pause for the given time; `weight` things are done by one call."""
    await _run(call, callers, min(_WARM_UP_S, seconds))
    # As the server does once it is up.
    gc.collect()
    gc.freeze()
    began, cpu = time.perf_counter(), time.process_time()
    latencies, errors = await _run(call, callers, seconds)
    elapsed, cpu = time.perf_counter() - began, time.process_time() - cpu
    return of_latencies(latencies, elapsed, weight=weight, errors=errors * weight, cpu_s=cpu)


async def _run(call: Call, callers: int, seconds: float) -> tuple[list[float], int]:
    latencies: list[float] = []
    errors = 0
    end = time.perf_counter() + seconds

    async def caller(number: int) -> None:
        nonlocal errors
        while (began := time.perf_counter()) < end:
            if await call(number):
                latencies.append(time.perf_counter() - began)
            else:
                errors += 1

    await asyncio.gather(*(caller(number) for number in range(callers)))
    return latencies, errors
