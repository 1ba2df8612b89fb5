"""`batch`: messages a second by BatchSendMessages, divided by single sends over TCP."""

from collections import defaultdict

from bench import servers
from bench.accounts import create_accounts, write_ids
from bench.plan import Plan, measured
from bench.report import Benchmark, Case, Ratio
from bench.sample import Sample, pairwise

_ACCOUNTS = 100
_SINGLE = "single sends, 64 in flight"
_CASES = {
    _SINGLE: ("send", 64),
    "batches of 100, 4 in flight": ("batch-100", 4),
    "batches of 1,000, 4 in flight": ("batch-1000", 4),
}


def run(plan: Plan) -> Benchmark:
    """Measure batches of two sizes beside single sends, all against one server."""
    samples: defaultdict[str, list[Sample]] = defaultdict(list)
    with servers.hydrasms(plan.folder, "batch", "--no-dispatcher", "--no-demo") as serve:
        accounts = write_ids(create_accounts(serve, _ACCOUNTS), plan.folder / "batch-accounts")

        def client(what: str, at_once: int) -> Sample:
            address = f"127.0.0.1:{serve.grpc_port}"
            arguments = (what, str(plan.seconds), str(at_once), address, str(accounts))
            return plan.run_module("bench.grpc_run", *arguments, token=serve.token)

        for _ in plan.rounds("batch"):
            for name, (what, at_once) in _CASES.items():
                servers.settle([serve])
                samples[name].append(measured(serve, lambda what=what, n=at_once: client(what, n)))  # type: ignore[misc]
    ratios = [
        Ratio(f"{name} / {_SINGLE}", pairwise(runs, samples[_SINGLE]), at_least=5)
        for name, runs in samples.items()
        if name != _SINGLE
    ]
    return Benchmark("batch", [Case(name, runs) for name, runs in samples.items()], ratios)
