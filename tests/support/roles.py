"""Roles in processes of their own, as an operator of several starts them."""

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.served import HYDRASMS, READY_S, Served, free_port, wait_until


@dataclass
class RoleProcess:
    """One process of one role, which may be stopped and started again."""

    role: str
    folder: Path
    environment: dict[str, str]
    name: str = ""
    process: "subprocess.Popen[str] | None" = None

    @property
    def log_file(self) -> Path:
        return self.folder / f"{self.name or self.role}.log"

    @property
    def output_file(self) -> Path:
        return self.folder / f"{self.name or self.role}.out"

    def start(self, *, wait: bool = True) -> None:
        """Start it and wait until it says that it is up."""
        said_before = self._greetings()
        with self.log_file.open("a") as log, self.output_file.open("a") as output:
            self.process = subprocess.Popen(
                [HYDRASMS, "serve", self.role],
                env={**_clean(), **self.environment},
                stdout=output,
                stderr=log,
                text=True,
            )
        if wait:
            wait_until(lambda: self._up(said_before), bound_s=READY_S, what=f"a {self.role} that is up")

    def terminate(self) -> int:
        """Ask it to stop and return its exit status."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(30)

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        assert self.process is not None
        self.process.send_signal(number)

    def end(self) -> None:
        """Kill what still runs."""
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait(30)

    def _up(self, said_before: int) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, f"it ended:\n{self.log_file.read_text()[-4000:]}"
        return self._greetings() > said_before

    def _greetings(self) -> int:
        return self.output_file.read_text().count(" is up.") if self.output_file.exists() else 0


@dataclass
class Split:
    """A product whose roles are processes of their own, over one SQLite file and one Unix socket."""

    folder: Path
    http_port: int = field(default_factory=free_port)
    settings: dict[str, str] = field(default_factory=dict)
    started: list[RoleProcess] = field(default_factory=list)

    @property
    def environment(self) -> dict[str, str]:
        return {
            "HYDRASMS_HTTP_PORT": str(self.http_port),
            "HYDRASMS_DATA_DIR": str(self.folder / "var"),
            "HYDRASMS_GRPC_SOCKET": str(self.folder / "core.sock"),
            "HYDRASMS_LOG_FORMAT": "json",
            **self.settings,
        }

    def role(self, role: str, *, name: str = "", **settings: str) -> RoleProcess:
        """Return a process of a role, not started yet; it is ended with the product."""
        made = RoleProcess(role, self.folder, {**self.environment, **settings}, name)
        self.started.append(made)
        return made

    @property
    def client(self) -> Served:
        """What calls the product: REST requests and commands."""
        return _Client(
            self.folder / "var",
            self.http_port,
            database_url=self.settings.get("HYDRASMS_DATABASE_URL") or None,
            environment_of_split=self.environment,
        )


@dataclass
class _Client(Served):
    environment_of_split: dict[str, str] = field(default_factory=dict)

    @property
    def environment(self) -> dict[str, str]:
        return {**_clean(), **self.environment_of_split}


@contextlib.contextmanager
def split_in(folder: Path, **settings: str) -> Iterator[Split]:
    """Give a product of several processes, and end them all."""
    product = Split(folder, settings=settings)
    try:
        yield product
    finally:
        for process in reversed(product.started):
            process.end()


def status_of(client: Served, path: str) -> int:
    """Return the status that an edge answers with; 0 where it does not listen yet."""
    try:
        return client.get(path).status
    except OSError:
        return 0


def _clean() -> dict[str, str]:
    return {key: value for key, value in os.environ.items() if not key.startswith("HYDRASMS_")}
