"""The bounds of what is asked of accounts and keys."""

import pytest

from hydrasms_base.secret import Secret
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
    check_new_account,
    check_new_key,
    check_overlap,
    end_of_replaced,
    is_digest,
)
from hydrasms_core.errors import InvalidArgument

DIGEST = "0123456789abcdef" * 4
DAY_MS = 24 * 3_600_000
ACCOUNT = Account("a", "Hep", Plan.FREE, True, False, 1, 1)
KEY = ApiKey("k", "a", "web", "hsms_abcd", True, False, 1)


def refused_field(check, *arguments):
    with pytest.raises(InvalidArgument) as caught:
        check(*arguments)
    return caught.value.field


@pytest.mark.parametrize("name", ["x", "x" * 200, "Ünïcode 😀", " "])
def test_a_name_of_1_to_200_characters_is_taken(name):
    assert check_new_account(NewAccount(name)).name == name


@pytest.mark.parametrize("name", ["", "x" * 201, "a\0b", "half \ud83d of a pair", "\udfff"])
def test_a_name_out_of_bounds_is_refused(name):
    assert refused_field(check_new_account, NewAccount(name)) == "name"


@pytest.mark.parametrize("amount", [0, 1, 10**12])
def test_initial_credits_are_taken_within_their_bounds(amount):
    assert check_new_account(NewAccount("x", initial_credits=amount)).initial_credits == amount


@pytest.mark.parametrize("amount", [-1, 10**12 + 1])
def test_initial_credits_out_of_bounds_are_refused(amount):
    assert refused_field(check_new_account, NewAccount("x", initial_credits=amount)) == "initial_credits"


def test_a_key_may_have_no_name():
    assert check_new_key(NewKey("a", "")).name == ""


@pytest.mark.parametrize("name", ["x" * 201, "a\0b"])
def test_a_key_name_out_of_bounds_is_refused(name):
    assert refused_field(check_new_key, NewKey("a", name)) == "name"


@pytest.mark.parametrize("prefix", ["", "abc", "x" * 9])
def test_an_imported_key_is_taken_by_digest_and_prefix(prefix):
    imported = ImportedKey(DIGEST, prefix)
    assert check_new_key(NewKey("a", imported=imported)).imported == imported


@pytest.mark.parametrize(
    "digest", ["", DIGEST[:-1], DIGEST + "0", DIGEST.upper(), DIGEST[:-1] + "g", DIGEST + "\n"]
)
def test_a_digest_is_64_lower_case_hexadecimal_digits(digest):
    assert not is_digest(digest)
    assert refused_field(check_new_key, NewKey("a", imported=ImportedKey(digest, ""))) == "imported.digest"


@pytest.mark.parametrize("prefix", ["x" * 10, "a b", "é", "a\n"])
def test_a_prefix_is_at_most_9_visible_characters(prefix):
    assert (
        refused_field(check_new_key, NewKey("a", imported=ImportedKey(DIGEST, prefix))) == "imported.prefix"
    )


def test_an_overlap_is_a_day_where_it_is_not_said():
    assert check_overlap(None) == DAY_MS


@pytest.mark.parametrize("overlap_ms", [0, 1, 30 * DAY_MS])
def test_an_overlap_of_up_to_30_days_is_taken(overlap_ms):
    assert check_overlap(overlap_ms) == overlap_ms


@pytest.mark.parametrize("overlap_ms", [-1, 30 * DAY_MS + 1])
def test_an_overlap_out_of_bounds_is_refused(overlap_ms):
    assert refused_field(check_overlap, overlap_ms) == "overlap"


@pytest.mark.parametrize(("end_ms", "expected"), [(None, 1_500), (2_000, 1_500), (1_200, 1_200), (900, 900)])
def test_a_rotation_never_makes_a_key_live_longer(end_ms, expected):
    key = ApiKey("k", "a", "web", "", True, False, 1, end_ms)
    assert end_of_replaced(key, now_ms=1_000, overlap_ms=500) == expected


def test_a_change_leaves_what_it_does_not_set():
    assert AccountChange().applied_to(ACCOUNT) == ACCOUNT
    changed = AccountChange(plan=Plan.PREMIUM, suspended=True).applied_to(ACCOUNT)
    assert changed == Account("a", "Hep", Plan.PREMIUM, True, True, 1, 1)


def test_a_change_to_false_is_a_change():
    assert AccountChange(sending_enabled=False).applied_to(ACCOUNT).sending_enabled is False


def test_what_was_created_does_not_print_its_secret():
    secret = Secret("hsms_the-key-itself")
    for shown in (IssuedKey(KEY, secret), CreatedAccount(ACCOUNT, KEY, secret)):
        assert "the-key-itself" not in f"{shown!r} {shown}"
