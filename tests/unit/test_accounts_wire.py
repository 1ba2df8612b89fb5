"""Accounts and keys between protobuf and the model."""

import pytest
from google.protobuf.duration_pb2 import Duration

from hydrasms.accounts.v1 import account_service_pb2 as pb
from hydrasms_base.secret import Secret
from hydrasms_core.accounts import wire
from hydrasms_core.accounts.model import (
    Account,
    AccountChange,
    ApiKey,
    CreatedAccount,
    ImportedKey,
    IssuedKey,
    NewAccount,
    NewKey,
    Plan,
    RotatedKey,
)
from hydrasms_core.errors import InvalidArgument

ACCOUNT = Account("a", "Hep", Plan.PREMIUM, True, False, 1_780_000_000_123, 1_780_000_000_456)
KEY = ApiKey("k", "a", "web", "hsms_abcd", True, False, 1_780_000_000_123)


def test_a_bare_request_asks_for_a_free_account_that_may_send():
    request = pb.CreateAccountRequest(name="Hep")
    assert wire.new_account(request) == NewAccount("Hep", Plan.FREE, True, 0, False, None)


def test_a_full_request_for_an_account():
    request = pb.CreateAccountRequest(
        name="Hep",
        plan=pb.PLAN_PREMIUM,
        sending_enabled=False,
        initial_credits=9,
        create_api_key=True,
        idempotency_key="once",
    )
    assert wire.new_account(request) == NewAccount("Hep", Plan.PREMIUM, False, 9, True, "once")


def test_an_empty_idempotency_key_is_not_the_same_as_none():
    assert wire.new_account(pb.CreateAccountRequest(idempotency_key="")).idempotency_key == ""
    assert wire.new_key(pb.CreateApiKeyRequest(idempotency_key="")).idempotency_key == ""
    assert wire.rotation_key(pb.RotateApiKeyRequest(idempotency_key="")) == ""
    assert wire.rotation_key(pb.RotateApiKeyRequest()) is None


@pytest.mark.parametrize("number", [3, 99, -1])
@pytest.mark.parametrize(
    ("read", "request_type"),
    [(wire.new_account, pb.CreateAccountRequest), (wire.account_change, pb.UpdateAccountRequest)],
)
def test_a_plan_that_there_is_not_is_refused(read, request_type, number):
    with pytest.raises(InvalidArgument) as caught:
        read(request_type(name="x", plan=number))
    assert caught.value.field == "plan"


def test_a_change_holds_what_is_set_and_false_is_set():
    assert wire.account_change(pb.UpdateAccountRequest(account_id="a")) == AccountChange()
    request = pb.UpdateAccountRequest(plan=pb.PLAN_FREE, sending_enabled=False, suspended=False, name="")
    assert wire.account_change(request) == AccountChange("", Plan.FREE, False, False)


def test_a_key_is_taken_over_only_where_the_request_says_so():
    assert wire.new_key(pb.CreateApiKeyRequest(account_id="a", name="web")) == NewKey("a", "web")
    request = pb.CreateApiKeyRequest(
        account_id="a", imported=pb.ImportedKey(digest="d", prefix="p"), idempotency_key="once"
    )
    assert wire.new_key(request) == NewKey("a", "", ImportedKey("d", "p"), "once")
    # An empty import is an import: the model refuses its digest, rather than a key being made unasked.
    assert wire.new_key(pb.CreateApiKeyRequest(imported=pb.ImportedKey())).imported == ImportedKey("", "")


@pytest.mark.parametrize(
    ("span", "expected"),
    [
        (Duration(), 0),
        (Duration(seconds=2, nanos=3_999_999), 2_003),
        (Duration(nanos=-1), -1),
        (Duration(seconds=315_576_000_000), 315_576_000_000_000),
    ],
)
def test_an_overlap_is_in_milliseconds_and_never_turns_from_negative_to_nothing(span, expected):
    assert wire.overlap_ms(pb.RotateApiKeyRequest(overlap=span)) == expected


def test_an_overlap_that_is_absent_is_none():
    assert wire.overlap_ms(pb.RotateApiKeyRequest()) is None


def test_an_account_as_callers_see_it():
    shown = wire.account(ACCOUNT)
    assert (shown.id, shown.name, shown.plan) == ("a", "Hep", pb.PLAN_PREMIUM)
    assert (shown.sending_enabled, shown.suspended) == (True, False)
    assert shown.created_at.ToMilliseconds() == ACCOUNT.created_at_ms
    assert shown.updated_at.ToMilliseconds() == ACCOUNT.updated_at_ms


def test_every_plan_has_a_number():
    assert {wire.account(Account("a", "x", plan, True, False, 1, 1)).plan for plan in Plan} == {
        pb.PLAN_FREE,
        pb.PLAN_PREMIUM,
    }


def test_a_key_without_an_end_shows_none():
    assert not wire.api_key(KEY).HasField("expires_at")
    ending = ApiKey("k", "a", "", "", False, True, 1, 1_780_000_000_123)
    shown = wire.api_key(ending)
    assert shown.expires_at.ToMilliseconds() == 1_780_000_000_123
    assert (shown.enabled, shown.imported) == (False, True)


def test_a_creation_shows_the_secret_once():
    shown = wire.created_account(CreatedAccount(ACCOUNT, KEY, Secret("hsms_x")))
    assert (shown.api_key_secret, shown.idempotent_replayed) == ("hsms_x", False)
    assert shown.api_key == wire.api_key(KEY)
    replay = wire.created_account(CreatedAccount(ACCOUNT, KEY, None, replayed=True))
    assert (replay.api_key_secret, replay.idempotent_replayed) == ("", True)
    assert not wire.created_account(CreatedAccount(ACCOUNT, None, None)).HasField("api_key")


def test_a_rotation_shows_successor_and_replaced():
    issued = IssuedKey(KEY, Secret("hsms_x"))
    replaced = ApiKey("old", "a", "", "", True, False, 1, 2)
    shown = wire.rotated_key(RotatedKey(issued, replaced))
    assert (shown.api_key.id, shown.replaced.id, shown.secret) == ("k", "old", "hsms_x")
    assert wire.issued_key(issued).secret == "hsms_x"
