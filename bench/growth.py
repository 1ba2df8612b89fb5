"""`growth`: how long a send takes with ten million messages in the database, divided by how long with none."""

import contextlib
import shutil
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from bench import databases, grown, servers
from bench.accounts import create_accounts, write_keys
from bench.plan import Plan, measured
from bench.report import Benchmark, Case, Fact, Ratio
from bench.sample import Sample, pairwise
from bench.servers import Hydrasms, ServerFailed
from bench.wrk import Load

_ACCOUNTS = 1_000
_CONNECTIONS = 64
# Of a message, its transfer and all their indexes, on both databases together, with room for PostgreSQL's log.
_BYTES_A_ROW = 2_500
_BYTES_BESIDE = 10 * 2**30

_SQLITE = "SQLite"
_POSTGRES = "PostgreSQL"
_FLAGS = ("--no-dispatcher", "--no-demo")


@dataclass(frozen=True, slots=True)
class _Filled:
    """A server whose accounts have sent before, and what there was to see when that was made up."""

    server: Hydrasms
    keys: Path
    seconds: float


def run(plan: Plan) -> Benchmark:
    """Fill a database of each kind, then load the empty and the full one of each kind in turn."""
    _require_space(plan)
    samples: defaultdict[str, list[Sample]] = defaultdict(list)
    with contextlib.ExitStack() as stack:
        postgres = stack.enter_context(databases.postgres_server(plan.folder))
        urls = {_SQLITE: ("", ""), _POSTGRES: (postgres.create("empty"), postgres.create("full"))}
        cases: dict[str, _Filled] = {}
        for kind, (empty, full) in urls.items():
            for name, url, rows in ((_empty(kind), empty, 0), (_full(kind), full, plan.rows)):
                cases[name] = stack.enter_context(_filled(plan, name, url, rows))
        loads = {
            name: Load(case.server.port, case.keys, _CONNECTIONS, plan.seconds)
            for name, case in cases.items()
        }
        for load in loads.values():
            load.warm_up("warm")
        for number in plan.rounds("growth"):
            for name, load in loads.items():
                servers.settle(case.server for case in cases.values())
                run_once = partial(load.run, f"run-{number}")
                samples[name].append(measured(cases[name].server, run_once))
        facts = [Fact(f"messages: {name}", case.server.stored()) for name, case in cases.items()]
        facts += [Fact(f"filled in: {_full(kind)}", cases[_full(kind)].seconds, "s") for kind in urls]
    ratios = []
    for kind in urls:
        full_ones, empty_ones = samples[_full(kind)], samples[_empty(kind)]
        slower = pairwise(full_ones, empty_ones, of=lambda sample: sample.p99_ms)
        ratios.append(Ratio(f"{kind}: p99 full / empty", slower, at_most=1.5))
        ratios.append(Ratio(f"{kind}: sends a second full / empty", pairwise(full_ones, empty_ones)))
    return Benchmark("growth", [Case(name, runs) for name, runs in samples.items()], ratios, facts)


@contextlib.contextmanager
def _filled(plan: Plan, name: str, url: str, rows: int) -> Iterator[_Filled]:
    """Run a server whose accounts have sent so many messages before."""
    folder_name = name.replace(" ", "-").replace(",", "")
    with servers.hydrasms(plan.folder, folder_name, *_FLAGS, url=url) as first:
        accounts = create_accounts(first, _ACCOUNTS)
    keys = write_keys(accounts, plan.folder / f"{folder_name}-keys")
    seconds = grown.fill(first.database, [account.id for account in accounts], rows)
    with servers.hydrasms(plan.folder, folder_name, *_FLAGS, url=url) as server:
        yield _Filled(server, keys, seconds)


def _empty(kind: str) -> str:
    return f"{kind}, empty"


def _full(kind: str) -> str:
    return f"{kind}, full"


def _require_space(plan: Plan) -> None:
    needed = plan.rows * _BYTES_A_ROW + _BYTES_BESIDE
    free = shutil.disk_usage(plan.folder).free
    if free < needed:
        raise ServerFailed(
            f"{plan.rows:,} rows need {needed / 2**30:.0f} GiB in {plan.folder} and {free / 2**30:.0f} are free: "
            "see --rows"
        )
