"""Runs wrk, the load generator, and reads what it found."""

import json
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.sample import Sample

_SCRIPT = Path(__file__).with_name("send.lua")
_MARK = "RESULT "
_WARM_UPS = 60
_ADVICE = "the benchmark needs wrk: apt-get install wrk"


class LoadFailed(Exception):
    """wrk is missing, or did not run as it should."""


@dataclass(frozen=True, slots=True)
class Load:
    """Who sends how much where."""

    port: int
    keys: Path
    """A file with one API key a line."""
    connections: int
    seconds: float

    def run(self, word: str) -> Sample:
        """Send for the given time; `word` must be another for each run, or its idempotency keys repeat."""
        found = self._wrk(word, self.seconds)
        refused = found["refused"]
        return Sample(
            count=found["answers"] - refused,
            seconds=found["duration_us"] / 1e6,
            p50_ms=found["p50_us"] / 1000,
            p99_ms=found["p99_us"] / 1000,
            errors=refused + sum(found["broken"].values()),
        )

    def warm_up(self, word: str) -> int:
        """Send with every key at least twice and return how many were accepted; raises LoadFailed unless all were.

        A server has much to learn from the first send of an account; what is measured later is what comes then.
        """
        wanted = 2 * len(self.keys.read_text().split())
        accepted = 0
        for number in range(_WARM_UPS):
            found = self._wrk(f"{word}-{number}", 1.0, str(accepted))
            statuses = found["statuses"]
            if set(statuses) != {"200"} or any(found["broken"].values()):
                raise LoadFailed(
                    f"port {self.port} answers other than 200 to what it should accept: "
                    f"{statuses}, broken connections: {found['broken']}"
                )
            accepted += int(statuses["200"])
            if accepted >= wanted:
                break
        return accepted

    def _wrk(self, word: str, seconds: float, *more: str) -> dict[str, Any]:
        command = [
            *("wrk", "--threads", "1", "--connections", str(self.connections)),
            *("--duration", f"{max(1, round(seconds))}s", "--timeout", "10s", "--script", str(_SCRIPT)),
            f"http://127.0.0.1:{self.port}",
            *("--", str(self.keys), word, *more),
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=seconds + 60)
        lines = [line for line in done.stdout.splitlines() if line.startswith(_MARK)]
        if done.returncode or len(lines) != 1:
            raise LoadFailed(f"wrk failed: {(done.stderr or done.stdout).strip()[-500:]}")
        found: dict[str, Any] = json.loads(lines[0].removeprefix(_MARK))
        if not found["answers"]:
            raise LoadFailed(f"no answer from port {self.port} ({found['broken']} broken connections)")
        return found


def require_wrk() -> None:
    """Make sure that wrk is there, installing it where we may; raises LoadFailed with the one line of advice."""
    if shutil.which("wrk"):
        return
    apt = shutil.which("apt-get")
    if apt is None or os.geteuid() != 0:
        raise LoadFailed(_ADVICE)
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for arguments in (["update", "-q"], ["install", "-q", "-y", "--no-install-recommends", "wrk"]):
        # A failed update may still leave a list that knows the package.
        subprocess.run([apt, *arguments], env=environment, capture_output=True, check=False)
    if not shutil.which("wrk"):
        raise LoadFailed(_ADVICE)
