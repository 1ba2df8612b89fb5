"""Protobuf values as the command line writes them."""

from collections.abc import Callable
from typing import Any

from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from hydrasms_base.clock import iso_millis


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
