"""Looking for secrets in all that a server leaves behind: its data directory, its log and its output."""

import base64
import re
import shutil
from collections.abc import Collection
from pathlib import Path

from hydrasms_base.keys import DISPLAY_LENGTH
from tests.support.served import Served

PIECE = 16
RUN = re.compile(rb"[0-9A-Za-z_+/-]{%d,}" % PIECE)
DATABASE = ("hydrasms.db", "hydrasms.db-wal", "hydrasms.db-shm")
KEY_FILES = frozenset({"demo.key", "service.token", "sealing.key"})


def traces_of(secret: str) -> tuple[bytes, ...]:
    """Return what a secret leaves behind wherever it is kept: a piece out of its middle, as it is and encoded.

    The first characters of a key are kept on purpose, to tell it from others, so they are no trace.
    """
    rest = secret.encode()[DISPLAY_LENGTH:]
    # Base64 codes three octets at a time, and DISPLAY_LENGTH is a multiple of that.
    traces = rest[:PIECE], rest.hex().encode()[:PIECE], base64.b64encode(rest)[:PIECE]
    assert all(RUN.fullmatch(trace) for trace in traces)
    return traces


def hits(
    folder: Path, secrets: Collection[str], *, allowed: Collection[str] = KEY_FILES
) -> set[tuple[str, str]]:
    """Return which files below a folder hold a trace of which secrets, as pairs of a file's name and a secret."""
    owners = {trace: secret for secret in secrets for trace in traces_of(secret)}
    found: set[tuple[str, str]] = set()
    for path in sorted(path for path in folder.rglob("*") if path.is_file() and path.name not in allowed):
        # Every trace is as long as the others, so that however many there are each place is looked at once.
        for run in RUN.findall(path.read_bytes()):
            pieces = (run[at : at + PIECE] for at in range(len(run) - PIECE + 1))
            found |= {(path.name, owners[piece]) for piece in pieces if piece in owners}
    return found


def take_a_copy(server: Served, to: Path) -> Path:
    """Copy the data directory, the log and the output as they stand."""
    shutil.copytree(server.data_dir, to / "var")
    for path in (server.log_file, server.output_file):
        shutil.copyfile(path, to / path.name)
    return to
