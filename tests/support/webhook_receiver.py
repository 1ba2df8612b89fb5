"""A customer's own server: takes pushes and writes down, durably and before it answers, what it was sent.

Run as `python -m tests.support.webhook_receiver PORT FILE`, in a process of its own.
"""

import json
import os
import signal
import subprocess
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from tests.support.served import wait_until

ROOT = Path(__file__).parents[2]


class ReceiverProcess:
    """The server as a process that may be stopped and started again on the same port."""

    def __init__(self, port: int, file: Path) -> None:
        self.port = port
        self.file = file
        self._process: subprocess.Popen[str] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/texts"

    def start(self) -> None:
        """Start it and wait until it listens."""
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.webhook_receiver", str(self.port), str(self.file)],
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "listening\n"

    def stop(self) -> None:
        """Kill it."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGKILL)
            self._process.communicate()

    def pushes(self) -> list[dict[str, Any]]:
        """Return what came so far, in order: `headers`, in lower case, and the raw `body`."""
        lines = self.file.read_text().splitlines() if self.file.exists() else []
        return [json.loads(line) for line in lines]

    def wait_for(self, ids: int, *, bound_s: float = 60.0) -> list[dict[str, Any]]:
        """Wait until so many different pushes have come, and return all that did."""

        def enough() -> bool:
            return len({push["headers"]["webhook-id"] for push in self.pushes()}) >= ids

        wait_until(enough, bound_s=bound_s, what=f"{ids} pushes")
        return self.pushes()


def _serve(port: int, file: Path) -> None:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            headers = {name.lower(): value for name, value in self.headers.items()}
            with file.open("a") as written:
                written.write(json.dumps({"headers": headers, "body": body.decode()}) + "\n")
                written.flush()
                os.fsync(written.fileno())
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    print("listening", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    _serve(int(sys.argv[1]), Path(sys.argv[2]))
