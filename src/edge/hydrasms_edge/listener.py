"""The HTTP/1.1 listener: uvicorn's protocol, without what it lets pass.

Refused with 400 before anything reaches the application: a request whose framing two readers could see
differently, one without a Host, and a head that does not end within its limit. A client that is silent or too slow
is closed, but one that is still writing gets its answer first. A wish for another protocol is ignored, as
RFC 9110, section 7.8 allows, and the request is served. Where too many requests are in progress it answers
further ones itself.
"""

import asyncio
import math
from typing import Any, cast

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from hydrasms_edge.admission import Admission

MAX_HEAD_BYTES = 65_536
"""How long a head may grow that comes in several reads; one read is bounded by itself."""

LEAVE_S = 0.5
"""How long a connection without a request may still send one when the server stops, in seconds."""

_FRAMING = (b"content-length", b"transfer-encoding")


class BadHead(Exception):
    """The request's head is not one that may be served."""


class Listener(HttpToolsProtocol):
    """One connection."""

    def __init__(
        self,
        *args: Any,
        receive_timeout_s: float,
        outgoing: "Outgoing",
        admission: Admission | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self._outgoing = outgoing
        self._receive_timeout_s = receive_timeout_s
        self._admission = admission
        self._is_refusing = False
        self._too_slow: asyncio.TimerHandle | None = None
        self._awaits_rest = True
        self._awaits_head = True
        self._head_bytes = 0
        self._is_last = False
        self._is_leaving = False
        self._idle_since = math.inf
        self._idle_check: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        """Begin, and give the client its time for a first request."""
        super().connection_made(cast("asyncio.Transport", _Joining(transport, self.loop, self._outgoing)))
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """End."""
        self._awaits_rest = False
        self._watch()
        if self._idle_check is not None:
            self._idle_check.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take in some bytes."""
        self._idle_since = math.inf
        if self._awaits_head:
            self._head_bytes += len(data)
        try:
            self._feed(data)
        except (httptools.HttpParserError, BadHead):
            self.send_400_response("Invalid HTTP request received.")
            return
        self._watch()

    def shutdown(self) -> None:
        """End with the request in progress; where there is none, with the next, or soon without one.

        A request may be under way that its client sent before it could know: closed at once, it would be lost.
        """
        self._is_leaving = True
        if self._is_idle:
            self.loop.call_later(LEAVE_S, self._leave)
        elif self._awaits_rest:
            self._is_last = True
        else:
            self.cycle.keep_alive = False

    def _leave(self) -> None:
        if self._is_idle:
            self.transport.close()

    @property
    def _is_idle(self) -> bool:
        """Whether no request is being answered."""
        cycle: RequestResponseCycle | None = self.cycle  # uvicorn says that there always is one
        return not self._is_refusing and (cycle is None or cycle.response_complete)

    def on_message_begin(self) -> None:
        """Note that a request has begun."""
        self._awaits_rest = True
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """Hand a request over; raises BadHead."""
        self._awaits_head = False
        self._head_bytes = 0
        version = self.parser.get_http_version()
        _check_head(version, self.headers)
        # One that comes before the last one's answer waits for its turn, and is asked about in none.
        if self._admission is not None and self._is_idle:
            self._is_refusing = not self._admission.admits(self.url, len(self.tasks))
        if self._is_refusing:
            # Who waits to be told to go on with the body may never do so.
            self._is_last = (
                self._is_leaving
                or version == "1.0"
                or self.expect_100_continue
                or not self.parser.should_keep_alive()
            )
            self._refuse()
            return
        super().on_headers_complete()
        # A client that is still writing must not be closed, or the answer is lost to it: so a connection that is
        # to end with this request ends only when the request has come whole, read or not.
        self._is_last = self._is_leaving or not self.cycle.keep_alive
        self.cycle.keep_alive = True

    def on_body(self, body: bytes) -> None:
        """Take in a part of a body, unless nobody will read it."""
        if not self._is_refusing:
            super().on_body(body)

    def on_message_complete(self) -> None:
        """Note that a request has come whole."""
        if self.parser.should_upgrade():
            return  # The parser means that another protocol begins here; `_feed` knows better.
        self._awaits_rest = False
        self._awaits_head = True
        if self._is_refusing:
            self._is_refusing = False
            if self._is_last:
                self.transport.close()
            self.on_response_complete()
            return
        super().on_message_complete()
        if self._is_last:
            self.cycle.keep_alive = False
            if self.cycle.response_complete:
                self.transport.close()

    def on_response_complete(self) -> None:
        """Go on with the next request, or begin to wait for one."""
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
            return
        self._idle_since = self.loop.time()
        if self._idle_check is None:
            self._idle_check = self.loop.call_later(self.timeout_keep_alive, self._check_idle)

    def _check_idle(self) -> None:
        """Close a connection that has been idle for long: one timer for many requests, which are sooner over than one
        is set and taken away for each.
        """
        idle_s = self.loop.time() - self._idle_since
        if idle_s >= self.timeout_keep_alive:
            self.transport.close()
        else:
            wait_s = self.timeout_keep_alive - max(idle_s, 0.0)
            self._idle_check = self.loop.call_later(wait_s, self._check_idle)

    def _refuse(self) -> None:
        """Answer a request that is not let in; what is still to come of it is passed over."""
        assert self._admission is not None, "nobody else refuses"
        answer = self._admission.refusal(
            self.headers,
            self.server_state.default_headers,
            is_head=self.parser.get_method() == b"HEAD",
            is_last=self._is_last,
        )
        self.transport.write(answer)

    def _feed(self, data: bytes) -> None:
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._go_on(data[upgrade.args[0] :])
        if self._awaits_head and self._head_bytes > MAX_HEAD_BYTES:
            raise BadHead

    def _go_on(self, rest: bytes) -> None:
        """Go on after a head that asked for another protocol, with a parser that has not seen the wish."""
        framing = b"".join(b"%b: %b\r\n" % header for header in self.headers if header[0] in _FRAMING)
        self.parser = httptools.HttpRequestParser(_AfterHead(self))
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
        self.parser.feed_data(b"POST / HTTP/1.1\r\n%b\r\n" % framing)
        self._feed(rest)

    def _watch(self) -> None:
        """Keep the time that a request takes to come in; one that comes in one piece never starts the clock."""
        if not self._awaits_rest:
            if self._too_slow is not None:
                self._too_slow.cancel()
                self._too_slow = None
        elif self._too_slow is None:
            self._too_slow = self.loop.call_later(self._receive_timeout_s, self.transport.close)


class Outgoing:
    """The answers of all connections in one turn of the loop, sent together when it ends.

    What is written to one connection goes in one piece: head and body of an answer come one after the other, and a
    system call for each is a tenth of a request. And whoever reads several answers is woken once for them, not by
    each.
    """

    def __init__(self) -> None:
        self._written: list[_Joining] = []

    def add(self, transport: "_Joining", loop: asyncio.AbstractEventLoop) -> None:
        """Send what is written to a connection when the turn ends."""
        if not self._written:
            loop.call_soon(self._flush)
        self._written.append(transport)

    def _flush(self) -> None:
        written, self._written = self._written, []
        for transport in written:
            transport.flush()


class _Joining:
    """A transport that sends what is written in one turn of the loop in one piece."""

    def __init__(
        self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop, outgoing: Outgoing
    ) -> None:
        self._transport = transport
        self._loop = loop
        self._outgoing = outgoing
        self._pieces: list[bytes] = []
        # Asked at every answer.
        self.is_closing = transport.is_closing

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        if not self._pieces:
            self._outgoing.add(self, self._loop)
        self._pieces.append(data)

    def close(self) -> None:
        self.flush()
        self._transport.close()

    def flush(self) -> None:
        if self._pieces:
            pieces, self._pieces = self._pieces, []
            if not self._transport.is_closing():
                self._transport.write(b"".join(pieces))


class _AfterHead:
    """Passes a parser's callbacks on to a listener, but for those of the first head, which it has seen."""

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self._in_first_head = True
        self.on_body = listener.on_body
        self.on_message_complete = listener.on_message_complete

    def on_message_begin(self) -> None:
        if not self._in_first_head:
            self._listener.on_message_begin()

    def on_url(self, url: bytes) -> None:
        if not self._in_first_head:
            self._listener.on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._in_first_head:
            self._listener.on_header(name, value)

    def on_headers_complete(self) -> None:
        if not self._in_first_head:
            self._listener.on_headers_complete()
        self._in_first_head = False


def _check_head(version: str, headers: list[tuple[bytes, bytes]]) -> None:
    names = [name for name, _ in headers]
    hosts = names.count(b"host")
    if version not in ("1.0", "1.1") or hosts > 1 or (not hosts and version == "1.1"):
        raise BadHead
    # The parser refuses most of what is wrong with lengths; it takes these, or refuses them only afterwards.
    if b"transfer-encoding" in names:
        codings = [value.strip(b" \t").lower() for name, value in headers if name == b"transfer-encoding"]
        if version == "1.0" or codings != [b"chunked"]:
            raise BadHead
