"""What the edge does with more requests than it can answer soon: it refuses them at once, before it looks at them.

Refusing in the application, let alone in the core, takes a good part of what accepting takes: at three times as many
requests as can be served nothing would be left for those that could be. So the listener refuses, with an answer that
is put together from parts that last.
"""

import math
import time

from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from hydrasms_base.log import get_logger
from hydrasms_base.metrics import Metrics
from hydrasms_edge.errors import present, unavailable
from hydrasms_edge.scope import REQUEST_ID, request_id_of_values
from hydrasms_edge.streams import Streams

_BOUNDED = b"/api/"
"""What the paths begin with whose requests are counted and refused; the others are for those who look after us."""
_SAID_EVERY_S = 1.0
_ANY_ID = "-"

Headers = list[tuple[bytes, bytes]]
"""As ASGI has them, with lower-case names."""

log = get_logger(__name__)


class Admission:
    """Lets requests in as long as no more than so many are in progress, but for the streams among them."""

    def __init__(self, most: int, metrics: Metrics, streams: Streams | None = None) -> None:
        self._most = most
        self._streams = streams
        self._counter = metrics.counter(
            "http_refused", "Requests refused unread because too many were in progress."
        )
        self._headers, self._before, self._after = _parts()
        self._body_bytes = len(self._before) + len(self._after)
        self._common: Headers | None = None
        self._start = b""
        self._unsaid = 0
        self._said_at = -math.inf

    def admits(self, url: bytes, in_progress: int) -> bool:
        """Tell whether a request for this path may be read while so many are in progress."""
        if self._streams is not None:
            in_progress -= self._streams.open
        return in_progress < self._most or not url.startswith(_BOUNDED)

    def refusal(self, headers: Headers, common: Headers, *, is_head: bool, is_last: bool) -> bytes:
        """Return the answer that tells a caller to come back: UNAVAILABLE, as everywhere.

        `headers` are the request's, `common` those that every answer has; a connection ends with its last answer.
        """
        self._note()
        if common is not self._common:
            # Once a second, when the date is another.
            self._common = common
            self._start = STATUS_LINE[503] + _lines([*common, *self._headers])
        given = [value.strip(b" \t") for name, value in headers if name == b"x-request-id"]
        its_id = request_id_of_values(given).encode()
        return b"%bcontent-length: %d\r\nx-request-id: %b\r\n%b\r\n%b" % (
            self._start,
            self._body_bytes + len(its_id),
            its_id,
            b"connection: close\r\n" if is_last else b"",
            b"" if is_head else b"%b%b%b" % (self._before, its_id, self._after),
        )

    def _note(self) -> None:
        """Count a refusal. A line in the log for each would come when there is least room for it."""
        self._counter.inc()
        self._unsaid += 1
        now = time.monotonic()
        if now - self._said_at >= _SAID_EVERY_S:
            log.warning("overloaded", refused=self._unsaid, in_progress=self._most)
            self._unsaid, self._said_at = 0, now


def _lines(headers: Headers) -> bytes:
    return b"".join(b"%b: %b\r\n" % header for header in headers)


def _parts() -> tuple[Headers, bytes, bytes]:
    """Return what all refusals share: headers, and the body up to its request's id and after it."""
    answer = present(unavailable(), {REQUEST_ID: _ANY_ID})
    before, _, after = bytes(answer.body).rpartition(_ANY_ID.encode())
    headers = [header for header in answer.raw_headers if header[0] != b"content-length"]
    return headers, before, after
