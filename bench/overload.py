"""`overload`: three times as many sends as can be accepted, for six times the length of a run, by a load that does
not wait for answers.

How many can be accepted is what 128 connections reach that each send as soon as they are answered. What is asked for:
at least 0.7 of that is accepted all the same, whatever is not is refused in under a second, nothing that was accepted
is lost, and ten seconds later, with half the load of which the server is capable, all is as it was before.
"""

import json
from collections import defaultdict
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

from bench import servers
from bench.accounts import create_accounts, write_keys
from bench.open_loop import Answers
from bench.plan import Plan
from bench.report import Benchmark, Case, Fact, Ratio
from bench.sample import Sample, of_latencies, percentile, spread
from bench.servers import Hydrasms, ServerFailed
from bench.wrk import Load

_ACCOUNTS = 1_000
_CONNECTIONS = 128
_TIMES = 3
_LONG = 6
"""How many times as long as a run of another case the overload lasts: a minute, with ten seconds."""
_AFTER_S = 20.0
_GRACE_S = 60.0

_PEAK = "128 connections, each as fast as it is answered"
_BEFORE = "half as many, whenever they are due"
_ACCEPTED = "3 times as many: accepted"
_REFUSED = "3 times as many: refused"


def run(plan: Plan) -> Benchmark:
    """Find out each round what can be accepted, then offer half of it, three times as much, and half again."""
    samples: defaultdict[str, list[Sample]] = defaultdict(list)
    shares, recovered_s, late_s = [], [], []
    lost = 0
    with servers.hydrasms(plan.folder, "overload") as serve:
        keys = write_keys(create_accounts(serve, _ACCOUNTS), plan.folder / "overload-keys")
        Load(serve.port, keys, _CONNECTIONS, plan.seconds).warm_up("warm")
        for number in plan.rounds("overload"):
            servers.settle([serve])
            stored = serve.stored()
            [peak] = _offer(plan, serve, keys, f"peak-{number}", f"closed-{_CONNECTIONS}:{plan.seconds}")
            most = len(peak.accepted) / peak.seconds
            serve.finish()
            before, during, after = _offer(
                plan,
                serve,
                keys,
                f"over-{number}",
                f"{most / 2}:{plan.seconds}",
                f"{most * _TIMES}:{plan.seconds * _LONG}",
                f"{most / 2}:{_AFTER_S}",
            )
            lost += _unknown(serve.stored() - stored, [peak, before, during, after])
            samples[_PEAK].append(_sample(peak.accepted, peak))
            samples[_BEFORE].append(_sample(before.accepted, before))
            samples[_ACCEPTED].append(_sample(during.accepted, during))
            samples[_REFUSED].append(_sample(during.refused, during))
            shares.append(in_time(during) / during.seconds / most)
            recovered_s.append(normal_after(before, after))
            late_s.append(during.late_s)
    ratios = [
        Ratio("accepted / peak", shares, at_least=0.7),
        Ratio("refused: p99 in s", [each.p99_ms / 1000 for each in samples[_REFUSED]], at_most=1.0),
        Ratio("normal again after, in s", recovered_s, at_most=10.0),
    ]
    facts = [
        Fact(
            "stored beyond the accepted",
            lost,
            "",
            "0 accepted ones missing; never answered, connection broken",
        ),
        Fact("the load itself was late by", max(late_s), "s", "at most; the processor was not its own"),
        Fact("offered", spread([each.rate for each in samples[_PEAK]]).median * _TIMES, "/s"),
    ]
    return Benchmark("overload", [Case(name, runs) for name, runs in samples.items()], ratios, facts)


def _offer(plan: Plan, serve: Hydrasms, keys: Path, word: str, *phases: str) -> list[Answers]:
    """Run a load in a process of its own and return what became of each of its phases."""
    seconds = sum(float(phase.rpartition(":")[2]) for phase in phases)
    arguments = (str(serve.port), str(keys), word, *phases)
    printed = servers.run_module("bench.open_loop", *arguments, timeout_s=seconds + _GRACE_S)
    return [Answers(**each) for each in json.loads(printed)]


def _unknown(stored: int, everything: Sequence[Answers]) -> int:
    """Return how many more messages were stored than accepted; raises ServerFailed for any that is missing or odd."""
    accepted = sum(len(answers.accepted) for answers in everything)
    unanswered = sum(answers.unanswered for answers in everything)
    if not accepted <= stored <= accepted + unanswered:
        raise ServerFailed(
            f"{accepted} sends were accepted and {unanswered} never answered, but {stored} messages are stored"
        )
    return stored - accepted


def _sample(some: Sequence[Sequence[float]], of: Answers) -> Sample:
    errors = of.unanswered + sum(of.others.values())
    return of_latencies([latency for _, latency in some], of.seconds, errors=errors)


def in_time(answers: Answers) -> int:
    """Return how many sends were accepted before their phase was over."""
    return sum(due + latency <= answers.seconds for due, latency in answers.accepted)


def normal_after(before: Answers, after: Answers) -> float:
    """Return the second of a phase from which on sends are accepted nearly as fast as in an earlier phase.

    That is the first of two seconds, one after the other, in which none is refused and the p99 is at most twice as
    long as it was; the length of the phase where there are no such two.
    """
    bound = 2 * percentile(sorted(latency for _, latency in before.accepted), 0.99)
    latencies: defaultdict[int, list[float]] = defaultdict(list)
    for due, latency in after.accepted:
        latencies[int(due)].append(latency)
    refused = {int(due) for due, _ in after.refused}
    good = [
        second not in refused
        and bool(latencies[second])
        and percentile(sorted(latencies[second]), 0.99) <= bound
        for second in range(int(after.seconds))
    ]
    return next((float(second) for second, pair in enumerate(pairwise(good)) if all(pair)), after.seconds)
