"""kill -9 while carriers bring every text three times: each is one text, with one reply where it is nobody's."""

import queue
import random
import threading
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import grpc
import pytest
import sqlalchemy as sa

from hydrasms.messaging.v1 import messaging_service_pb2 as pb
from hydrasms.messaging.v1.messaging_service_pb2_grpc import MessagingServiceStub
from tests.support.served import Served, served, wait_until

CARRIERS = 8
"""So many bring texts at once."""
WORDS = ("order", "pizza")
"""The first is held by an account, the second by nobody."""


class Bringing:
    """Carriers that bring texts, each again and again until it was acknowledged three times."""

    def __init__(self, server: Served, texts: int) -> None:
        self._server = server
        self._wanted: queue.SimpleQueue[int] = queue.SimpleQueue()
        brought = list(range(texts)) * 3
        random.Random(27).shuffle(brought)
        for number in brought:
            self._wanted.put(number)
        self.total = len(brought)
        self.acknowledged: defaultdict[int, list[str]] = defaultdict(list)
        self.unanswered = 0
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._bring, daemon=True) for _ in range(CARRIERS)]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def done(self) -> int:
        """Return how many acknowledgements there were."""
        with self._lock:
            return sum(map(len, self.acknowledged.values()))

    def join(self, bound_s: float) -> None:
        for thread in self._threads:
            thread.join(bound_s)
            assert not thread.is_alive()

    def _bring(self) -> None:
        token = (self._server.data_dir / "service.token").read_text().split()[0]
        metadata = (("authorization", f"Bearer {token}"),)
        options = [("grpc.max_reconnect_backoff_ms", 200), ("grpc.initial_reconnect_backoff_ms", 50)]
        with grpc.insecure_channel(f"127.0.0.1:{self._server.grpc_port}", options=options) as channel:
            call: Any = MessagingServiceStub(channel).ReceiveInbound
            while True:
                try:
                    number = self._wanted.get_nowait()
                except queue.Empty:
                    return
                self._until_acknowledged(call, metadata, number)

    def _until_acknowledged(self, call: Any, metadata: Any, number: int) -> None:
        request = pb.ReceiveInboundRequest(
            carrier="simulator",
            carrier_message_id=f"text-{number}",
            # No number of a simulated phone that texts back.
            sender=f"+447{number:05}1234",
            text=f"{WORDS[number % 2]} {number}",
        )
        while True:
            try:
                reply = call(request, metadata=metadata, timeout=10, wait_for_ready=True)
            except grpc.RpcError:
                with self._lock:
                    self.unanswered += 1
            else:
                with self._lock:
                    self.acknowledged[number].append(reply.message.id)
                return


def rows(server: Served, statement: str) -> list[Any]:
    async def work(tx: Any) -> list[Any]:
        return [tuple(row) for row in await tx.execute(sa.text(statement))]

    found: list[Any] = server.read(work)
    return found


def bring_through_kills(folder: Path, database_url: str | None, *, texts: int, kills: int) -> str:
    with served(folder / "var", database_url=database_url) as server:
        account = server.account()
        made = server.run("shortcode", "create", account.id, "order")
        assert made.returncode == 0, made.stderr
        bringing = Bringing(server, texts)
        bringing.start()
        for kill in range(1, kills + 1):
            mark = bringing.total * kill // (kills + 1)
            wait_until(lambda mark=mark: bringing.done() >= mark, bound_s=120, what="some texts")
            server.kill()
            server.start()
        bringing.join(300)
        # The faults were felt, or nothing was tested.
        assert bringing.unanswered > 0
        assert len(bringing.acknowledged) == texts
        wait_until(
            lambda: not rows(server, "SELECT id FROM replies WHERE status = 'queued'"),
            bound_s=120,
            what="the replies",
        )
        stored = {
            row[0]: row[1:] for row in rows(server, "SELECT id, account_id, content FROM inbound_messages")
        }
        # Every acknowledgement of a text named the one row that there is of it.
        ids = {number: set(names) for number, names in bringing.acknowledged.items()}
        assert all(len(names) == 1 for names in ids.values())
        assert {name for names in ids.values() for name in names} == set(stored)
        owners = {number: account.id if number % 2 == 0 else "" for number in ids}
        assert {number: stored[next(iter(names))] for number, names in ids.items()} == {
            number: (owner, str(number)) for number, owner in owners.items()
        }
        replies = {row[0]: row[1] for row in rows(server, "SELECT id, duplicate_risk FROM replies")}
        assert set(replies) == {name for name, (owner, _) in stored.items() if not owner}
        said = Counter(row[0] for row in rows(server, "SELECT message_id FROM simulated_texts"))
        assert set(said) == set(replies)
        twice = {name for name, number in said.items() if number > 1}
        # Twice at most, and marked, where the kill hit between the carrier and the note of its answer.
        assert max(said.values()) <= 2
        assert twice <= {name for name, risk in replies.items() if risk}
        happened = rows(server, "SELECT subject_id FROM events WHERE type = 'inbound_received'")
        assert sorted(row[0] for row in happened) == sorted(n for n, (owner, _) in stored.items() if owner)
        return f"{texts} texts, {bringing.unanswered} calls without an answer, {len(twice)} replies twice"


def test_texts_that_come_three_times_count_once_over_a_few_kills(tmp_path: Path, database_url, note):
    note(bring_through_kills(tmp_path, database_url, texts=400, kills=3))


@pytest.mark.faults
def test_5000_texts_that_come_three_times_count_once_over_50_kills(tmp_path: Path, database_url, note):
    note(bring_through_kills(tmp_path, database_url, texts=5_000, kills=50))
