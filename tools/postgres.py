"""A PostgreSQL server of our own, for tests and benchmarks: `python -m tools.postgres COMMAND …`.

The command runs with HYDRASMS_TEST_POSTGRES naming the server, which lives in a temporary folder, listens on
loopback alone and is gone afterwards. Where the machine has no PostgreSQL, Debian's is installed; that takes root.
"""

import argparse
import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

VARIABLE = "HYDRASMS_TEST_POSTGRES"
_USER = "postgres"
_INSTALLED = Path("/usr/lib/postgresql")
_START_S = 60


class NoPostgres(Exception):
    """There is no PostgreSQL here and none can be installed."""


@dataclass
class PostgresServer:
    """A server that may be stopped and started again on the same port with the same data."""

    binaries: Path
    folder: Path
    port: int
    settings: tuple[str, ...] = ()

    @property
    def url(self) -> str:
        """The URL of the server's own first database, for a superuser."""
        return f"postgresql://{_USER}@127.0.0.1:{self.port}/postgres"

    def create(self) -> None:
        """Lay the data out."""
        self.folder.mkdir(parents=True, exist_ok=True)
        if os.geteuid() == 0:
            account = _account()
            os.chown(self.folder, account.pw_uid, account.pw_gid)
        self._run(
            "initdb", "--auth=trust", f"--username={_USER}", "--encoding=UTF8", "--locale=C", "--no-sync"
        )

    def start(self) -> None:
        """Start it and wait until it answers."""
        options = " ".join(f"-c {setting}" for setting in self.settings)
        self._run(
            "pg_ctl", "start", "--wait", f"--timeout={_START_S}", f"--log={self.folder / 'log'}",
            f"--options=-p {self.port} -k {self.folder} -c listen_addresses=127.0.0.1 {options}",
        )  # fmt: skip

    def stop(self, mode: str = "fast") -> None:
        """Stop it: `fast` ends every connection in order, `immediate` is as if the machine had gone."""
        self._run("pg_ctl", "stop", "--wait", f"--mode={mode}")

    def _run(self, program: str, *arguments: str) -> None:
        identity: dict[str, Any] = {}
        if os.geteuid() == 0:
            # PostgreSQL refuses to be root.
            account = _account()
            identity = {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}
        done = subprocess.run(
            [self.binaries / program, f"--pgdata={self.folder / 'data'}", *arguments],
            cwd=self.folder,
            # A server keeps what it is given open; a pipe would never end.
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE if program == "initdb" else subprocess.DEVNULL,
            text=True,
            check=False,
            **identity,
        )
        if done.returncode:
            log = self.folder / "log"
            said = (done.stderr or "") + (log.read_text()[-2000:] if log.exists() else "")
            raise NoPostgres(f"{program} failed:\n{said}")


@contextlib.contextmanager
def postgres(*settings: str, within: Path | None = None) -> Iterator[PostgresServer]:
    """Run a server until the block ends, with its data in a new folder within the given one; raises NoPostgres."""
    binaries = find_binaries()
    with tempfile.TemporaryDirectory(prefix="hydrasms-postgres-", dir=within) as scratch:
        Path(scratch).chmod(0o755)
        server = PostgresServer(binaries, Path(scratch) / "server", _free_port(), settings)
        server.create()
        server.start()
        try:
            yield server
        finally:
            with contextlib.suppress(NoPostgres):  # a test may have stopped it
                server.stop("immediate")


def find_binaries() -> Path:
    """Return the folder of PostgreSQL's programs, after installing them where need be; raises NoPostgres."""
    found = _newest()
    if found is None and os.geteuid() == 0 and shutil.which("apt-get"):
        print("installing PostgreSQL ...", file=sys.stderr)
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        for step in (["update", "-q"], ["install", "-q", "-y", "--no-install-recommends", "postgresql"]):
            subprocess.run(["apt-get", *step], check=True, stdout=subprocess.DEVNULL, env=environment)
        found = _newest()
    if found is None:
        raise NoPostgres("there is no PostgreSQL here: install your system's package postgresql")
    return found


def _newest() -> Path | None:
    on_path = shutil.which("initdb")
    if on_path:
        return Path(on_path).resolve().parent
    versions = sorted(_INSTALLED.glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    return versions[-1].parent if versions else None


def _account() -> pwd.struct_passwd:
    for name in (_USER, "nobody"):
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name)
    raise NoPostgres("PostgreSQL must not run as root, and there is no other user")


def _free_port() -> int:
    with contextlib.closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command beside a server; returns the command's exit status."""
    parser = argparse.ArgumentParser(prog="python -m tools.postgres")
    parser.add_argument("command", nargs=argparse.REMAINDER)
    command = parser.parse_args(arguments).command
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        # Nothing here outlives the run, so that nothing need be safe on disk.
        with postgres(
            "fsync=off", "full_page_writes=off", "synchronous_commit=off", "max_connections=300"
        ) as server:
            return subprocess.run(command, env={**os.environ, VARIABLE: server.url}, check=False).returncode
    except NoPostgres as problem:
        print(problem, file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
