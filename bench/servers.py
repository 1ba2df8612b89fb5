"""Servers in processes of their own, on free ports and fresh folders."""

import contextlib
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import NoReturn

import psutil

from bench import databases, report
from bench.databases import Target
from bench.sample import Sample

_ROOT = Path(__file__).parents[1]
_HYDRASMS = Path(sys.executable).with_name("hydrasms")
_READY_S = 60.0
_STOP_S = 60.0
_IDLE_SHARE = 0.05
_IDLE_WINDOW_S = 0.25
_IDLE_BOUND_S = 180.0
_STALLED_S = 10.0


class ServerFailed(Exception):
    """A server did not start, or did not stay."""


@dataclass
class Server:
    """A running server process."""

    name: str
    process: psutil.Popen
    port: int
    log: Path
    stopped: bool = field(default=False, kw_only=True)
    """True once it was asked to end."""

    def cpu_s(self) -> float:
        """Return the processor time that it has taken so far, in seconds, its child processes included."""
        times = [process.cpu_times() for process in self._processes()]
        return float(sum(each.user + each.system for each in times))

    def rss_mb(self) -> float:
        """Return its resident memory, in MiB, its child processes included."""
        return float(sum(process.memory_info().rss for process in self._processes())) / 2**20

    def stop(self) -> int:
        """End it in order, or by force where it does not; returns its exit status."""
        self.stopped = True
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(_STOP_S)
            except psutil.TimeoutExpired:
                self.process.kill()
        return int(self.process.wait() or 0)

    def _processes(self) -> list[psutil.Process]:
        return [self.process, *self.process.children(recursive=True)]


@dataclass
class Hydrasms(Server):
    """A running `hydrasms serve`, or a core."""

    data_dir: Path
    grpc_port: int
    environment: dict[str, str] = field(repr=False)

    @property
    def database(self) -> Target:
        """The file of its database, or its URL."""
        return self.environment.get("HYDRASMS_DATABASE_URL") or self.data_dir / "hydrasms.db"

    @property
    def token(self) -> str:
        """The service token that opens its gRPC port."""
        return (self.data_dir / "service.token").read_text().strip()

    def backlog(self) -> int:
        """Return how many messages wait to be handed to a carrier."""
        return self._count("SELECT count(*) FROM outbox WHERE step = 'submit'")

    def unfinished(self) -> int:
        """Return how many messages wait for a carrier or for a carrier's receipt."""
        return self._count("SELECT count(*) FROM outbox")

    def stored(self) -> int:
        """Return how many messages there are, whatever became of them."""
        return self._count("SELECT count(*) FROM messages")

    def finish(self) -> float:
        """Wait until no message is unfinished, or nothing moves any more; returns the seconds."""
        began = moved = time.monotonic()
        left = self.unfinished()
        while left and time.monotonic() - moved < _STALLED_S:
            time.sleep(0.1)
            now_left = self.unfinished()
            if now_left != left:
                left, moved = now_left, time.monotonic()
        return time.monotonic() - began

    def command(self, *arguments: str, timeout_s: float = 600.0) -> "subprocess.CompletedProcess[str]":
        """Run one command of the command line against this server."""
        return subprocess.run(
            [_HYDRASMS, *arguments],
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout_s,
        )

    def progress(self) -> tuple[int, int]:
        """Return how many messages there are and how many of them wait for a carrier, both at one moment."""
        stored, waiting = databases.row(
            self.database,
            "SELECT (SELECT count(*) FROM messages), (SELECT count(*) FROM outbox WHERE step = 'submit')",
        )
        return stored, waiting

    def _count(self, query: str) -> int:
        return databases.count(self.database, query)


@contextlib.contextmanager
def workspace() -> Iterator[Path]:
    """Give a folder on the project's own disk, and remove it at the end."""
    base = _ROOT / "build" / "bench"
    base.mkdir(parents=True, exist_ok=True)
    if report.filesystem(base) in ("tmpfs", "ramfs"):
        print(f"note: {base} lies in memory: figures of durable writes mean nothing here", file=sys.stderr)
    with tempfile.TemporaryDirectory(prefix="data-", dir=base) as folder:
        # PostgreSQL runs as a user of its own where we are root, and has to get to its data in here.
        Path(folder).chmod(0o711)
        yield Path(folder)


@contextlib.contextmanager
def hydrasms(folder: Path, name: str, *flags: str, url: str = "") -> Iterator[Hydrasms]:
    """Run `hydrasms serve` with its data in a folder of that name, and its database at the URL if there is one."""
    data_dir = folder / name
    http_port, grpc_port = free_port(), free_port()
    environment = {
        **_environment(data_dir, grpc_port, url),
        "HYDRASMS_HTTP_PORT": str(http_port),
    }
    log = folder / f"{name}.log"
    process = _started([str(_HYDRASMS), "serve", *flags], log, environment)
    server = Hydrasms(name, process, http_port, log, data_dir, grpc_port, environment)
    with _running(server):
        _await(server, lambda: _is_ready(http_port))
        yield server


@contextlib.contextmanager
def core(folder: Path, name: str, *, url: str = "") -> Iterator[Hydrasms]:
    """Run `hydrasms serve core` with its data in a folder of that name, on a port and on no HTTP port."""
    data_dir, grpc_port = folder / name, free_port()
    environment = _environment(data_dir, grpc_port, url)
    log = folder / f"{name}.log"
    process = _started([str(_HYDRASMS), "serve", "core"], log, environment)
    server = Hydrasms(name, process, 0, log, data_dir, grpc_port, environment)
    with _running(server):
        _await(server, lambda: _is_listening(grpc_port))
        yield server


@contextlib.contextmanager
def worker(core: Hydrasms, name: str) -> Iterator[Server]:
    """Run `hydrasms serve worker` on a core's database; it has no port, and takes what it finds there."""
    log = core.log.with_name(f"{name}.log")
    server = Server(name, _started([str(_HYDRASMS), "serve", "worker"], log, core.environment), 0, log)
    with _running(server):
        yield server


@contextlib.contextmanager
def edge(core: Hydrasms, name: str, **settings: str) -> Iterator[Server]:
    """Run `hydrasms serve edge` before a core."""
    port, log = free_port(), core.log.with_name(f"{name}.log")
    environment = {
        **core.environment,
        "HYDRASMS_CORE": f"127.0.0.1:{core.grpc_port}",
        "HYDRASMS_HTTP_PORT": str(port),
        **settings,
    }
    server = Server(name, _started([str(_HYDRASMS), "serve", "edge"], log, environment), port, log)
    with _running(server):
        _await(server, lambda: _is_ready(port))
        yield server


@contextlib.contextmanager
def bare_http(folder: Path) -> Iterator[Server]:
    """Run the bare Starlette endpoint."""
    port, log = free_port(), folder / "bare_http.log"
    server = Server("bare_http", _started(_module("bench.bare_http", str(port)), log), port, log)
    with _running(server):
        _await(server, lambda: _is_ready(port))
        yield server


@contextlib.contextmanager
def bare_grpc(folder: Path) -> Iterator[Server]:
    """Run the bare gRPC echo."""
    port, log = free_port(), folder / "bare_grpc.log"
    server = Server("bare_grpc", _started(_module("bench.bare_grpc", str(port)), log), port, log)
    with _running(server):
        _await(server, lambda: _is_listening(port))
        yield server


@contextlib.contextmanager
def receivers(folder: Path, count: int) -> Iterator[tuple[Server, Path]]:
    """Run receivers of webhooks in one process; gives it and a file with their ports, one a line."""
    log, ports = folder / "receivers.log", folder / "receivers.ports"
    server = Server("receivers", _started(_module("bench.receivers", str(count), str(ports)), log), 0, log)
    with _running(server):
        _await(server, ports.exists)
        yield server, ports


def settle(servers: Iterable[Server]) -> float:
    """Wait until no server does anything any more, so that the next run has the machine; returns the seconds."""
    began = time.monotonic()
    watched = list(servers)
    while time.monotonic() - began < _IDLE_BOUND_S:
        before = [server.cpu_s() for server in watched]
        time.sleep(_IDLE_WINDOW_S)
        if all(
            server.cpu_s() - taken < _IDLE_SHARE * _IDLE_WINDOW_S
            for server, taken in zip(watched, before, strict=True)
        ):
            break
    return time.monotonic() - began


def clean_environment() -> dict[str, str]:
    """Return the environment without what the operator of this machine has set for a server of their own."""
    return {key: value for key, value in os.environ.items() if not key.startswith("HYDRASMS_")}


def run_sample(module: str, *arguments: str, token: str = "", timeout_s: float) -> Sample:
    """Run a module in a process of its own and return the sample that it prints."""
    printed = run_module(module, *arguments, token=token, timeout_s=timeout_s)
    return Sample(**json.loads(printed.splitlines()[-1]))


def run_module(module: str, *arguments: str, token: str = "", timeout_s: float) -> str:
    """Run a module in a process of its own and return what it prints."""
    done = subprocess.run(
        _module(module, *arguments),
        cwd=_ROOT,
        env={**clean_environment(), "BENCH_TOKEN": token},
        capture_output=True,
        text=True,
        check=False,
        timeout=timeout_s,
    )
    if done.returncode:
        raise ServerFailed(f"{module} {arguments[0]} failed:\n{done.stderr[-2000:]}")
    return done.stdout


def leave(_number: int, _frame: FrameType | None) -> NoReturn:
    """Handle SIGTERM: unwind as on Ctrl-C, so that no server is left behind."""
    raise KeyboardInterrupt


def free_port() -> int:
    """Return a port that nobody listens on at this moment."""
    with contextlib.closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _environment(data_dir: Path, grpc_port: int, url: str) -> dict[str, str]:
    return {
        **clean_environment(),
        "HYDRASMS_GRPC_PORT": str(grpc_port),
        "HYDRASMS_DATA_DIR": str(data_dir),
        "HYDRASMS_DATABASE_URL": url,
        "HYDRASMS_LOG_FORMAT": "json",
    }


def _module(name: str, *arguments: str) -> list[str]:
    return [sys.executable, "-m", name, *arguments]


def _started(command: list[str], log: Path, environment: dict[str, str] | None = None) -> psutil.Popen:
    with log.open("w") as output:
        return psutil.Popen(command, cwd=_ROOT, env=environment, stdout=output, stderr=output)


@contextlib.contextmanager
def _running(server: Server) -> Iterator[None]:
    """Stop a server when the block ends; should it have ended by itself, that is what went wrong."""
    try:
        yield
    finally:
        ended = not server.stopped and server.process.poll() is not None
        server.stop()
        if ended:
            raise ServerFailed(f"{server.name} ended by itself:\n{server.log.read_text()[-2000:]}")


def _await(server: Server, condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _READY_S
    while not condition():
        if server.process.poll() is not None or time.monotonic() > deadline:
            raise ServerFailed(f"{server.name} did not start:\n{server.log.read_text()[-2000:]}")
        time.sleep(0.02)


def _is_ready(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5) as response:
            return bool(response.status == 200)
    except OSError:
        return False


def _is_listening(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True
