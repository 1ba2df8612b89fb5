"""Secrets that do not print, and files that only their owner reads."""

import os
import secrets
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
    scratch = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(text + "\n")
            file.flush()
            os.fsync(file.fileno())
        scratch.replace(path)
    except BaseException:
        scratch.unlink(missing_ok=True)
        raise


def make_secret(path: Path) -> Secret:
    """Return the first secret of a file, one a line, after writing a new random one where there is none.

    Raises OSError where the file can be neither read nor made, and ValueError where it is empty.
    """
    if not path.exists():
        write_secret(path, secrets.token_urlsafe(32))
    words = path.read_text().split()
    if not words:
        raise ValueError("the file is empty")
    return Secret(words[0])
