"""How a benchmark is to be run."""

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from bench import servers
from bench.sample import Sample
from bench.servers import Server

_GRACE_S = 120.0


@dataclass(frozen=True)
class Plan:
    """The settings of a benchmark, and the folder for its data."""

    folder: Path
    seconds: float
    """How long one run of one case takes."""
    runs: int
    """How many rounds there are; each runs every case once, so that cases alternate."""
    sends: int
    """How many messages the memory benchmark sends."""
    rows: int
    """How many messages the growth benchmark finds in a full database."""

    def rounds(self, name: str) -> Iterator[int]:
        """Count the rounds, saying on standard error how far things are."""
        for number in range(1, self.runs + 1):
            print(f"{name}: round {number} of {self.runs}", file=sys.stderr, flush=True)
            yield number

    def run_module(self, module: str, *arguments: str, token: str = "") -> Sample:
        """Run one case in a process of its own."""
        return servers.run_sample(module, *arguments, token=token, timeout_s=self.seconds + _GRACE_S)


def measured(server: Server, run: Callable[[], Sample]) -> Sample:
    """Run something and return its sample with the processor time that a server took meanwhile."""
    before = server.cpu_s()
    sample = run()
    return replace(sample, cpu_s=server.cpu_s() - before)
