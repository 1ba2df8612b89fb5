"""hydrasms.accounts.v1.AccountService through its stub, with real authentication, over a database."""

from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from hydrasms.accounts.v1 import account_service_pb2 as pb
from hydrasms.accounts.v1 import account_service_pb2_grpc as pb_grpc
from hydrasms_base.keys import digest_key
from hydrasms_core.accounts import store
from hydrasms_core.accounts.directory import AccessDirectory
from hydrasms_core.accounts.service import Accounts
from hydrasms_core.accounts.servicer import AccountServicer
from hydrasms_core.rpc.auth import Authentication, ServiceTokens, account_methods
from hydrasms_core.rpc.interceptors import Errors, Pipeline
from hydrasms_core.rpc.loopback import Loopback
from tests.support.accounts import FakeLedger

TOKEN = "a-service-token"
OPERATOR = (("authorization", f"Bearer {TOKEN}"),)
METHODS = [method.name for method in pb.DESCRIPTOR.services_by_name["AccountService"].methods]
MISSING = "018f0000-0000-7000-8000-000000000001"


@pytest.fixture
def ledger():
    return FakeLedger()


@pytest.fixture
def stub(database, clock, ledger, tmp_path):
    loopback: Any
    tokens = tmp_path / "service.token"
    tokens.write_text(TOKEN)
    directory = AccessDirectory(database, store, clock)
    methods = account_methods([pb.DESCRIPTOR])
    authentication = Authentication(ServiceTokens(tokens, clock), directory, methods)
    loopback = Loopback([Pipeline([Errors(), authentication], guard=authentication.guard_stream)])
    accounts = Accounts(database, ledger, clock, directory.recheck)
    pb_grpc.add_AccountServiceServicer_to_server(AccountServicer(accounts), loopback)
    return pb_grpc.AccountServiceStub(loopback)


@pytest.fixture
async def created(stub):
    request = pb.CreateAccountRequest(name="Hep", initial_credits=100, create_api_key=True)
    return await stub.CreateAccount(request, metadata=OPERATOR)


def with_key(secret):
    return (*OPERATOR, ("hydrasms-key-digest", digest_key(secret)))


async def refusal(call):
    """Return the status code, the reason and the field of a call that is refused."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    info, bad_request = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
    call_error: Any = caught.value
    status = rpc_status.from_call(call_error)
    fields = []
    for detail in status.details:
        detail.Unpack(info)
        if detail.Unpack(bad_request):
            fields = [violation.field for violation in bad_request.field_violations]
    return call_error.code().name, info.reason, *fields


async def test_an_account_begins_with_a_key_and_an_opening_grant(stub, created, ledger):
    assert [opened[:3] for opened in ledger.opened] == [(created.account.id, 100, "service")]
    own = await stub.GetAccount(pb.GetAccountRequest(), metadata=with_key(created.api_key_secret))
    assert own.account == created.account
    assert own.account.plan == pb.PLAN_FREE


async def test_an_api_key_reaches_its_own_account_and_nothing_else(stub, created):
    metadata = with_key(created.api_key_secret)
    other = (await stub.CreateAccount(pb.CreateAccountRequest(name="Other"), metadata=OPERATOR)).account
    foreign = await refusal(stub.GetAccount(pb.GetAccountRequest(account_id=other.id), metadata=metadata))
    missing = await refusal(stub.GetAccount(pb.GetAccountRequest(account_id=MISSING), metadata=metadata))
    assert foreign == missing == ("NOT_FOUND", "NOT_FOUND")
    named = pb.GetAccountRequest(account_id=created.account.id)
    assert (await stub.GetAccount(named, metadata=metadata)).account == created.account


@pytest.mark.parametrize("method", [method for method in METHODS if method != "GetAccount"])
async def test_what_is_for_operators_is_refused_to_an_api_key(stub, created, method):
    request = getattr(pb, f"{method}Request")()
    call = getattr(stub, method)(request, metadata=with_key(created.api_key_secret))
    assert await refusal(call) == ("PERMISSION_DENIED", "PERMISSION_DENIED")


@pytest.mark.parametrize("method", METHODS)
async def test_nothing_is_answered_without_a_service_token(stub, method):
    call = getattr(stub, method)(getattr(pb, f"{method}Request")())
    assert await refusal(call) == ("UNAUTHENTICATED", "INVALID_SERVICE_TOKEN")


async def test_an_operator_names_the_account(stub, created):
    assert await refusal(stub.GetAccount(pb.GetAccountRequest(), metadata=OPERATOR)) == (
        "INVALID_ARGUMENT",
        "INVALID_ARGUMENT",
        "account_id",
    )
    for request in (pb.UpdateAccountRequest(), pb.CreateApiKeyRequest(), pb.ListApiKeysRequest()):
        method = type(request).__name__.removesuffix("Request")
        call = getattr(stub, method)(request, metadata=OPERATOR)
        assert await refusal(call) == ("NOT_FOUND", "NOT_FOUND")


async def test_accounts_are_listed_in_pages(stub, created):
    second = (await stub.CreateAccount(pb.CreateAccountRequest(name="Second"), metadata=OPERATOR)).account
    first_page = await stub.ListAccounts(pb.ListAccountsRequest(page_size=1), metadata=OPERATOR)
    rest = pb.ListAccountsRequest(page_size=1, page_token=first_page.next_page_token)
    last_page = await stub.ListAccounts(rest, metadata=OPERATOR)
    assert [*first_page.accounts, *last_page.accounts] == [second, created.account]
    assert last_page.next_page_token == ""
    bad = stub.ListAccounts(pb.ListAccountsRequest(page_token="x"), metadata=OPERATOR)
    assert await refusal(bad) == ("INVALID_ARGUMENT", "INVALID_PAGE_TOKEN", "page_token")


async def test_an_account_is_updated(stub, created):
    request = pb.UpdateAccountRequest(account_id=created.account.id, plan=pb.PLAN_PREMIUM, suspended=True)
    updated = (await stub.UpdateAccount(request, metadata=OPERATOR)).account
    assert (updated.name, updated.plan, updated.suspended) == ("Hep", pb.PLAN_PREMIUM, True)
    found = await stub.GetAccount(pb.GetAccountRequest(account_id=updated.id), metadata=OPERATOR)
    assert found.account == updated


async def test_a_bound_that_is_passed_names_its_field(stub, created):
    bad = pb.CreateApiKeyRequest(account_id=created.account.id, imported=pb.ImportedKey(digest="short"))
    assert await refusal(stub.CreateApiKey(bad, metadata=OPERATOR)) == (
        "INVALID_ARGUMENT",
        "INVALID_ARGUMENT",
        "imported.digest",
    )
    long = pb.RotateApiKeyRequest(api_key_id=created.api_key.id, overlap=Duration(seconds=30 * 86_400 + 1))
    assert (await refusal(stub.RotateApiKey(long, metadata=OPERATOR)))[-1] == "overlap"


async def test_a_key_from_elsewhere_speaks_for_the_account_that_took_it_over(stub, created):
    imported = pb.ImportedKey(digest=digest_key("sk-made-elsewhere"), prefix="sk-m")
    request = pb.CreateApiKeyRequest(account_id=created.account.id, imported=imported)
    answer = await stub.CreateApiKey(request, metadata=OPERATOR)
    assert (answer.secret, answer.api_key.imported) == ("", True)
    own = await stub.GetAccount(pb.GetAccountRequest(), metadata=with_key("sk-made-elsewhere"))
    assert own.account.id == created.account.id
    assert await refusal(stub.CreateApiKey(request, metadata=OPERATOR)) == (
        "ALREADY_EXISTS",
        "ALREADY_EXISTS",
    )


async def test_a_key_is_disabled_enabled_and_deleted(stub, created):
    metadata, key_id = with_key(created.api_key_secret), created.api_key.id
    disabled = await stub.DisableApiKey(pb.DisableApiKeyRequest(api_key_id=key_id), metadata=OPERATOR)
    assert not disabled.api_key.enabled
    own = pb.GetAccountRequest()
    assert await refusal(stub.GetAccount(own, metadata=metadata)) == ("PERMISSION_DENIED", "API_KEY_DISABLED")
    enabled = await stub.EnableApiKey(pb.EnableApiKeyRequest(api_key_id=key_id), metadata=OPERATOR)
    assert enabled.api_key == created.api_key
    assert (await stub.GetAccount(own, metadata=metadata)).account == created.account
    await stub.DeleteApiKey(pb.DeleteApiKeyRequest(api_key_id=key_id), metadata=OPERATOR)
    assert await refusal(stub.GetAccount(own, metadata=metadata)) == ("UNAUTHENTICATED", "UNKNOWN_API_KEY")


async def test_a_key_is_rotated_and_the_rotation_answered_again(stub, created, clock):
    request = pb.RotateApiKeyRequest(
        api_key_id=created.api_key.id, overlap=Duration(seconds=60), idempotency_key="once"
    )
    first = await stub.RotateApiKey(request, metadata=OPERATOR)
    again = await stub.RotateApiKey(request, metadata=OPERATOR)
    assert (again.api_key, again.replaced) == (first.api_key, first.replaced)
    assert (bool(first.secret), again.secret, again.idempotent_replayed) == (True, "", True)
    clock.advance(60)
    for secret, code in ((created.api_key_secret, "PERMISSION_DENIED"), ("hsms_never", "UNAUTHENTICATED")):
        call = stub.GetAccount(pb.GetAccountRequest(), metadata=with_key(secret))
        assert (await refusal(call))[0] == code
    own = await stub.GetAccount(pb.GetAccountRequest(), metadata=with_key(first.secret))
    assert own.account.id == created.account.id
    keys = await stub.ListApiKeys(pb.ListApiKeysRequest(account_id=own.account.id), metadata=OPERATOR)
    assert list(keys.api_keys) == [first.api_key, first.replaced]


async def test_a_creation_is_answered_again_without_the_secret(stub, ledger):
    request = pb.CreateAccountRequest(name="Hep", create_api_key=True, idempotency_key="once")
    first = await stub.CreateAccount(request, metadata=OPERATOR)
    again = await stub.CreateAccount(request, metadata=OPERATOR)
    assert (again.account, again.api_key) == (first.account, first.api_key)
    assert (again.api_key_secret, again.idempotent_replayed) == ("", True)
    assert len(ledger.opened) == 1
    request.name = "Other"
    assert await refusal(stub.CreateAccount(request, metadata=OPERATOR)) == (
        "ALREADY_EXISTS",
        "IDEMPOTENCY_MISMATCH",
        "idempotency_key",
    )
