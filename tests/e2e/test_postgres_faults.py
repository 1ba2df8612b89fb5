"""PostgreSQL is restarted, and the way to it cut and stopped up, under load."""

import itertools
import random
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from tests.support.aftermath import judge, settle
from tests.support.history import Outcome
from tests.support.load import Clients
from tests.support.proxy import CommitFault, ProxyThread, proxy_thread_to
from tests.support.served import Served, served, wait_until
from tools.postgres import PostgresServer, postgres

pytestmark = pytest.mark.postgresql

CREDITS = 10_000_000
SENDS = 50
AGAIN_WITHIN_S = 60.0


@pytest.fixture
def own_postgres():
    """A PostgreSQL server that may be stopped without harm to anybody else, and is as durable as by default."""
    with postgres() as server:
        yield server


@pytest.fixture
def way(own_postgres):
    with proxy_thread_to("127.0.0.1", own_postgres.port) as proxy:
        yield proxy


@pytest.fixture
def server(own_postgres, way, tmp_path: Path):
    """The product on that server, which it reaches through a proxy."""
    url = own_postgres.url.replace(f":{own_postgres.port}/", f":{way.port}/")
    with served(tmp_path / "var", database_url=url) as running:
        yield running


class Faults:
    """What is done to PostgreSQL and to the way there; each returns once it is over."""

    def __init__(self, database: PostgresServer, way: ProxyThread) -> None:
        self._database = database
        self._way = way

    def spoil_commits(self) -> None:
        """Cut connections in mid-commit."""
        faults = random.choices(list(CommitFault), k=5)
        self._way.tell(lambda proxy: proxy.faults.extend(faults))
        wait_until(lambda: self._way.tell(lambda proxy: not proxy.faults), what="spoilt commits")

    def cut(self) -> None:
        """Cut every connection, whatever it is doing."""
        self._way.tell(lambda proxy: proxy.cut())

    def restart_in_order(self) -> None:
        """Restart PostgreSQL as an upgrade would."""
        self._database.stop("fast")
        self._database.start()

    def crash(self) -> None:
        """Restart PostgreSQL as a crash would."""
        self._database.stop("immediate")
        self._database.start()

    def stop_up(self) -> None:
        """Let nothing through for a while, then cut what was stuck."""
        self._way.tell(lambda proxy: proxy.swallow())
        time.sleep(2)  # the fault itself: nothing is waited for
        self._way.tell(lambda proxy: proxy.cut())
        self._way.tell(lambda proxy: proxy.pass_on())

    def all(self) -> list[Callable[[], None]]:
        """Return every fault."""
        return [self.spoil_commits, self.cut, self.restart_in_order, self.crash, self.stop_up]


def through_faults(server: Served, faults: Iterable[Callable[[], None]]) -> str:
    accounts = [server.account(credits=CREDITS) for _ in range(4)]
    clients = Clients([server.http_port], accounts)
    clients.start()
    again_s = []
    try:
        for fault in faults:
            clients.wait_for(SENDS)
            fault()
            began = time.monotonic()
            clients.wait_for(SENDS)
            again_s.append(time.monotonic() - began)
    finally:
        clients.stop()
    assert server.is_up(), "it was not to be restarted"
    settle(server)
    books = judge(server, clients.history, refusals=["IDEMPOTENCY_MISMATCH"])
    unknown = clients.history.count(Outcome.UNKNOWN)
    assert unknown.total() > 0
    assert set(unknown) <= {"503", "504"}
    assert max(again_s) < AGAIN_WITHIN_S
    return (
        f"{len(again_s)} faults, {len(books.messages)} messages, {unknown.total()} attempts without an answer, "
        f"{SENDS} sends again within {max(again_s):.1f} s"
    )


def test_nothing_is_lost_or_doubled_whatever_happens_to_postgresql(server, own_postgres, way, note):
    note(through_faults(server, Faults(own_postgres, way).all()))


@pytest.mark.faults
def test_nothing_is_lost_or_doubled_over_100_faults(server, own_postgres, way, note):
    faults = Faults(own_postgres, way).all()
    note(through_faults(server, itertools.islice(itertools.cycle(faults), 100)))
