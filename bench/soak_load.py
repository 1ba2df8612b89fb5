"""The steady load of a soak: sends over REST at a fixed rate, and the sums of all that was answered."""

import asyncio
import json
import random
import time
import urllib.parse
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from bench.accounts import Account
from bench.http_client import Answer, Broken, Connection
from bench.sample import Sample, of_latencies
from bench.texts import random_recipient, random_text

_TIMEOUT_S = 30.0
_REPEAT_EVERY = 50
_KEPT_LATENCIES = 200_000
# Further behind than this the load gives up on catching up: a pause is no reason for a burst.
_BEHIND_S = 1.0


@dataclass
class Totals:
    """What the load knows; nothing here was asked of the server afterwards."""

    accepted: int = 0
    credits: int = 0
    replayed: int = 0
    """Repeated requests that were answered with the first answer."""
    unknown: int = 0
    """Requests whose connection broke: they may have been accepted or not."""
    late_s: float = 0.0
    """By how much the load fell behind its rate, altogether."""
    refused: Counter[int] = field(default_factory=Counter)
    """Answers that should not have come, by status."""
    credits_of: Counter[str] = field(default_factory=Counter)
    """Credits by account id."""
    latencies_s: list[float] = field(default_factory=list)
    """Of the latest sends."""

    def sample(self, seconds: float) -> Sample:
        """Return what the load measured."""
        latest = of_latencies(self.latencies_s, seconds)
        errors = self.unknown + sum(self.refused.values())
        return Sample(self.accepted, seconds, latest.p50_ms, latest.p99_ms, errors)


@dataclass(frozen=True, slots=True)
class _Request:
    headers: dict[str, str]
    body: bytes


class Load:
    """Sends at a steady rate over a number of connections until it is told to end."""

    def __init__(self, port: int, accounts: Sequence[Account], *, rate: float, connections: int) -> None:
        self.totals = Totals()
        self._port = port
        self._accounts = accounts
        self._interval_s = connections / rate
        self._connections = connections
        self._ending = asyncio.Event()

    async def run(self) -> None:
        """Send until `end`; every request has its answer when this returns."""
        async with asyncio.TaskGroup() as group:
            for number in range(self._connections):
                group.create_task(self._sender(number))

    def end(self) -> None:
        """Begin no further request."""
        self._ending.set()

    async def _sender(self, number: int) -> None:
        # Spread over the first interval, or all would send at the same moments.
        due = time.monotonic() + self._interval_s * number / self._connections
        sent = 0
        async with Connection(self._port) as connection:
            while not await self._ended_before(due):
                sent += 1
                request = self._request(f"soak-{number}-{sent}" if sent % 2 == 0 else None)
                answer = await self._send(connection, request)
                if answer is not None and sent % _REPEAT_EVERY == 0:
                    await self._repeat(connection, request, answer)
                due += self._interval_s
                behind = time.monotonic() - due
                if behind > _BEHIND_S:
                    self.totals.late_s += behind
                    due += behind

    async def _ended_before(self, due: float) -> bool:
        try:
            async with asyncio.timeout(max(0.0, due - time.monotonic())):
                await self._ending.wait()
        except TimeoutError:
            return False
        return True

    def _request(self, idempotency_key: str | None) -> _Request:
        account = random.choice(self._accounts)
        fields = {"recipient": random_recipient(), "content": random_text()}
        headers = {"Authorization": account.key}
        if idempotency_key is not None:
            headers["Idempotency-Key"] = idempotency_key
        if random.random() < 0.5:
            return _Request({**headers, "Content-Type": "application/json"}, json.dumps(fields).encode())
        form = urllib.parse.urlencode(fields).encode()
        return _Request({**headers, "Content-Type": "application/x-www-form-urlencoded"}, form)

    async def _post(self, connection: Connection, request: _Request) -> Answer | None:
        try:
            return await connection.post("/api/messages", request.headers, request.body, timeout_s=_TIMEOUT_S)
        except Broken:
            self.totals.unknown += 1
            return None

    async def _send(self, connection: Connection, request: _Request) -> Answer | None:
        began = time.perf_counter()
        answer = await self._post(connection, request)
        if answer is None:
            return None
        if answer.status != 200:
            self.totals.refused[answer.status] += 1
            return None
        if len(self.totals.latencies_s) >= _KEPT_LATENCIES:
            del self.totals.latencies_s[: _KEPT_LATENCIES // 2]
        self.totals.latencies_s.append(time.perf_counter() - began)
        sent = json.loads(answer.body)
        self.totals.accepted += 1
        self.totals.credits += sent["creditCost"]
        self.totals.credits_of[sent["owner"]] += sent["creditCost"]
        return answer

    async def _repeat(self, connection: Connection, request: _Request, first: Answer) -> None:
        """Send a request with the same key again: it must be answered as before and cost nothing."""
        again = await self._post(connection, request)
        if again is None:
            return
        if again.body == first.body and again.headers.get("idempotent-replayed") == "true":
            self.totals.replayed += 1
        else:
            self.totals.refused[again.status] += 1
