"""The data directory: made at the first start, and used either by one server or by roles that share it."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from hydrasms_app.locks import Held, lock_file
from hydrasms_app.problems import Problem

_LOCK = "serve.lock"


def make_data_dir(path: Path) -> None:
    """Make the directory where it is missing; raises Problem."""
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise _unusable(path, error) from None


@contextlib.contextmanager
def held_data_dir(path: Path, *, shared: bool) -> Iterator[None]:
    """Make the directory where it is missing and hold it until the block ends; raises Problem.

    One server owns it alone; any number of roles share it. The lock dies with the process, however that ends.
    """
    make_data_dir(path)
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(lock_file(path / _LOCK, shared=shared))
        except Held as held:
            raise Problem(
                f"another hydrasms (process {held.holder}) already uses the data directory {path}: "
                "stop it, or name another directory with HYDRASMS_DATA_DIR"
            ) from None
        except OSError as error:
            raise _unusable(path, error) from None
        yield


def _unusable(path: Path, error: OSError) -> Problem:
    return Problem(f"cannot use the data directory {path}: {error.strerror}")
