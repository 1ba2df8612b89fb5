"""An edge that passes sends on together, and its cores, in processes of their own."""

import itertools
import signal
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.support.roles import split_in, status_of
from tests.support.served import wait_until

AT_ONCE = 100
CLIENTS = 16
CREDITS = 1_000


@pytest.fixture
def split(tmp_path):
    with split_in(tmp_path, HYDRASMS_CORE=f"unix:{tmp_path}/a.sock,unix:{tmp_path}/b.sock") as product:
        yield product


@pytest.fixture
def cores(split, tmp_path):
    """Two cores, and an edge that knows both; idle, so that neither holds the database."""
    started = [
        split.role("core", name=name, HYDRASMS_GRPC_SOCKET=str(tmp_path / f"{name}.sock")) for name in "ab"
    ]
    for process in (*started, split.role("edge")):
        process.start()
    wait_until(lambda: status_of(split.client, "/readyz") == 200, what="an edge that is ready")
    return started


def assert_each_is_there_once(client, account_id, contents):
    messages = Counter(message["content"] for message in client.messages(account_id))
    assert messages == Counter(contents)
    spends = [row for row in client.transactions(account_id) if row["kind"] == "spend"]
    assert len(spends) == len(contents)
    assert client.json("credits", "balance", account_id)["balance"] == CREDITS - len(contents)
    assert client.json("ledger", "verify")["ok"] is True


def test_a_hundred_equal_requests_at_once_are_one_message(split, cores):
    account_id, key = split.client.account(credits=CREDITS)
    with ThreadPoolExecutor(AT_ONCE) as pool:
        answers = list(
            pool.map(lambda _: split.client.send(key, "once", Idempotency_Key="k"), range(AT_ONCE))
        )
    assert {answer.status for answer in answers} == {200}
    assert len({answer.body["ID"] for answer in answers}) == 1
    assert all(answer.body == answers[0].body for answer in answers)
    assert_each_is_there_once(split.client, account_id, ["once"])


def test_a_core_that_hangs_is_gone_around_and_does_no_harm_when_it_goes_on(split, cores):
    account_id, key = split.client.account(credits=CREDITS)
    hanging, _ = cores
    assert hanging.process is not None
    statuses: Counter[int] = Counter()

    def send_until_accepted(content):
        for _ in itertools.count():
            answer = split.client.send(key, content, Idempotency_Key=f"k-{content}")
            statuses[answer.status] += 1
            if answer.status == 200:
                return

    contents = [f"{number}" for number in range(60)]
    with ThreadPoolExecutor(CLIENTS) as pool:
        # Until the edge has called both.
        list(pool.map(send_until_accepted, contents[:20]))
        hanging.process.send_signal(signal.SIGSTOP)
        try:
            list(pool.map(send_until_accepted, contents[20:]))
        finally:
            hanging.process.send_signal(signal.SIGCONT)
    assert set(statuses) <= {200, 503, 504}
    # What the hanging core still held it has looked at by the time that it answers again.
    hanging.terminate()
    assert_each_is_there_once(split.client, account_id, contents)


def test_a_core_that_is_replaced_while_it_hangs_is_missed_for_a_moment_only(split, cores):
    account_id, key = split.client.account(credits=CREDITS)
    for core in cores:
        assert core.process is not None
        core.process.send_signal(signal.SIGSTOP)
    refused = split.client.send(key, "nobody listens", Idempotency_Key="k")
    assert refused.status in (503, 504)
    assert int(refused.headers["retry-after"]) >= 1
    for core in cores:
        core.end()
        core.start()
    wait_until(
        lambda: split.client.send(key, "nobody listens", Idempotency_Key="k").status == 200,
        what="a core that answers",
    )
    assert split.client.send(key, "without a key").status == 200
    assert_each_is_there_once(split.client, account_id, ["nobody listens", "without a key"])
