"""Following events of the whole product: over REST with cuts, over gRPC, and while it ends."""

import asyncio
import contextlib
import time

import grpc

from hydrasms.accounts.v1 import account_service_pb2 as accounts_pb
from hydrasms.messaging.v1 import messaging_service_pb2 as pb
from tests.support.product import Stubs, product_in
from tests.support.sse import reading
from tests.support.waiting import BOUND_S, eventually

MESSAGES = 40


async def test_nothing_is_lost_or_doubled_however_often_the_stream_is_cut(product):
    account, other = await product.account(credits=MESSAGES), await product.account(credits=MESSAGES)
    port = product.server.http_port
    async with reading(port, account.key) as stream:
        place = (await stream.block()).id

    async def send(sender):
        return [(await product.send(sender, f"text {number}")).id for number in range(MESSAGES)]

    sending = asyncio.gather(send(account), send(other))
    told: list[str] = []
    while len(told) < MESSAGES:
        async with reading(port, account.key, last_event_id=place) as stream:
            # Cut off after a few, at no particular place.
            for _ in range(min(len(told) % 5 + 1, MESSAGES - len(told))):
                event = await stream.event()
                place = stream.last_id
                assert event.id == place
                assert event.event == "message_status_changed"
                assert event.data["accountId"] == account.id
                assert event.data["messageStatus"]["status"] == "MESSAGE_STATUS_DELIVERED"
                told.append(event.data["messageStatus"]["messageId"])
    sent, _ = await sending
    assert sorted(told) == sorted(sent)
    rest = await product.tcp.messaging.ListEvents(
        pb.ListEventsRequest(after=place), metadata=product.with_key(account.key)
    )
    assert list(rest.events) == []


async def test_who_waits_at_the_core_is_told_soon_over_every_transport(product):
    account = await product.account(credits=2)
    for name in ("loopback", "tcp"):
        messaging = product.stubs[name].messaging
        metadata = product.with_key(account.key)
        now = await messaging.ListEvents(pb.ListEventsRequest(from_now=True), metadata=metadata)
        waiting = asyncio.ensure_future(
            messaging.ListEvents(
                pb.ListEventsRequest(after=now.next_after, wait_ms=20_000), metadata=metadata, timeout=BOUND_S
            )
        )
        sent = await product.send(account)
        found = await waiting
        assert [event.message_status.message_id for event in found.events] == [sent.id]


async def test_operators_follow_all_accounts(product):
    accounts = [await product.account(credits=1) for _ in range(2)]
    sent = {(await product.send(account)).id for account in accounts}

    async def told():
        found = await product.tcp.messaging.ListEvents(pb.ListEventsRequest(), metadata=product.service)
        return {event.message_status.message_id for event in found.events} == sent

    await eventually(told, what="both accounts' events")


async def test_a_disabled_key_ends_its_stream(product):
    account = await product.account()
    async with reading(product.server.http_port, account.key) as stream:
        await stream.block()
        await product.loopback.accounts.DisableApiKey(
            accounts_pb.DisableApiKeyRequest(api_key_id=account.key_id), metadata=product.service
        )
        assert (await stream.block()).comment == "API_KEY_DISABLED"
        assert await stream.ends()


async def test_a_product_that_ends_waits_for_nobody_who_follows(database_target, tmp_path):
    async with contextlib.AsyncExitStack() as stack:
        async with product_in(tmp_path / "data", database_target) as product:
            account = await product.account()
            # A channel of its own: the product's are closed before it ends.
            channel = await stack.enter_async_context(
                grpc.aio.insecure_channel(product.server.core_addresses[0])
            )
            waiting = asyncio.ensure_future(
                Stubs(channel).messaging.ListEvents(
                    pb.ListEventsRequest(wait_ms=30_000),
                    metadata=product.with_key(account.key),
                    timeout=2 * BOUND_S,
                )
            )
            following = await stack.enter_async_context(reading(product.server.http_port, account.key))
            await following.block()
            # What was sent after it over the same connection is answered, so that it has arrived.
            await Stubs(channel).messaging.ListEvents(
                pb.ListEventsRequest(), metadata=product.with_key(account.key)
            )
            assert not waiting.done()
            began = time.monotonic()
        assert time.monotonic() - began < 8
        assert await following.ends()
        assert list((await waiting).events) == []
