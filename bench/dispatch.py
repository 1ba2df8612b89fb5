"""`dispatch`: what reaches the carrier while clients push with all their might, divided by what is accepted."""

import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace

from bench import databases, servers
from bench.accounts import create_accounts, write_keys
from bench.plan import Plan
from bench.report import Benchmark, Case, Fact, Ratio
from bench.sample import Sample, spread
from bench.servers import Hydrasms, Server, ServerFailed
from bench.wrk import Load

_ACCOUNTS = 1_000
_CONNECTIONS = 64
# Shorter than this a run tells little: what waits for the next claim is a good part of it.
_SHORTEST_S = 10.0

_WORKERS = "serve --workers 2 on SQLite"
_APART = "edge, core and worker apart on PostgreSQL"


@dataclass(frozen=True, slots=True)
class Run:
    """What one run under full load accepted, and what waited for a carrier when it began and when it ended."""

    accepted: int
    waiting_before: int
    waiting_after: int
    seconds: float

    @property
    def handed_on(self) -> int:
        """How many messages a carrier took meanwhile."""
        return self.accepted - (self.waiting_after - self.waiting_before)

    @property
    def share(self) -> float:
        """Handed on, by accepted."""
        return self.handed_on / self.accepted if self.accepted else 0.0


@dataclass(frozen=True, slots=True)
class _Fleet:
    """Processes that make up one hydrasms: where its messages come in, where they are kept, and all of them."""

    way_in: Server
    store: Hydrasms
    processes: Sequence[Server]

    def cpu_s(self) -> float:
        """Return the processor time that all have taken so far, in seconds."""
        return sum(process.cpu_s() for process in self.processes)

    def observed(self, load: Load, word: str) -> tuple[Sample, Run]:
        """Load it, with a look at the database right before and right after."""
        stored_before, waiting_before = self.store.progress()
        began, cpu_s = time.monotonic(), self.cpu_s()
        sample = load.run(word)
        seconds, cpu_s = time.monotonic() - began, self.cpu_s() - cpu_s
        stored, waiting = self.store.progress()
        found = Run(stored - stored_before, waiting_before, waiting, seconds)
        return replace(sample, cpu_s=cpu_s), found


def run(plan: Plan) -> Benchmark:
    """Load both in turn, and see each time what is left for later."""
    samples: defaultdict[str, list[Sample]] = defaultdict(list)
    runs: defaultdict[str, list[Run]] = defaultdict(list)
    finished_s: defaultdict[str, list[float]] = defaultdict(list)
    seconds = max(_SHORTEST_S, plan.seconds)
    with (
        databases.postgres_server(plan.folder) as postgres,
        servers.hydrasms(plan.folder, "workers", "--workers", "2") as workers,
        servers.core(plan.folder, "core", url=postgres.create("apart")) as core,
        servers.worker(core, "worker") as worker,
        servers.edge(core, "edge") as edge,
    ):
        fleets = {
            _WORKERS: _Fleet(workers, workers, [workers]),
            _APART: _Fleet(edge, core, [edge, core, worker]),
        }
        loads: dict[str, Load] = {}
        for name, fleet in fleets.items():
            keys = write_keys(
                create_accounts(fleet.store, _ACCOUNTS), plan.folder / f"{fleet.store.name}-keys"
            )
            loads[name] = Load(fleet.way_in.port, keys, _CONNECTIONS, seconds)
            loads[name].warm_up("warm")
            _finished_s(fleet.store)
        for number in plan.rounds("dispatch"):
            for name, fleet in fleets.items():
                servers.settle([workers, edge, core, worker])
                sample, found = fleet.observed(loads[name], f"run-{number}")
                samples[name].append(sample)
                runs[name].append(found)
                finished_s[name].append(_finished_s(fleet.store))
    return Benchmark(
        "dispatch",
        [Case(f"accepted: {name}", of) for name, of in samples.items()],
        [
            Ratio(f"handed on / accepted: {name}", [each.share for each in of], at_least=0.8)
            for name, of in runs.items()
        ],
        [fact for name in fleets for fact in _facts(name, runs[name], finished_s[name])],
    )


def _finished_s(store: Hydrasms) -> float:
    """Wait until every message has its receipt, and return the seconds; raises ServerFailed where one never does."""
    seconds = store.finish()
    stuck = store.unfinished()
    if stuck:
        raise ServerFailed(f"{store.name}: {stuck} messages are neither handed on nor given up")
    return seconds


def _facts(name: str, runs: list[Run], finished_s: list[float]) -> list[Fact]:
    rates = [each.handed_on / each.seconds for each in runs]
    worst = min(runs, key=lambda each: each.share)
    return [
        Fact(f"handed on: {name}", spread(rates).median, "/s"),
        Fact(
            f"waiting at the end: {name}",
            worst.waiting_after,
            "messages",
            f"the worst run; {worst.waiting_before:,} at its begin, {worst.accepted:,} accepted meanwhile",
        ),
        Fact(f"all finished after: {name}", max(finished_s), "s", "with their receipts; the longest"),
    ]
