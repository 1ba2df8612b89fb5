"""Keeps up with what is added to lists on SQLite: see `lists.py`."""

import asyncio
import random
from functools import partial
from itertools import pairwise
from typing import NamedTuple

import sqlalchemy as sa

from hydrasms_base.log import get_logger
from hydrasms_core.db.lists import LISTED
from hydrasms_core.db.transaction import Database, Transaction
from hydrasms_core.errors import StoreUnavailable

_EVERY_S = 1.0
_SHORT_TAIL = 8_192
"""So many rows a list looks through in about a millisecond; below that nothing is done."""
_ROWS_AT_ONCE = 32_768
"""How far the lists go on at a time, where they are far behind."""
_ROWS_A_WRITE = 4_096
"""How many rows go into one transaction: sends wait for its end, some 10 ms."""

log = get_logger(__name__)


class Tail(NamedTuple):
    """The rows that are not listed yet, or the first of them, in parts."""

    after_row: int
    """The last row that is listed, by its number."""
    last_row: int
    last_id: str
    bounds: list[tuple[str, str]]
    """The account and id that each part begins behind; the first begins behind ("", "")."""


class ListKeeper:
    """Lists the rows of the tail when they have become many.

    Several processes may do so at once: they do the same, and no harm.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    async def run(self) -> None:
        """Look once a second until cancelled."""
        while True:
            # Not all processes at the same time.
            await asyncio.sleep(random.uniform(0.5, 1.5) * _EVERY_S)  # noqa: S311 - nobody gains by guessing it
            try:
                await self.catch_up()
            except StoreUnavailable:
                log.warning("lists_postponed")

    async def catch_up(self, short_tail: int = _SHORT_TAIL, rows_a_write: int = _ROWS_A_WRITE) -> None:
        """List all that is not listed, where that is so many rows at least."""
        for table in LISTED:
            statements = _Statements(table)
            find = partial(statements.find_tail, short_tail=short_tail, rows_a_write=rows_a_write)
            while (tail := await self._database.read(find)) and await self._list(statements, tail):
                pass

    async def _list(self, statements: "_Statements", tail: Tail) -> bool:
        """List the rows of a tail; False where somebody else has done so meanwhile."""
        for after, upto in pairwise([*tail.bounds, None]):
            assert after is not None
            if not await self._database.write(
                partial(statements.list_part, tail=tail, after=after, upto=upto)
            ):
                return False
        return True


class _Statements:
    """The SQL for one table."""

    def __init__(self, table: str) -> None:
        self._table = table
        self._mark = sa.text("SELECT last_row, last_id FROM list_marks WHERE list = :list").bindparams(
            list=table
        )
        self._id_of = sa.text(f"SELECT id FROM {table} WHERE rowid = :row")
        self._newest = sa.text(f"SELECT coalesce(max(rowid), 0) FROM {table}")
        self._last_of_tail = sa.text(
            f"SELECT number, id FROM (SELECT rowid AS number, id FROM {table} WHERE rowid > :after_row"
            f" ORDER BY rowid LIMIT {_ROWS_AT_ONCE}) ORDER BY number DESC LIMIT 1"
        )
        # SQLite finds the rows by their numbers and sorts them without Python.
        self._bounds = sa.text(
            "SELECT account_id, id FROM (SELECT account_id, id, row_number() OVER (ORDER BY account_id, id) AS number"
            f" FROM {table} WHERE rowid > :after_row AND rowid <= :last_row)"
            " WHERE number % :rows_a_write = 0 ORDER BY number"
        )
        self._list = sa.text(
            f"INSERT INTO listed_{table} (account_id, id) SELECT account_id, id FROM {table}"
            " WHERE rowid > :after_row AND rowid <= :last_row"
            " AND (+account_id, +id) > (:after_account_id, :after_id)"
            " AND (:upto_account_id IS NULL OR (+account_id, +id) <= (:upto_account_id, :upto_id))"
            " ORDER BY account_id, id ON CONFLICT DO NOTHING"
        )
        self._set_mark = sa.text(
            "INSERT INTO list_marks (list, last_row, last_id) VALUES (:list, :last_row, :last_id)"
            " ON CONFLICT (list) DO UPDATE SET last_row = excluded.last_row, last_id = excluded.last_id"
        )

    async def find_tail(self, tx: Transaction, *, short_tail: int, rows_a_write: int) -> Tail | None:
        """Return the rows that are not listed, or None where they are fewer than `short_tail`."""
        listed = await self._last_listed(tx)
        after_row = listed or 0
        newest_row = (await tx.execute(self._newest)).scalar_one()
        # Where the mark is wrong lists lack rows until all are listed again, however few they are.
        if newest_row - after_row < (1 if listed is None else max(short_tail, 1)):
            return None
        last = (await tx.execute(self._last_of_tail, {"after_row": after_row})).one()
        numbers = {"after_row": after_row, "last_row": last.number, "rows_a_write": rows_a_write}
        found = await tx.execute(self._bounds, numbers)
        return Tail(after_row, last.number, last.id, [("", ""), *((row.account_id, row.id) for row in found)])

    async def list_part(
        self, tx: Transaction, *, tail: Tail, after: tuple[str, str], upto: tuple[str, str] | None
    ) -> bool:
        """List one part of a tail, with the last the tail is none any more; False where somebody else has done it."""
        if (await self._last_listed(tx) or 0) != tail.after_row:
            return False
        upto_account_id, upto_id = upto or (None, None)
        await tx.execute(
            self._list,
            {
                "after_row": tail.after_row,
                "last_row": tail.last_row,
                "after_account_id": after[0],
                "after_id": after[1],
                "upto_account_id": upto_account_id,
                "upto_id": upto_id,
            },
        )
        if upto is None:
            last = {"list": self._table, "last_row": tail.last_row, "last_id": tail.last_id}
            await tx.execute(self._set_mark, last)
        return True

    async def _last_listed(self, tx: Transaction) -> int | None:
        """Return the last row that is listed, 0 where none is; None where rows have been numbered anew since."""
        mark = (await tx.execute(self._mark)).one_or_none()
        if mark is None:
            return 0
        # VACUUM may number rows anew, though only where some were deleted; then all are listed from the beginning.
        stands = (await tx.execute(self._id_of, {"row": mark.last_row})).scalar_one_or_none()
        return int(mark.last_row) if stands == mark.last_id else None
