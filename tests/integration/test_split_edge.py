"""An edge apart, which passes sends on together: what its clients see when its core is not well."""

import asyncio
import contextlib

import pytest

from hydrasms_app.compose import running_edge
from hydrasms_app.settings import Settings
from hydrasms_core.messaging import store
from hydrasms_edge import coalescing
from tests.support.gates import Gate
from tests.support.product import PHONE, client_of, product_in
from tests.support.served import free_port
from tests.support.split import split_edge
from tests.support.waiting import eventually


def post(http, account, content, key=None):
    headers = {"Authorization": account.key} | ({} if key is None else {"Idempotency-Key": key})
    return http.post("/api/messages", headers=headers, json={"recipient": PHONE, "content": content})


async def contents(product, account):
    return sorted(message.content for message in await product.messages(account.id))


@contextlib.asynccontextmanager
async def edge_for(data_dir, port):
    """An edge whose core may come and go on a port."""
    here = Settings(http_port=0, data_dir=data_dir)
    apart = here.model_copy(update={"core_address": f"127.0.0.1:{port}"})
    async with running_edge(apart) as edge, client_of(edge.http_port) as http:
        yield http


async def answers_over_a_restart(target, data_dir):
    """Send with keys and without while the core is away; return the answers of both, and what is then stored."""
    port = free_port()

    def core():
        return product_in(data_dir, target, grpc_port=port)

    async with contextlib.AsyncExitStack() as stack:
        async with core() as product:
            account = await product.account(credits=100)
            http = await stack.enter_async_context(edge_for(data_dir, port))
            await eventually(lambda: is_accepted(post(http, account, "before")))
        careful = [asyncio.create_task(post(http, account, f"{n}", f"k-{n}")) for n in range(20)]
        careless = await asyncio.gather(*(post(http, account, f"careless {n}") for n in range(20)))
        async with core() as product:
            answered = await asyncio.gather(*careful)
            # And all is as it was, for the careless too.
            await eventually(lambda: is_accepted(post(http, account, "after")))
            stored = await contents(product, account)
            assert await product.balance(account.id) == 100 - len(stored)
    return answered, careless, stored


async def test_a_core_that_restarts_is_not_noticed_by_clients_with_idempotency_keys(
    database_target, tmp_path
):
    careful, careless, stored = await answers_over_a_restart(database_target, tmp_path / "data")
    assert {answer.status_code for answer in careful} == {200}
    assert {(answer.status_code, answer.json()["code"]) for answer in careless} == {(503, "UNAVAILABLE")}
    assert {answer.headers["retry-after"] for answer in careless} == {"1"}
    assert stored == sorted(["before", "after", *(f"{n}" for n in range(20))])


async def test_control_an_edge_that_tries_nothing_again_is_noticed(database_target, tmp_path, monkeypatch):
    monkeypatch.setattr(coalescing, "_CORE_GONE", ())
    careful, _, stored = await answers_over_a_restart(database_target, tmp_path / "data")
    assert {answer.status_code for answer in careful} == {503}
    assert stored == ["after", "before"]


async def is_accepted(posting):
    return (await posting).status_code == 200


@pytest.mark.parametrize("coalesce", [False, True], ids=["unary", "coalescing"])
async def test_of_a_send_that_was_given_up_before_its_turn_nothing_is_stored(
    still_product, coalesce, monkeypatch
):
    account, gate, insert = await still_product.account(credits=100), Gate(), store.insert_queued

    async def insert_when_open(tx, messages, keyed, **options):
        if any(message.content == "begun" for message in messages):
            await gate.pass_through(tx)
        await insert(tx, messages, keyed, **options)

    monkeypatch.setattr(store, "insert_queued", insert_when_open)
    async with split_edge(still_product, deadline_s=1.0, coalesce=coalesce) as split:
        http = split.http
        await eventually(lambda: is_accepted(post(http, account, "first", "first")))
        # The writer takes this one in and stands there with it; what comes then waits behind it, or at the edge.
        assert (await post(http, account, "begun")).status_code == 504
        await gate.reached()
        given_up = await asyncio.gather(*(post(http, account, f"given up {n}") for n in range(30)))
        assert {answer.status_code for answer in given_up} == {504}
        gate.open()
        await eventually(lambda: is_accepted(post(http, account, "last", "last")))
    assert await contents(still_product, account) == ["begun", "first", "last"]
    assert await still_product.balance(account.id) == 100 - 3
