"""`store`: the writer's group commit, divided by one transaction a send. No HTTP and no gRPC."""

from collections import defaultdict

from bench.plan import Plan
from bench.report import Benchmark, Case, Ratio
from bench.sample import Sample, pairwise

_MANY = 64
_WAYS = {
    "group": "group commit",
    "single": "the writer, a transaction a send",
    "pool": "Core + aiosqlite, a transaction a send, pool of 15",
    "one": "Core + aiosqlite, a transaction a send, 1 connection",
}


def run(plan: Plan) -> Benchmark:
    """Measure every way at 64 callers and at 1."""
    samples: defaultdict[tuple[str, int], list[Sample]] = defaultdict(list)
    for _ in plan.rounds("store"):
        for callers in (_MANY, 1):
            for way in _WAYS:
                sample = plan.run_module(
                    "bench.store_run", way, str(callers), str(plan.seconds), str(plan.folder)
                )
                samples[way, callers].append(sample)
    cases = [
        Case(f"{_WAYS[way]}, {callers} caller{'s' if callers > 1 else ''}", runs)
        for (way, callers), runs in samples.items()
    ]
    ratios = [
        Ratio(
            f"group commit / Core + aiosqlite (the better one), {_MANY} callers",
            pairwise(samples["group", _MANY], _better(samples["pool", _MANY], samples["one", _MANY])),
            at_least=40,
        ),
        Ratio(
            "group commit / Core + aiosqlite (the better one), 1 caller",
            pairwise(samples["group", 1], _better(samples["pool", 1], samples["one", 1])),
            at_least=0.85,
        ),
        Ratio(
            "group commit / the writer, a transaction a send, 1 caller",
            pairwise(samples["group", 1], samples["single", 1]),
            at_least=0.85,
        ),
        Ratio(
            f"group commit / the writer, a transaction a send, {_MANY} callers",
            pairwise(samples["group", _MANY], samples["single", _MANY]),
        ),
    ]
    return Benchmark("store", cases, ratios)


def _better(some: list[Sample], others: list[Sample]) -> list[Sample]:
    return [max(pair, key=lambda sample: sample.rate) for pair in zip(some, others, strict=True)]
