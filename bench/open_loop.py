"""A load that comes whether or not answers do: sends over REST at given rates, each timed from when it was due.

`python -m bench.open_loop PORT KEYS WORD PHASE …`: KEYS is a file with one API key a line, WORD makes this run's
idempotency keys its own, and a PHASE is RATE:SECONDS, or `closed-N:SECONDS` for N requests in flight all the time,
each followed by the next. Prints what became of them as JSON.
"""

import asyncio
import contextlib
import dataclasses
import gc
import json
import random
import sys
import urllib.parse
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, cast

import uvloop

from bench.texts import random_recipient, random_text

_PREPARED = 1_024
_TICK_S = 0.001
_MOST_CONNECTIONS = 8_000
_CONNECTING_AT_ONCE = 64
# Longer than the server may take at most over any request.
_LAST_ANSWERS_S = 20.0


class Phase(NamedTuple):
    """How much is sent for how long: so many a second, or so many at once."""

    rate: float
    at_once: int
    seconds: float


@dataclass
class Answers:
    """What became of the requests of one phase; a time is when one was due, in seconds after the phase began."""

    began: float
    seconds: float
    due: int = 0
    late_s: float = 0.0
    """By how much the load itself was behind at most: what it does not send in time it cannot blame on anybody."""
    unanswered: int = 0
    """Those whose connection broke, or whose answer never came: they may have been accepted or not."""
    accepted: list[tuple[float, float]] = field(default_factory=list)
    refused: list[tuple[float, float]] = field(default_factory=list)
    """Those that were answered 503."""
    others: dict[str, int] = field(default_factory=dict)
    """Other answers, by status; there should be none."""


class _Connection(asyncio.Protocol):
    """One kept-alive connection with at most one request on it."""

    __slots__ = ("_load", "_received", "answers", "began", "due", "is_lost", "transport")

    def __init__(self, load: "OpenLoop") -> None:
        self._load = load
        self._received = b""
        self.transport: asyncio.Transport | None = None
        self.answers: Answers | None = None
        self.due = 0.0
        self.is_lost = False

    def send(self, request: bytes, due: float, answers: Answers) -> None:
        assert self.transport is not None, "a request goes over a connection that stands"
        self.due, self.answers = due, answers
        self.transport.write(request)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self._load.is_connected(self)

    def data_received(self, data: bytes) -> None:
        data = self._received + data
        end = data.find(b"\r\n\r\n")
        length = data.find(b"content-length: ")
        if end < 0 or len(data) < end + 4 + int(data[length + 16 : data.index(b"\r\n", length)]):
            self._received = data
            return
        self._received = b""
        self._load.is_answered(self, data[9:12])

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_lost = True
        self._load.is_broken(self)


class OpenLoop:
    """Sends requests when they are due, over as many connections as that takes."""

    def __init__(self, port: int, request: Callable[[], bytes]) -> None:
        self._loop = asyncio.get_running_loop()
        self._port = port
        self._request = request
        self._idle: deque[_Connection] = deque()
        self._overdue: deque[tuple[float, Answers]] = deque()
        self._connecting: set[asyncio.Task[None]] = set()
        self._connections = 0
        self._in_flight = 0
        self._closed: Answers | None = None

    async def run(self, phases: Sequence[Phase]) -> list[Answers]:
        """Send, phase by phase, and return what became of it all."""
        everything = []
        for phase in phases:
            answers = Answers(self._loop.time(), phase.seconds)
            everything.append(answers)
            if phase.at_once:
                await self._keep_in_flight(phase, answers)
            else:
                await self._keep_the_rate(phase, answers)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._all_answered(), _LAST_ANSWERS_S)
        for answers in everything:
            found = len(answers.accepted) + len(answers.refused) + sum(answers.others.values())
            answers.unanswered = answers.due - found
        return everything

    def close(self) -> None:
        """Close what is still connected."""
        for connection in self._idle:
            if connection.transport is not None:
                connection.transport.close()

    async def _all_answered(self) -> None:
        while self._in_flight or self._overdue:  # noqa: ASYNC110 - an event would be set and cleared all the time
            await asyncio.sleep(_TICK_S)

    async def _keep_the_rate(self, phase: Phase, answers: Answers) -> None:
        while (passed_s := self._loop.time() - answers.began) < phase.seconds:
            answers.late_s = max(answers.late_s, passed_s - answers.due / phase.rate)
            while answers.due < passed_s * phase.rate:
                self._send(answers.began + answers.due / phase.rate, answers)
                answers.due += 1
            await asyncio.sleep(_TICK_S)

    async def _keep_in_flight(self, phase: Phase, answers: Answers) -> None:
        self._closed = answers
        for _ in range(phase.at_once):
            answers.due += 1
            self._send(self._loop.time(), answers)
        await asyncio.sleep(phase.seconds)
        self._closed = None

    def _send(self, due: float, answers: Answers) -> None:
        while self._idle:
            connection = self._idle.popleft()
            if not connection.is_lost:
                self._in_flight += 1
                connection.send(self._request(), due, answers)
                return
        self._overdue.append((due, answers))
        self._connect()

    def _connect(self) -> None:
        while (
            len(self._connecting) < min(_CONNECTING_AT_ONCE, len(self._overdue))
            and self._connections < _MOST_CONNECTIONS
        ):
            self._connections += 1
            task = self._loop.create_task(self._connected())
            self._connecting.add(task)
            task.add_done_callback(self._connecting.discard)

    async def _connected(self) -> None:
        try:
            await self._loop.create_connection(lambda: _Connection(self), "127.0.0.1", self._port)
        except OSError:
            self._connections -= 1

    def is_connected(self, connection: _Connection) -> None:
        """Use a new connection."""
        self._use(connection)

    def is_answered(self, connection: _Connection, status: bytes) -> None:
        """Note an answer, and use its connection for the next request."""
        self._in_flight -= 1
        answers = connection.answers
        assert answers is not None, "an answer follows a request"
        connection.answers = None
        now, due = self._loop.time(), connection.due
        if status in (b"200", b"503"):
            of = answers.accepted if status == b"200" else answers.refused
            of.append((round(due - answers.began, 4), round(now - due, 4)))
        else:
            answers.others[status.decode()] = answers.others.get(status.decode(), 0) + 1
        if self._closed is not None and answers is self._closed:
            answers.due += 1
            self._overdue.append((now, answers))
        self._use(connection)

    def is_broken(self, connection: _Connection) -> None:
        """Forget a connection; what was on it stays unanswered."""
        self._connections -= 1
        if connection.answers is not None:
            self._in_flight -= 1

    def _use(self, connection: _Connection) -> None:
        if self._overdue:
            due, answers = self._overdue.popleft()
            self._in_flight += 1
            connection.send(self._request(), due, answers)
        else:
            self._idle.append(connection)


def requests(keys: Sequence[str], word: str) -> Callable[[], bytes]:
    """Return what makes a new request, as `send.lua` makes them."""
    prepared = list(_prepared())
    sent = 0

    def make() -> bytes:
        nonlocal sent
        sent += 1
        head, body = random.choice(prepared)
        idempotency = f"idempotency-key: {word}-{sent}\r\n" if sent % 2 == 0 else ""
        return f"{head}{random.choice(keys)}\r\n{idempotency}\r\n{body}".encode()

    return make


def _prepared() -> Iterator[tuple[str, str]]:
    """Make requests without their keys: the head up to the API key's value, and the body."""
    for number in range(_PREPARED):
        fields = {"recipient": random_recipient(), "content": random_text()}
        if number % 2:
            body, kind = json.dumps(fields), "application/json"
        else:
            body, kind = urllib.parse.urlencode(fields), "application/x-www-form-urlencoded"
        head = ["POST /api/messages HTTP/1.1", "host: 127.0.0.1", f"content-type: {kind}"]
        yield "\r\n".join([*head, f"content-length: {len(body)}", "authorization: "]), body


def phase(text: str) -> Phase:
    """Read RATE:SECONDS or closed-N:SECONDS."""
    how, seconds = text.split(":")
    if how.startswith("closed-"):
        return Phase(0.0, int(how.removeprefix("closed-")), float(seconds))
    return Phase(float(how), 0, float(seconds))


async def run(port: int, request: Callable[[], bytes], phases: Sequence[Phase]) -> list[Answers]:
    """Send all phases."""
    load = OpenLoop(port, request)
    # What is kept is kept to the end, so that looking through it finds nothing to free.
    gc.disable()
    return await load.run(phases)


def main() -> None:
    """Send what the command line asks for and print what became of it as JSON."""
    port, keys, word, *phases = sys.argv[1:]
    request = requests(Path(keys).read_text().split(), word)
    everything = uvloop.run(run(int(port), request, [phase(each) for each in phases]))
    json.dump([dataclasses.asdict(answers) for answers in everything], sys.stdout)


if __name__ == "__main__":
    main()
