"""What every slice needs to put into protobuf."""

from google.protobuf.timestamp_pb2 import Timestamp


def timestamp(at_ms: int) -> Timestamp:
    """Return a time in milliseconds since 1970 UTC as protobuf has it."""
    packed = Timestamp()
    fill_time(packed, at_ms)
    return packed


def millis(packed: Timestamp) -> int:
    """Return a time as milliseconds since 1970 UTC."""
    return packed.seconds * 1000 + packed.nanos // 1_000_000


def fill_time(packed: Timestamp, at_ms: int) -> None:
    """Set a time where it stands, in milliseconds since 1970 UTC."""
    packed.seconds = at_ms // 1000
    packed.nanos = at_ms % 1000 * 1_000_000
