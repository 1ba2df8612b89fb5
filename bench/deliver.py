"""`deliver`: pushes from the queue to 100 webhooks, divided by bare posts there; and how soon a text is pushed."""

from collections import defaultdict

from bench import servers
from bench.accounts import create_accounts
from bench.plan import Plan, measured
from bench.report import Benchmark, Case, Ratio
from bench.sample import Sample, pairwise

_RECEIVERS = 100
_WAYS = {
    "queue": "the deliverer, from the queue in SQLite",
    "bare": "aiohttp alone",
}
_IDLE = "from ReceiveInbound to the receiver, one at a time"


def run(plan: Plan) -> Benchmark:
    """Measure both ways in turn, and one text after the other through a whole server."""
    samples: defaultdict[str, list[Sample]] = defaultdict(list)
    idle: list[Sample] = []
    with (
        servers.receivers(plan.folder, _RECEIVERS) as (receivers, ports),
        servers.hydrasms(plan.folder, "idle") as server,
    ):
        for number in plan.rounds("deliver"):
            for way in _WAYS:
                servers.settle([server, receivers])
                arguments = (way, str(plan.seconds), str(plan.folder), str(ports))
                samples[way].append(plan.run_module("bench.deliver_run", *arguments))
            servers.settle([server, receivers])
            address = f"127.0.0.1:{server.grpc_port}"
            # A new account each, for one has room for one shortcode.
            [account] = create_accounts(server, 1)
            arguments = (address, account.id, f"idle{number}", str(plan.seconds))
            idle.append(
                measured(
                    server,
                    lambda: plan.run_module("bench.deliver_idle", *arguments, token=server.token),  # noqa: B023
                )
            )
    cases = [Case(f"{_WAYS[way]}, {_RECEIVERS} receivers", runs) for way, runs in samples.items()]
    return Benchmark(
        "deliver",
        [*cases, Case(_IDLE, idle)],
        [
            Ratio(
                f"deliverer / aiohttp, {_RECEIVERS} receivers",
                pairwise(samples["queue"], samples["bare"]),
                at_least=0.5,
            ),
            Ratio(f"{_IDLE}, p50 ms", [each.p50_ms for each in idle], at_most=50),
        ],
    )
