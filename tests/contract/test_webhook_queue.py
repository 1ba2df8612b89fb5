"""The queue of pushes: what is found in it, and what leaves it."""

import pytest

from hydrasms_core.webhooks import delivery_store
from hydrasms_core.webhooks.tables import webhook_outbox
from tests.support.delivery import ACCOUNT, rows_of
from tests.support.webhooks import OTHER_ACCOUNT, Receivers


@pytest.fixture
def receivers(database, clock):
    return Receivers(database, clock)


async def heads_of(receivers, *endpoints, each):
    now_ms = receivers.clock.now_ms()
    return await receivers.database.read(
        lambda tx: delivery_store.find_heads(tx, endpoints, now_ms=now_ms, each=each)
    )


async def lease(receivers, claim, keys, for_ms=60_000):
    until_ms = receivers.clock.now_ms() + for_ms
    await receivers.database.write(lambda tx: delivery_store.lease(tx, claim, keys, until_ms=until_ms))


async def test_the_longest_due_of_every_endpoint_are_found_so_many_each(receivers):
    busy, _ = await receivers.endpoint()
    quiet, _ = await receivers.endpoint(account_id=OTHER_ACCOUNT)
    empty, _ = await receivers.endpoint(word="nothing")
    for _ in range(5):
        await receivers.push(busy)
        receivers.clock.advance(1)
    await receivers.push(quiet, account_id=OTHER_ACCOUNT)
    endpoints = [(ACCOUNT, busy), (OTHER_ACCOUNT, quiet), (ACCOUNT, empty)]
    found = await heads_of(receivers, *endpoints, each=3)
    oldest_first = [delivery.id for delivery in await receivers.deliveries()]
    assert [found_id for _, endpoint_id, found_id in found if endpoint_id == busy] == oldest_first[:3]
    assert [key[:2] for key in found if key[1] != busy] == [(OTHER_ACCOUNT, quiet)]
    # What somebody holds is not due, and others come in its place.
    await lease(receivers, "claim", [(ACCOUNT, oldest_first[1])])
    found = await heads_of(receivers, (ACCOUNT, busy), each=3)
    assert [key[2] for key in found] == [oldest_first[0], *oldest_first[2:4]]


async def test_only_what_its_claim_still_holds_leaves_the_queue(receivers):
    endpoint_id, _ = await receivers.endpoint()
    await receivers.push(*[endpoint_id] * 4)
    held, gone, taken_over, kept = (delivery.id for delivery in await receivers.deliveries())
    await lease(receivers, "mine", [(ACCOUNT, held), (ACCOUNT, gone), (ACCOUNT, kept)])
    await lease(receivers, "another", [(ACCOUNT, taken_over)])

    async def finish(*ids):
        keys = [(ACCOUNT, each, "mine") for each in ids]
        return await receivers.database.write(lambda tx: delivery_store.finish(tx, keys))

    assert await finish(gone) == {gone}
    assert await finish(held, gone, taken_over) == {held}
    left = {row["delivery_id"]: row["claim"] for row in await rows_of(receivers.database, webhook_outbox)}
    assert left == {taken_over: "another", kept: "mine"}
    assert await finish(taken_over) == set()
