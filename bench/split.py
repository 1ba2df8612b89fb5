"""`split`: durable sends over the REST API of an edge apart from its core, with coalescing and without, divided by
those over servers that are everything in one process.
"""

from collections import defaultdict
from dataclasses import dataclass, field, replace
from pathlib import Path

from bench import servers
from bench.accounts import create_accounts, write_keys
from bench.plan import Plan
from bench.report import Benchmark, Case, Fact, Ratio
from bench.sample import Sample, pairwise
from bench.servers import Hydrasms, Server, ServerFailed
from bench.wrk import Load

_ACCOUNTS = 1_000
_CONNECTIONS = 128

_COALESCING = "edge and core apart, coalescing"
_UNARY = "edge and core apart, a call a send"
_ONE = "one process"
_TWO = "--workers 2"


@dataclass
class _Stage:
    """The servers of this benchmark, of which one way in is loaded at a time, and what was measured."""

    plan: Plan
    watched: list[Server]
    samples: dict[str, list[Sample]] = field(default_factory=lambda: defaultdict(list))
    acknowledged: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    loads: int = 0

    def warm_up(self, way_in: Server, store: Hydrasms, keys: Path) -> None:
        """Send a little, and see that every answer is 200."""
        self.loads += 1
        load = Load(way_in.port, keys, _CONNECTIONS, self.plan.seconds)
        self.acknowledged[store.name] += load.warm_up(f"warm-{self.loads}")

    def load(self, name: str, way_in: Server, store: Hydrasms, keys: Path) -> None:
        """Measure one case once; its processor time is that of all its processes."""
        servers.settle(self.watched)
        self.loads += 1
        working = {server.name: server for server in (way_in, store)}.values()
        before = sum(server.cpu_s() for server in working)
        sample = Load(way_in.port, keys, _CONNECTIONS, self.plan.seconds).run(f"run-{self.loads}")
        cpu_s = sum(server.cpu_s() for server in working) - before
        self.samples[name].append(replace(sample, cpu_s=cpu_s))
        self.acknowledged[store.name] += sample.count


def run(plan: Plan) -> Benchmark:
    """Measure all cases, round by round."""
    with (
        servers.hydrasms(plan.folder, "one", "--no-dispatcher", "--no-demo") as one,
        servers.hydrasms(plan.folder, "two", "--no-dispatcher", "--no-demo", "--workers", "2") as two,
        servers.core(plan.folder, "core") as core,
        servers.edge(core, "coalescing") as coalescing,
        servers.edge(core, "unary", HYDRASMS_COALESCE="false") as unary,
    ):
        stage = _Stage(plan, [one, two, core, coalescing, unary])
        cases: list[tuple[str, Server, Hydrasms]] = [
            (_COALESCING, coalescing, core),
            (_UNARY, unary, core),
            (_TWO, two, two),
            (_ONE, one, one),
        ]
        keys = {
            store.name: write_keys(create_accounts(store, _ACCOUNTS), plan.folder / f"{store.name}-keys")
            for store in (one, two, core)
        }
        for _, way_in, store in cases:
            stage.warm_up(way_in, store, keys[store.name])
        for _ in plan.rounds("split"):
            for name, way_in, store in cases:
                stage.load(name, way_in, store, keys[store.name])
        servers.settle(stage.watched)
        memory = [Fact(f"memory after, {each.name}", each.rss_mb(), "MB") for each in stage.watched]
        facts = [*_losses(stage, (one, two, core)), *memory]
    ratios = _ratios(stage.samples)
    return Benchmark("split", [Case(name, runs) for name, runs in stage.samples.items()], ratios, facts)


def _ratios(samples: dict[str, list[Sample]]) -> list[Ratio]:
    return [
        Ratio("coalescing / a call a send", pairwise(samples[_COALESCING], samples[_UNARY]), at_least=4.0),
        Ratio("coalescing / --workers 2", pairwise(samples[_COALESCING], samples[_TWO]), at_least=0.65),
        Ratio("coalescing / one process", pairwise(samples[_COALESCING], samples[_ONE])),
    ]


def _losses(stage: _Stage, stores: tuple[Hydrasms, ...]) -> list[Fact]:
    """Count what was acknowledged and is not stored; raises ServerFailed where something is missing."""
    facts = []
    for store in stores:
        surplus = store.stored() - stage.acknowledged[store.name]
        if surplus < 0:
            raise ServerFailed(f"{store.name}: {-surplus} acknowledged messages are not stored")
        note = "0 acknowledged ones missing; in flight when a run ended"
        facts.append(Fact(f"stored beyond the acknowledged, {store.name}", surplus, "", note))
    return facts
