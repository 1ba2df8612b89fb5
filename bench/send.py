"""`send`: durable accepted sends over the public REST API, divided by a bare endpoint that only parses and echoes."""

import os
import time
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

from bench import servers
from bench.accounts import create_accounts, write_keys
from bench.plan import Plan, measured
from bench.report import Benchmark, Case, Fact, Ratio
from bench.sample import Sample, of_latencies, pairwise
from bench.servers import Hydrasms, Server, ServerFailed
from bench.wrk import Load

_ACCOUNTS = 1_000
_CONNECTIONS = 64
_FSYNCS = 300
_FSYNC_BYTES = 16 * 1024

_BARE = "bare Starlette echo"
_SERVE = "serve --no-dispatcher"
_ONE_ACCOUNT = "serve --no-dispatcher, one account"
_BARE_AGAIN = "bare Starlette echo, again"
_DISPATCHING = "serve, dispatching"
_BARE_ONE = "bare, 1 connection"
_SERVE_ONE = "serve --no-dispatcher, 1 connection"
_FSYNC = "write + fdatasync of 16 KiB"


@dataclass(frozen=True, slots=True)
class _Backlog:
    """What one run with the dispatcher on left for later."""

    accepted: int
    queued: int
    """Messages that no carrier had taken when the run ended, less those from before."""
    unfinished: int
    """Those, and the ones that waited for a receipt."""
    finished_s: float
    """How long it took until none was left."""


@dataclass
class _Stage:
    """The servers of this benchmark, of which one is at work at a time, and what was measured of them."""

    bare: Server
    serve: Hydrasms
    dispatching: Hydrasms
    plan: Plan
    samples: dict[str, list[Sample]] = field(default_factory=lambda: defaultdict(list))
    backlogs: list[_Backlog] = field(default_factory=list)
    acknowledged: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    loads: int = 0

    def settle(self) -> None:
        """Wait until all of them are idle."""
        servers.settle([self.bare, self.serve, self.dispatching])

    def warm_up(self, server: Server, keys: Path) -> None:
        """Send a little, and see that every answer is 200."""
        self.loads += 1
        accepted = Load(server.port, keys, _CONNECTIONS, self.plan.seconds).warm_up(f"warm-{self.loads}")
        self.acknowledged[server.name] += accepted

    def load(self, name: str, server: Server, keys: Path, connections: int = _CONNECTIONS) -> Sample:
        """Measure one case once."""
        self.settle()
        self.loads += 1
        load = Load(server.port, keys, connections, self.plan.seconds)
        sample = measured(server, lambda: load.run(f"run-{self.loads}"))
        self.samples[name].append(sample)
        self.acknowledged[server.name] += sample.count
        return sample


def run(plan: Plan) -> Benchmark:
    """Measure all cases, round by round."""
    with (
        servers.bare_http(plan.folder) as bare,
        servers.hydrasms(plan.folder, "send", "--no-dispatcher") as serve,
        servers.hydrasms(plan.folder, "send-dispatching") as dispatching,
    ):
        stage = _Stage(bare, serve, dispatching, plan)
        memory = [
            Fact("memory idle, --no-dispatcher", serve.rss_mb(), "MB"),
            Fact("memory idle, dispatching", dispatching.rss_mb(), "MB", "under 120 expected"),
        ]
        accounts = create_accounts(serve, _ACCOUNTS)
        keys = write_keys(accounts, plan.folder / "keys")
        one_key = write_keys(accounts[:1], plan.folder / "one_key")
        other_keys = write_keys(create_accounts(dispatching, _ACCOUNTS), plan.folder / "other_keys")
        for server, its_keys in ((bare, keys), (serve, keys), (dispatching, other_keys)):
            stage.warm_up(server, its_keys)
        for _ in plan.rounds("send"):
            stage.load(_BARE, bare, keys)
            stage.load(_SERVE, serve, keys)
            stage.load(_ONE_ACCOUNT, serve, one_key)
            stage.load(_BARE_AGAIN, bare, keys)
            _load_dispatching(stage, other_keys)
            stage.load(_BARE_ONE, bare, keys, 1)
            stage.samples[_FSYNC].append(_fsync(plan.folder))
            stage.load(_SERVE_ONE, serve, keys, 1)
        stage.settle()
        memory += [
            Fact("memory after, --no-dispatcher", serve.rss_mb(), "MB", f"{serve.stored():,} messages"),
            Fact(
                "memory after, dispatching", dispatching.rss_mb(), "MB", f"{dispatching.stored():,} messages"
            ),
        ]
        facts = [*_backlog_facts(stage.backlogs), *_losses(stage), *memory]
    cases = [Case(name, samples) for name, samples in stage.samples.items()]
    return Benchmark("send", cases, _ratios(stage.samples), facts)


def _load_dispatching(stage: _Stage, keys: Path) -> None:
    """Load the server that hands messages on meanwhile, and see what it left for later."""
    server = stage.dispatching
    stage.settle()
    queued, unfinished = server.backlog(), server.unfinished()
    accepted = stage.load(_DISPATCHING, server, keys).count
    queued, unfinished = server.backlog() - queued, server.unfinished() - unfinished
    stage.backlogs.append(_Backlog(accepted, queued, unfinished, server.finish()))


def _fsync(folder: Path) -> Sample:
    """Time what one durable commit costs the disk at least: appending some pages and waiting for them."""
    block, latencies = os.urandom(_FSYNC_BYTES), []
    path = folder / "fsync"
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        for _ in range(_FSYNCS):
            began = time.perf_counter()
            os.write(descriptor, block)
            os.fdatasync(descriptor)
            latencies.append(time.perf_counter() - began)
    finally:
        os.close(descriptor)
        path.unlink()
    return of_latencies(latencies, sum(latencies))


def _ratios(samples: dict[str, list[Sample]]) -> list[Ratio]:
    floors = [
        bare.p50_ms + fsync.p50_ms for bare, fsync in zip(samples[_BARE_ONE], samples[_FSYNC], strict=True)
    ]
    alone = [sample.p50_ms / floor for sample, floor in zip(samples[_SERVE_ONE], floors, strict=True)]
    return [
        Ratio("serve --no-dispatcher / bare", pairwise(samples[_SERVE], samples[_BARE]), 0.30, 0.45),
        Ratio("serve, dispatching / bare", pairwise(samples[_DISPATCHING], samples[_BARE_AGAIN]), 0.2, 0.3),
        Ratio("one account / 1,000 accounts", pairwise(samples[_ONE_ACCOUNT], samples[_SERVE]), 0.9),
        Ratio("1 connection: p50 / (bare p50 + fdatasync p50)", alone, at_most=3),
        Ratio("p99 / p50, --no-dispatcher", _tails(samples[_SERVE]), at_most=4),
        Ratio("p99 / p50, dispatching", _tails(samples[_DISPATCHING])),
    ]


def _tails(samples: list[Sample]) -> list[float]:
    return [sample.p99_ms / sample.p50_ms for sample in samples]


def _backlog_facts(backlogs: list[_Backlog]) -> list[Fact]:
    worst = max(backlogs, key=lambda backlog: backlog.queued / max(1, backlog.accepted))
    owed = max(backlogs, key=lambda backlog: backlog.unfinished / max(1, backlog.accepted))
    return [
        Fact(
            "backlog growth / accepted",
            worst.queued / max(1, worst.accepted),
            "",
            f"worst of {len(backlogs)} runs: {worst.queued:,} of {worst.accepted:,} left in the queue; flat expected",
        ),
        Fact(
            "unfinished / accepted",
            owed.unfinished / max(1, owed.accepted),
            "",
            f"worst of {len(backlogs)} runs: {owed.unfinished:,} of {owed.accepted:,} without a receipt yet",
        ),
        Fact("all finished after", max(backlog.finished_s for backlog in backlogs), "s", "the longest"),
    ]


def _losses(stage: _Stage) -> list[Fact]:
    """Hold what was acknowledged against what is stored; raises ServerFailed where something is missing.

    More may be stored than was acknowledged: what was on its way when wrk hung up.
    """
    facts = []
    for server in (stage.serve, stage.dispatching):
        surplus = server.stored() - stage.acknowledged[server.name]
        if surplus < 0:
            raise ServerFailed(f"{server.name}: {-surplus} acknowledged messages are not stored")
        note = "0 acknowledged ones missing; in flight when a run ended"
        facts.append(Fact(f"stored beyond the acknowledged, {server.name}", surplus, "", note))
    return facts
