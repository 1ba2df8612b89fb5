"""`channel`: a SendMessage over loopback and over TCP, divided by a bare grpc.aio unary echo."""

from collections import defaultdict

from bench import servers
from bench.accounts import create_accounts, write_ids
from bench.plan import Plan, measured
from bench.report import Benchmark, Case, Fact, Ratio
from bench.sample import Sample, pairwise, spread

_ACCOUNTS = 100
_AT_ONCE = 64
_MODULE = "bench.grpc_run"

_ECHO = "bare grpc.aio echo over TCP"
_TCP = "SendMessage over TCP, durable"
_LOOPBACK = "SendMessage over loopback, durable"
_CHAIN = "loopback, interceptors, no store, 1 caller"
_HANDLER = "loopback, no interceptors, no store, 1 caller"


def run(plan: Plan) -> Benchmark:
    """Measure the echo, both channels, and what a loopback call itself costs."""
    samples: defaultdict[str, list[Sample]] = defaultdict(list)
    with (
        servers.bare_grpc(plan.folder) as echo,
        servers.hydrasms(plan.folder, "channel", "--no-dispatcher", "--no-demo") as serve,
    ):
        accounts = write_ids(create_accounts(serve, _ACCOUNTS), plan.folder / "channel-accounts")

        def over_tcp(server: servers.Server, port: int, token: str) -> Sample:
            arguments = ("send", str(plan.seconds), str(_AT_ONCE), f"127.0.0.1:{port}", str(accounts))
            return measured(server, lambda: plan.run_module(_MODULE, *arguments, token=token))

        def in_process(what: str, at_once: int, number: int) -> Sample:
            folder = plan.folder / f"{what}-{number}"
            return plan.run_module(_MODULE, what, str(plan.seconds), str(at_once), str(folder))

        for number in plan.rounds("channel"):
            servers.settle([echo, serve])
            samples[_ECHO].append(over_tcp(echo, echo.port, "none"))
            samples[_TCP].append(over_tcp(serve, serve.grpc_port, serve.token))
            servers.settle([echo, serve])
            samples[_LOOPBACK].append(in_process("loopback", _AT_ONCE, number))
            samples[_CHAIN].append(in_process("interceptors", 1, number))
            samples[_HANDLER].append(in_process("handler", 1, number))
    facts = [Fact(f"a call: {name}", _cost_us(samples[name]), "us") for name in (_HANDLER, _CHAIN)]
    ratios = [
        Ratio("TCP / bare echo", pairwise(samples[_TCP], samples[_ECHO]), at_least=0.55),
        Ratio("loopback / bare echo", pairwise(samples[_LOOPBACK], samples[_ECHO])),
        Ratio("loopback / TCP", pairwise(samples[_LOOPBACK], samples[_TCP])),
    ]
    return Benchmark("channel", [Case(name, runs) for name, runs in samples.items()], ratios, facts)


def _cost_us(samples: list[Sample]) -> float:
    return spread([sample.seconds / sample.count * 1e6 for sample in samples]).median
