"""A disk that fills up under load: refusals that say so, nothing half-written, and no restart once there is space."""

import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.aftermath import judge, settle
from tests.support.history import Outcome
from tests.support.load import Clients
from tests.support.served import Account, Answer, Served, served, wait_until
from tests.support.small_disk import FileSizeLimit, SmallDisk, mounted_tmpfs, small_disk

CREDITS = 10_000_000
SENDS = 100
AGAIN_WITHIN_S = 30.0
"""A bound that a busy machine keeps as well; what it took is noted and is to be under 5 s."""
WARNINGS_A_SECOND = 10


def fill_under_load(server: Served, disk: SmallDisk, *, full_s: float) -> float:
    """Fill a server's disk under load and free it again; returns how many seconds passed before it sent again."""
    accounts = [server.account(credits=CREDITS) for _ in range(2)]
    clients = Clients([server.http_port], accounts, threads=6)

    def send() -> Answer:
        return clients.ask(lambda content: server.send(accounts[0].key, content), accounts[0])

    clients.start()
    try:
        clients.wait_for(SENDS)
        disk.fill(server)
        refused = until_refused(send)
        assert refused.body["code"] == "UNAVAILABLE"
        assert int(refused.headers["retry-after"]) >= 1
        stay_full(server, accounts[0], send, full_s)
        disk.free(server)
        freed = time.monotonic()
        wait_until(lambda: send().status == 200, bound_s=AGAIN_WITHIN_S, what="a send once there was space")
        took_s = time.monotonic() - freed
        clients.wait_for(SENDS)
    finally:
        clients.stop()
    assert server.is_up(), "it was not to be restarted"
    settle(server)
    books = judge(server, clients.history, refusals=["IDEMPOTENCY_MISMATCH"])
    # All met the full disk, and what was refused for it was not half done: it is nowhere.
    assert set(clients.history.count(Outcome.UNKNOWN)) == {"503"}
    attempts = clients.history.attempts()
    refused_for_good = {a.send.content for a in attempts if a.detail == "503" and a.send.key is None}
    assert refused_for_good.isdisjoint(message.content for message in books.messages)
    return took_s


def until_refused(send: Callable[[], Answer]) -> Answer:
    """Send until the disk is found full; whatever is answered before is an acceptance."""

    def refused() -> Answer | None:
        answer = send()
        assert answer.status in (200, 503), answer
        return answer if answer.status == 503 else None

    answer: Answer = wait_until(refused, what="a refusal")
    return answer


def stay_full(server: Served, account: Account, send: Callable[[], Answer], seconds: float) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        assert send().status == 503
        # What needs no space goes on.
        assert server.get("/api/messages", Authorization=account.key).status == 404
        assert server.get("/readyz").status == 200


def warnings(server: Served) -> list[str]:
    # The line that met the end of the disk is torn.
    lines = [line for line in server.log_file.read_text().splitlines() if line.endswith("}")]
    return [line["event"] for line in map(json.loads, lines) if line["level"] != "info"]


def test_a_full_disk_is_refused_and_recovered_from(tmp_path: Path, note):
    with small_disk(tmp_path / "disk") as disk, served(tmp_path / "disk" / "var") as server:
        note(f"{disk.name}: sent again {fill_under_load(server, disk, full_s=2):.2f} s after there was space")


@pytest.mark.faults
def test_a_disk_that_stays_full_for_long(tmp_path: Path, note):
    with mounted_tmpfs(tmp_path / "disk") as disk, served(tmp_path / "disk" / "var") as server:
        note(
            f"{disk.name}: sent again {fill_under_load(server, disk, full_s=30):.2f} s after there was space"
        )


@pytest.mark.faults
def test_files_that_may_not_grow_for_long(tmp_path: Path, note):
    disk = FileSizeLimit()
    with served(tmp_path / "var") as server:
        note(
            f"{disk.name}: sent again {fill_under_load(server, disk, full_s=30):.2f} s after there was space"
        )
        found = warnings(server)
        assert "store_unavailable" in found
        assert len(found) < 30 * WARNINGS_A_SECOND, "the log is flooded"
        note(f"{len(found)} warnings in 30 s")
