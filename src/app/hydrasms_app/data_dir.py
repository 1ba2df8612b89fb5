"""The data directory: made at the first start, used by one server at a time."""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from hydrasms_app.problems import Problem

_LOCK = "serve.lock"


@contextlib.contextmanager
def owned_data_dir(path: Path) -> Iterator[Path]:
    """Make the directory where it is missing and hold it until the block ends; raises Problem.

    The lock dies with the process, however that ends.
    """
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(path / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise Problem(f"cannot use the data directory {path}: {error.strerror}") from None
    try:
        _take(descriptor, path)
        yield path
    finally:
        os.close(descriptor)


def _take(descriptor: int, path: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.pread(descriptor, 32, 0).decode("ascii", "replace").strip() or "unknown"
        raise Problem(
            f"another hydrasms (process {holder}) already uses the data directory {path}: "
            "stop it, or name another directory with HYDRASMS_DATA_DIR"
        ) from None
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
