"""Where a server listens: ports, and Unix sockets that nobody else can take or open."""

import contextlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from hydrasms_app.locks import Held, lock_file
from hydrasms_app.problems import Problem

_MAX_SOCKET_PATH_BYTES = 107
"""What Linux has room for in the address of a Unix socket."""


def port_taken(setting: str, port: int) -> Problem:
    """Say that a port cannot be had."""
    return Problem(f"port {port} is in use or not allowed: name another with {setting}")


@contextlib.contextmanager
def owned_socket(path: Path) -> Iterator[None]:
    """Hold the path of a Unix socket until the block ends, and remove the socket then; raises Problem.

    A lock beside it tells a core that lives from one that died: the socket of a dead one is removed here, for gRPC
    would replace that of a live one too, without a word.
    """
    _check_place(path)
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(lock_file(path.with_name(f"{path.name}.lock")))
        except Held as held:
            raise Problem(
                f"another hydrasms (process {held.holder}) already listens on {path}: "
                "stop it, or name another socket with HYDRASMS_GRPC_SOCKET"
            ) from None
        except OSError as error:
            raise _unusable(path, error.strerror or "unusable") from None
        _remove_socket(path)
        try:
            yield
        finally:
            _remove_socket(path)


@contextlib.contextmanager
def for_owner_alone() -> Iterator[None]:
    """Make every file that is made in the block one that its owner alone may use."""
    before = os.umask(0o177)
    try:
        yield
    finally:
        os.umask(before)


def _check_place(path: Path) -> None:
    if len(os.fsencode(path)) > _MAX_SOCKET_PATH_BYTES:
        raise _unusable(path, f"its path is longer than {_MAX_SOCKET_PATH_BYTES} bytes")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        mode = path.parent.stat().st_mode
    except OSError as error:
        raise _unusable(path, error.strerror or "unusable") from None
    # Whoever may write there can put a socket of their own in the place of ours, and collect tokens.
    if mode & stat.S_IWOTH:
        raise _unusable(path, "everybody may write to its folder")


def _remove_socket(path: Path) -> None:
    try:
        if stat.S_ISSOCK(path.lstat().st_mode):
            path.unlink()
        else:
            raise _unusable(path, "there is something else of that name")
    except FileNotFoundError:
        pass
    except OSError as error:
        raise _unusable(path, error.strerror or "unusable") from None


def _unusable(path: Path, why: str) -> Problem:
    return Problem(f"cannot listen on {path}: {why}. Name another socket with HYDRASMS_GRPC_SOCKET")
