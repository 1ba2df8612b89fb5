"""Clients that send without pause over REST and note in a history what they were told."""

import http.client
import json
import random
import threading
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tests.support.history import History, Outcome, Send
from tests.support.served import Account, Answer

_TIMEOUT_S = 30.0
_PAUSE_S = 0.02
_PART = 160
_PARTS = 5
_REPEATED = 0.1
"""How many of the keyed sends are sent again once they are acknowledged, and as many with another text."""


class Clients:
    """Threads that send until told to stop, each on a connection of its own.

    Every other send has an idempotency key and is repeated until it is answered; some are repeated after that as
    well, as they were and with another text. `ports` are those of the edges, which are taken in turn.
    """

    def __init__(self, ports: Sequence[int], accounts: Sequence[Account], *, threads: int = 8) -> None:
        self.history = History()
        self._ports = ports
        self._stop = threading.Event()
        self._acknowledged = threading.Semaphore(0)
        self._threads = [
            threading.Thread(
                target=self._send_on, args=(number, accounts[number % len(accounts)]), daemon=True
            )
            for number in range(threads)
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Begin no send more, and wait for the answers that are still to come."""
        self._stop.set()
        for thread in self._threads:
            thread.join(2 * _TIMEOUT_S)
            assert not thread.is_alive(), "a client hangs"

    def wait_for(self, acknowledgements: int) -> None:
        """Wait until so many more sends were acknowledged."""
        for _ in range(acknowledgements):
            assert self._acknowledged.acquire(timeout=60), "no send was acknowledged for a minute"

    def ask(self, send: Callable[[str], Answer], account: Account) -> Answer:
        """Have one message sent by other means, given its content; the history knows of it as of all others."""
        wanted = _next_send(account.id)._replace(key=None)
        number = self.history.begin(wanted)
        answer = send(wanted.content)
        self.history.end(number, *meaning(answer.status, answer.body))
        return answer

    def _send_on(self, number: int, account: Account) -> None:
        client = _Client(self._ports[number % len(self._ports)], account, self.history)
        while not self._stop.is_set():
            send = _next_send(account.id)
            outcome = client.attempt(send)
            while send.key is not None and outcome is Outcome.UNKNOWN and not self._stop.wait(_PAUSE_S):
                outcome = client.attempt(send)
            if outcome is Outcome.ACKNOWLEDGED:
                self._acknowledged.release()
                if send.key is not None and random.random() < _REPEATED:
                    client.attempt(send)
                    client.attempt(send._replace(content=f"other {send.content}"[: len(send.content)]))
            elif outcome is Outcome.UNKNOWN:
                self._stop.wait(_PAUSE_S)
        client.close()


class _Client:
    """One connection, made again whenever it broke."""

    def __init__(self, port: int, account: Account, history: History) -> None:
        self._port = port
        self._account = account
        self._history = history
        self._connection: http.client.HTTPConnection | None = None

    def attempt(self, send: Send) -> Outcome:
        """Send once and note what came of it."""
        number = self._history.begin(send)
        try:
            status, answer = self._post(send)
        except (OSError, http.client.HTTPException) as error:
            self.close()
            outcome, detail = Outcome.UNKNOWN, type(error).__name__
        else:
            outcome, detail = meaning(status, json.loads(answer))
        self._history.end(number, outcome, detail)
        return outcome

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
        self._connection = None

    def _post(self, send: Send) -> tuple[int, bytes]:
        if self._connection is None:
            connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=_TIMEOUT_S)
            connection.connect()
            self._connection = connection
        headers = {"Authorization": self._account.key, "Content-Type": "application/json"}
        if send.key is not None:
            headers["Idempotency-Key"] = send.key
        body = json.dumps({"recipient": "+447700900000", "content": send.content})
        self._connection.request("POST", "/api/messages", body, headers)
        response = self._connection.getresponse()
        return response.status, response.read()


def _next_send(account_id: str) -> Send:
    """Return a send of a random cost whose content nobody has used, every other one with a key."""
    name = uuid.uuid4().hex
    credits = random.choice((1, 1, 1, random.randint(1, _PARTS)))
    key = f"k-{name}" if int(name[0], 16) % 2 else None
    return Send(name.ljust(_PART * (credits - 1) + len(name), "."), account_id, key, credits)


def meaning(status: int, answer: Mapping[str, Any]) -> tuple[Outcome, str]:
    """Return what an answer tells a client about what it has sent."""
    if status == 200:
        return Outcome.ACKNOWLEDGED, str(answer["ID"])
    if status >= 500:
        return Outcome.UNKNOWN, str(status)
    return Outcome.REFUSED, str(answer["code"])
