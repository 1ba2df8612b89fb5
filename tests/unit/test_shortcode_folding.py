"""What does not count when a word that a phone sent is compared with a shortcode."""

import re
import unicodedata
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from hydrasms_core.consent import words
from hydrasms_core.shortcodes.folding import MAX_WORD_CHARS, first_word, fold

ONE_WORD = [
    # case
    ("order", "ORDER"),
    ("order", "oRdEr"),
    ("Ärger", "ÄRGER"),
    ("пицца", "ПИЦЦА"),
    ("ΠΊΤΣΑ", "πίτσα"),
    ("ΟΔΌΣ", "οδός"),  # ς at the end
    ("ΟΔΌΣ", "οδόσ"),  # σ at the end
    ("straße", "STRASSE"),
    ("straße", "STRAẞE"),
    ("straße", "strasse"),
    ("ſtop", "STOP"),
    ("Ǆep", "ǆep"),
    ("ǅep", "džep"),
    ("ᾳ", "ΑΙ"),
    ("ᏣᎳᎩ", "ꮳꮃꭹ"),
    ("ŉ", "ʼN"),
    # the letter i
    ("istanbul", "İSTANBUL"),
    ("istanbul", "ISTANBUL"),
    ("ıstanbul", "ISTANBUL"),
    ("kalın", "KALIN"),
    ("kalın", "kalin"),
    ("i\u0307zmir", "IZMIR"),
    ("izmir", "I\u0307zmir"),
    ("i\u0323\u0307", "ị"),
    ("𝚤zmir", "izmir"),
    # width and form
    ("ｏｒｄｅｒ", "order"),
    ("ＯＲＤＥＲ", "order"),
    ("ｏｒｄｅｒ２４", "order24"),
    ("ﾋﾟｻﾞ", "ピザ"),
    ("ﾋﾟｻﾞ", "ヒ\u309aサ\u3099"),
    ("ﬁsh", "FISH"),
    ("oﬀer", "offer"),
    ("ﬃ", "FFI"),
    ("\u212aebab", "kebab"),  # the Kelvin sign
    ("\u212bngström", "ångström"),  # the Ångström sign
    ("µ", "Μ"),  # the micro sign and a capital mu
    ("\u2126", "ω"),  # the Ohm sign
    ("𝐨𝐫𝐝𝐞𝐫", "order"),
    ("𝓞𝓻𝓭𝓮𝓻", "order"),
    ("𝕠𝕣𝕕𝕖𝕣", "order"),
    ("ⓞⓡⓓⓔⓡ", "order"),
    ("ⅷ", "VIII"),
    ("x²", "X2"),
    ("①", "1"),
    ("𝟐𝟒", "24"),
    ("٢٤", "24"),
    ("۲۴", "٢٤"),
    ("२४", "24"),
    # marks
    ("café", "cafe\u0301"),
    ("CAFÉ", "cafe\u0301"),
    ("ñandú", "n\u0303andu\u0301"),
    ("việt", "vie\u0323\u0302t"),
    ("việt", "vie\u0302\u0323t"),
    ("Ḱ", "k\u0301"),
    ("क़लम", "क\u093cलम"),
    ("한국", "\u1112\u1161\u11ab\u1100\u116e\u11a8"),
    ("שׁלום", "ש\u05c1לום"),
    ("ﻢ", "م"),
    # invisible
    ("order", "\ufefforder"),
    ("order", "ord\u200ber"),
    ("order", "ord\u200cer"),
    ("order", "ord\u200d\u2060er"),
    ("order", "or\u00adder"),
    ("order", "\u200eorder\u200f"),
    ("order", "\u202aorder\u202c"),
    ("order", "\u2066order\u2069"),
    ("order", "order\ufe0f"),
    ("order", "o\u034frder"),
    ("order", "order\U000e0101"),
    ("order", "order\x00"),
    ("order", "\x7forder\x9f"),
    ("cafe\u034f\u0301", "café"),
    ("ｏ\u200bＲ\u00adｄ\ufe0fER", "order"),
]
TWO_WORDS = [
    ("cafe", "café"),
    ("resume", "résumé"),
    ("sos", "sös"),
    ("strase", "straße"),
    ("o", "ø"),
    ("l", "ł"),
    ("i", "í"),
    ("i", "ï"),
    ("i", "j"),
    ("o", "0"),
    ("l", "1"),
    ("order", "оrder"),  # a Cyrillic o
    ("A", "Α"),  # a Greek alpha
    ("order", "order!"),
    ("order", "order."),
    ("order", "ord-er"),
    ("order", "ord_er"),
    ("24", "42"),
    ("ひ", "ヒ"),
    ("は", "ば"),
    ("e\u0301a", "ea\u0301"),
    ("ż", "z"),
    ("k´a", "ḱa"),  # an accent of its own belongs to no letter
    ("๑", "ก"),
    ("ⅷ", "8"),
    ("漢字", "汉字"),
]

texts = st.text(
    st.characters() | st.sampled_from("iIıİ\u0307\u0323\u0301\u0345ßςΣſ\u200b\u034f\ufe0f \u00a0\x1c´\ufdfa")
)


def test_the_table_is_as_long_as_it_has_to_be():
    assert len(ONE_WORD) >= 60
    assert len(TWO_WORDS) >= 20


@pytest.mark.parametrize(("one", "other"), ONE_WORD, ids=ascii)
def test_two_ways_to_write_a_word_are_one_shortcode(one, other):
    assert fold(one) == fold(other)


@pytest.mark.parametrize(("one", "other"), TWO_WORDS, ids=ascii)
def test_different_words_are_different_shortcodes(one, other):
    assert fold(one) != fold(other)


@pytest.mark.parametrize(
    "simpler", [str.lower, str.casefold, lambda w: unicodedata.normalize("NFKC", w.lower())]
)
def test_the_table_catches_a_simpler_folding(simpler):
    assert sum(simpler(one) != simpler(other) for one, other in ONE_WORD) >= 15


def test_the_table_catches_a_folding_that_drops_accents():
    def bare(word):
        return "".join(
            c for c in unicodedata.normalize("NFKD", word.casefold()) if not unicodedata.combining(c)
        )

    assert sum(bare(one) == bare(other) for one, other in TWO_WORDS) >= 5


def test_a_folded_word_is_written_plainly():
    assert fold("ＣＡＦＥ\u0301\u200b") == "caf\u00e9"
    assert fold("İIiı") == "iiii"
    assert fold("\u200b\ufeff") == ""
    assert fold("") == ""


@pytest.mark.parametrize(
    "word", ["\ud800", "a\udfff\u0301", "\ud83d\ud83d", "\x00", "\U0010ffff", "´", "\ufdfa"]
)
def test_what_is_no_word_at_all_folds_to_something_that_stays(word):
    assert fold(fold(word)) == fold(word)


def test_every_character_folds_once_and_for_all_and_to_one_word():
    for number in range(0x110000):
        character = chr(number)
        folded = fold(character)
        assert fold(folded) == folded, hex(number)
        assert (folded != "" and folded.isspace()) == character.isspace(), hex(number)
        assert len(folded.split()) <= 1, hex(number)
        assert fold(character.upper()) == fold(character.lower()) == folded, hex(number)


@pytest.mark.parametrize(
    "hostile",
    ["a" + "\u0301" * n + "\u0323" * n for n in (40, 400, 500_000)]
    + ["İ\u0345" * 500_000, "\u200b" * 1_000_000, "\ufdfa" * 100_000, "i" + "\u0307" * 1_000_000],
    ids=lambda text: f"{len(text)} of {text[:1]!a}",
)
def test_a_word_that_is_made_to_take_long_does_not(hostile):
    """Putting n marks into their order takes n² steps: of the half million it would take hours."""
    folded = fold(hostile)
    assert len(folded) <= MAX_WORD_CHARS
    assert fold(folded) == folded
    assert first_word(f"{hostile} large") == ((folded, "large") if folded else ("large", ""))


def test_invisible_characters_do_not_count_however_many_there_are():
    assert fold("\u200b" * 100_000 + "or" + "\ufeff" * 100_000 + "der") == "order"


@given(texts)
def test_folding_twice_is_folding_once(text):
    assert fold(fold(text)) == fold(text)


@given(texts)
def test_neither_case_nor_normal_form_counts(text):
    folded = fold(text)
    assert fold(unicodedata.normalize("NFC", text)) == folded
    assert fold(unicodedata.normalize("NFD", text)) == folded
    assert fold(text.casefold()) == folded


@given(st.text(st.characters(codec="ascii")))
def test_of_ascii_only_case_and_controls_do_not_count(text):
    seen = "".join(c for c in text.lower() if c.isprintable() or c.isspace())
    assert fold(text) == seen[:MAX_WORD_CHARS]


@given(texts)
def test_the_first_word_and_the_content_are_what_there_is(text):
    word, content = first_word(text)
    assert word == fold(word)
    assert len(word) <= MAX_WORD_CHARS
    assert word.split() == ([word] if word else [])
    assert text.endswith(content)
    assert content == content.lstrip()
    assert word or not content


@given(texts, texts)
def test_a_word_is_found_wherever_its_text_goes_on(text, more):
    word, _ = first_word(text)
    assume(word)
    assert first_word(f" {word}\n{more}") == (word, more.lstrip())


@pytest.mark.parametrize(
    ("text", "word", "content"),
    [
        ("order large pepperoni", "order", "large pepperoni"),
        ("ORDER", "order", ""),
        ("order   ", "order", ""),
        ("order\tlarge", "order", "large"),
        ("order\r\nlarge\r\n pepperoni \r\n", "order", "large\r\n pepperoni \r\n"),
        ("order\u00a0\u3000large", "order", "large"),
        ("order\u2028large", "order", "large"),
        ("  \n\u3000order large", "order", "large"),
        ("\ufeff\u200e order large", "order", "large"),
        ("order! large", "order!", "large"),
        ("order,large", "order,large", ""),
        ("order \u200blarge", "order", "\u200blarge"),
        ("ord\u200ber x", "order", "x"),
        ("order Large  Pepperoni", "order", "Large  Pepperoni"),
        ("order order", "order", "order"),
        ("", "", ""),
        (" \n\u200b\u3164", "", ""),
        ("a" * 65 + " b", "a" * 64, "b"),
        ("\ufb03" * 40, "ffi" * 21 + "f", ""),
        ("\x00order\x00 a\x00b", "order", "a\x00b"),
        ("order \ud800", "order", "\ud800"),
        ("🍕 large", "🍕", "large"),
    ],
    ids=ascii,
)
def test_the_first_word_of_a_text(text, word, content):
    assert first_word(text) == (word, content)


def test_the_reserved_words_are_folded_and_mean_one_thing_each():
    assert all(fold(word) == word for word in words.RESERVED)
    sets = [words.STOP_WORDS, words.START_WORDS, words.HELP_WORDS, {"yes"}]
    assert sum(map(len, sets)) == len(words.RESERVED)
    assert frozenset().union(*sets) == words.RESERVED


@pytest.mark.parametrize(
    ("text", "ask"),
    [
        ("STOP", words.Ask.STOP),
        ("stop texting me", words.Ask.STOP),
        ("Stop!", words.Ask.STOP),
        ("“stop”", words.Ask.STOP),
        ("OPT-OUT", words.Ask.STOP),
        ("ＳＴＯＰ", words.Ask.STOP),
        ("\u200bsto\u00adp", words.Ask.STOP),
        ("ARRÊT", words.Ask.STOP),
        ("arre\u0302t", words.Ask.STOP),
        ("Cancel", words.Ask.STOP),
        ("unstop", words.Ask.START),
        ("Start.", words.Ask.START),
        ("HELP?", words.Ask.HELP),
        ("info", words.Ask.HELP),
        ("YES", None),
        ("please stop", None),
        ("stopping", None),
        ("order stop", None),
        ("...", None),
        ("", None),
    ],
)
def test_what_a_text_asks_for(text, ask):
    assert words.asked(first_word(text)[0]) is ask


# ---- the guide ---------------------------------------------------------------------------------------------------

GUIDE = (Path(__file__).parents[2] / "docs/howto/shortcodes.md").read_text()


def section(title):
    return GUIDE.partition(f"## {title}\n")[2].partition("\n## ")[0]


def test_the_guide_names_every_reserved_word():
    named = re.findall(r"`([^`a-z_]+)`", section("Words that nobody may have"))
    assert sorted(map(fold, named)) == sorted(words.RESERVED)


def test_what_the_guide_says_is_one_shortcode_is_one():
    (rows,) = re.findall(r"((?:^\|.*\n)+)", section("What does not count"), re.MULTILINE)
    groups = [re.findall("`([^`]+)`", group) for row in rows.splitlines()[2:] for group in row.split("·")]
    compared = [group for group in groups if len(group) > 1]
    assert len(compared) >= 7
    assert [group for group in compared if len(set(map(fold, group))) != 1] == []
