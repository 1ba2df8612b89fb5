"""Posts to customers' servers: to addresses on the public internet alone, and in a bounded time."""

import contextlib
import contextvars
import socket
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from multidict import istr

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
# Names of this type need not be brought to lower case for every request.
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
    response: aiohttp.ClientResponse | None = None
    answer: bytes = b""


_attempt: contextvars.ContextVar[_Attempt] = contextvars.ContextVar("webhook_attempt")


class Connector:
    """Posts to where the guard permits, and keeps connections to receivers that answer.

    What is connected to is what was checked: the addresses that a name has are checked all, handed on as addresses
    (nobody looks the name up a second time), and the address of each socket is checked again before it is connected.
    Redirects are not followed, no proxy is taken from the environment, no cookie is kept and nothing is unpacked.
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
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                resolver=_CheckedNames(self._names, guard),
                use_dns_cache=False,
                socket_factory=self._checked_socket,
                ssl=tls or True,
                # Whoever posts bounds how much is posted at once, a receiver at a time.
                limit=0,
                keepalive_timeout=_KEEP_ALIVE_S,
            ),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=_NO_TIMEOUTS,
            trust_env=False,
            auto_decompress=False,
            read_bufsize=_READ_BYTES,
            max_line_size=_MAX_LINE_BYTES,
            max_field_size=_MAX_LINE_BYTES,
            max_headers=_MAX_HEADERS,
        )

    async def post(self, url: str, headers: Mapping[str, str], body: bytes) -> Answered | Unanswered:
        """Post once; see `ports.Poster`."""
        began, attempt = self._clock.monotonic(), _Attempt()
        _attempt.set(attempt)
        budget = Alarm(self._budget_s)
        try:
            with budget:
                await self._post(attempt, url, headers, body)
        # A receiver may break off, drip or lie at any point: what counts is whether the status was there by then.
        except (aiohttp.ClientError, OSError, ValueError) as error:
            if attempt.response is None:
                return unanswered(error, out_of_time=budget.has_rung, after_s=self._clock.monotonic() - began)
        finally:
            if attempt.response is not None and not attempt.response.closed:
                # Reads nothing more: what was not read to its end goes, with its connection.
                attempt.response.close()
        response = attempt.response
        assert response is not None
        return Answered(
            response.status,
            attempt.answer,
            retry_after_s(response.headers.get("Retry-After"), self._clock.now_ms()),
            self._clock.monotonic() - began,
        )

    async def close(self) -> None:
        """Close all connections."""
        await self._session.close()
        await self._names.close()

    async def _post(self, attempt: _Attempt, url: str, headers: Mapping[str, str], body: bytes) -> None:
        target = target_of(url)
        if target.address is not None:
            self._guard.require(target.host, target.port)
        try:
            response = await self._answer(target.url, headers, body)
        except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError) as error:
            # A kept connection may be closed by the other side just when it is used: that says nothing of a new one.
            if attempt.connected or isinstance(error, aiohttp.ClientConnectorError):
                raise
            response = await self._answer(target.url, headers, body)
        attempt.response = response
        content = response.content
        if content.is_eof():
            # It came together with the headers.
            attempt.answer = content.read_nowait(MAX_ANSWER_BYTES)
            return
        while len(attempt.answer) < MAX_ANSWER_BYTES and not content.at_eof():
            attempt.answer += await content.read(MAX_ANSWER_BYTES - len(attempt.answer))

    async def _answer(self, url: Any, headers: Mapping[str, str], body: bytes) -> aiohttp.ClientResponse:
        return await self._session.post(
            url, headers={**_HEADERS, **headers}, data=body, allow_redirects=False
        )

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
