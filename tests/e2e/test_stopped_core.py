"""A core that stands still: its edge answers in time, nothing is sent twice, traffic returns by itself."""

import signal
import time
from pathlib import Path

import pytest

from hydrasms_edge.settings import EdgeSettings
from tests.support.aftermath import judge, settle
from tests.support.history import History, Outcome, Send
from tests.support.load import Clients
from tests.support.roles import Split, split_in, status_of
from tests.support.served import wait_until

CREDITS = 10_000_000
DEADLINE_S = EdgeSettings().deadline_s
LATE_S = 10.0
"""By how much a busy machine may miss a deadline."""
AGAIN_WITHIN_S = 30.0


def stop_under_load(split: Split, note, *, stopped_s: float) -> None:
    roles = {name: split.role(name) for name in ("core", "edge", "worker")}
    for process in roles.values():
        process.start()
    server = split.client
    wait_until(lambda: status_of(server, "/readyz") == 200, what="a product that is ready")
    accounts = [server.account(credits=CREDITS) for _ in range(3)]
    clients = Clients([server.http_port], accounts, threads=6)
    clients.start()
    try:
        clients.wait_for(50)
        roles["core"].signal(signal.SIGSTOP)
        stopped = time.monotonic()
        answers_s = send_while_stopped(server, clients.history, accounts[0], until=stopped + stopped_s)
        assert server.get("/").status == 200
        assert server.get("/livez").status == 200
        assert server.get("/readyz").status == 503
        roles["core"].signal(signal.SIGCONT)
        resumed = time.monotonic()
        wait_until(lambda: status_of(server, "/readyz") == 200, bound_s=AGAIN_WITHIN_S, what="readiness")
        clients.wait_for(100)
        again_s = time.monotonic() - resumed
    finally:
        roles["core"].signal(signal.SIGCONT)
        clients.stop()
    assert max(answers_s) < DEADLINE_S + LATE_S
    settle(server)
    judge(server, clients.history, refusals=["IDEMPOTENCY_MISMATCH"])
    assert set(clients.history.count(Outcome.UNKNOWN)) <= {"503", "504"}
    assert clients.history.count(Outcome.UNKNOWN).total() > 0
    note(
        f"stopped for {stopped_s:.0f} s: answers within {max(answers_s):.1f} s, "
        f"100 sends within {again_s:.1f} s after it went on"
    )


def send_while_stopped(server, history: History, account, *, until: float) -> list[float]:
    """Send under one key while the core stands still; every answer is a refusal. Returns how long each took."""
    send = Send("while the core stands still", account.id, "one-key", 1)
    took_s: list[float] = []
    while not took_s or time.monotonic() < until:
        number, began = history.begin(send), time.monotonic()
        answer = server.send(account.key, send.content, Idempotency_Key=send.key)
        took_s.append(time.monotonic() - began)
        history.end(number, Outcome.UNKNOWN, str(answer.status))
        assert answer.status in (503, 504), answer
        assert int(answer.headers["retry-after"]) >= 1
    return took_s


def test_a_core_that_stands_still_for_a_while(tmp_path: Path, database_url, note):
    with split_in(tmp_path, HYDRASMS_DATABASE_URL=database_url or "") as split:
        stop_under_load(split, note, stopped_s=1)


@pytest.mark.faults
def test_a_core_that_stands_still_for_30_s(tmp_path: Path, database_url, note):
    with split_in(tmp_path, HYDRASMS_DATABASE_URL=database_url or "") as split:
        stop_under_load(split, note, stopped_s=30)
