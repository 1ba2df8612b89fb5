"""Ids, keys, secrets and times."""

import os
import re
import stat
import threading
import uuid
from pathlib import Path

import pytest

from hydrasms_base.clock import iso_millis
from hydrasms_base.ids import IdSource, is_id, new_id
from hydrasms_base.keys import digest_key, display_prefix, generate_key, is_plausible
from hydrasms_base.secret import Secret, make_secret, write_secret


def test_an_id_is_a_uuid_of_version_7():
    parsed = uuid.UUID(new_id())
    assert parsed.version == 7
    assert parsed.variant == uuid.RFC_4122


def test_ids_of_one_process_strictly_increase():
    source = IdSource()
    made = [source() for _ in range(20_000)]
    assert made == sorted(set(made))


def test_ids_of_many_threads_never_collide():
    source, made = IdSource(), []
    threads = [
        threading.Thread(target=lambda: made.extend([source() for _ in range(2_000)])) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(made)) == 16_000


def test_ids_of_a_forked_child_differ_from_the_parents():
    new_id()
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writing, "\n".join(new_id()[19:] for _ in range(50)).encode())
        os._exit(0)
    os.waitpid(child, 0)
    ours = {new_id()[19:] for _ in range(50)}
    theirs = set(os.read(reading, 10_000).decode().split())
    os.close(reading)
    os.close(writing)
    assert len(theirs) == 50
    assert not ours & theirs


@pytest.mark.parametrize("text", ["", "018f", new_id().upper(), new_id() + "\n", "é" * 36])
def test_what_has_not_the_form_of_an_id_is_none(text):
    assert is_id(new_id())
    assert not is_id(text)


def test_a_generated_key_has_our_form_and_passes_its_own_check():
    key = generate_key()
    assert re.fullmatch(r"hsms_[0-9A-Za-z]{36}", key)
    assert is_plausible(key)
    assert len({generate_key() for _ in range(1_000)}) == 1_000


def test_any_changed_character_of_our_keys_fails_the_check_digits():
    key = generate_key()
    for position in range(5, len(key)):
        changed = key[:position] + ("a" if key[position] != "a" else "b") + key[position + 1 :]
        assert not is_plausible(changed)


@pytest.mark.parametrize(
    ("key", "plausible"),
    [
        ("made-elsewhere-1234", True),
        ("short", False),
        ("x" * 513, False),
        ("with a space in it", False),
        ("with-a-newline\n", False),
        ("clé-de-service", False),
        ("hsms_", False),
    ],
)
def test_a_key_made_elsewhere_needs_only_to_be_visible_ascii(key, plausible):
    assert is_plausible(key) is plausible


def test_a_displayed_prefix_never_gives_away_more_than_a_quarter():
    key = generate_key()
    assert display_prefix(key) == key[:9]
    assert display_prefix("12345678") == "12"


def test_a_digest_is_sha_256_in_hexadecimal():
    assert digest_key("abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_a_secret_does_not_print():
    secret = Secret("swordfish")
    assert "swordfish" not in f"{secret} {secret!r} {[secret]}"
    assert secret.reveal() == "swordfish"


def test_a_secret_file_is_for_its_owner_alone_and_is_made_once(tmp_path: Path):
    path = tmp_path / "service.token"
    made = make_secret(path).reveal()
    assert len(made) >= 32
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert make_secret(path).reveal() == made
    write_secret(path, "another")
    assert make_secret(path).reveal() == "another"
    assert list(tmp_path.iterdir()) == [path]


def test_times_are_written_in_utc_with_milliseconds():
    assert iso_millis(1_780_049_700_000) == "2026-05-29T10:15:00.000Z"
    assert iso_millis(1_780_049_700_007) == "2026-05-29T10:15:00.007Z"
