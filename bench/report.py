"""Results as data, as a table and as JSON."""

import dataclasses
import json
import os
import platform
import sqlite3
import subprocess
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil

from bench.sample import Sample, spread

_ROOT = Path(__file__).parents[1]


@dataclasses.dataclass(frozen=True, slots=True)
class Case:
    """Something that was measured, once a round."""

    name: str
    samples: Sequence[Sample]
    unit: str = "/s"


@dataclasses.dataclass(frozen=True, slots=True)
class Ratio:
    """Two cases set against each other round by round, and what is expected of that. It never fails a run."""

    name: str
    values: Sequence[float]
    at_least: float | None = None
    aim: float | None = None
    at_most: float | None = None

    @property
    def expectation(self) -> str:
        """What is expected, in words; empty where nothing is."""
        if self.at_most is not None:
            return f"at most {self.at_most:g}"
        if self.at_least is None:
            return ""
        return f"at least {self.at_least:g}" + (f", aim {self.aim:g}" if self.aim is not None else "")

    @property
    def verdict(self) -> str:
        """Whether the median is what was expected; empty where nothing is."""
        median = spread(self.values).median
        if self.at_most is not None:
            return "met" if median <= self.at_most else "MISSED"
        if self.at_least is None:
            return ""
        if self.aim is not None and median >= self.aim:
            return "aim met"
        return "met" if median >= self.at_least else "MISSED"


@dataclasses.dataclass(frozen=True, slots=True)
class Fact:
    """A single figure beside the cases."""

    name: str
    value: float
    unit: str = ""
    note: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class Benchmark:
    """All that one benchmark found."""

    name: str
    cases: Sequence[Case]
    ratios: Sequence[Ratio] = ()
    facts: Sequence[Fact] = ()


def table(benchmark: Benchmark) -> str:
    """Return a benchmark as text."""
    blocks = [f"== {benchmark.name} =="]
    if benchmark.cases:
        header = ("case", "median", "min-max", "p50 ms", "p99 ms", "CPU us", "errors")
        blocks.append(_aligned([header, *(_case_row(case) for case in benchmark.cases)]))
    if benchmark.ratios:
        blocks.append(
            _aligned(
                [
                    ("ratio, by round", "median", "min-max", "expected", ""),
                    *(_ratio_row(ratio) for ratio in benchmark.ratios),
                ]
            )
        )
    if benchmark.facts:
        blocks.append(_aligned([_fact_row(fact) for fact in benchmark.facts]))
    return "\n\n".join(blocks) + "\n"


def as_json(benchmarks: Sequence[Benchmark], *, settings: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Return everything in a form that a program can compare with another run's."""
    return {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": _commit(),
        "machine": machine(folder),
        "settings": settings,
        "benchmarks": {each.name: _benchmark_json(each) for each in benchmarks},
    }


def write_json(document: dict[str, Any], path: Path) -> None:
    """Write a document, making its folder where it is missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document, indent=2) + "\n")


def machine(folder: Path) -> dict[str, Any]:
    """Describe where it ran: figures of two machines cannot be compared, ratios to some degree."""
    return {
        "cpus": os.cpu_count(),
        "memory_mb": round(psutil.virtual_memory().total / 2**20),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
        "grpcio": version("grpcio"),
        "starlette": version("starlette"),
        "uvicorn": version("uvicorn"),
        "filesystem": filesystem(folder),
    }


def filesystem(folder: Path) -> str:
    """Return the kind of file system that holds a folder."""
    path = str(folder.resolve())
    mounts = [
        mount
        for mount in psutil.disk_partitions(all=True)
        if path == mount.mountpoint or path.startswith(mount.mountpoint.rstrip("/") + "/")
    ]
    return max(mounts, key=lambda mount: len(mount.mountpoint)).fstype if mounts else "unknown"


def _benchmark_json(benchmark: Benchmark) -> dict[str, Any]:
    return {
        "cases": [_case_json(case) for case in benchmark.cases],
        "ratios": [
            {
                **dataclasses.asdict(ratio),
                **dataclasses.asdict(spread(ratio.values)),
                "verdict": ratio.verdict,
            }
            for ratio in benchmark.ratios
        ],
        "facts": [dataclasses.asdict(fact) for fact in benchmark.facts],
    }


def _case_json(case: Case) -> dict[str, Any]:
    return {
        "name": case.name,
        "unit": case.unit,
        **dataclasses.asdict(spread([sample.rate for sample in case.samples])),
        "p50_ms": spread([sample.p50_ms for sample in case.samples]).median,
        "p99_ms": spread([sample.p99_ms for sample in case.samples]).median,
        "errors": sum(sample.errors for sample in case.samples),
        "samples": [
            {**dataclasses.asdict(sample), "rate": sample.rate, "cpu_us": sample.cpu_us}
            for sample in case.samples
        ],
    }


def _case_row(case: Case) -> tuple[str, ...]:
    rates = spread([sample.rate for sample in case.samples])
    cpu = [sample.cpu_us for sample in case.samples if sample.cpu_us is not None]
    return (
        case.name,
        f"{_figure(rates.median)}{case.unit}",
        f"{_figure(rates.least)}-{_figure(rates.greatest)}",
        f"{spread([sample.p50_ms for sample in case.samples]).median:.2f}",
        f"{spread([sample.p99_ms for sample in case.samples]).median:.2f}",
        f"{spread(cpu).median:.0f}" if cpu else "",
        str(sum(sample.errors for sample in case.samples)),
    )


def _ratio_row(ratio: Ratio) -> tuple[str, ...]:
    values = spread(ratio.values)
    return (
        ratio.name,
        _figure(values.median),
        f"{_figure(values.least)}-{_figure(values.greatest)}",
        ratio.expectation,
        ratio.verdict,
    )


def _fact_row(fact: Fact) -> tuple[str, ...]:
    return (fact.name, f"{_figure(fact.value)} {fact.unit}".strip(), fact.note)


def _figure(value: float) -> str:
    magnitude = abs(value)
    if magnitude >= 100 or value == int(value):
        return f"{value:,.0f}"
    return f"{value:.1f}" if magnitude >= 10 else f"{value:.3f}"


def _aligned(rows: Sequence[tuple[str, ...]]) -> str:
    """Set rows in columns: the first and those after the figures to the left, the figures to the right."""
    widths = [max(len(row[index]) for row in rows) for index in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [
            cell.ljust(width) if index in (0, *_wordy(rows)) else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  " + "  ".join(cells).rstrip())
    return "\n".join(lines)


def _wordy(rows: Sequence[tuple[str, ...]]) -> tuple[int, ...]:
    columns = len(rows[0])
    return {5: (3, 4), 3: (2,)}.get(columns, ())


def _commit() -> str:
    """Return what git calls the code that ran, with a mark where it was changed since; empty without git."""
    try:
        done = subprocess.run(
            ["git", "describe", "--always", "--dirty"], cwd=_ROOT, capture_output=True, text=True, check=False
        )
    except OSError:
        return ""
    return done.stdout.strip()
