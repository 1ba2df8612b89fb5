"""`postgres`: the store on a durable PostgreSQL against a transaction a request, and all of it against SQLite."""

from collections import defaultdict
from functools import partial
from itertools import count
from typing import NamedTuple

from bench import databases, servers
from bench.accounts import create_accounts, write_keys
from bench.databases import Postgres
from bench.plan import Plan, measured
from bench.report import Benchmark, Case, Ratio
from bench.sample import Sample, pairwise
from bench.wrk import Load
from hydrasms_app import migrate

_ACCOUNTS = 1_000
_CONNECTIONS = 128
_TEMPLATE = "store_template"


class _Way(NamedTuple):
    """One way of accepting sends, without HTTP and gRPC."""

    word: str
    callers: int
    accounts: int


_GROUP = "group commit, 64 callers"
_NAIVE = "asyncpg, a transaction a send, 64 callers"
_HOT = "group commit, 64 callers, one account"
_GROUP_ALONE = "group commit, 1 caller"
_NAIVE_ALONE = "asyncpg, a transaction a send, 1 caller"
_WAYS = {
    _GROUP: _Way("group", 64, _ACCOUNTS),
    _NAIVE: _Way("asyncpg", 64, _ACCOUNTS),
    _HOT: _Way("group", 64, 1),
    _GROUP_ALONE: _Way("group", 1, _ACCOUNTS),
    _NAIVE_ALONE: _Way("asyncpg", 1, _ACCOUNTS),
}
_SQLITE = "serve --no-dispatcher on SQLite"
_POSTGRES = "serve --no-dispatcher on PostgreSQL"


def run(plan: Plan) -> Benchmark:
    """Measure every way, each run on a fresh database, and both servers."""
    samples: defaultdict[str, list[Sample]] = defaultdict(list)
    with databases.postgres_server(plan.folder) as postgres:
        migrate.upgrade(postgres.create(_TEMPLATE))
        with (
            servers.hydrasms(plan.folder, "sqlite", "--no-dispatcher") as on_sqlite,
            servers.hydrasms(
                plan.folder, "postgresql", "--no-dispatcher", url=postgres.create("serve")
            ) as on_postgres,
        ):
            both = {_SQLITE: on_sqlite, _POSTGRES: on_postgres}
            loads: dict[str, Load] = {}
            for name, server in both.items():
                keys = write_keys(create_accounts(server, _ACCOUNTS), plan.folder / f"{server.name}-keys")
                loads[name] = Load(server.port, keys, _CONNECTIONS, plan.seconds)
                loads[name].warm_up("warm")
            numbers = count(1)
            for _ in plan.rounds("postgres"):
                for name, way in _WAYS.items():
                    samples[name].append(_store(plan, postgres, way, f"store_{next(numbers)}"))
                for name, server in both.items():
                    servers.settle(both.values())
                    run_once = partial(loads[name].run, f"run-{next(numbers)}")
                    samples[name].append(measured(server, run_once))
    return Benchmark("postgres", [Case(name, runs) for name, runs in samples.items()], _ratios(samples))


def _store(plan: Plan, postgres: Postgres, way: _Way, name: str) -> Sample:
    url = postgres.create(name, like=_TEMPLATE)
    arguments = (way.word, str(way.callers), str(plan.seconds), str(way.accounts), url)
    sample = plan.run_module("bench.postgres_run", *arguments)
    postgres.drop(name)
    return sample


def _ratios(samples: dict[str, list[Sample]]) -> list[Ratio]:
    wanted = [
        (_GROUP, _NAIVE, 5.0),
        (_GROUP_ALONE, _NAIVE_ALONE, 0.85),
        (_HOT, _GROUP, 0.9),
        (_POSTGRES, _SQLITE, 0.9),
    ]
    return [
        Ratio(f"{above} / {below}", pairwise(samples[above], samples[below]), at_least=least)
        for above, below, least in wanted
    ]
