"""A real `hydrasms serve` in a process of its own, as its users run it."""

import asyncio
import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from pydantic import SecretStr

from hydrasms_app.database import open_database
from hydrasms_app.settings import Settings
from hydrasms_core.db.transaction import Database, Work

T = TypeVar("T")

HYDRASMS = str(Path(sys.executable).with_name("hydrasms"))
READY_S = 60.0


def free_port() -> int:
    with contextlib.closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Account(NamedTuple):
    """Whom a client sends for."""

    id: str
    key: str


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: Any


@dataclass
class Served:
    """A server that may be killed and started again on the same data directory, database and ports.

    Without a `database_url` the database is the SQLite file of the data directory; `variables` are set beside ours.
    """

    data_dir: Path
    http_port: int = field(default_factory=free_port)
    grpc_port: int = field(default_factory=free_port)
    process: "subprocess.Popen[str] | None" = None
    database_url: str | None = None
    variables: dict[str, str] = field(default_factory=dict)

    @property
    def environment(self) -> dict[str, str]:
        return {
            **os.environ,
            "HYDRASMS_HTTP_PORT": str(self.http_port),
            "HYDRASMS_GRPC_PORT": str(self.grpc_port),
            "HYDRASMS_DATA_DIR": str(self.data_dir),
            "HYDRASMS_LOG_FORMAT": "json",
            **({"HYDRASMS_DATABASE_URL": self.database_url} if self.database_url else {}),
            **self.variables,
        }

    @property
    def base(self) -> str:
        return f"http://127.0.0.1:{self.http_port}"

    @property
    def log_file(self) -> Path:
        return self.data_dir.with_name(f"{self.data_dir.name}.log")

    @property
    def output_file(self) -> Path:
        return self.data_dir.with_name(f"{self.data_dir.name}.out")

    def start(self, *flags: str) -> float:
        """Start and wait until it is ready; returns how many seconds that took."""
        began = time.monotonic()
        assert self.try_start(*flags), f"serve ended:\n{self.log_file.read_text()[-4000:]}"
        return time.monotonic() - began

    def try_start(self, *flags: str) -> bool:
        """Start and wait until it is ready, or has ended instead; tells which."""
        began = time.monotonic()
        # It says that it is up once all is there; what it said before it was killed does not count.
        said_before = self._greetings()
        with self.log_file.open("a") as log, self.output_file.open("a") as output:
            # A group of its own, so that a kill takes whatever processes it has started as well.
            self.process = subprocess.Popen(
                [HYDRASMS, "serve", *flags],
                env=self.environment,
                stdout=output,
                stderr=log,
                text=True,
                start_new_session=True,
            )
        while self._greetings() == said_before or not self._is_ready():
            if not self.is_up():
                return False
            assert time.monotonic() - began < READY_S, "serve is not ready in time"
            # There is no event to wait for across processes; the bound is above.
            time.sleep(0.02)
        return True

    def is_up(self) -> bool:
        """Tell whether the process runs."""
        return self.process is not None and self.process.poll() is None

    def kill(self) -> None:
        """Kill all its processes as a crash would: no handler runs."""
        assert self.process is not None
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(30)

    def terminate(self) -> int:
        """Ask it to stop and return its exit status."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(30)

    def run(self, *arguments: str, given: str = "") -> "subprocess.CompletedProcess[str]":
        """Run one command of the command line."""
        return subprocess.run(
            [HYDRASMS, *arguments],
            env=self.environment,
            input=given,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def json(self, *arguments: str, given: str = "") -> Any:
        """Run one command with --json and return what it prints."""
        done = self.run(*arguments, "--json", given=given)
        assert done.returncode == 0, done.stderr
        return self.parse(done)

    def parse(self, done: "subprocess.CompletedProcess[str]") -> Any:
        """Return what a command with --json has printed."""
        return json.loads(done.stdout)

    def account(self, credits: int = 100) -> Account:
        """Create an account and return its id and key."""
        made = self.json("account", "create", "test", "--credits", str(credits))
        return Account(made["account_id"], made["api_key"])

    @property
    def settings(self) -> Settings:
        """The settings that lead to its database."""
        url = None if self.database_url is None else SecretStr(self.database_url)
        return Settings(data_dir=self.data_dir, database_url=url)

    def read(self, work: Work[T]) -> T:
        """Read its database past it, in one transaction; it need not run."""
        return self.with_database(lambda database: database.read(work))

    def with_database(self, work: Callable[[Database], Any]) -> Any:
        """Run work on its database, opened for the length of the work."""

        async def opened() -> Any:
            database = open_database(self.settings)
            try:
                return await work(database)
            finally:
                await database.close()

        return asyncio.run(opened())

    def send(
        self, key: str, content: str = "Hello", *, recipient: str = "+447700900000", **headers: str
    ) -> Answer:
        """POST one message as JSON; header names are given with underscores."""
        body = json.dumps({"recipient": recipient, "content": content}).encode()
        extra = {name.replace("_", "-"): value for name, value in headers.items()}
        request = urllib.request.Request(  # noqa: S310 - always our own http address
            f"{self.base}/api/messages",
            body,
            {"Authorization": key, "Content-Type": "application/json", **extra},
        )
        return self.fetch(request)

    def get(self, path: str, **headers: str) -> Answer:
        return self.fetch(urllib.request.Request(f"{self.base}{path}", headers=headers))  # noqa: S310 - as above

    def fetch(self, request: urllib.request.Request) -> Answer:
        try:
            with urllib.request.urlopen(request, timeout=30) as response:  # noqa: S310 - as above
                return _answer(response.status, response.headers, response.read())
        except urllib.error.HTTPError as refused:
            with refused:
                return _answer(refused.code, refused.headers, refused.read())

    def messages(self, account_id: str) -> list[dict[str, Any]]:
        """Return all messages of an account, page by page."""
        return self._all("messages", account_id)

    def transactions(self, account_id: str) -> list[dict[str, Any]]:
        """Return all transactions of an account, page by page."""
        return self._all("transactions", account_id)

    def _all(self, what: str, account_id: str) -> list[dict[str, Any]]:
        rows, token = [], ""
        while True:
            page = self.json(what, "list", account_id, "--page-size", "1000", "--page-token", token)
            rows += page[what]
            token = page["next_page_token"]
            if not token:
                return rows

    def _greetings(self) -> int:
        return self.output_file.read_text().count("hydrasms is up") if self.output_file.exists() else 0

    def _is_ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.base}/readyz", timeout=5) as response:  # noqa: S310 - as above
                return bool(response.status == 200)
        except OSError:
            return False


def _answer(status: int, headers: Any, body: bytes) -> Answer:
    is_json = headers.get_content_type() == "application/json"
    return Answer(status, dict(headers.items()), json.loads(body) if is_json else body.decode())


@contextlib.contextmanager
def served(data_dir: Path, *flags: str, database_url: str | None = None) -> Iterator[Served]:
    """Run a server for the length of a block."""
    server = Served(data_dir, database_url=database_url)
    server.start(*flags)
    try:
        yield server
    finally:
        if server.is_up():
            server.kill()


def wait_until(condition: Any, *, bound_s: float = 30.0, what: str = "the condition") -> Any:
    """Return the first true value of a condition of another process; fails past the bound."""
    deadline = time.monotonic() + bound_s
    while not (value := condition()):
        assert time.monotonic() < deadline, f"{what} did not come true within {bound_s} s"
        time.sleep(0.02)
    return value


def printed_key(server: Served) -> str:
    """Return the demo key that serve printed last."""
    found = re.findall(r"hsms_\w+", server.output_file.read_text())
    assert found, "serve printed no key"
    return str(found[-1])
