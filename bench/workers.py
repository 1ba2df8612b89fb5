"""`workers`: durable sends through two processes on one port and one SQLite file, divided by those through one; how
the two share them; and whether dispatching keeps pace with what both accept.
"""

import urllib.request
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from bench import servers
from bench.accounts import create_accounts, write_keys
from bench.plan import Plan, measured
from bench.report import Benchmark, Case, Fact, Ratio
from bench.sample import Sample, pairwise
from bench.servers import Hydrasms, ServerFailed
from bench.wrk import Load

_ACCOUNTS = 1_000
_CONNECTIONS = 128

_ONE = "one process"
_TWO = "--workers 2"
_ONE_DISPATCHING = "one process, dispatching"
_TWO_DISPATCHING = "--workers 2, dispatching"


@dataclass
class _Stage:
    """The servers of this benchmark, of which one is at work at a time, and what was measured of them."""

    plan: Plan
    cases: dict[str, Hydrasms]
    samples: dict[str, list[Sample]] = field(default_factory=lambda: defaultdict(list))
    least_shares: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    drained: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    acknowledged: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    loads: int = 0

    def warm_up(self, name: str, keys: Path) -> None:
        """Send a little, and see that every answer is 200."""
        server = self.cases[name]
        self.loads += 1
        load = Load(server.port, keys, _CONNECTIONS, self.plan.seconds)
        self.acknowledged[server.name] += load.warm_up(f"warm-{self.loads}")

    def load(self, name: str, keys: Path) -> None:
        """Measure one case once, from an empty queue to the end of the load."""
        server = self.cases[name]
        if name in (_ONE_DISPATCHING, _TWO_DISPATCHING):
            server.finish()
        servers.settle(self.cases.values())
        self.loads += 1
        load = Load(server.port, keys, _CONNECTIONS, self.plan.seconds)
        queued, accepted = server.backlog(), _accepted(server)
        sample = measured(server, lambda: load.run(f"run-{self.loads}"))
        queued = server.backlog() - queued
        accepted = _accepted(server) - accepted
        self.samples[name].append(sample)
        self.acknowledged[server.name] += sample.count
        self.least_shares[name].append(min(accepted.values()) / max(1, accepted.total()))
        self.drained[name].append(1 - queued / max(1, sample.count))


def run(plan: Plan) -> Benchmark:
    """Measure all cases, round by round."""
    with (
        servers.hydrasms(plan.folder, "one", "--no-dispatcher", "--no-demo") as one,
        servers.hydrasms(plan.folder, "two", "--no-dispatcher", "--no-demo", "--workers", "2") as two,
        servers.hydrasms(plan.folder, "one-dispatching", "--no-demo") as one_dispatching,
        servers.hydrasms(plan.folder, "two-dispatching", "--no-demo", "--workers", "2") as two_dispatching,
    ):
        cases = {_ONE: one, _TWO: two, _ONE_DISPATCHING: one_dispatching, _TWO_DISPATCHING: two_dispatching}
        stage = _Stage(plan, cases)
        keys = {
            name: write_keys(create_accounts(server, _ACCOUNTS), plan.folder / f"{server.name}-keys")
            for name, server in cases.items()
        }
        for name in cases:
            stage.warm_up(name, keys[name])
        for _ in plan.rounds("workers"):
            for name in cases:
                stage.load(name, keys[name])
        for server in (one_dispatching, two_dispatching):
            server.finish()
        servers.settle(cases.values())
        facts = [
            *_losses(stage),
            *(Fact(f"memory after, {each.name}", each.rss_mb(), "MB") for each in cases.values()),
        ]
    return Benchmark(
        "workers", [Case(name, runs) for name, runs in stage.samples.items()], _ratios(stage), facts
    )


def _ratios(stage: _Stage) -> list[Ratio]:
    samples = stage.samples
    return [
        Ratio("--workers 2 / one process", pairwise(samples[_TWO], samples[_ONE]), at_least=1.25),
        Ratio(
            "--workers 2 / one process, dispatching",
            pairwise(samples[_TWO_DISPATCHING], samples[_ONE_DISPATCHING]),
        ),
        Ratio("least share of a worker, --workers 2", stage.least_shares[_TWO], at_least=0.4),
        Ratio("p99 / p50, --workers 2", _tails(samples[_TWO]), at_most=4),
        Ratio("p99 / p50, --workers 2, dispatching", _tails(samples[_TWO_DISPATCHING])),
        Ratio("handed on / accepted, one process", stage.drained[_ONE_DISPATCHING], at_least=0.8),
        Ratio("handed on / accepted, --workers 2", stage.drained[_TWO_DISPATCHING], at_least=0.8),
    ]


def _tails(samples: list[Sample]) -> list[float]:
    return [sample.p99_ms / sample.p50_ms for sample in samples]


def _accepted(server: Hydrasms) -> Counter[str]:
    """Return how many sends each of a server's processes has accepted so far."""
    with urllib.request.urlopen(f"http://127.0.0.1:{server.port}/metrics", timeout=30) as response:
        text = response.read().decode()
    accepted: Counter[str] = Counter()
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = sample.labels
            if sample.name == "hydrasms_http_requests_total" and labels["route"] == "/api/messages":
                accepted[labels.get("worker", "0")] += int(sample.value) * (labels["status"] == "200")
    return accepted


def _losses(stage: _Stage) -> list[Fact]:
    """Count what was acknowledged and is not stored; raises ServerFailed where something is missing."""
    facts = []
    for server in stage.cases.values():
        surplus = server.stored() - stage.acknowledged[server.name]
        if surplus < 0:
            raise ServerFailed(f"{server.name}: {-surplus} acknowledged messages are not stored")
        note = "0 acknowledged ones missing; in flight when a run ended"
        facts.append(Fact(f"stored beyond the acknowledged, {server.name}", surplus, "", note))
    return facts
