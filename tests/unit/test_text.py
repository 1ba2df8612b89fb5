"""Text on the air: the alphabet and the count of segments, against the specification and two other codecs."""

import dataclasses
import itertools
import math

import gsm0338
import pytest
import smsutil
from hypothesis import example, given, settings
from hypothesis import strategies as st
from smsutil.codecs import GSM_BASIC_CHARSET, GSM_EXT_CHARSET

from hydrasms_core.messaging.text import Encoding, TextShape, decode_gsm7, encode_gsm7, measure

# Where the oracles are wrong, or other: both take ESC (0x1B), the escape itself, for a character of the basic
# table; smsutil finds the empty text not GSM and reads an unknown escape pair as a space and a character;
# gsm0338 drops an escape at the end without a word. So no text that is compared with them holds ESC, and
# decoding is compared with gsm0338 alone.
ORACLE = gsm0338.Codec()
ESC = "\x1b"
EXTENDED = "\f^{}\\[~]|€"
BASIC = GSM_BASIC_CHARSET.replace(ESC, "")

gsm_texts = st.text(alphabet=BASIC + EXTENDED, max_size=900)
pair_heavy_texts = st.text(alphabet="ab" + EXTENDED, min_size=100, max_size=900)
wide_texts = st.text(alphabet="aЖ😀🇬€", min_size=30, max_size=400)
mixed_texts = st.text(max_size=400).filter(lambda text: ESC not in text)


def characters_as_units(text: str, encoding: Encoding) -> list[int]:
    if encoding is Encoding.GSM7:
        return [2 if character in EXTENDED else 1 for character in text]
    return [len(character.encode("utf-16-be", "surrogatepass")) // 2 for character in text]


def split_into_parts(text: str, encoding: Encoding) -> list[str]:
    """The reference: put whole characters into a part as long as they fit."""
    whole, part = (160, 153) if encoding is Encoding.GSM7 else (70, 67)
    widths = characters_as_units(text, encoding)
    if sum(widths) <= whole:
        return [text]
    parts, filled = [""], 0
    for character, width in zip(text, widths, strict=True):
        if filled + width > part:
            parts.append("")
            filled = 0
        parts[-1] += character
        filled += width
    return parts


def expected_shape(text: str) -> TextShape:
    odd = [index for index, character in enumerate(text) if character not in BASIC + EXTENDED]
    encoding = Encoding.UCS2 if odd else Encoding.GSM7
    units = sum(characters_as_units(text, encoding))
    return TextShape(encoding, len(split_into_parts(text, encoding)), units, odd[0] if odd else None)


@pytest.mark.parametrize(
    ("text", "encoding", "segments", "credit_cost"),
    [
        ("a" * 160, Encoding.GSM7, 1, 1),
        ("a" * 306, Encoding.GSM7, 2, 2),
        ("a" * 307, Encoding.GSM7, 3, 2),
        ("a" * 480, Encoding.GSM7, 4, 3),
        ("€" * 160, Encoding.GSM7, 3, 1),
        ("Ж" * 71, Encoding.UCS2, 2, 1),
        ("a" * 80 + "’" + "a" * 79, Encoding.UCS2, 3, 1),
        ("😀" * 160, Encoding.UCS2, 5, 1),
    ],
    ids=[
        "160 ASCII",
        "306 ASCII",
        "307 ASCII",
        "480 ASCII",
        "160 euros",
        "71 Cyrillic",
        "a quote",
        "160 emoji",
    ],
)
def test_the_vectors_hold(text, encoding, segments, credit_cost):
    assert (measure(text).encoding, measure(text).segments) == (encoding, segments)
    # The vector is of the length that the table means.
    assert math.ceil(len(text) / 160) == credit_cost


@pytest.mark.parametrize(
    ("text", "shape"),
    [
        ("", TextShape(Encoding.GSM7, 1, 0, None)),
        ("Hello from Hep.gg", TextShape(Encoding.GSM7, 1, 17, None)),
        ("a" * 161, TextShape(Encoding.GSM7, 2, 161, None)),
        ("é" * 160, TextShape(Encoding.GSM7, 1, 160, None)),
        ("[" * 80, TextShape(Encoding.GSM7, 1, 160, None)),
        ("[" * 80 + "a", TextShape(Encoding.GSM7, 2, 161, None)),
        ("Ж" * 70, TextShape(Encoding.UCS2, 1, 70, 0)),
        ("😀" * 35, TextShape(Encoding.UCS2, 1, 70, 0)),
        ("😀" * 35 + "a", TextShape(Encoding.UCS2, 2, 71, 0)),
        ("plain `", TextShape(Encoding.UCS2, 1, 7, 6)),
        ("€[é😀’", TextShape(Encoding.UCS2, 1, 6, 3)),
        ("ç", TextShape(Encoding.UCS2, 1, 1, 0)),
        ("Ç", TextShape(Encoding.GSM7, 1, 1, None)),
        ("\t", TextShape(Encoding.UCS2, 1, 1, 0)),
        ("\x00", TextShape(Encoding.UCS2, 1, 1, 0)),
    ],
)
def test_a_text_has_the_shape_of_its_characters(text, shape):
    assert measure(text) == shape


def test_an_escape_pair_is_never_split():
    # 305 septets would fill two parts, but the pair across 153 and 154 leaves one place empty.
    assert measure("a" * 152 + "€" + "a" * 151).segments == 2
    assert measure("a" * 152 + "€" + "a" * 152).segments == 3
    assert measure("a" * 153 + "€" + "a" * 151).segments == 2


def test_a_surrogate_pair_is_never_split():
    assert measure("Ж" * 66 + "😀" + "Ж" * 65).segments == 2
    assert measure("Ж" * 66 + "😀" + "Ж" * 66).segments == 3
    assert measure("Ж" * 67 + "😀" + "Ж" * 65).segments == 2


@settings(max_examples=200, deadline=None)
@given(gsm_texts | pair_heavy_texts | wide_texts | mixed_texts)
def test_a_shape_is_that_of_the_reference_splitter(text):
    assert measure(text) == expected_shape(text)


@pytest.mark.parametrize("pair", ["€", "😀"])
def test_a_pair_at_any_place_counts_as_in_the_reference_splitter(pair):
    filler = "a" if pair == "€" else "Ж"
    for before, after in itertools.product(
        (*range(60, 72), *range(130, 164)), (0, 60, 66, 67, 151, 152, 153)
    ):
        text = filler * before + pair + filler * after
        assert measure(text) == expected_shape(text)


@settings(max_examples=200, deadline=None)
@given(gsm_texts.filter(bool) | pair_heavy_texts | wide_texts | mixed_texts.filter(bool))
def test_a_shape_is_that_of_smsutil(text):
    split = smsutil.split(text)
    octets_per_unit = 1 if split.encoding == "gsm0338" else 2
    shape = measure(text)
    assert (shape.encoding is Encoding.GSM7) == (split.encoding == "gsm0338")
    assert (shape.segments, shape.units) == (len(split.parts), split.total_bytes // octets_per_unit)


def test_the_alphabet_is_that_of_the_oracles():
    # All of the basic plane, and enough of the planes beyond it.
    points = (*range(0x10000), *range(0x10000, 0x110000, 61))
    gsm = [chr(point) for point in points if measure(chr(point)).encoding is Encoding.GSM7]
    assert set(gsm) == set(GSM_BASIC_CHARSET + GSM_EXT_CHARSET) - {ESC}
    assert (len(gsm), sum(measure(character).units == 2 for character in gsm)) == (137, 10)
    for character in gsm:
        assert encode_gsm7(character) == ORACLE.encode(character)[0] == smsutil.encode(character)


@settings(max_examples=100, deadline=None)
@given(gsm_texts)
def test_encoding_is_that_of_both_oracles_and_reads_back(text):
    octets = encode_gsm7(text)
    assert octets == ORACLE.encode(text)[0]
    assert octets == (smsutil.encode(text) if text else b"")
    assert len(octets) == measure(text).units
    assert decode_gsm7(octets) == text == ORACLE.decode(octets)[0]


@settings(max_examples=200, deadline=None)
@given(mixed_texts | wide_texts)
def test_what_is_not_gsm_does_not_encode(text):
    index = measure(text).first_non_gsm_index
    if index is None:
        assert decode_gsm7(encode_gsm7(text)) == text
    else:
        with pytest.raises(ValueError, match=rf"index {index} "):
            encode_gsm7(text)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=40) | st.lists(st.sampled_from([0x1B, 0x65, 0x3C, 0, 0x7F, 0x80])).map(bytes))
@example(b"\x1b")
@example(b"ab\x1b")
def test_decoding_is_that_of_gsm0338_but_for_an_escape_at_the_end(octets):
    try:
        expected = ORACLE.decode(octets)[0]
    except ValueError:
        expected = None
    # An escape at the end that is not the second half of a pair; two escapes are no pair, so already refused.
    if octets.endswith(b"\x1b"):
        expected = None
    if expected is None:
        with pytest.raises(ValueError):
            decode_gsm7(octets)
    else:
        assert decode_gsm7(octets) == expected
        assert encode_gsm7(expected) == octets


@pytest.mark.parametrize(
    ("octets", "reason"),
    [
        (b"\x80", "over 0x7F"),
        (b"a\xff", "over 0x7F"),
        (b"\x1b\xe5", "over 0x7F"),
        (b"\x1b", "escape"),
        (b"a\x1b", "escape"),
        (b"\x1b\x1b", "escape"),
        (b"\x1b\x1be", "escape"),
        (b"\x1ba", "escape"),
    ],
)
def test_octets_that_are_no_text_do_not_decode(octets, reason):
    with pytest.raises(ValueError, match=reason):
        decode_gsm7(octets)


def test_the_escape_itself_is_no_character_so_no_pair_can_be_smuggled_in():
    assert measure("\x1be") == TextShape(Encoding.UCS2, 1, 2, 0)
    with pytest.raises(ValueError, match="index 0 "):
        encode_gsm7("\x1be")


def test_a_lone_surrogate_is_counted_and_not_a_failure():
    assert measure("\ud83d") == TextShape(Encoding.UCS2, 1, 1, 0)
    # A half without its other half is no pair, so it may end a part.
    assert measure("Ж" * 66 + "\ud83d" + "Ж" * 67).segments == 2
    assert measure("Ж" * 66 + "\ude00" * 2 + "Ж" * 66).segments == 2


def test_a_refusal_does_not_repeat_the_character():
    with pytest.raises(ValueError) as refusal:
        encode_gsm7("secret Ж")
    assert "Ж" not in str(refusal.value)
    assert "secret" not in str(refusal.value)


def test_a_shape_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        measure("a").segments = 2  # type: ignore[misc]
