"""What one run of one case measured, and the few sums over many of them."""

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Sample:
    """One run: `count` things done in `seconds`, and how long each of them took."""

    count: int
    seconds: float
    p50_ms: float
    p99_ms: float
    errors: int = 0
    """Answers other than the one that was meant, and connections that failed; not part of `count`."""
    cpu_s: float | None = None
    """Processor time that the server (or, where it is none, the process itself) took for all of it."""

    @property
    def rate(self) -> float:
        """Things done a second."""
        return self.count / self.seconds if self.seconds else 0.0

    @property
    def cpu_us(self) -> float | None:
        """Processor time of one of them, in microseconds."""
        return None if self.cpu_s is None or not self.count else self.cpu_s / self.count * 1e6


@dataclass(frozen=True, slots=True)
class Spread:
    """The median of several runs with the least and the greatest."""

    median: float
    least: float
    greatest: float


def spread(values: Sequence[float]) -> Spread:
    """Return median, least and greatest of one value or more."""
    return Spread(statistics.median(values), min(values), max(values))


def of_latencies(
    latencies_s: Sequence[float],
    seconds: float,
    *,
    weight: int = 1,
    errors: int = 0,
    cpu_s: float | None = None,
) -> Sample:
    """Return the sample of calls that took so long each; `weight` things are done by one call."""
    ordered = sorted(latencies_s)
    return Sample(
        count=len(ordered) * weight,
        seconds=seconds,
        p50_ms=percentile(ordered, 0.50) * 1000,
        p99_ms=percentile(ordered, 0.99) * 1000,
        errors=errors,
        cpu_s=cpu_s,
    )


def percentile(ordered: Sequence[float], share: float) -> float:
    """Return the smallest value that at least `share` of the ordered values do not exceed; 0 of none."""
    if not ordered:
        return 0.0
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def slope(points: Sequence[tuple[float, float]]) -> float:
    """Return by how much y grows for each x, by least squares; 0 where that cannot be told."""
    if len(points) < 2:
        return 0.0
    mean_x = statistics.fmean(x for x, _ in points)
    mean_y = statistics.fmean(y for _, y in points)
    width = sum((x - mean_x) ** 2 for x, _ in points)
    return sum((x - mean_x) * (y - mean_y) for x, y in points) / width if width else 0.0


def pairwise(
    above: Sequence[Sample],
    below: Sequence[Sample],
    of: Callable[[Sample], float] = lambda sample: sample.rate,
) -> list[float]:
    """Return the quotient of each run and its neighbour in time."""
    return [of(a) / of(b) if of(b) else 0.0 for a, b in zip(above, below, strict=True)]
