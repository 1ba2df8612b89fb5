"""Processes that write to one SQLite file without pause: `python -m tests.support.writers PATH NAME 0|1`.

Each says `ready` on standard output once it has written, begins at a first line on standard input and ends when that
is closed; with 0 it does not queue. Every transaction adds a row that says who wrote and when, so that the table is
the order of turns.
"""

import contextlib
import select
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from hydrasms_core.db.turns import Turnstile

_ROOT = Path(__file__).parents[2]
_BOUND_S = 60.0
# What a busy server does under the lock, about.
_HELD_S = 0.002


def make_table(path: Path) -> None:
    with contextlib.closing(_open(path)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("CREATE TABLE turns (number INTEGER PRIMARY KEY, name TEXT, at_ns INTEGER)")


def turns_taken(path: Path, names: Sequence[str], *, seconds: float, queueing: bool) -> list[str]:
    """Return who had a turn, in order, while writers of these names wanted one all the time."""
    with contextlib.ExitStack() as stack:
        writers = [stack.enter_context(_writer(path, name, queueing=queueing)) for name in names]
        for writer in writers:
            assert writer.stdout is not None
            assert writer.stdout.readline() == "ready\n"
        for writer in writers:
            assert writer.stdin is not None
            writer.stdin.write("go\n")
            writer.stdin.flush()
        # All of them are at it when the first part is over, and that is what is looked at.
        time.sleep(seconds / 4)
        began_ns = time.monotonic_ns()
        time.sleep(seconds)
        ended_ns = time.monotonic_ns()
        # All at once: one that starves would not come to its end while the others go on.
        for writer in writers:
            assert writer.stdin is not None
            writer.stdin.close()
    with contextlib.closing(_open(path)) as connection:
        rows = connection.execute(
            "SELECT name FROM turns WHERE at_ns BETWEEN ? AND ? ORDER BY number", (began_ns, ended_ns)
        )
        return [name for (name,) in rows]


@contextlib.contextmanager
def _writer(path: Path, name: str, *, queueing: bool) -> Iterator["subprocess.Popen[str]"]:
    process = subprocess.Popen(
        [sys.executable, "-m", __name__, str(path), name, str(int(queueing))],
        cwd=_ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
        assert process.wait(_BOUND_S) == 0
    finally:
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            assert pipe is not None
            pipe.close()


def _open(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(path, timeout=_BOUND_S, isolation_level=None)


def _write_on(path: Path, name: str, *, queueing: bool) -> None:
    turnstile = Turnstile(path)
    with contextlib.closing(_open(path)) as connection:

        def write() -> None:
            if queueing:
                turnstile.take()
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("INSERT INTO turns (name, at_ns) VALUES (?, ?)", (name, time.monotonic_ns()))
            time.sleep(_HELD_S)
            connection.execute("COMMIT")
            if queueing:
                turnstile.give_back()

        write()
        print("ready", flush=True)
        sys.stdin.readline()
        while not select.select([sys.stdin], [], [], 0)[0]:
            write()


if __name__ == "__main__":
    _write_on(Path(sys.argv[1]), sys.argv[2], queueing=sys.argv[3] == "1")
