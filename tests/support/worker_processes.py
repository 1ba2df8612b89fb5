"""What tests of several workers look at: their processes, and what each of them has counted."""

from collections import Counter

import psutil
from prometheus_client.parser import text_string_to_metric_families

from tests.support.served import Served, wait_until


def worker_pids(server: Served) -> list[int]:
    """Return the processes of a server's workers."""
    assert server.process is not None
    return [child.pid for child in psutil.Process(server.process.pid).children()]


def accepted_by_worker(server: Served) -> Counter[str]:
    """Return how many sends each worker has accepted since it started."""
    counted: Counter[str] = Counter()
    for family in text_string_to_metric_families(server.get("/metrics").body):
        for sample in family.samples:
            labels = sample.labels
            if sample.name == "hydrasms_http_requests_total" and labels["status"] == "200":
                counted[labels["worker"]] += int(sample.value) * (labels["route"] == "/api/messages")
    return counted


def has_ended(pid: int) -> bool:
    """Tell whether a process is gone, or only waits for its parent to take notice."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def await_replacement(server: Served, killed: int, count: int) -> None:
    """Wait until a server has its workers again, all of which answer."""

    def replaced() -> bool:
        pids = worker_pids(server)
        return len(pids) == count and killed not in pids and _answering(server) == count

    wait_until(replaced, bound_s=60, what="a worker in the place of one that was killed")


def _answering(server: Served) -> int:
    text = server.get("/metrics").body
    return sum(line.startswith("hydrasms_worker_up") and line.endswith(" 1") for line in text.splitlines())
