"""Posts to customers' servers: to addresses on the public internet alone, and in a bounded time."""

import asyncio
import contextlib
import contextvars
import functools
import socket
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.client_proto import ResponseHandler
from aiohttp.http import HttpProcessingError, StreamWriter
from multidict import CIMultiDict, istr
from yarl import URL

from hydrasms_base.alarm import Alarm
from hydrasms_base.clock import Clock
from hydrasms_core.webhooks.addresses import Guard, target_of
from hydrasms_core.webhooks.failures import retry_after_s, unanswered
from hydrasms_core.webhooks.names import Names, SystemNames
from hydrasms_core.webhooks.ports import MAX_ANSWER_BYTES, Answered, Unanswered

BUDGET_S = 15.0
_MOST_ADDRESSES = 4
"""How many addresses of a name are tried: a name with a thousand would have us knock at a thousand doors."""
_MAX_LINE_BYTES = 8_190
_MAX_HEADERS = 64
_READ_BYTES = 4_096
_RECEIVED_BYTES = 16_384
"""How much the system receives ahead. It is all that is read at once, so that whoever sends without end, such as
interim answers by the million, keeps the loop from others for a moment alone."""
_KEEP_ALIVE_S = 30.0
_MAX_REQUESTS = 1_024
# Names of this type need not be brought to lower case for every request.
_HOST, _LENGTH = istr("Host"), istr("Content-Length")
_HEADERS: dict[str, str] = {
    istr("User-Agent"): "hydrasms-webhooks",
    istr("Accept"): "*/*",
    istr("Accept-Encoding"): "identity",
}

# All time is the attempt's, and one clock runs for it.
_NO_TIMEOUTS = aiohttp.ClientTimeout(total=None, connect=None, sock_connect=None, sock_read=None)


@dataclass(slots=True)
class _Attempt:
    """What is known of an attempt so far."""

    connected: bool = False
    """Whether it made a connection, rather than use one that was there."""
    status: int | None = None
    retry_after: str | None = None
    answer: bytes = b""
    is_whole: bool = False
    """Whether the receiver has sent all of its answer, more than is kept included."""


_attempt: contextvars.ContextVar[_Attempt] = contextvars.ContextVar("webhook_attempt")


class Connector:
    """Posts to where the guard permits, and keeps connections to receivers that answer.

    What is connected to is what was checked: the addresses that a name has are checked all, handed on as addresses
    (nobody looks the name up a second time), and the address of each socket is checked again before it is connected.
    Redirects are not followed, no proxy is taken from the environment, no cookie is kept and nothing is unpacked.

    The connections, and what parses the answers, are aiohttp's. Its session, which knows all these things and would
    have to be told of each not to do it, costs more than they do (docs/decisions/0011).
    """

    def __init__(
        self,
        guard: Guard,
        clock: Clock,
        *,
        names: Names | None = None,
        budget_s: float = BUDGET_S,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._guard = guard
        self._clock = clock
        self._budget_s = budget_s
        self._names = names or SystemNames()
        self._pool = aiohttp.TCPConnector(
            resolver=_CheckedNames(self._names, guard),
            use_dns_cache=False,
            socket_factory=self._checked_socket,
            ssl=tls or True,
            # Whoever posts bounds how much is posted at once, a receiver at a time.
            limit=0,
            keepalive_timeout=_KEEP_ALIVE_S,
        )
        self._request_to = functools.lru_cache(_MAX_REQUESTS)(_request_to)

    async def post(self, url: str, headers: Mapping[str, str], body: bytes) -> Answered | Unanswered:
        """Post once; see `ports.Poster`."""
        began, attempt = self._clock.monotonic(), _Attempt()
        _attempt.set(attempt)
        budget = Alarm(self._budget_s)
        try:
            with budget:
                await self._post(attempt, url, headers, body)
        # A receiver may break off, drip or lie at any point: what counts is whether the status was there by then.
        except (aiohttp.ClientError, HttpProcessingError, OSError, ValueError) as error:
            if attempt.status is None:
                return unanswered(error, out_of_time=budget.has_rung, after_s=self._clock.monotonic() - began)
        assert attempt.status is not None
        return Answered(
            attempt.status,
            attempt.answer,
            retry_after_s(attempt.retry_after, self._clock.now_ms()),
            self._clock.monotonic() - began,
        )

    async def close(self) -> None:
        """Close all connections."""
        await self._pool.close()
        await self._names.close()

    async def _post(self, attempt: _Attempt, url: str, headers: Mapping[str, str], body: bytes) -> None:
        target = target_of(url)
        if target.address is not None:
            self._guard.require(target.host, target.port)
        request = self._request_to(target.url)
        try:
            await self._exchange(attempt, request, headers, body)
        except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError) as error:
            # A kept connection may be closed by the other side just when it is used: that says nothing of a new one.
            known = attempt.connected or attempt.status is not None
            if known or isinstance(error, aiohttp.ClientConnectorError):
                raise
            await self._exchange(attempt, request, headers, body)

    async def _exchange(
        self, attempt: _Attempt, request: aiohttp.ClientRequest, headers: Mapping[str, str], body: bytes
    ) -> None:
        """Send a request and read what is kept of its answer."""
        connection = await self._pool.connect(request, traces=[], timeout=_NO_TIMEOUTS)
        try:
            protocol = connection.protocol
            assert protocol is not None
            protocol.set_response_params(
                read_until_eof=True,
                auto_decompress=False,
                read_bufsize=_READ_BYTES,
                max_line_size=_MAX_LINE_BYTES,
                max_field_size=_MAX_LINE_BYTES,
                max_headers=_MAX_HEADERS,
            )
            await _send(protocol, request, headers, body)
            await _receive(protocol, attempt)
            if attempt.is_whole:
                connection.release()
        finally:
            # Reads nothing more: what was not read to its end goes, with its connection.
            connection.close()

    def _checked_socket(self, address: tuple[Any, ...]) -> socket.socket:
        """Return a socket for an address that is about to be connected to, given as `getaddrinfo` gives it.

        Addresses that stand in the URL come here without having been looked up.
        """
        family, kind, protocol, _, (host, port, *_) = address
        self._guard.require(host, port)
        with contextlib.suppress(LookupError):
            _attempt.get().connected = True
        made = socket.socket(family, kind, protocol)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVED_BYTES)
        return made


def _request_to(url: URL) -> aiohttp.ClientRequest:
    """Return what the pool is asked by: where to, with TLS or not, and under which name; the same for every post."""
    return aiohttp.ClientRequest("POST", url, loop=asyncio.get_running_loop())


async def _send(
    protocol: ResponseHandler, request: aiohttp.ClientRequest, headers: Mapping[str, str], body: bytes
) -> None:
    """Write all of a request at once."""
    whole = CIMultiDict({_HOST: request.headers[_HOST], **_HEADERS, **headers, _LENGTH: str(len(body))})
    writer = StreamWriter(protocol, request.loop)
    await writer.write_headers(f"POST {request.url.raw_path_qs} HTTP/1.1", whole)
    await writer.write_eof(body)


async def _receive(protocol: ResponseHandler, attempt: _Attempt) -> None:
    """Read an answer, past those that are interim, up to as much of its body as is kept."""
    message, content = await protocol.read()
    while 100 <= message.code <= 199 and message.code != HTTPStatus.SWITCHING_PROTOCOLS:
        message, content = await protocol.read()
    attempt.status = message.code
    attempt.retry_after = message.headers.get("Retry-After")
    if content.is_eof():
        # It came together with the headers.
        attempt.answer = content.read_nowait(MAX_ANSWER_BYTES)
    while len(attempt.answer) < MAX_ANSWER_BYTES and not content.at_eof():
        attempt.answer += await content.read(MAX_ANSWER_BYTES - len(attempt.answer))
    attempt.is_whole = content.is_eof()


class _CheckedNames(AbstractResolver):
    """The addresses of names, where all of them are permitted."""

    def __init__(self, names: Names, guard: Guard) -> None:
        self._names = names
        self._guard = guard

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """Return the first addresses of a name; raises RefusedTarget, and OSError where nobody can tell."""
        addresses = await self._names.addresses(host)
        self._guard.require_all(addresses, port)
        return [
            ResolveResult(
                hostname=host,
                host=address,
                port=port,
                family=socket.AF_INET6 if ":" in address else socket.AF_INET,
                proto=socket.IPPROTO_TCP,
                flags=socket.AI_NUMERICHOST,
            )
            for address in addresses[:_MOST_ADDRESSES]
        ]

    async def close(self) -> None:
        """Do nothing: the names are the connector's to close."""
