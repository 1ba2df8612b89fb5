"""What tests of webhooks share: receivers that answer as told, endpoints, pushes, and a deliverer over them."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Any, NamedTuple, Self

import orjson
import sqlalchemy as sa

from hydrasms_base.ids import new_id
from hydrasms_base.metrics import Metrics
from hydrasms_base.sealing import Sealer
from hydrasms_base.secret import Secret
from hydrasms_core.db.transaction import Database, Transaction
from hydrasms_core.errors import NotFound
from hydrasms_core.inbound.ports import Push
from hydrasms_core.messaging.model import InboundMessage
from hydrasms_core.messaging.ports import Happening, Happenings, Lanes
from hydrasms_core.messaging.tables import inbound_messages
from hydrasms_core.paging import PageRequest
from hydrasms_core.settings import WebhookSettings
from hydrasms_core.webhooks import store
from hydrasms_core.webhooks.deliverer import Deliverer
from hydrasms_core.webhooks.endpoints import Endpoints
from hydrasms_core.webhooks.model import Delivery, Endpoint
from hydrasms_core.webhooks.ports import Answered, Refusal, Unanswered
from hydrasms_core.webhooks.pushes import PushQueue
from hydrasms_core.webhooks.sealed import EndpointSecrets
from hydrasms_core.webhooks.service import Webhooks
from hydrasms_core.webhooks.tables import webhook_deliveries, webhook_outbox
from tests.support.delivery import ACCOUNT, BOUND_S, ObservedDatabase, rows_of
from tests.support.inbound_rows import insert_inbound

URL = "https://receiver.example/hook"
OTHER_ACCOUNT = "018f0000-0000-7000-8000-000000000002"
# Far beyond what a test waits: whatever happens happens because somebody called.
NEVER_S = 3600.0
NO_ANSWER = Unanswered(Refusal.CONNECT, "Connection refused.", 0.01)


def answered(status: int, body: bytes = b"", retry_after_s: float | None = None) -> Answered:
    return Answered(status, body, retry_after_s, 0.012)


class Posted(NamedTuple):
    """A request as a receiver gets it."""

    url: str
    headers: dict[str, str]
    body: bytes

    @property
    def webhook_id(self) -> str:
        return self.headers["webhook-id"]

    @property
    def json(self) -> Any:
        return orjson.loads(self.body)


class ToldPoster:
    """Posts nowhere: answers what it is told to, once it may."""

    def __init__(self, answer: Callable[[Posted], Answered | Unanswered] | None = None) -> None:
        self.answer = answer or (lambda posted: answered(200, b"ok"))
        self.posted: list[Posted] = []
        self.accepted: Counter[str] = Counter()
        """How often a receiver has answered 2xx, by webhook-id."""
        self.at_once: Counter[str] = Counter()
        """How many posts are under way, by URL."""
        self.most_at_once: Counter[str] = Counter()
        self.may_answer = asyncio.Event()
        self.may_answer.set()
        self._came = asyncio.Event()

    async def post(self, url: str, headers: Mapping[str, str], body: bytes) -> Answered | Unanswered:
        posted = Posted(url, dict(headers), body)
        self.posted.append(posted)
        self.at_once[url] += 1
        self.most_at_once[url] = max(self.most_at_once[url], self.at_once[url])
        self._came.set()
        answer = self.answer(posted)
        # The receiver has it, whether or not anybody is there to hear its answer.
        if isinstance(answer, Answered) and 200 <= answer.status <= 299:
            self.accepted[posted.webhook_id] += 1
        try:
            await self.may_answer.wait()
            await self._take_time(url)
        finally:
            self.at_once[url] -= 1
        return answer

    async def _take_time(self, url: str) -> None:
        """Take as long as the receiver does."""

    async def until_posted(self, number: int) -> None:
        """Wait until so many posts have come; fails after a bound."""
        async with asyncio.timeout(BOUND_S):
            while len(self.posted) < number:
                self._came.clear()
                await self._came.wait()


class RecordedHappenings:
    """Remembers what happened, of the runs that were committed and of those that were not."""

    def __init__(self) -> None:
        self.happened: list[Happening] = []

    async def record(self, tx: Transaction, happenings: Sequence[Happening], *, at_ms: int) -> None:
        self.happened += happenings


def sealer() -> Sealer:
    return Sealer(Secret("a key for tests"))


class Receivers:
    """Endpoints and pushes in a database, as other slices make them."""

    def __init__(self, database: Database, clock: Any) -> None:
        self.database = database
        self.clock = clock
        self.secrets = EndpointSecrets(sealer())
        self.endpoints = Endpoints(self.secrets)
        self.queue = PushQueue()

    async def endpoint(
        self,
        url: str = URL,
        *,
        account_id: str = ACCOUNT,
        word: str = "order",
        auth: str | None = "open sesame",
        retries: bool = True,
    ) -> tuple[str, Secret]:
        """Create the webhook of a shortcode; returns its id and its signing secret."""
        endpoint_id = new_id()
        made = await self.database.write(
            lambda tx: self.endpoints.put(
                tx,
                account_id,
                endpoint_id,
                word=word,
                url=url,
                auth=None if auth is None else Secret(auth),
                retries=retries,
                at_ms=self.clock.now_ms(),
            )
        )
        assert made.signing is not None
        return endpoint_id, made.signing

    async def own_endpoint(self, url: str = URL, account_id: str = ACCOUNT) -> Secret:
        """Set an account's own webhook; returns its signing secret."""
        _, signing = await self.database.write(
            lambda tx: self.endpoints.put_own(tx, account_id, url, at_ms=self.clock.now_ms())
        )
        assert signing is not None
        return signing

    async def push(
        self, *endpoint_ids: str, account_id: str = ACCOUNT, content: str = "large pepperoni"
    ) -> list[str]:
        """Receive a text for each of these endpoints, in one transaction; returns the ids of the texts."""
        now_ms = self.clock.now_ms()
        texts = [
            InboundMessage(new_id(), account_id, "+447700900000", "order", content, None, now_ms)
            for _ in endpoint_ids
        ]

        async def work(tx: Transaction) -> None:
            for text in texts:
                await insert_inbound(tx, text)
            pushes = [
                Push(account_id, endpoint_id, text.id)
                for endpoint_id, text in zip(endpoint_ids, texts, strict=True)
            ]
            await self.queue.enqueue(tx, pushes, at_ms=now_ms)

        await self.database.write(work)
        return [text.id for text in texts]

    async def get(self, endpoint_id: str, account_id: str = ACCOUNT) -> Endpoint:
        found = await self.database.read(lambda tx: store.get_endpoint(tx, account_id, endpoint_id))
        assert found is not None
        return found

    async def deliveries(self, account_id: str = ACCOUNT) -> list[Delivery]:
        """Return all deliveries of an account, oldest first."""
        found: list[Delivery] = []
        before = None
        while True:
            page = PageRequest(1_000, before, "")
            rows = await self.database.read(
                lambda tx, page=page: store.list_deliveries(tx, account_id, page)  # type: ignore[misc]
            )
            found += rows[:1_000]
            if len(rows) <= 1_000:
                return found[::-1]
            before = found[-1].id

    async def statuses(self, account_id: str = ACCOUNT) -> Counter[str]:
        """Return how many deliveries there are, by status."""
        return Counter(each.status.value for each in await self.deliveries(account_id))

    async def webhook_statuses(self) -> list[int | None]:
        """Return what the webhooks of all texts last answered with, oldest text first."""
        query = sa.select(inbound_messages.c.webhook_status).order_by(inbound_messages.c.id)
        return [row[0] for row in await self.database.read(lambda tx: tx.execute(query))]


class PushWorld(Receivers):
    """One process's deliverer, over a database that outlives it."""

    def __init__(
        self,
        observed: ObservedDatabase,
        clock: Any,
        poster: Any = None,
        *,
        jitter: Callable[[], float] = lambda: 0.0,
        lanes: Lanes | None = None,
        happenings: Happenings | None = None,
        **settings: Any,
    ) -> None:
        super().__init__(observed, clock)
        self.observed = observed
        self.poster = poster or ToldPoster()
        self.happenings = RecordedHappenings()
        self.metrics = Metrics()
        self.deliverer = Deliverer(
            observed,
            self.poster,
            self.secrets,
            happenings or self.happenings,
            clock,
            self.metrics,
            WebhookSettings(**({"idle_s": NEVER_S, "pace_s": 0.0} | settings)),
            lanes,
            jitter=jitter,
        )

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[Self]:
        """Run the deliverer; on leaving, drain it."""
        delivering = asyncio.create_task(self.deliverer.run())
        try:
            yield self
        finally:
            async with asyncio.timeout(BOUND_S):
                await self.deliverer.stop()
                await delivering

    @contextlib.asynccontextmanager
    async def killed(self) -> AsyncIterator[Self]:
        """Run the deliverer; on leaving, end it on the spot, whatever is under way."""
        delivering = asyncio.create_task(self.deliverer.run())
        try:
            yield self
        finally:
            delivering.cancel()
            await asyncio.wait([delivering])
            assert delivering.cancelled(), delivering.exception()

    async def pushed(self, *endpoint_ids: str, **options: Any) -> list[str]:
        """Receive texts and call the deliverer."""
        ids = await self.push(*endpoint_ids, **options)
        self.deliverer.wake()
        return ids

    async def until(self, holds: Callable[[], Awaitable[Any]], *, bound_s: float = BOUND_S) -> None:
        """Wait until something holds, looking again after every write; fails after a bound."""
        await self.observed.until(holds, bound_s=bound_s)

    async def until_statuses(self, **expected: int) -> None:
        """Wait until the account has so many deliveries of these statuses and none of others."""

        async def holds() -> bool:
            return await self.statuses() == Counter(expected)

        await self.until(holds)

    async def due(self) -> list[int]:
        """Return when each of what is queued is due."""
        return sorted(row["due_at_ms"] for row in await rows_of(self.database, webhook_outbox))

    async def next_due(self) -> int | None:
        """Return when the first of what is queued is due; None where nothing is queued."""
        query = sa.select(sa.func.min(webhook_outbox.c.due_at_ms))
        return (await self.database.read(lambda tx: tx.execute(query))).scalar_one()

    async def until_nothing_is_due(self, *, bound_s: float = BOUND_S) -> None:
        """Wait until all that is queued is due later and held by nobody."""
        columns = webhook_outbox.c
        query = sa.select(sa.func.count()).where(
            sa.or_(columns.claim != "", columns.due_at_ms <= self.clock.now_ms())
        )

        async def holds() -> bool:
            return (await self.database.read(lambda tx: tx.execute(query))).scalar_one() == 0

        await self.until(holds, bound_s=bound_s)

    async def pass_until_next(self) -> None:
        """Let time pass until something is due, and have the deliverer do all that is due then."""
        next_ms = await self.next_due()
        assert next_ms is not None
        self.pass_time(max(next_ms - self.clock.now_ms(), 0) / 1000)
        await self.until_nothing_is_due()

    def pass_time(self, seconds: float) -> None:
        """Let the clock of the test go on, and have the deliverer look."""
        self.clock.advance(seconds)
        self.deliverer.wake()

    def counted(self, name: str, **labels: str) -> float:
        """Return how far a counter has come."""
        return self.metrics.registry.get_sample_value(f"hydrasms_{name}_total", labels) or 0


class KnownAccounts:
    """Accounts that there are: those of these tests."""

    async def require_account(self, account_id: str) -> None:
        if account_id not in (ACCOUNT, OTHER_ACCOUNT):
            raise NotFound("account")


class ServiceWorld(PushWorld):
    """A deliverer, and beside it what one may ask about its pushes."""

    def __init__(self, observed: ObservedDatabase, clock: Any, poster: Any = None, **settings: Any) -> None:
        super().__init__(observed, clock, poster, **settings)
        self.wakes = 0
        self.webhooks = Webhooks(observed, KnownAccounts(), self.endpoints, clock, self._wake)

    def _wake(self) -> None:
        self.wakes += 1
        self.deliverer.wake()

    async def one(self, account_id: str = ACCOUNT) -> Delivery:
        """Return the account's only delivery."""
        (delivery,) = await self.deliveries(account_id)
        return delivery

    async def until_attempts(self, number: int) -> None:
        """Wait until so many attempts at the account's only delivery are over and recorded."""

        async def holds() -> bool:
            return (await self.one()).attempt_count == number

        await self.until(holds)

    async def happen(self, *happenings: Happening) -> bool:
        """Let what happened to messages be pushed; tells whether there is anything to push."""
        now_ms = self.clock.now_ms()
        queued = await self.database.write(lambda tx: self.queue.status_pushes(tx, happenings, at_ms=now_ms))
        self.deliverer.wake()
        return queued

    async def bury(self, endpoint_id: str, number: int, *, account_id: str = ACCOUNT) -> list[str]:
        """Store so many deliveries that were given up; returns their ids, oldest first."""
        ids = [new_id() for _ in range(number)]
        fixed = {
            "account_id": account_id,
            "endpoint_id": endpoint_id,
            "type": "test",
            "status": "dead",
            "created_at_ms": self.clock.now_ms(),
            "updated_at_ms": self.clock.now_ms(),
        }
        for first in range(0, number, 500):
            rows = [{**fixed, "id": each} for each in ids[first : first + 500]]
            await self.database.write(
                lambda tx, rows=rows: tx.execute(sa.insert(webhook_deliveries).values(rows))  # type: ignore[misc]
            )
        return ids
