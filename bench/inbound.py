"""`inbound`: texts from phones taken in, divided by sends accepted, each by group commit. No HTTP and no gRPC."""

from collections import defaultdict

from bench.plan import Plan
from bench.report import Benchmark, Case, Ratio
from bench.sample import Sample, pairwise

_MANY = 64
_WAYS = {
    "receive": "texts taken in",
    "send": "sends accepted",
}


def run(plan: Plan) -> Benchmark:
    """Measure both at 64 callers and at 1."""
    samples: defaultdict[tuple[str, int], list[Sample]] = defaultdict(list)
    for _ in plan.rounds("inbound"):
        for callers in (_MANY, 1):
            for way in _WAYS:
                sample = plan.run_module(
                    "bench.inbound_run", way, str(callers), str(plan.seconds), str(plan.folder)
                )
                samples[way, callers].append(sample)
    cases = [
        Case(f"{_WAYS[way]}, {callers} caller{'s' if callers > 1 else ''}", runs)
        for (way, callers), runs in samples.items()
    ]
    ratios = [
        Ratio(
            f"texts / sends, {_MANY} callers",
            pairwise(samples["receive", _MANY], samples["send", _MANY]),
            at_least=1,
        ),
        Ratio("texts / sends, 1 caller", pairwise(samples["receive", 1], samples["send", 1])),
    ]
    return Benchmark("inbound", cases, ratios)
