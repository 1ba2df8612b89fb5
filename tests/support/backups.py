"""Backups of a running product as its operator makes them, and what they are restored to."""

import contextlib
import shutil
import stat
import subprocess
from pathlib import Path
from typing import Protocol

from tests.support.databases import postgres_template, postgres_url
from tests.support.served import Served
from tools.postgres import find_binaries


class Backups(Protocol):
    """Makes backups of a server's database, and servers of backups."""

    def make(self, server: Served, number: int) -> None:
        """Back the database up under a number."""
        ...

    def restored(self, number: int) -> Served:
        """Return a server, not started, on a database that a backup was restored to."""
        ...


class FileBackups:
    """Of SQLite: `hydrasms db backup`, and a file that is put in its place."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def make(self, server: Served, number: int) -> None:
        made = server.run("db", "backup", str(self._folder / f"{number}.db"))
        assert made.returncode == 0, made.stderr

    def restored(self, number: int) -> Served:
        backup, data_dir = self._folder / f"{number}.db", self._folder / f"restored-{number}"
        assert stat.S_IMODE(backup.stat().st_mode) == 0o600
        data_dir.mkdir()
        backup.rename(data_dir / "hydrasms.db")
        _keep_key(self._folder, data_dir)
        return Served(data_dir)


class Dumps:
    """Of PostgreSQL: pg_dump, and pg_restore into a database of its own, which lasts as long as the stack."""

    def __init__(self, folder: Path, url: str, stack: contextlib.ExitStack) -> None:
        self._folder = folder
        self._url = url
        self._stack = stack

    def make(self, server: Served, number: int) -> None:
        self._run("pg_dump", "--format=custom", f"--file={self._folder / f'{number}.dump'}", self._url)

    def restored(self, number: int) -> Served:
        url = postgres_url(self._stack.enter_context(postgres_template(lambda _: None)))
        self._run("pg_restore", "--exit-on-error", f"--dbname={url}", str(self._folder / f"{number}.dump"))
        data_dir = self._folder / f"restored-{number}"
        data_dir.mkdir()
        _keep_key(self._folder, data_dir)
        return Served(data_dir, database_url=url)

    def _run(self, program: str, *arguments: str) -> None:
        done = subprocess.run(
            [find_binaries() / program, *arguments], capture_output=True, text=True, timeout=120, check=False
        )
        assert done.returncode == 0, done.stderr


def backups_of(database_url: str | None, folder: Path, stack: contextlib.ExitStack) -> Backups:
    """Return the way of backing up what HYDRASMS_DATABASE_URL names."""
    return FileBackups(folder) if database_url is None else Dumps(folder, database_url, stack)


def _keep_key(folder: Path, data_dir: Path) -> None:
    """Put the sealing key, which is in no backup, where a restored database wants it."""
    shutil.copy2(folder / "var" / "sealing.key", data_dir / "sealing.key")
