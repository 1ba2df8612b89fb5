"""Folding: what does not count when a word that a phone sent is compared with a shortcode.

Two words are one shortcode where they fold to the same text. What does not count:

- case (Unicode's full case folding: ß is ss, ς is σ, ſ is s), and the dot of an i, so that I, İ, i and ı are one
  letter: nobody can know whether a phone or whoever registered the word thinks in Turkish;
- width and form: full-width and half-width, ligatures, mathematical letters, superscripts, circled and Roman
  numerals (Unicode's compatibility decomposition), and in which script a digit is written;
- whether a mark stands by itself or is composed with its letter;
- invisible characters: zero-width ones, the byte order mark, soft hyphens, marks of direction, variation selectors,
  controls.

Accents count: é is not e. So do look-alikes of other scripts.

This is NFKC_Casefold (Unicode 3.13) but for the i, the digits, the controls, and characters whose decomposition
holds a space, which stay as they are so that a word stays one word. An assigned character folds to the same in every
later Unicode, and only assigned letters and digits are shortcodes: what is stored stays found.
"""

import re
import unicodedata

MAX_WORD_CHARS = 64
"""How much of a first word is kept: more than any shortcode has, and little enough to store and to quote."""

# How much of a word is looked at: to put very many marks into their order takes very long.
_MOST_LOOKED_AT = 512

_IGNORABLE = (
    # Default_Ignorable_Code_Point, and the marks of interlinear annotation.
    "\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164"
    "\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff"
    # Controls that are no white space.
    "\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f"
)
_INVISIBLE = re.compile(f"[{_IGNORABLE}]+")
# For text patterns \s is what str.isspace tells, and what str.split splits at.
_FIRST_WORD = re.compile(rf"[\s{_IGNORABLE}]*(\S*)\s*")
_DOT_ABOVE = "\u0307"


def fold(word: str) -> str:
    """Return a word without what does not count, cut to 64 characters; it may be empty.

    Never raises, and is idempotent.
    """
    if word.isascii() and word.isprintable():
        return word[:MAX_WORD_CHARS].lower()
    looked_at = _INVISIBLE.sub("", word)[:_MOST_LOOKED_AT]
    text = _INVISIBLE.sub("", _decomposed(looked_at))
    text = _decomposed(text.casefold()).replace("ı", "i")
    text = "".join(map(_digit, text))
    text = _without_dots(text) if _DOT_ABOVE in text else text
    return unicodedata.normalize("NFC", text)[:MAX_WORD_CHARS]


def first_word(text: str) -> tuple[str, str]:
    """Return the first word of a text, folded, and the content.

    White space and invisible characters before the word are passed over. The word ends at white space; punctuation
    is a part of it. The content is what follows the white space after it, verbatim, to the last character. A text
    without a word is ("", "").
    """
    match = _FIRST_WORD.match(text)
    assert match is not None  # the pattern takes nothing as well
    return fold(match[1]), text[match.end() :]


def _decomposed(text: str) -> str:
    if unicodedata.is_normalized("NFKD", text):
        return text
    return unicodedata.normalize("NFD", "".join(map(_decomposed_character, text)))


def _decomposed_character(character: str) -> str:
    parts = unicodedata.normalize("NFKD", character)
    # An accent that stands alone decomposes into a space and a mark, which would go to the letter before it.
    return parts if character.isspace() or not any(map(str.isspace, parts)) else character


def _digit(character: str) -> str:
    return str(unicodedata.decimal(character)) if character.isdecimal() else character


def _without_dots(text: str) -> str:
    """Return a decomposed text without the dots above its i's, whatever other marks they have."""
    kept = []
    on_an_i = False
    for character in text:
        if unicodedata.combining(character) == 0:
            on_an_i = character == "i"
        elif on_an_i and character == _DOT_ABOVE:
            continue
        kept.append(character)
    return "".join(kept)
