"""hydrasms.accounts.v1.AccountService: what its servicer asks of the service, and what it answers."""

from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration

from hydrasms.accounts.v1 import account_service_pb2 as accounts_pb
from hydrasms_base.secret import Secret
from hydrasms_core.accounts import model as accounts
from hydrasms_core.accounts.servicer import AccountServicer
from hydrasms_core.caller import Caller
from hydrasms_core.paging import Page
from tests.support.servicers import ask

ACCOUNTS = accounts_pb.DESCRIPTOR.services_by_name["AccountService"]
ALICE = Caller(account_id="alice")
SERVICE = Caller(account_id=None)
AT_MS = 1_780_049_700_007

ACCOUNT = accounts.Account("alice", "Alice", accounts.Plan.PREMIUM, False, True, AT_MS, AT_MS + 1)
KEY = accounts.ApiKey("k1", "alice", "Laptop", "hsms_1234", False, True, AT_MS, AT_MS + 5)


def ask_accounts(method: str, request: Any, who: Caller = SERVICE, **answers: Any) -> tuple[Any, Any]:
    """Return what the service was asked and what the caller was answered."""
    return ask(ACCOUNTS, AccountServicer, method, request, who, answers)


def test_a_creation_is_unpacked_with_its_defaults():
    asked, response = ask_accounts(
        "CreateAccount",
        accounts_pb.CreateAccountRequest(name="Alice"),
        create=accounts.CreatedAccount(ACCOUNT, None, None),
    )
    assert asked == ("create", accounts.NewAccount("Alice"), ("actor", "service"))
    assert not response.HasField("api_key")
    assert response.api_key_secret == ""


def test_a_creation_is_unpacked_with_all_that_it_says_and_shows_the_key_once():
    asked, response = ask_accounts(
        "CreateAccount",
        accounts_pb.CreateAccountRequest(
            name="Alice",
            plan=accounts_pb.PLAN_PREMIUM,
            sending_enabled=False,
            initial_credits=7,
            create_api_key=True,
            idempotency_key="k",
        ),
        create=accounts.CreatedAccount(ACCOUNT, KEY, Secret("hsms_secret"), replayed=True),
    )
    assert asked[1] == accounts.NewAccount("Alice", accounts.Plan.PREMIUM, False, 7, True, "k")
    packed = response.account
    assert (packed.id, packed.name, packed.plan) == ("alice", "Alice", accounts_pb.PLAN_PREMIUM)
    assert (packed.sending_enabled, packed.suspended) == (False, True)
    assert (packed.created_at.ToMilliseconds(), packed.updated_at.ToMilliseconds()) == (AT_MS, AT_MS + 1)
    assert (response.api_key.id, response.api_key_secret) == ("k1", "hsms_secret")
    assert response.idempotent_replayed


def test_an_account_is_read_by_itself_or_by_name():
    for who, request in (
        (ALICE, accounts_pb.GetAccountRequest()),
        (SERVICE, accounts_pb.GetAccountRequest(account_id="alice")),
    ):
        asked, response = ask_accounts("GetAccount", request, who, get=ACCOUNT)
        assert asked == ("get", "alice")
        assert response.account.name == "Alice"


def test_an_update_changes_what_was_set_alone():
    asked, _ = ask_accounts(
        "UpdateAccount", accounts_pb.UpdateAccountRequest(account_id="alice"), update=ACCOUNT
    )
    assert asked == ("update", "alice", accounts.AccountChange())
    asked, _ = ask_accounts(
        "UpdateAccount",
        accounts_pb.UpdateAccountRequest(
            account_id="alice", name="", plan=accounts_pb.PLAN_FREE, sending_enabled=False, suspended=False
        ),
        update=ACCOUNT,
    )
    assert asked == ("update", "alice", accounts.AccountChange("", accounts.Plan.FREE, False, False))


def test_lists_of_accounts_and_keys_are_asked_for_by_page():
    asked, response = ask_accounts(
        "ListAccounts",
        accounts_pb.ListAccountsRequest(page_size=7, page_token="here"),
        list_accounts=Page([ACCOUNT], "there"),
    )
    assert asked == ("list_accounts", 7, "here")
    assert ([each.id for each in response.accounts], response.next_page_token) == (["alice"], "there")
    asked, response = ask_accounts(
        "ListApiKeys",
        accounts_pb.ListApiKeysRequest(account_id="alice", page_size=7, page_token="here"),
        list_keys=Page([KEY], "there"),
    )
    assert asked == ("list_keys", "alice", 7, "here")
    (packed,) = response.api_keys
    assert (packed.id, packed.account_id, packed.name, packed.prefix) == (
        "k1",
        "alice",
        "Laptop",
        "hsms_1234",
    )
    assert (packed.enabled, packed.imported) == (False, True)
    assert (packed.created_at.ToMilliseconds(), packed.expires_at.ToMilliseconds()) == (AT_MS, AT_MS + 5)


def test_a_key_is_asked_for_or_taken_over():
    asked, response = ask_accounts(
        "CreateApiKey",
        accounts_pb.CreateApiKeyRequest(account_id="alice", name="Laptop", idempotency_key="k"),
        create_key=accounts.IssuedKey(KEY, Secret("hsms_secret")),
    )
    assert asked == ("create_key", accounts.NewKey("alice", "Laptop", None, "k"))
    assert (response.api_key.id, response.secret, response.idempotent_replayed) == (
        "k1",
        "hsms_secret",
        False,
    )
    asked, response = ask_accounts(
        "CreateApiKey",
        accounts_pb.CreateApiKeyRequest(
            account_id="alice", imported=accounts_pb.ImportedKey(digest="d", prefix="p")
        ),
        create_key=accounts.IssuedKey(KEY, None, replayed=True),
    )
    assert asked == ("create_key", accounts.NewKey("alice", "", accounts.ImportedKey("d", "p"), None))
    assert (response.secret, response.idempotent_replayed) == ("", True)


@pytest.mark.parametrize(("method", "enabled"), [("DisableApiKey", False), ("EnableApiKey", True)])
def test_a_key_is_disabled_and_enabled(method, enabled):
    request = getattr(accounts_pb, f"{method}Request")(api_key_id="k1")
    asked, response = ask_accounts(method, request, set_key_enabled=KEY)
    assert asked == ("set_key_enabled", "k1", ("enabled", enabled))
    assert response.api_key.id == "k1"


@pytest.mark.parametrize(
    ("overlap", "expected"), [(None, None), (Duration(), 0), (Duration(seconds=3, nanos=999_999), 3_000)]
)
def test_a_rotation_says_its_overlap_or_nothing(overlap, expected):
    successor = accounts.ApiKey("k2", "alice", "Laptop", "hsms_5678", True, False, AT_MS)
    asked, response = ask_accounts(
        "RotateApiKey",
        accounts_pb.RotateApiKeyRequest(api_key_id="k1", overlap=overlap, idempotency_key="k"),
        rotate_key=accounts.RotatedKey(accounts.IssuedKey(successor, Secret("hsms_secret")), KEY),
    )
    assert asked == ("rotate_key", "k1", ("idempotency_key", "k"), ("overlap_ms", expected))
    assert (response.api_key.id, response.replaced.id, response.secret) == ("k2", "k1", "hsms_secret")
    assert not response.api_key.HasField("expires_at")


def test_a_key_is_forgotten():
    asked, response = ask_accounts(
        "DeleteApiKey", accounts_pb.DeleteApiKeyRequest(api_key_id="k1"), delete_key=None
    )
    assert asked == ("delete_key", "k1")
    assert response == accounts_pb.DeleteApiKeyResponse()
