"""Texts from phones: the bounds of what is taken in, and what may become of it."""

import enum
import re
from typing import NamedTuple

from hydrasms_core.carriers.base import InboundText
from hydrasms_core.consent.words import Ask, asked, bare
from hydrasms_core.errors import InvalidArgument
from hydrasms_core.messaging.model import InboundMessage
from hydrasms_core.messaging.numbering import parse_recipient
from hydrasms_core.shortcodes.folding import first_word

MAX_TEXT_CHARACTERS = 10_000
MAX_SENDER_CHARACTERS = 32
MAX_REFERENCE_CHARACTERS = 128

_CARRIER = re.compile(r"[!-~]{1,32}", re.ASCII)
# What not every database and no encoding of the wire can hold.
_UNSTORABLE = re.compile("[\0\ud800-\udfff]")
_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


class Outcome(enum.StrEnum):
    """What became of a text."""

    ROUTED = "routed"
    UNKNOWN_SHORTCODE = "unknown_shortcode"
    OPTED_OUT = "opted_out"
    OPTED_IN = "opted_in"
    HELP = "help"


class Arrival(NamedTuple):
    """A text that may be taken in, with all that can be said of it without the database."""

    id: str
    carrier: str
    reference: str
    """What the carrier calls it; its own id where the carrier has no names."""
    sender: str
    number: str | None
    """The sender in canonical E.164; None where it is no number that could be answered."""
    text: str
    word: str
    """Its first word, folded, and where that asks for something without punctuation; empty where it has none."""
    content: str
    ask: Ask | None
    """What its first word asks for, where that means something to every phone."""
    received_at_ms: int
    taken_at_ms: int


class Received(NamedTuple):
    """What a carrier's text became, and whether the carrier had brought it before."""

    message: InboundMessage
    outcome: Outcome
    duplicate: bool


def checked(text: InboundText, message_id: str, *, now_ms: int) -> Arrival:
    """Return a carrier's text as it may be stored; raises InvalidArgument for what is out of bounds.

    NUL and halves of surrogate pairs become U+FFFD: a text that were refused for them would be lost. A time that is
    still to come, or before 1970, is now.
    """
    if _CARRIER.fullmatch(text.carrier) is None:
        raise InvalidArgument(
            "carrier is required: the carrier's name, 1 to 32 visible ASCII characters.", field="carrier"
        )
    if len(text.reference) > MAX_REFERENCE_CHARACTERS:
        raise InvalidArgument(
            f"carrier_message_id has at most {MAX_REFERENCE_CHARACTERS} characters.",
            field="carrier_message_id",
        )
    if not 1 <= len(text.sender) <= MAX_SENDER_CHARACTERS:
        raise InvalidArgument(
            f"sender is required: who sent the text, 1 to {MAX_SENDER_CHARACTERS} characters.", field="sender"
        )
    if len(text.content) > MAX_TEXT_CHARACTERS:
        raise InvalidArgument(
            f"text has {len(text.content)} characters; {MAX_TEXT_CHARACTERS:,} are the most.", field="text"
        )
    # Folded as it came: what is invisible to whoever types it hides no shortcode.
    word, content = first_word(text.content)
    ask = asked(word)
    if ask is not None:
        word = bare(word)
    sender = storable(text.sender)
    return Arrival(
        id=message_id,
        carrier=text.carrier,
        reference=storable(text.reference) or message_id,
        sender=sender,
        number=number_of(sender),
        text=storable(text.content),
        word=storable(word),
        content=storable(content),
        ask=ask,
        received_at_ms=text.received_at_ms if 0 < text.received_at_ms < now_ms else now_ms,
        taken_at_ms=now_ms,
    )


def storable(text: str) -> str:
    """Return a text that every database takes."""
    if "\0" not in text:
        if text.isascii():
            return text
        try:
            # A tenth of what looking for halves of surrogate pairs takes.
            text.encode()
        except UnicodeEncodeError:
            pass
        else:
            return text
    return _UNSTORABLE.sub(_REPLACEMENT, text)


def number_of(sender: str) -> str | None:
    """Return a sender in canonical E.164, or None for all but full numbers of a country: names, short numbers."""
    try:
        return parse_recipient(sender).e164
    except ValueError:
        return None
