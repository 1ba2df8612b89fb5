"""Tenants see nothing of each other, and nobody without a credential sees anything (bars 21).

What there is to call is asked of the server itself, by reflection, so that a new RPC is covered by being served.
"""

import itertools
from collections.abc import AsyncIterator, Iterator
from typing import Any

import grpc
import pytest
import pytest_asyncio
from google.api import annotations_pb2
from google.protobuf import descriptor_pool, message_factory
from google.protobuf.descriptor import FieldDescriptor, MethodDescriptor
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from hydrasms.accounts.v1 import account_service_pb2 as accounts_pb
from hydrasms.messaging.v1 import shortcode_service_pb2 as shortcodes_pb
from hydrasms.webhooks.v1 import webhook_service_pb2 as webhooks_pb
from hydrasms_base.ids import new_id
from hydrasms_base.keys import generate_key
from tests.support.databases import copy_of
from tests.support.product import PHONE, TIMEOUT_S, Metadata, Product, TestAccount, product_in
from tests.support.waiting import eventually

pytestmark = pytest.mark.asyncio(loop_scope="module")

OPEN_SERVICES = frozenset({"grpc.health.v1.Health"})
REFLECTION = "grpc.reflection.v1alpha.ServerReflection"
ISOLATED = frozenset({grpc.StatusCode.NOT_FOUND, grpc.StatusCode.INVALID_ARGUMENT})
# Where an id only narrows down what is the account's own, there is nothing under another's, nor under one that
# there is not: deliveries outlive their endpoint.
FILTERS = frozenset({("ListDeliveries", "endpoint_id")})
FILTERED = frozenset({grpc.StatusCode.OK})
# Nothing is sent there: the product of these tests has no worker.
RECEIVER = "https://receiver.example/texts"

# What a request needs beside the ids, so that nothing else about it is wrong.
FIELDS: dict[str, Any] = {
    "recipient": PHONE,
    "content": "Hello",
    "amount": 1,
    "reason": "a test",
    "name": "x",
    "word": "anybodys",
}
_words = (f"settled{number}" for number in itertools.count())


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def product(database_kind, database_template, tmp_path_factory) -> AsyncIterator[Product]:
    """One product for all tests here, which describes itself."""
    folder = tmp_path_factory.mktemp("isolation")
    async with (
        copy_of(database_kind, database_template, folder) as target,
        product_in(folder / "data", target, reflection=True, dispatcher=False) as opened,
    ):
        yield opened


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def methods(product) -> list[MethodDescriptor]:
    """Every method that the server serves, but for those that are open to all."""
    stub: Any = reflection_pb2_grpc.ServerReflectionStub(product.tcp.channel)
    request = reflection_pb2.ServerReflectionRequest(list_services="")
    replies = stub.ServerReflectionInfo(iter([request]), metadata=product.service, timeout=TIMEOUT_S)
    names = [service.name async for reply in replies for service in reply.list_services_response.service]
    pool = descriptor_pool.Default()
    assert OPEN_SERVICES | {REFLECTION} < set(names)
    return [
        method
        for name in names
        if name not in OPEN_SERVICES | {REFLECTION}
        for method in pool.FindServiceByName(name).methods
    ]


class Tenant:
    """An account that has one object of every kind, under every id that it goes by."""

    def __init__(self, account: TestAccount, objects: dict[str, str], tokens: list[str]) -> None:
        self.account = account
        self.objects = objects
        self.tokens = tokens


async def settle(product: Product) -> Tenant:
    account = await product.account(credits=10, plan=accounts_pb.PLAN_PREMIUM)
    messages = [await product.send(account, f"secret {number}") for number in range(2)]
    inbound = [await product.receive(account.id, content="secret") for _ in range(2)]
    transactions = await product.transactions(account.id)
    metadata = product.with_key(account.key)
    shortcodes = [
        await product.loopback.shortcodes.CreateShortcode(
            shortcodes_pb.CreateShortcodeRequest(word=next(_words), webhook_url=RECEIVER), metadata=metadata
        )
        for _ in range(2)
    ]
    endpoint_id = shortcodes[1].shortcode.id
    deliveries = [
        await product.loopback.webhooks.SendTestEvent(
            webhooks_pb.SendTestEventRequest(endpoint_id=endpoint_id), metadata=metadata
        )
        for _ in range(2)
    ]
    objects = {
        "account": account.id,
        "api key": account.key_id,
        "message": messages[0].id,
        "inbound message": inbound[0].id,
        "transaction": transactions[0].id,
        "shortcode": shortcodes[0].shortcode.id,
        "shortcode, by its word": shortcodes[0].shortcode.word,
        "webhook endpoint": endpoint_id,
        "webhook delivery": deliveries[0].delivery.id,
    }
    pages = [
        await product.loopback.messaging.ListMessages(
            request("ListMessages", page_size=1), metadata=metadata
        ),
        await product.loopback.messaging.ListInboundMessages(
            request("ListInboundMessages", page_size=1), metadata=metadata
        ),
        await product.loopback.billing.ListTransactions(
            request("ListTransactions", page_size=1), metadata=metadata
        ),
        await product.loopback.shortcodes.ListShortcodes(
            shortcodes_pb.ListShortcodesRequest(page_size=1), metadata=metadata
        ),
        await product.loopback.webhooks.ListDeliveries(
            webhooks_pb.ListDeliveriesRequest(page_size=1), metadata=metadata
        ),
    ]
    tokens = [page.next_page_token for page in pages]
    assert all(tokens)
    return Tenant(account, objects, tokens)


def request(method: str, **fields: Any) -> Any:
    for package in ("messaging", "billing"):
        service = f"hydrasms.{package}.v1.{package.capitalize()}Service"
        found = descriptor_pool.Default().FindServiceByName(service).methods_by_name.get(method)
        if found is not None:
            return message_factory.GetMessageClass(found.input_type)(**fields)
    raise AssertionError(f"there is no {method}")


def is_an_accounts_own(method: MethodDescriptor) -> bool:
    return bool(method.GetOptions().HasExtension(annotations_pb2.http))


def references(method: MethodDescriptor) -> list[str]:
    """Return the fields of a request that name an object."""
    return [
        field.name
        for field in method.input_type.fields
        if field.name.endswith("_id") and field.type == FieldDescriptor.TYPE_STRING
    ]


def filled(method: MethodDescriptor, **fields: str) -> Any:
    """Return a request in which all is well but what is said."""
    made: Any = message_factory.GetMessageClass(method.input_type)()
    for field in method.input_type.fields:
        if field.name in fields:
            setattr(made, field.name, fields[field.name])
        elif field.name in FIELDS:
            setattr(made, field.name, FIELDS[field.name])
        elif field.name == "items":
            made.items.add(recipient=PHONE, content="Hello")
    return made


async def answer(channel: Any, method: MethodDescriptor, asked: Any, metadata: Metadata) -> tuple[Any, ...]:
    """Return all that a caller can see of an answer: code, message, and every byte of the details."""
    call = channel.unary_unary(
        f"/{method.containing_service.full_name}/{method.name}",
        request_serializer=type(asked).SerializeToString,
        response_deserializer=message_factory.GetMessageClass(method.output_type).FromString,
    )
    try:
        response = await call(asked, metadata=metadata, timeout=TIMEOUT_S)
    except grpc.aio.AioRpcError as error:
        details = {
            name: value
            for name, value in error.trailing_metadata() or ()
            # Of the call, not of the answer.
            if name not in ("date", "x-request-id")
        }
        return error.code(), error.details(), details
    return grpc.StatusCode.OK, response


def foreign_ids(tenant: Tenant, method: MethodDescriptor) -> Iterator[tuple[str, str, str]]:
    for field, (kind, object_id) in itertools.product(references(method), tenant.objects.items()):
        yield field, kind, object_id


async def test_anothers_object_is_answered_exactly_as_one_that_there_is_not(product, methods):
    own, other = await settle(product), await settle(product)
    metadata, compared = product.with_key(own.account.key), 0
    for channel in (product.loopback.channel, product.tcp.channel):
        for method in filter(is_an_accounts_own, methods):
            for field, kind, object_id in foreign_ids(other, method):
                foreign = await answer(channel, method, filled(method, **{field: object_id}), metadata)
                missing = await answer(channel, method, filled(method, **{field: new_id()}), metadata)
                assert foreign == missing, f"{method.full_name}: {field} of another's {kind}"
                isolated = FILTERED if (method.name, field) in FILTERS else ISOLATED
                assert foreign[0] in isolated, f"{method.full_name}: {field} of another's {kind}"
                compared += 1
    assert compared >= 2 * len(other.objects) * sum(map(is_an_accounts_own, methods))
    assert len(await product.messages(other.account.id)) == 2
    assert await product.balance(other.account.id) == 8


async def test_a_service_that_acts_for_one_account_finds_no_object_of_another(product, methods):
    own, other = await settle(product), await settle(product)
    compared = 0
    for method in filter(is_an_accounts_own, methods):
        for field, kind, object_id in foreign_ids(other, method):
            if field == "account_id":
                continue
            named = {"account_id": own.account.id}
            foreign = await answer(
                product.loopback.channel,
                method,
                filled(method, **named, **{field: object_id}),
                product.service,
            )
            missing = await answer(
                product.loopback.channel,
                method,
                filled(method, **named, **{field: new_id()}),
                product.service,
            )
            assert foreign == missing, f"{method.full_name}: {field} of another's {kind}"
            expected = FILTERED if (method.name, field) in FILTERS else {grpc.StatusCode.NOT_FOUND}
            assert foreign[0] in expected, f"{method.full_name}: {field} of another's {kind}"
            compared += 1
    assert compared


async def test_an_operators_rpc_tells_an_api_key_nothing_of_what_there_is(product, methods):
    own, other = await settle(product), await settle(product)
    metadata = product.with_key(own.account.key)
    forbidden = list(itertools.filterfalse(is_an_accounts_own, methods))
    assert len(forbidden) >= 10
    for method in forbidden:
        blank = await answer(product.loopback.channel, method, filled(method), metadata)
        assert blank[0] is grpc.StatusCode.PERMISSION_DENIED, method.full_name
        for field, kind, object_id in foreign_ids(other, method):
            asked = filled(method, **{field: object_id})
            assert await answer(product.loopback.channel, method, asked, metadata) == blank, (
                f"{method.full_name}: {field} of another's {kind}"
            )


async def test_anothers_page_token_is_answered_exactly_as_one_that_no_list_made(product, methods):
    own, other = await settle(product), await settle(product)
    metadata = product.with_key(own.account.key)
    paged = [
        method
        for method in filter(is_an_accounts_own, methods)
        if "page_token" in method.input_type.fields_by_name
    ]
    assert len(paged) >= 3
    for method in paged:
        nonsense = await answer(
            product.loopback.channel, method, filled(method, page_token="nonsense"), metadata
        )
        assert nonsense[0] is grpc.StatusCode.INVALID_ARGUMENT
        for token in other.tokens:
            asked = filled(method, page_token=token)
            assert await answer(product.loopback.channel, method, asked, metadata) == nonsense


async def test_nothing_of_another_is_in_any_answer(product, methods):
    own, other = await settle(product), await settle(product)
    metadata = product.with_key(own.account.key)
    seen = ""
    for method in filter(is_an_accounts_own, methods):
        named = {
            "message_id": own.objects["message"],
            "shortcode_id": own.objects["shortcode"],
            "endpoint_id": own.objects["webhook endpoint"],
            "delivery_id": own.objects["webhook delivery"],
        }
        found = await answer(product.loopback.channel, method, filled(method, **named), metadata)
        assert found[0] is grpc.StatusCode.OK, method.full_name
        seen += str(found[1])
    listed = await product.http.get("/api/messages", headers={"Authorization": own.account.key})
    seen += listed.text
    for kind, object_id in other.objects.items():
        assert object_id not in seen, kind
    # The check looks where own objects are.
    assert all(own.objects[kind] in seen for kind in own.objects if kind != "api key")


async def test_the_comparison_tells_an_object_from_none(product, methods):
    own = await settle(product)
    metadata = product.with_key(own.account.key)
    (method,) = [method for method in methods if method.name == "GetMessage"]
    found = await answer(
        product.loopback.channel, method, filled(method, message_id=own.objects["message"]), metadata
    )
    missing = await answer(product.loopback.channel, method, filled(method, message_id=new_id()), metadata)
    assert found != missing


# ---- the core is closed ------------------------------------------------------------------------------------


async def codes(product: Product, methods: list[MethodDescriptor], metadata: Metadata) -> dict[str, Any]:
    """Call every method over both channels, with requests that name nothing, and return the codes by method."""
    found = {}
    for name, channel in (("loopback", product.loopback.channel), ("tcp", product.tcp.channel)):
        for method in methods:
            found[f"{name} {method.full_name}"] = (await answer(channel, method, filled(method), metadata))[0]
    return found


BAD_TOKENS: list[tuple[str, Metadata]] = [
    ("nothing", ()),
    ("an empty token", (("authorization", "Bearer "),)),
    ("a wrong token", (("authorization", "Bearer wrong"),)),
    ("a token without its scheme", (("authorization", "wrong"),)),
    ("another scheme", (("authorization", "Basic d3Jvbmc="),)),
    ("the digest of a key alone", (("hydrasms-key-digest", "0" * 64),)),
]


@pytest.mark.parametrize("metadata", [pytest.param(metadata, id=name) for name, metadata in BAD_TOKENS])
async def test_without_the_service_token_every_rpc_is_unauthenticated(product, methods, metadata):
    assert set((await codes(product, methods, metadata)).values()) == {grpc.StatusCode.UNAUTHENTICATED}


async def test_a_good_key_alone_opens_nothing(product, methods):
    account = await product.account()
    metadata = product.with_key(account.key)[1:]
    assert set((await codes(product, methods, metadata)).values()) == {grpc.StatusCode.UNAUTHENTICATED}


async def test_two_tokens_open_nothing_even_where_one_is_right(product, methods):
    metadata = (*product.service, ("authorization", "Bearer wrong"))
    assert set((await codes(product, methods, metadata)).values()) == {grpc.StatusCode.UNAUTHENTICATED}


async def test_with_a_key_that_nobody_has_every_rpc_is_unauthenticated(product, methods):
    metadata = product.with_key(generate_key())
    assert set((await codes(product, methods, metadata)).values()) == {grpc.StatusCode.UNAUTHENTICATED}


@pytest.mark.parametrize("digest", ["", "x", "0" * 63, "A" * 64, "0" * 64])
async def test_with_what_is_no_digest_every_rpc_is_unauthenticated(product, methods, digest):
    metadata = (*product.service, ("hydrasms-key-digest", digest))
    assert set((await codes(product, methods, metadata)).values()) == {grpc.StatusCode.UNAUTHENTICATED}


async def test_two_keys_open_nothing_even_where_both_are_right(product, methods):
    """Least of all what a service may do."""
    account = await product.account()
    (*_, digest) = product.with_key(account.key)
    metadata = (*product.service, digest, digest)
    assert set((await codes(product, methods, metadata)).values()) == {grpc.StatusCode.UNAUTHENTICATED}


async def test_with_a_key_that_was_deleted_every_rpc_is_unauthenticated(product, methods):
    account = await product.account()
    metadata = product.with_key(account.key)
    assert grpc.StatusCode.UNAUTHENTICATED not in (await codes(product, methods, metadata)).values()
    await product.loopback.accounts.DeleteApiKey(
        accounts_pb.DeleteApiKeyRequest(api_key_id=account.key_id), metadata=product.service
    )
    assert set((await codes(product, methods, metadata)).values()) == {grpc.StatusCode.UNAUTHENTICATED}


async def test_with_a_key_that_was_disabled_every_rpc_is_refused(product, methods):
    account = await product.account()
    await product.loopback.accounts.DisableApiKey(
        accounts_pb.DisableApiKeyRequest(api_key_id=account.key_id), metadata=product.service
    )
    found = await codes(product, methods, product.with_key(account.key))
    assert set(found.values()) == {grpc.StatusCode.PERMISSION_DENIED}


async def test_with_the_service_token_no_rpc_is_unauthenticated(product, methods):
    found = await codes(product, methods, product.service)
    assert grpc.StatusCode.UNAUTHENTICATED not in found.values()
    assert grpc.StatusCode.OK in found.values()


async def test_with_a_service_token_that_was_revoked_every_rpc_is_unauthenticated(
    database_kind, database_template, tmp_path, methods
):
    async with (
        copy_of(database_kind, database_template, tmp_path) as target,
        product_in(tmp_path / "data", target) as product,
    ):
        revoked = product.service
        assert grpc.StatusCode.UNAUTHENTICATED not in (await codes(product, methods, revoked)).values()
        (tmp_path / "data" / "service.token").write_text("the-next-token\n")
        (first, *_) = methods

        async def refused() -> bool:
            found = await answer(product.loopback.channel, first, filled(first), revoked)
            return found[0] is grpc.StatusCode.UNAUTHENTICATED

        await eventually(refused, within_s=5, what="the revocation")
        assert set((await codes(product, methods, revoked)).values()) == {grpc.StatusCode.UNAUTHENTICATED}
        following = (("authorization", "Bearer the-next-token"),)
        assert grpc.StatusCode.UNAUTHENTICATED not in (await codes(product, methods, following)).values()


async def test_every_service_of_the_stubs_is_served(methods):
    pool = descriptor_pool.Default()
    served = {method.containing_service.full_name for method in methods}
    files = {method.containing_service.file.name for method in methods}
    declared = {
        service.full_name for name in files for service in pool.FindFileByName(name).services_by_name.values()
    }
    assert served == declared
    assert len(methods) >= 22
