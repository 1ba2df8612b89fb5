"""Clients that send without pause and remember what they were told."""

import http.client
import json
import threading
import uuid
from dataclasses import dataclass, field

_TIMEOUT_S = 30.0


@dataclass
class History:
    """What many clients saw. A message is known by its content, which is never used twice."""

    acknowledged: dict[str, str] = field(default_factory=dict)
    """Content → message id, of every 200."""
    attempted: set[str] = field(default_factory=set)
    """Every content that was ever put on the wire."""
    retried: dict[str, set[str]] = field(default_factory=dict)
    """Content → ids that its repeated sends under one idempotency key were answered with."""
    surprises: list[str] = field(default_factory=list)
    """Answers that nobody should get."""


class Clients:
    """Threads that send until told to stop, each on a connection of its own."""

    def __init__(self, port: int, keys: list[str], *, threads: int = 8) -> None:
        self.history = History()
        self._port = port
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._acknowledged = threading.Semaphore(0)
        self._threads = [
            threading.Thread(target=self._send_on, args=(keys[number % len(keys)],), daemon=True)
            for number in range(threads)
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(60)
            assert not thread.is_alive(), "a client hangs"

    def wait_for(self, acknowledgements: int) -> None:
        """Wait until so many more sends were acknowledged."""
        for _ in range(acknowledgements):
            assert self._acknowledged.acquire(timeout=60), "no send was acknowledged for a minute"

    def _send_on(self, key: str) -> None:
        connection: http.client.HTTPConnection | None = None
        while not self._stop.is_set():
            content = uuid.uuid4().hex
            # Every other message carries a key, and is then sent until it is answered.
            idempotency_key = f"k-{content}" if int(content[0], 16) % 2 else None
            while not self._stop.is_set():
                try:
                    connection = connection or self._connect()
                    with self._lock:
                        self.history.attempted.add(content)
                    status, body = _post(connection, key, content, idempotency_key)
                except (OSError, http.client.HTTPException):
                    if connection is not None:
                        connection.close()
                    connection = None
                    if self._stop.wait(0.02) or idempotency_key is None:
                        break
                    continue
                self._note(status, body, content, idempotency_key)
                if status == 200 or idempotency_key is None:
                    break
        if connection is not None:
            connection.close()

    def _connect(self) -> http.client.HTTPConnection:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=_TIMEOUT_S)
        connection.connect()
        return connection

    def _note(self, status: int, body: bytes, content: str, idempotency_key: str | None) -> None:
        with self._lock:
            if status == 200:
                message_id = json.loads(body)["ID"]
                self.history.acknowledged[content] = message_id
                if idempotency_key is not None:
                    self.history.retried.setdefault(content, set()).add(message_id)
                self._acknowledged.release()
            elif status not in (503, 504):
                self.history.surprises.append(f"{status}: {body[:200]!r}")


def _post(
    connection: http.client.HTTPConnection, key: str, content: str, idempotency_key: str | None
) -> tuple[int, bytes]:
    headers = {"Authorization": key, "Content-Type": "application/json"}
    if idempotency_key is not None:
        headers["Idempotency-Key"] = idempotency_key
    body = json.dumps({"recipient": "+447700900000", "content": content})
    connection.request("POST", "/api/messages", body, headers)
    response = connection.getresponse()
    return response.status, response.read()
