"""`memory`: what `hydrasms serve` holds when idle, and while it accepts and hands on a million messages over REST."""

import time

from bench import servers
from bench.accounts import create_accounts, write_keys
from bench.plan import Plan, measured
from bench.report import Benchmark, Case, Fact
from bench.sample import Sample, slope
from bench.wrk import Load

_ACCOUNTS = 1_000
_CONNECTIONS = 64
_SLICE_S = 10.0


def run(plan: Plan) -> Benchmark:
    """Send until there are enough messages, noting the memory after every slice of time."""
    samples: list[Sample] = []
    points: list[tuple[float, float]] = []
    with servers.hydrasms(plan.folder, "memory") as serve:
        servers.settle([serve])
        idle_mb = serve.rss_mb()
        keys = write_keys(create_accounts(serve, _ACCOUNTS), plan.folder / "memory-keys")
        load = Load(serve.port, keys, _CONNECTIONS, min(_SLICE_S, plan.seconds))
        load.warm_up("warm")
        sent, began = 0, time.monotonic()
        while sent < plan.sends:
            word = f"memory-{len(samples)}"
            samples.append(measured(serve, lambda word=word: load.run(word)))  # type: ignore[misc]
            sent += samples[-1].count
            points.append((sent / 1e6, serve.rss_mb()))
        seconds = time.monotonic() - began
        servers.settle([serve])
        after_mb = serve.rss_mb()
    # What the first sends bring in (caches, pools, the database's pages) is no leak.
    later = points[len(points) // 4 :]
    facts = [
        Fact("idle", idle_mb, "MB", "under 120 expected"),
        Fact("greatest", max(mb for _, mb in points), "MB"),
        Fact("afterwards, idle again", after_mb, "MB", f"after {sent:,} sends in {seconds:.0f} s"),
        Fact("growth after the first quarter", slope(later), "MB a million", "flat expected"),
        *(Fact(f"after {millions * 1e6:,.0f} sends", mb, "MB") for millions, mb in _some(points)),
    ]
    return Benchmark("memory", [Case("serve, dispatching", samples)], facts=facts)


def _some(points: list[tuple[float, float]], at_most: int = 10) -> list[tuple[float, float]]:
    step = max(1, len(points) // at_most)
    return points[step - 1 :: step]
