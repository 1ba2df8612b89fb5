"""Automatic replies: what they say, and who gets none."""

import enum
from typing import NamedTuple

from hydrasms_core.inbound.model import Arrival, Outcome

HOUR_MS = 3_600_000

MAX_ASKING_CHARACTERS = 40
"""How long a text that begins with STOP, START or HELP may be to get a reply. A longer one is heeded as well, but is
more likely another machine's notice than a person's wish."""

_UNKNOWN = "The shortcode {word} does not exist. Please include it as the first word of your message."
_STOPPED = "You will receive no more messages from this sender. Text START to receive them again."
_STARTED = "You will receive messages from this sender again. Text STOP to receive no more."
_HELP = "Several senders use this number. Text STOP to receive no more messages from the last one, START to resume."


class ReplyKind(enum.StrEnum):
    """What a reply answers."""

    UNKNOWN = "unknown"
    STOP = "stop"
    START = "start"
    HELP = "help"


class Reply(NamedTuple):
    """An automatic reply to be sent; its id is that of the text that it answers."""

    id: str
    recipient: str
    content: str
    kind: ReplyKind
    created_at_ms: int


def reply_to(arrival: Arrival, outcome: Outcome, *, changed: bool) -> Reply | None:
    """Return the reply that a text gets, or None for none; `changed` says that it changed what the sender wants.

    None goes to a name or a short number, and none answers what may be such a reply itself: two machines must not
    talk to each other for ever.
    """
    # In this order because most texts get no reply, and reading the whole of one costs the most.
    kind = _kind(arrival, outcome, changed=changed)
    if kind is None or arrival.number is None or is_automatic(arrival.text):
        return None
    content = _TEXTS[kind].format(word=arrival.word)
    return Reply(arrival.id, arrival.number, content, kind, arrival.taken_at_ms)


def is_automatic(text: str) -> bool:
    """Tell whether a text looks like a reply of this program, be it another instance's, or the first part of one."""
    plain = _plain(text)
    return plain.startswith(_BEGINNING) or any(sign in plain for sign in _SIGNS)


def _kind(arrival: Arrival, outcome: Outcome, *, changed: bool) -> ReplyKind | None:
    if outcome is Outcome.ROUTED:
        return None
    if outcome is Outcome.UNKNOWN_SHORTCODE:
        return ReplyKind.UNKNOWN if arrival.word and arrival.ask is None else None
    if len(arrival.text) > MAX_ASKING_CHARACTERS:
        return None
    if outcome is Outcome.HELP:
        return ReplyKind.HELP
    if not changed:
        return None
    return {Outcome.OPTED_OUT: ReplyKind.STOP, Outcome.OPTED_IN: ReplyKind.START}.get(outcome)


def _plain(text: str) -> str:
    return " ".join(text.casefold().split())


_TEXTS = {
    ReplyKind.UNKNOWN: _UNKNOWN,
    ReplyKind.STOP: _STOPPED,
    ReplyKind.START: _STARTED,
    ReplyKind.HELP: _HELP,
}
_BEGINNING, _, _END = _plain(_UNKNOWN).partition("{word}")
_SIGNS = (_END, *(_plain(text) for text in (_STOPPED, _STARTED, _HELP)))
