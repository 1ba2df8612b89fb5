"""Protobuf values as the command line writes them."""

import re
from collections.abc import Callable
from typing import Any

import typer
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from hydrasms_base.clock import iso_millis

_SPAN = re.compile(r"([0-9]{1,9})([smhd])", re.ASCII)
_UNIT_S = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}


def time_of(message: Message, field: str) -> str | None:
    """Return a timestamp field as ISO 8601 in UTC with milliseconds and `Z`; None where it is absent."""
    if not message.HasField(field):
        return None
    at: Timestamp = getattr(message, field)
    return iso_millis(at.seconds * 1000 + at.nanos // 1_000_000)


def word(name_of: Callable[[Any], str], number: int) -> str:
    """Return an enum value as a lower-case word without its enum's prefix; a newer core's value as its number.

    `name_of` is the generated enum's `Name`.
    """
    prefix = name_of(0).removesuffix("UNSPECIFIED")
    try:
        return name_of(number).removeprefix(prefix).lower()
    except ValueError:
        return str(number)


def seconds_of_span(text: str, *, longest_s: int, said: str) -> int:
    """Return a span such as 30m or 24h in seconds; raises BadParameter, which says what it may be."""
    match = _SPAN.fullmatch(text)
    seconds = int(match[1]) * _UNIT_S[match[2]] if match is not None else -1
    if not 0 <= seconds <= longest_s:
        raise typer.BadParameter(f"{said}: a number and s, m, h or d.")
    return seconds
