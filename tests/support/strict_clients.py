"""Clients for whom every answer but 200 is a failure, and so is a connection that ends under a request.

They send without idempotency keys, so that nothing on the way may repeat a send in doubt. A port that takes no
connection is left for the next one, as a load balancer would.
"""

import http.client
import json
import threading
from collections import Counter
from collections.abc import Sequence


class StrictClients:
    """Threads that send without pause over connections that they keep for as long as the server lets them."""

    def __init__(self, ports: Sequence[int], key: str, *, threads: int = 8) -> None:
        self._ports = tuple(ports)
        self._key = key
        self._stop = threading.Event()
        self._changed = threading.Condition()
        self.failures: list[str] = []
        """What no client should have seen."""
        self.by_port: Counter[int] = Counter()
        """How many sends each port has accepted."""
        self._threads = [
            threading.Thread(target=self._send_on, args=(number,), daemon=True) for number in range(threads)
        ]

    def __enter__(self) -> "StrictClients":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(60)
            assert not thread.is_alive(), "a client hangs"

    def wait_for(self, accepted: int) -> None:
        """Wait until so many sends were accepted, from now on."""
        with self._changed:
            wanted = sum(self.by_port.values()) + accepted
            done = self._changed.wait_for(lambda: sum(self.by_port.values()) >= wanted, timeout=60)
        assert done, f"too few sends were accepted in a minute; {self.failures[-3:]}"

    def _send_on(self, number: int) -> None:
        turn = number
        while not self._stop.is_set():
            port = self._ports[turn % len(self._ports)]
            turn += 1
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
            try:
                try:
                    connection.connect()
                except ConnectionRefusedError:
                    self._stop.wait(0.01)
                    continue
                self._use(connection, port)
            except (OSError, http.client.HTTPException) as error:
                self._fail(f"port {port}: {error!r}")
            finally:
                connection.close()

    def _use(self, connection: http.client.HTTPConnection, port: int) -> None:
        body = json.dumps({"recipient": "+447700900000", "content": "Hello"})
        headers = {"Authorization": self._key, "Content-Type": "application/json"}
        while not self._stop.is_set():
            connection.request("POST", "/api/messages", body, headers)
            answer = connection.getresponse()
            text = answer.read()
            if answer.status != 200:
                self._fail(f"port {port}: {answer.status} {text[:200]!r}")
                self._stop.wait(0.05)
            else:
                with self._changed:
                    self.by_port[port] += 1
                    self._changed.notify_all()
            if answer.will_close:
                return

    def _fail(self, what: str) -> None:
        with self._changed:
            self.failures.append(what)
