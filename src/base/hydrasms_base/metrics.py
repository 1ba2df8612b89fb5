"""Metrics of one process, in Prometheus' form."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.gc_collector import GCCollector
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector

LATENCY_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Metrics:
    """Owns the registry; made once a process and passed to whoever counts something."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        GCCollector(registry=self.registry)

    def counter(self, name: str, help_text: str, labels: tuple[str, ...] = ()) -> Counter:
        """Return a new counter named `hydrasms_…_total`."""
        return Counter(f"hydrasms_{name}", help_text, labels, registry=self.registry)

    def gauge(self, name: str, help_text: str, labels: tuple[str, ...] = ()) -> Gauge:
        """Return a new gauge named `hydrasms_…`."""
        return Gauge(f"hydrasms_{name}", help_text, labels, registry=self.registry)

    def histogram(
        self,
        name: str,
        help_text: str,
        labels: tuple[str, ...] = (),
        buckets: tuple[float, ...] = LATENCY_BUCKETS,
    ) -> Histogram:
        """Return a new histogram named `hydrasms_…`; seconds, unless other buckets are given."""
        return Histogram(f"hydrasms_{name}", help_text, labels, registry=self.registry, buckets=buckets)

    def render(self) -> bytes:
        """Return all metrics as text."""
        return generate_latest(self.registry)
