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
_IDLE_EVERY_S = 5.0
"""How often it looks while nothing is added."""
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
    bounds: "list[Bound | None]"
    """What each part begins behind; the first begins behind nothing."""


Bound = tuple[str | int, ...]
"""An account, and what its rows are ordered by."""


class _Marks(NamedTuple):
    """How far a table and its list go, by row numbers."""

    newest_row: int
    listed_row: int | None
    """0 where no row is listed; None where rows have been numbered anew since."""


class ListKeeper:
    """Lists the rows of the tail when they have become many.

    Several processes may do so at once: they do the same, and no harm.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    async def run(self) -> None:
        """Look once a second, less often where nothing is added, until cancelled."""
        found: dict[str, _Marks] = {}
        every_s = _EVERY_S
        while True:
            # Not all processes at the same time.
            await asyncio.sleep(random.uniform(0.5, 1.5) * every_s)  # noqa: S311 - nobody gains by guessing it
            before = found
            try:
                found = await self.catch_up()
            except StoreUnavailable:
                log.warning("lists_postponed")
            every_s = _IDLE_EVERY_S if found == before else _EVERY_S

    async def catch_up(
        self, short_tail: int = _SHORT_TAIL, rows_a_write: int = _ROWS_A_WRITE
    ) -> dict[str, _Marks]:
        """List all that is not listed, where that is so many rows at least; return what was found before."""
        marks = await self._database.read(_look)
        for table, marked in marks.items():
            if not _is_long(marked, short_tail):
                continue
            statements = _Statements(table)
            find = partial(statements.find_tail, short_tail=short_tail, rows_a_write=rows_a_write)
            while (tail := await self._database.read(find)) and await self._list(statements, tail):
                pass
        return marks

    async def _list(self, statements: "_Statements", tail: Tail) -> bool:
        """List the rows of a tail; False where somebody else has done so meanwhile."""
        for after, upto in pairwise([*tail.bounds, None]):
            if not await self._database.write(
                partial(statements.list_part, tail=tail, after=after, upto=upto)
            ):
                return False
        return True


_LOOK = sa.text(
    " UNION ALL ".join(
        f"SELECT '{table}' AS list, (SELECT coalesce(max(rowid), 0) FROM {table}) AS newest_row, last_row, last_id,"
        f" (SELECT id FROM {table} WHERE rowid = last_row) AS id_there"
        f" FROM (SELECT 1) LEFT JOIN list_marks ON list = '{table}'"
        for table in LISTED
    )
)


async def _look(tx: Transaction) -> dict[str, _Marks]:
    """Return how far each table and its list go."""
    found = {}
    for row in await tx.execute(_LOOK):
        # VACUUM may number rows anew, though only where some were deleted; then all are listed from the beginning.
        listed_row = (row.last_row or 0) if row.id_there == row.last_id else None
        found[row.list] = _Marks(row.newest_row, listed_row)
    return found


def _is_long(marks: _Marks, short_tail: int) -> bool:
    """Say whether the rows that are not listed are to be, `short_tail` of them at least."""
    if marks.listed_row is None:
        # Where the mark is wrong lists lack rows until all are listed again, however few they are.
        return marks.newest_row > 0
    return marks.newest_row - marks.listed_row >= max(short_tail, 1)


class _Statements:
    """The SQL for one table."""

    def __init__(self, table: str) -> None:
        self._table = table
        self._last_of_tail = sa.text(
            f"SELECT number, id FROM (SELECT rowid AS number, id FROM {table} WHERE rowid > :after_row"
            f" ORDER BY rowid LIMIT {_ROWS_AT_ONCE}) ORDER BY number DESC LIMIT 1"
        )
        columns = ("account_id", *LISTED[table])
        key = ", ".join(columns)
        # SQLite finds the rows by their numbers and sorts them without Python.
        self._bounds = sa.text(
            f"SELECT {key} FROM (SELECT {key}, row_number() OVER (ORDER BY {key}) AS number"
            f" FROM {table} WHERE rowid > :after_row AND rowid <= :last_row)"
            " WHERE number % :rows_a_write = 0 ORDER BY number"
        )
        by_numbers = ", ".join(f"+{column}" for column in columns)
        after = ", ".join(f":after_{column}" for column in columns)
        upto = ", ".join(f":upto_{column}" for column in columns)
        self._columns = columns
        self._list = sa.text(
            f"INSERT INTO listed_{table} ({key}) SELECT {key} FROM {table}"
            " WHERE rowid > :after_row AND rowid <= :last_row"
            f" AND (:after_account_id IS NULL OR ({by_numbers}) > ({after}))"
            f" AND (:upto_account_id IS NULL OR ({by_numbers}) <= ({upto}))"
            f" ORDER BY {key} ON CONFLICT DO NOTHING"
        )
        self._set_mark = sa.text(
            "INSERT INTO list_marks (list, last_row, last_id) VALUES (:list, :last_row, :last_id)"
            " ON CONFLICT (list) DO UPDATE SET last_row = excluded.last_row, last_id = excluded.last_id"
        )

    async def find_tail(self, tx: Transaction, *, short_tail: int, rows_a_write: int) -> Tail | None:
        """Return the rows that are not listed, or None where they are fewer than `short_tail`."""
        marks = (await _look(tx))[self._table]
        if not _is_long(marks, short_tail):
            return None
        after_row = marks.listed_row or 0
        last = (await tx.execute(self._last_of_tail, {"after_row": after_row})).one()
        numbers = {"after_row": after_row, "last_row": last.number, "rows_a_write": rows_a_write}
        found = await tx.execute(self._bounds, numbers)
        return Tail(after_row, last.number, last.id, [None, *(tuple(row) for row in found)])

    async def list_part(
        self, tx: Transaction, *, tail: Tail, after: Bound | None, upto: Bound | None
    ) -> bool:
        """List one part of a tail, with the last the tail is none any more; False where somebody else has done it."""
        if ((await _look(tx))[self._table].listed_row or 0) != tail.after_row:
            return False
        nothing = (None,) * len(self._columns)
        values: dict[str, str | int | None] = {"after_row": tail.after_row, "last_row": tail.last_row}
        for name, bound in (("after", after), ("upto", upto)):
            values |= {
                f"{name}_{column}": value
                for column, value in zip(self._columns, bound or nothing, strict=True)
            }
        await tx.execute(self._list, values)
        if upto is None:
            last = {"list": self._table, "last_row": tail.last_row, "last_id": tail.last_id}
            await tx.execute(self._set_mark, last)
        return True
