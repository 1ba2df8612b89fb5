"""Disks that can be filled to the last byte and given space again while a server writes to them."""

import contextlib
import os
import resource
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from tests.support.served import Served

_MIB = 1024 * 1024
_SIZE_MIB = 64
_LEFT_BYTES = 16 * 1024


class SmallDisk(Protocol):
    """What a server's data directory lies on. What the server logs lies there as well."""

    @property
    def name(self) -> str:
        """What kind of disk it is."""
        ...

    def fill(self, server: Served) -> None:
        """Leave no space, or so little that a few transactions use it up."""
        ...

    def free(self, server: Served) -> None:
        """Give space again."""
        ...


class Tmpfs:
    """A file system of its own. The kernel says ENOSPC, as a full disk does."""

    name = "tmpfs"

    def __init__(self, path: Path) -> None:
        self._filler = path / "filler"

    def fill(self, server: Served) -> None:
        with contextlib.suppress(OSError), self._filler.open("ab", buffering=0) as filler:
            while True:
                filler.write(bytes(_MIB))
        with contextlib.suppress(OSError), self._filler.open("ab", buffering=0) as filler:
            while True:
                filler.write(bytes(1))

    def free(self, server: Served) -> None:
        self._filler.unlink()


class FileSizeLimit:
    """A bound on the size of the server's files. The kernel says EFBIG; anybody may set it, where none may mount."""

    name = "limit on the size of files"

    def fill(self, server: Served) -> None:
        largest = max(path.stat().st_size for path in server.data_dir.iterdir())
        self._limit(server, largest + _LEFT_BYTES)

    def free(self, server: Served) -> None:
        self._limit(server, resource.RLIM_INFINITY)

    def _limit(self, server: Served, size: int) -> None:
        assert server.process is not None
        _, most = resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (size, most))


@contextlib.contextmanager
def mounted_tmpfs(path: Path) -> Iterator[Tmpfs]:
    """Mount a small file system for the length of a block; fails where that is not allowed."""
    mounted = _mount(path)
    assert mounted.returncode == 0, (
        f"a small file system cannot be mounted: {mounted.stderr.strip()}; run as root"
    )
    try:
        yield Tmpfs(path)
    finally:
        subprocess.run(["umount", path], check=True)


@contextlib.contextmanager
def small_disk(path: Path) -> Iterator[SmallDisk]:
    """Provide the best small disk that this user may have."""
    if os.geteuid() == 0 and _mount(path).returncode == 0:
        subprocess.run(["umount", path], check=True)
        with mounted_tmpfs(path) as disk:
            yield disk
    else:
        yield FileSizeLimit()


def _mount(path: Path) -> "subprocess.CompletedProcess[str]":
    path.mkdir(exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={_SIZE_MIB}m,mode=700", "tmpfs", str(path)]
    return subprocess.run(command, capture_output=True, text=True, check=False)
