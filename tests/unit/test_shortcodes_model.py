"""Which words may be a shortcode, and who would get a text, as far as nobody has to look."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hydrasms_base.secret import Secret
from hydrasms_core.consent.words import RESERVED
from hydrasms_core.errors import InvalidArgument, ShortcodeReserved
from hydrasms_core.shortcodes.folding import first_word, fold
from hydrasms_core.shortcodes.model import (
    HookedShortcode,
    NewShortcode,
    RoutingReason,
    Shortcode,
    ShortcodeChange,
    check_change,
    check_new_shortcode,
    check_word,
    is_word,
    routing_before_lookup,
    routing_to,
)
from hydrasms_core.shortcodes.ports import Hook

SHORTCODE = Shortcode("id", "alice", "order", True, 1, 1)
HOOK = Hook("https://example.com", True, None, "")


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("order", "order"),
        ("ORDER24", "order24"),
        ("7", "7"),
        ("x" * 20, "x" * 20),
        ("é" * 20, "é" * 20),
        ("e\u0301" * 20, "é" * 20),
        ("\u200border\ufeff", "order"),
        ("straße", "strasse"),
        ("пицца", "пицца"),
        ("हिन्दी", "हिन्दी"),
        ("สวัสดี", "สวัสดี"),
        ("한국", "한국"),
        ("注文", "注文"),
        ("شراء", "شراء"),
        ("٢٤", "24"),
        ("①", "1"),
    ],
)
def test_words_of_letters_and_digits_are_shortcodes(text, word):
    assert check_word(text) == word


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "\u200b",
        "x" * 21,
        "ß" * 11,
        "two words",
        " order",
        "order ",
        "order\n",
        "order\u00a0",
        "order!",
        "or-der",
        "or_der",
        "#order",
        "+447700900000",
        "\u0301order",
        "1\u20e3",
        "🍕",
        "½",
        "´",
        "\ud800",
        "\ufdfa\ufdfa!",
        "a\u2028b",
        "\U000e01f0\U00100000",
    ],
    ids=ascii,
)
def test_everything_else_is_none(text):
    with pytest.raises(InvalidArgument) as caught:
        check_word(text)
    assert (caught.value.field, caught.value.reason) == ("word", "INVALID_ARGUMENT")


@pytest.mark.parametrize("word", sorted(RESERVED))
def test_a_word_that_means_something_to_every_phone_is_none_however_written(word):
    fullwidth = "".join(chr(ord(c) + 0xFEE0) if c.isascii() else c for c in word)
    for text in (word, word.upper(), f"\u200b{word}", f"{word[0]}\u00ad{word[1:]}", fullwidth):
        with pytest.raises(ShortcodeReserved) as caught:
            check_word(text)
        assert caught.value.field == "word"


@given(st.text(max_size=30))
def test_whatever_is_a_shortcode_is_found_as_the_first_word_of_a_text(text):
    try:
        word = check_word(text)
    except InvalidArgument:
        return
    assert fold(word) == word
    assert 1 <= len(word) <= 20
    assert is_word(word)
    for spelling in (word, text):
        assert first_word(f"{spelling} large") == (word, "large")


@given(st.text("abyzABYZ059éÄñжЖωΩ注हاあ", min_size=1, max_size=20))
def test_letters_and_digits_in_any_order_are_a_shortcode(text):
    """The property before looks at words, and not at refusals alone."""
    assert is_word(fold(text))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", RoutingReason.NO_WORD),
        ("stop", RoutingReason.RESERVED_WORD),
        ("HELP me", RoutingReason.RESERVED_WORD),
        ("yes", RoutingReason.UNKNOWN_SHORTCODE),
        ("order", RoutingReason.UNKNOWN_SHORTCODE),
    ],
)
def test_the_text_alone_tells_what_is_no_shortcode(text, reason):
    assert routing_before_lookup(text).reason is reason


def test_what_becomes_of_a_text_whose_word_somebody_holds():
    lapsed = Shortcode("id", "alice", "order", False, 1, 1)
    assert routing_to(HookedShortcode(SHORTCODE, HOOK)) is RoutingReason.PUSHED
    assert routing_to(HookedShortcode(SHORTCODE, None)) is RoutingReason.LISTED
    disabled = HOOK._replace(disabled_at_ms=0)
    assert routing_to(HookedShortcode(SHORTCODE, disabled)) is RoutingReason.LISTED
    for hook in (HOOK, None, disabled):
        assert routing_to(HookedShortcode(lapsed, hook)) is RoutingReason.INACTIVE


@pytest.mark.parametrize("field", ["secret", "retries"])
def test_what_is_said_about_no_webhook_is_refused(field):
    value: Any = {"secret": Secret("x"), "retries": False}[field]
    change = ShortcodeChange(**{field: value})
    new = NewShortcode("alice", "order", **{field: value})
    for check in (
        lambda: check_new_shortcode(new),
        lambda: check_change(change, has_hook=False),
        lambda: check_change(ShortcodeChange(webhook_url="", **{field: value}), has_hook=True),
    ):
        with pytest.raises(InvalidArgument) as caught:
            check()
        assert caught.value.field == field
    assert check_change(change, has_hook=True) is change
    given_one = ShortcodeChange(webhook_url="https://example.com", **{field: value})
    assert check_change(given_one, has_hook=False) is given_one


def test_a_request_never_prints_its_secret():
    assert "hunter2" not in repr(NewShortcode("alice", "order", "https://x", Secret("hunter2")))
    assert "hunter2" not in repr(ShortcodeChange(secret=Secret("hunter2")))
