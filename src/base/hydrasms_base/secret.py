"""Secrets that do not print, and files that only their owner reads."""

import contextlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path


class Secret:
    """A text that shows itself only when asked by name."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        """Return the text itself."""
        return self._text

    def __repr__(self) -> str:
        return "Secret(…)"


def write_secret(path: Path, text: str) -> None:
    """Write a file of mode 0600, whole or not at all, and durably."""
    with _scratch(path, text) as scratch:
        scratch.replace(path)


def write_new_secret(path: Path, text: str) -> None:
    """Write a file as `write_secret` does, but never over another; raises FileExistsError where there is one."""
    with _scratch(path, text) as scratch:
        # A link, unlike a rename, is refused where the name is taken: of two who write at once, one learns of it.
        path.hardlink_to(scratch)


def make_secret(path: Path) -> Secret:
    """Return the first secret of a file, one a line, after writing a new random one where there is none.

    Several processes may do so at once, and all get the same. Raises OSError where the file can be neither read
    nor made, and ValueError where it is empty.
    """
    if not path.exists():
        with contextlib.suppress(FileExistsError):
            write_new_secret(path, secrets.token_urlsafe(32))
    return read_secret(path)


def read_secret(path: Path) -> Secret:
    """Return the first secret of a file, one a line; raises OSError, or ValueError where the file is empty."""
    words = path.read_text().split()
    if not words:
        raise ValueError("the file is empty")
    return Secret(words[0])


@contextlib.contextmanager
def _scratch(path: Path, text: str) -> Iterator[Path]:
    """Give a file beside another, complete and on disk, and remove it where it was not renamed."""
    scratch = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(text + "\n")
            file.flush()
            os.fsync(file.fileno())
        yield scratch
    finally:
        scratch.unlink(missing_ok=True)
