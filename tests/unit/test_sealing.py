"""Sealed secrets and hashed numbers."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hydrasms_base.sealing import Sealer, Unsealable
from hydrasms_base.secret import Secret

KEY = Secret("a key")


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"])), st.text(max_size=30))
def test_what_is_sealed_for_a_place_opens_there(text, place):
    place = place.encode("utf-8", "replace").decode()
    assert Sealer(KEY).unseal(Sealer(KEY).seal(text, place=place), place=place).reveal() == text


def test_what_is_sealed_shows_nothing_and_is_never_the_same_twice():
    sealer = Sealer(KEY)
    once, again = sealer.seal("whsec_secret", place="here"), sealer.seal("whsec_secret", place="here")
    assert once != again
    assert "secret" not in once


def test_it_opens_for_no_other_place_and_under_no_other_key():
    sealed = Sealer(KEY).seal("text", place="webhook/1/auth")
    with pytest.raises(Unsealable):
        Sealer(KEY).unseal(sealed, place="webhook/2/auth")
    with pytest.raises(Unsealable):
        Sealer(Secret("another key")).unseal(sealed, place="webhook/1/auth")


@pytest.mark.parametrize("broken", ["", "1:", "2:AAAA", "1:not base64", "1:AAAA", "text"])
def test_what_was_never_sealed_does_not_open(broken):
    with pytest.raises(Unsealable):
        Sealer(KEY).unseal(broken, place="here")


def test_every_altered_byte_is_noticed():
    sealed = Sealer(KEY).seal("text" * 2, place="here")
    for index in range(2, len(sealed)):
        other = "B" if sealed[index] == "A" else "A"
        with pytest.raises(Unsealable):
            Sealer(KEY).unseal(sealed[:index] + other + sealed[index + 1 :], place="here")


def test_a_number_has_one_hash_a_key():
    number = "+447700900000"
    assert Sealer(KEY).hash_number(number) == Sealer(KEY).hash_number(number)
    assert Sealer(KEY).hash_number(number) != Sealer(Secret("another key")).hash_number(number)
    assert Sealer(KEY).hash_number(number) != Sealer(KEY).hash_number("+447700900001")
    assert len(Sealer(KEY).hash_number(number)) == 43


def test_hashes_of_numbers_are_stored_and_so_never_become_others():
    # HMAC-SHA256 under HKDF-SHA256(key, info "hydrasms/number"), in URL-safe base64.
    assert (
        Sealer(Secret("a key for ever")).hash_number("+447700900000")
        == "rq0rG00HmpXEIsEpDnMPWzZP-ZcNxcg-An_kZLFOtWY"
    )


def test_the_check_tells_keys_apart():
    assert Sealer(KEY).check == Sealer(KEY).check
    assert Sealer(KEY).check != Sealer(Secret("another key")).check


def test_bits_that_base64_has_to_spare_are_no_place_to_hide():
    sealed = next(
        text for text in iter(lambda: Sealer(KEY).seal("four", place="here"), None) if text[-2:] == "A="
    )
    with pytest.raises(Unsealable):
        Sealer(KEY).unseal(sealed[:-2] + "B=", place="here")
