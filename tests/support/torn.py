"""A database as a kill has left it, file and log, and the ways in which a disk may spoil the two."""

import asyncio
import contextlib
import random
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from hydrasms_app import roles
from hydrasms_app.problems import Problem
from hydrasms_app.settings import Settings
from hydrasms_core.db.sqlite import SqliteDatabase
from hydrasms_core.db.transaction import StoreCorrupt
from tests.support.aftermath import settle
from tests.support.history import Attempt, Books, Outcome, read_books
from tests.support.load import Clients
from tests.support.served import Account, Served, served

NAME = "hydrasms.db"
PAGE_BYTES = 4096
WAL_HEADER_BYTES = 32

Dump = Mapping[str, Sequence[tuple[Any, ...]]]


@dataclass(frozen=True)
class Files:
    """The two files of a database that nobody has open."""

    database: bytes
    log: bytes

    def lay_out(self, folder: Path) -> Path:
        """Write them into a new data directory and return it."""
        folder.mkdir()
        (folder / NAME).write_bytes(self.database)
        if self.log:
            (folder / f"{NAME}-wal").write_bytes(self.log)
        return folder

    def log_cut(self, length: int) -> "Files":
        return replace(self, log=self.log[:length])

    def log_flipped(self, at: int, bits: int) -> "Files":
        return replace(self, log=_flipped(self.log, at, bits))

    def database_flipped(self, at: int, bits: int) -> "Files":
        return replace(self, database=_flipped(self.database, at, bits))

    def page_zeroed(self, page: int) -> "Files":
        """Return them with a page, from 0 on, as one that never reached the disk."""
        before, after = self.database[: page * PAGE_BYTES], self.database[(page + 1) * PAGE_BYTES :]
        return replace(self, database=before + bytes(PAGE_BYTES) + after)


@dataclass(frozen=True)
class Scene:
    """What a killed server has left, and what its clients know.

    `settled` are the attempts of which the log holds nothing any more; `books` and `dump` are the sound database's.
    """

    files: Files
    accounts: Sequence[Account]
    attempts: Sequence[Attempt]
    settled: Sequence[Attempt]
    books: Books
    dump: Dump
    data_dir: Path


class Opened(NamedTuple):
    """How our code finds a database: what it says is wrong with it, or its books and all that is in it."""

    complaint: str
    books: Books | None = None
    dump: Dump | None = None


def make_scene(folder: Path, *, sends: int) -> Scene:
    """Run a server for so many acknowledged sends, half of which end in the database and half in the log alone."""
    data_dir = folder / "var"
    with served(data_dir, "--no-demo") as server:
        accounts = [server.account(credits=100_000) for _ in range(3)]
        settled = _send(server, accounts, sends // 2)
        settle(server)
        # The last connection that is closed copies the log into the database.
        assert server.terminate() == 0
        assert not (data_dir / f"{NAME}-wal").exists()
        server.start("--no-demo")
        attempts = [*settled, *_send(server, accounts, sends // 2)]
        server.kill()
    files = Files((data_dir / NAME).read_bytes(), (data_dir / f"{NAME}-wal").read_bytes())
    sound = look_at(files.lay_out(folder / "sound"))
    assert sound.complaint == ""
    assert sound.books is not None
    assert sound.dump is not None
    return Scene(files, accounts, attempts, settled, sound.books, sound.dump, data_dir)


def look_at(data_dir: Path) -> Opened:
    """Open a database as our commands do: verify it, then read it. Any other failure than a complaint is raised."""
    settings = Settings(data_dir=data_dir)
    try:
        verdict = roles.verify_offline(settings)
        if not verdict.ok:
            return Opened("; ".join(discrepancy.detail for discrepancy in verdict.discrepancies))
        path = settings.database
        assert isinstance(path, Path)
        return Opened("", asyncio.run(_books(path)), _dump(path))
    except Problem as problem:
        return Opened(str(problem))
    except StoreCorrupt as error:
        # Sound as a whole, and yet there is a text in it that cannot be read: whoever meets it is told.
        return Opened(f"unreadable: {error}")


def money(books: Books) -> tuple[set[tuple[Any, ...]], list[tuple[Any, ...]], dict[str, int]]:
    """Return all of books that is about money."""
    messages = {(message.account_id, message.id, message.credits) for message in books.messages}
    return messages, sorted(books.transfers), dict(books.balances)


def changed_tables(before: Dump, after: Dump) -> set[str]:
    """Return the tables that differ between two dumps."""
    return {table for table in before.keys() | after.keys() if before.get(table) != after.get(table)}


def _send(server: Served, accounts: Sequence[Account], sends: int) -> list[Attempt]:
    clients = Clients([server.http_port], accounts, threads=6)
    clients.start()
    clients.wait_for(sends)
    clients.stop()
    assert clients.history.count(Outcome.ACKNOWLEDGED).total() >= sends
    return clients.history.attempts()


async def _books(path: Path) -> Books:
    database = SqliteDatabase(path)
    try:
        return await read_books(database)
    finally:
        await database.close()


def _dump(path: Path) -> Dump:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        tables = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
        # Octets, for a text that was spoiled need not be one any more.
        connection.text_factory = bytes
        return {name: sorted(connection.execute(f"SELECT * FROM {name}"), key=repr) for (name,) in tables}


def _flipped(content: bytes, at: int, bits: int) -> bytes:
    return content[:at] + bytes([content[at] ^ bits]) + content[at + 1 :]


def random_flip(content: bytes) -> tuple[int, int]:
    """Return a place in some bytes, and the bits to turn over there."""
    return random.randrange(len(content)), random.randint(1, 255)
