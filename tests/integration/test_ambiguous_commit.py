"""A commit whose answer never comes: whether it was done is found out by looking, never guessed."""

import asyncio
import random

import grpc
import pytest
import sqlalchemy as sa

from hydrasms.billing.v1 import billing_service_pb2 as billing_pb
from hydrasms.messaging.v1 import messaging_service_pb2 as messaging_pb
from hydrasms_core.carriers.base import Refused
from hydrasms_core.db.postgres import PostgresDatabase
from hydrasms_core.messaging.model import Status
from tests.support.databases import opened, postgres_copy
from tests.support.delivery import PHONE, ToldCarrier, queue, queued_message
from tests.support.history import History, Outcome, Send, check, read_books
from tests.support.load import meaning
from tests.support.product import TIMEOUT_S, Product, TestAccount, product_in
from tests.support.proxy import CommitFault, proxy_to

pytestmark = pytest.mark.postgresql

CREDITS = 1_000_000


@pytest.fixture
async def url(postgres_template):
    async with postgres_copy(postgres_template) as made:
        yield made


@pytest.fixture
async def proxy(url):
    parts = sa.make_url(url)
    async with proxy_to(str(parts.host), int(parts.port or 5432)) as running:
        yield running


@pytest.fixture
def through(url, proxy):
    """The URL that leads to the database through the proxy."""
    return sa.make_url(url).set(host="127.0.0.1", port=proxy.port).render_as_string(hide_password=False)


@pytest.fixture
async def database(through):
    """The database of the worlds here."""
    async with opened(through) as database:
        yield database


@pytest.fixture
async def still(through, tmp_path):
    """The product without its dispatcher, so that every commit is a send's, over a proxy to its database."""
    async with product_in(tmp_path / "data", through, dispatcher=False) as product:
        yield product


async def books_at(url):
    """Read the books past the proxy."""
    async with opened(url) as database:
        return await read_books(database)


class Sender:
    """Sends over REST and notes what it is told."""

    def __init__(self, product: Product, account: TestAccount) -> None:
        self.history = History()
        self._product = product
        self._account = account

    async def send(self, content: str, key: str | None = None) -> int:
        """Send once; returns the status."""
        number = self.history.begin(Send(content, self._account.id, key, 1))
        headers = {"Idempotency-Key": key} if key else {}
        answer = await self._product.post(self._account, content, headers=headers)
        self.history.end(number, *meaning(answer.status_code, answer.json()))
        return answer.status_code


@pytest.fixture
async def sender(still):
    return Sender(still, await still.account(credits=CREDITS))


@pytest.mark.parametrize(
    ("fault", "status"),
    [
        (CommitFault.ANSWER_IS_LOST, 200),
        # It was still under way when the first look at it was taken.
        (CommitFault.ARRIVES_LATE, 200),
        (CommitFault.NEVER_ARRIVES, 503),
    ],
)
async def test_what_became_of_a_commit_is_told_as_it_is(sender, proxy, url, fault, status):
    proxy.faults.append(fault)
    assert await sender.send("in doubt", "key") == status
    books = await books_at(url)
    assert [message.content for message in books.messages] == (["in doubt"] if status == 200 else [])
    assert await sender.send("in doubt", "key") == 200
    assert check(sender.history.attempts(), await books_at(url)) == []


async def send_through_faults(sender, proxy, *, rounds, at_once):
    """Send many at once, a commit of whose is spoilt in each round."""
    for turn in range(rounds):
        proxy.faults.append(random.choice(list(CommitFault)))
        await asyncio.gather(
            *(
                sender.send(f"{turn} {number}", f"{turn} {number}" if number % 2 else None)
                for number in range(at_once)
            )
        )
        assert proxy.faults == []


async def violations_in(sender, url):
    """Return what is wrong, a send that was refused and done all the same included."""
    books, attempts = await books_at(url), sender.history.attempts()
    refused = {a.send.content for a in attempts if a.outcome is Outcome.UNKNOWN}
    done_all_the_same = refused & {message.content for message in books.messages}
    return {violation.rule for violation in check(attempts, books)} | {"guessed" for _ in done_all_the_same}


async def test_no_send_is_refused_and_done_or_accepted_and_not_done(sender, proxy, url):
    proxy.late_s = 0.2
    await send_through_faults(sender, proxy, rounds=30, at_once=20)
    assert await violations_in(sender, url) == set()
    assert sender.history.count(Outcome.UNKNOWN).keys() <= {"503"}
    assert sender.history.count(Outcome.UNKNOWN).total() > 0


@pytest.mark.faults
async def test_no_send_is_refused_and_done_over_500_faults(sender, proxy, url):
    proxy.late_s = 0.1
    await send_through_faults(sender, proxy, rounds=500, at_once=20)
    assert await violations_in(sender, url) == set()


@pytest.mark.parametrize(("guess", "rule"), [(True, "lost"), (False, "guessed")])
async def test_the_control_that_guesses_is_caught(sender, proxy, url, monkeypatch, guess, rule):
    async def guesses(self, landed):
        return guess

    monkeypatch.setattr(PostgresDatabase, "_look", guesses)
    proxy.late_s = 0.2
    for fault in CommitFault:
        proxy.faults.append(fault)
        await sender.send(f"in doubt: {fault.name}")
    assert rule in await violations_in(sender, url)


async def test_a_grant_is_done_once_however_often_it_is_repeated_with_its_key(still, proxy):
    account = await still.account(credits=5)
    for fault in CommitFault:
        request = billing_pb.GrantCreditsRequest(
            account_id=account.id, amount=7, reason="a test", idempotency_key=fault.name
        )
        proxy.faults.append(fault)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await still.loopback.billing.GrantCredits(request, metadata=still.service, timeout=TIMEOUT_S)
        assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
        # The first may still be on its way to the server.
        await asyncio.sleep(2 * proxy.late_s)
        await still.loopback.billing.GrantCredits(request, metadata=still.service, timeout=TIMEOUT_S)
    assert await still.balance(account.id) == 5 + 7 * len(CommitFault)


@pytest.mark.parametrize("fault", CommitFault)
async def test_a_claim_whose_answer_is_lost_is_not_taken_for_a_dead_workers(make_world, proxy, fault):
    async with make_world(ToldCarrier()).running() as world:
        await world.database.next_written()
        (message_id,) = await queue(world.database, queued_message(world.clock.now_ms()))
        proxy.faults.append(fault)
        world.dispatcher.wake()
        message = await world.until(message_id, Status.SUBMITTED)
        assert proxy.faults == []
        assert (message.attempts, message.duplicate_risk) == (1, False)


async def test_an_answer_that_nobody_may_have_kept_is_settled_once(make_world, proxy):
    carrier = ToldCarrier()
    carrier.may_answer.clear()
    async with make_world(carrier).running() as world:
        message_id = await world.send(PHONE)
        await carrier.until_batches(1)
        proxy.faults.append(CommitFault.ANSWER_IS_LOST)
        carrier.answer = lambda submission: Refused("never")
        carrier.may_answer.set()
        message = await world.until(message_id, Status.REJECTED)
        assert proxy.faults == []
        assert message.attempts == 1
    assert await world.ledger.refunds() == {message_id: 1}


@pytest.mark.parametrize(
    ("fault", "refused"),
    [
        (CommitFault.ANSWER_IS_LOST, False),
        (CommitFault.ARRIVES_LATE, False),
        (CommitFault.NEVER_ARRIVES, True),
    ],
)
async def test_a_text_whose_commit_is_in_doubt_is_taken_in_once_and_never_lost(still, proxy, fault, refused):
    # By then what the core writes when it starts is written, so that the fault meets the text.
    await still.account()
    request = messaging_pb.ReceiveInboundRequest(
        carrier="simulator", carrier_message_id=fault.name, sender="+447700900123", text="pizza"
    )

    async def bring():
        return await still.loopback.messaging.ReceiveInbound(
            request, metadata=still.service, timeout=TIMEOUT_S
        )

    proxy.faults.append(fault)
    if refused:
        with pytest.raises(grpc.aio.AioRpcError) as refusal:
            await bring()
        assert refusal.value.code() is grpc.StatusCode.UNAVAILABLE
    else:
        assert not (await bring()).duplicate
    assert proxy.faults == []
    assert (await bring()).duplicate is not refused
    assert (await bring()).duplicate
    listed = await still.loopback.messaging.ListUnownedInboundMessages(
        messaging_pb.ListUnownedInboundMessagesRequest(), metadata=still.service, timeout=TIMEOUT_S
    )
    assert len(listed.messages) == 1
