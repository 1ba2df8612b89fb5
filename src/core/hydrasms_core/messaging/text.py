"""Text on the air: the GSM 7-bit default alphabet and the segments that a text takes.

The alphabet and its extension table are those of 3GPP TS 23.038, section 6.2.1. The sizes of parts follow
from 3GPP TS 23.040, section 9.2.3.24.1: 140 octets a part, of which a concatenation header takes 6.
"""

import codecs
import enum
import re
from dataclasses import dataclass

_ESCAPE = "\x1b"
# The character of each septet. 0x1B is the escape to the extension table and stands for no character: were it
# let through, a text could smuggle in an escape pair, so ESC in a text forces UCS-2.
_BASIC = (
    "@£$¥èéùìòÇ\nØø\rÅåΔ_ΦΓΛΩΠΨΣΘΞ\x1bÆæßÉ"
    " !\"#¤%&'()*+,-./0123456789:;<=>?"
    "¡ABCDEFGHIJKLMNOPQRSTUVWXYZÄÖÑÜ§"
    "¿abcdefghijklmnopqrstuvwxyzäöñüà"
)
_EXTENSION = {
    0x0A: "\f",
    0x14: "^",
    0x28: "{",
    0x29: "}",
    0x2F: "\\",
    0x3C: "[",
    0x3D: "~",
    0x3E: "]",
    0x40: "|",
    0x65: "€",
}

_EXTENDED = "".join(_EXTENSION.values())
_TO_SEPTETS = str.maketrans(
    {character: chr(code) for code, character in enumerate(_BASIC)}
    | {character: _ESCAPE + chr(code) for code, character in _EXTENSION.items()}
)
_NOT_GSM = re.compile(f"[^{re.escape((_BASIC + _EXTENDED).replace(_ESCAPE, ''))}]")
# For the quick look at a text of ASCII: what stays after these are deleted is the exception.
_BASIC_ASCII = bytes(ord(character) for character in _BASIC if character.isascii() and character != _ESCAPE)
_EXTENDED_ASCII = bytes(ord(character) for character in _EXTENDED if character.isascii())

_GSM7_WHOLE, _GSM7_PART = 160, 153
_UCS2_WHOLE, _UCS2_PART = 70, 67


class Encoding(enum.Enum):
    """How a text is coded on the air."""

    GSM7 = "GSM7"
    UCS2 = "UCS2"


@dataclass(frozen=True, slots=True)
class TextShape:
    """What a text costs a carrier.

    `units` counts septets for GSM-7, an escape pair being two, and UTF-16 code units for UCS-2, a surrogate
    pair being two. `first_non_gsm_index` is the index, in code points, of the first character that forces
    UCS-2, and None for GSM-7.
    """

    encoding: Encoding
    segments: int
    units: int
    first_non_gsm_index: int | None


# Most texts have one of these shapes, and making a frozen object costs more than measuring a short text.
_ONE_SEGMENT = [TextShape(Encoding.GSM7, 1, units, None) for units in range(_GSM7_WHOLE + 1)]


def measure(text: str) -> TextShape:
    """Return how a text of any length is coded and how many segments it takes, at least one.

    GSM-7 where every character is in the basic or the extension table, else UCS-2. One message holds 160
    septets or 70 units, a part of several 153 or 67; no part ends within an escape pair or a surrogate pair.
    """
    if text.isascii():
        pairs = text.encode().translate(None, _BASIC_ASCII)
        if not pairs or not pairs.translate(None, _EXTENDED_ASCII):
            return _measure_gsm7(text, len(pairs))
    exception = _NOT_GSM.search(text)
    if exception is None:
        return _measure_gsm7(text, sum(map(text.count, _EXTENDED)))
    return _measure_ucs2(text, exception.start())


def _measure_gsm7(text: str, pairs: int) -> TextShape:
    units = len(text) + pairs
    if units <= _GSM7_WHOLE:
        return _ONE_SEGMENT[units]
    if not pairs:
        return TextShape(Encoding.GSM7, -(-units // _GSM7_PART), units, None)
    septets = encode_gsm7(text)
    segments = start = 0
    while start < units:
        start += _GSM7_PART
        # A part that would end on the escape leaves the whole pair to the next one.
        if start < units and septets[start - 1] == ord(_ESCAPE):
            start -= 1
        segments += 1
    return TextShape(Encoding.GSM7, segments, units, None)


def _measure_ucs2(text: str, first_non_gsm_index: int) -> TextShape:
    # Lone surrogates are refused elsewhere; here they count as the one unit that each would be on the air.
    octets = text.encode("utf-16-be", "surrogatepass")
    units = len(octets) // 2
    if units <= _UCS2_WHOLE:
        return TextShape(Encoding.UCS2, 1, units, first_non_gsm_index)
    segments = start = 0
    while start < units:
        start += _UCS2_PART
        # A high surrogate, 0xD800 to 0xDBFF, goes with its low half to the next part.
        if start < units and octets[2 * start - 2] & 0xFC == 0xD8 and octets[2 * start] & 0xFC == 0xDC:
            start -= 1
        segments += 1
    return TextShape(Encoding.UCS2, segments, units, first_non_gsm_index)


def encode_gsm7(text: str) -> bytes:
    """Return a text in the GSM 7-bit alphabet, unpacked: one septet an octet, an escape pair as two octets.

    Raises ValueError, naming the place and not the character, for a text that does not fit.
    """
    exception = _NOT_GSM.search(text)
    if exception is not None:
        raise ValueError(f"The character at index {exception.start()} is not in the GSM 7-bit alphabet.")
    return text.translate(_TO_SEPTETS).encode("ascii")


def decode_gsm7(octets: bytes) -> str:
    """Return the text of unpacked septets: what `encode_gsm7` makes, read back.

    Raises ValueError for an octet over 0x7F, an escape at the end, and a code that the extension table lacks.
    """
    if not octets.isascii():
        raise ValueError("An octet over 0x7F is not a septet of the GSM 7-bit alphabet.")
    plain, *escaped = octets.split(_ESCAPE.encode())
    pieces = [_decode_basic(plain)]
    for piece in escaped:
        character = _EXTENSION.get(piece[0]) if piece else None
        if character is None:
            raise ValueError("An escape is not followed by a code of the GSM 7-bit extension table.")
        pieces += character, _decode_basic(piece[1:])
    return "".join(pieces)


def _decode_basic(octets: bytes) -> str:
    return codecs.charmap_decode(octets, "strict", _BASIC)[0]
