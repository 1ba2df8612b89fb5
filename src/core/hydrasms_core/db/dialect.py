"""All that differs between the databases.

A `SetStatement` is one SQL text for a whole batch of rows: it takes the batch as a table-valued parameter, so
that a thousand rows cost one statement. Everything else is SQLAlchemy Core and needs no care.
"""

import re
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

import orjson

_TOKEN = re.compile(
    r"\{(?:rows|keyed:[a-z_=,]+|(?:listed:)?[a-z]\.[a-z_]+|(?:accounts|lock|claim):[a-z_]+)\}|:[a-z_]+\b",
    re.ASCII,
)
_CHANGE = re.compile(r"(?:INSERT INTO|UPDATE|DELETE FROM) (\w+)", re.ASCII)
# Of a statement that can be refused SQLite copies every page that it changes, so as to undo it alone. Nobody wants
# it undone alone: a violation dooms the whole transaction, as it does on PostgreSQL.
_WITHOUT_UNDO = (("INSERT INTO", "INSERT OR ROLLBACK INTO"), ("UPDATE", "UPDATE OR ROLLBACK"))
_ROWS = "{rows}"
_KEYED = "{keyed:"

MAX_BOUND_VALUES = 8_192
"""How many values a batch on SQLite binds one by one at most; a larger one goes as JSON. SQLite itself allows
32,766, but keeps a program with a part for every row."""

_INTEGERS = frozenset(
    {
        "active",
        "amount",
        "applied",
        "attempts",
        "calling_code",
        "change",
        "credits",
        "duplicate_risk",
        "http_status",
        "lane",
        "last_status",
        "most",
        "number",
        "ordinal",
        "position",
        "retries",
        "segments",
        "webhook_status",
    }
)
"""What holds numbers, besides all that ends in `_ms`; PostgreSQL wants to be told, and all else is text."""


class SetStatement:
    """One SQL text over a batch of rows.

    The text holds `{rows}` once, where the batch stands as a FROM item named `r` with the given columns, and
    `:name` where a plain parameter stands. The first column of a batch is never null. Without columns there is no
    batch. What else may stand in it:

    - `{keyed:a,b=c}` in the place of `{rows}` and of WHERE, in an UPDATE or DELETE: its table's rows that are named
      by the batch, its column a by the batch's a, and b by the batch's c. An index of the table begins with a.
    - `{r.a}` or the like, to the right of `=`: the column a of r. To the left stands the column of a table with
      which an index of it begins; the rest of the index may follow with plain equality. PostgreSQL then has no other
      way to those rows than by the index, be the table empty or large. With a bare `r.a` it may as well read the
      whole table in the index's order, which is right while the table is small, and goes on when it is large.
    - `{accounts:t}`, a condition: the table t is looked at for the accounts of the batch alone. It changes
      nothing that is found. Where t is partitioned by account it is what keeps a statement to the partitions of
      those accounts; elsewhere it is left out, because it leads the planner to read all that those accounts have.
    - `{listed:t.a}`, an aggregate: one JSON array, as text, of the values of the column a of t.
    - `{lock:t}` at the end of a SELECT: its rows of t are locked until the transaction ends.
    - `{claim:t}` likewise, but rows that somebody else has locked are passed over.

    SQLite needs none of them, for there the whole database is the transaction's.

    Of a SELECT, `as_one` is how many columns it selects, of which none holds a blob. SQLite then makes one JSON value
    of all rows: the interpreter's lock changes hands for every row that is fetched, and after each whoever fetches
    waits until the loop lets go of it.
    """

    def __init__(self, text: str, columns: Sequence[str], *, as_one: int = 0) -> None:
        tokens = _TOKEN.findall(text)
        if sum(token == _ROWS or token.startswith(_KEYED) for token in tokens) != bool(columns):
            raise ValueError("a set statement takes its rows in one place")
        self.as_one = as_one
        self.target = _target(text)
        """The table that it changes; empty where it changes none."""
        self._pieces = _TOKEN.split(text)
        self._tokens = tokens
        self._names = [token[1:] for token in tokens if token.startswith(":")]
        self._columns = tuple(columns)
        self._accounts = self._columns.index("account_id") if "account_id" in columns else None
        self._sqlite_texts: dict[int, str] = {}
        self._postgres_texts: dict[tuple[int, bool], str] = {}

    def for_sqlite(
        self, rows: Sequence[Sequence[Any]], parameters: Mapping[str, Any]
    ) -> tuple[str, list[Any]]:
        """Return the text with question marks and the values for them, in order.

        The rows are a list of VALUES, filled up with null rows to the next power of two, so that a few texts serve
        batches of every size and SQLite keeps them prepared. Where that would be too many values they are one JSON
        array: four times as slow, because every value is looked up in its row's text.
        """
        width = len(self._columns)
        slots = 1 << max(len(rows) - 1, 0).bit_length()
        bound: list[Any]
        if slots * width <= MAX_BOUND_VALUES:
            bound = list(chain.from_iterable(rows))
            bound.extend([None] * (slots * width - len(bound)))
        else:
            slots = 0
            # Named tuples are rows as well, and orjson takes none but plain ones.
            bound = [orjson.dumps(rows, default=tuple).decode()]
        text = self._sqlite_texts.get(slots)
        if text is None:
            text = self._sqlite_texts[slots] = self._sqlite_text(slots)
        values: list[Any] = []
        for token in self._tokens:
            if token == _ROWS or token.startswith(_KEYED):
                values += bound
            elif token[0] == ":":
                values.append(parameters[token[1:]])
        return text, values

    def for_postgres(
        self,
        rows: Sequence[Sequence[Any]],
        parameters: Mapping[str, Any],
        *,
        first: int = 1,
        partitioned: bool = False,
    ) -> tuple[str, list[Any]]:
        """Return the text, with `$first` as its first parameter, and the values, in order: an array a column."""
        text = self._postgres_texts.get((first, partitioned))
        if text is None:
            text = self._postgres_texts[first, partitioned] = self._postgres_text(first, partitioned)
        values: list[Any] = list(zip(*rows, strict=True)) if rows else [()] * len(self._columns)
        values += [parameters[name] for name in self._names]
        return text, values

    def _sqlite_text(self, slots: int) -> str:
        """Return the text for so many rows of VALUES, or, for 0, with the rows as JSON."""
        if slots:
            picked = ", ".join(f"column{number} AS {name}" for number, name in enumerate(self._columns, 1))
            row = f"({', '.join('?' * len(self._columns))})"
            batch = (
                f"(SELECT {picked} FROM (VALUES {', '.join([row] * slots)}) WHERE column1 IS NOT NULL) AS r"
            )
        else:
            picked = ", ".join(f"value ->> {index} AS {name}" for index, name in enumerate(self._columns))
            batch = f"(SELECT {picked} FROM json_each(?)) AS r"

        def filled(token: str) -> str:
            if token == _ROWS:
                return batch
            if token[0] == ":":
                return "?"
            kind, _, named = token.strip("{}").partition(":")
            if kind == "keyed":
                theirs, ours = zip(*_keys(named), strict=True)
                picked = ", ".join(f"r.{name}" for name in ours)
                return f"WHERE ({', '.join(theirs)}) IN (SELECT {picked} FROM {batch})"
            if kind == "accounts":
                return "true"
            if kind == "listed":
                # In another JSON value it stays a text, too.
                return f"(json_group_array({named}) || '')"
            return kind if "." in kind else ""

        text = self._woven([filled(token) for token in self._tokens])
        return _all_in_one(text, self.as_one) if self.as_one else _without_undo(text)

    def _postgres_text(self, first: int, partitioned: bool) -> str:  # noqa: FBT001 - called above alone
        arrays = ", ".join(f"${first + index}::{_type(name)}[]" for index, name in enumerate(self._columns))
        batch = f"unnest({arrays}) AS r({', '.join(self._columns)})"
        position = first + len(self._columns)
        filled = []
        for token in self._tokens:
            kind, _, target = token.strip("{}").partition(":")
            if token == _ROWS:
                filled.append(batch)
            elif kind == "keyed":
                found = [
                    f"{self.target}.{theirs} = {_looked_up(f'r.{ours}', partitioned)}"
                    for theirs, ours in _keys(target)
                ]
                word = "USING" if self._pieces[0].startswith("DELETE") else "FROM"
                filled.append(f"{word} {batch} WHERE {' AND '.join(found)}")
            elif "." in kind:
                filled.append(_looked_up(kind, partitioned))
            elif kind == "accounts":
                if self._accounts is None:
                    raise ValueError("the batch names no accounts")
                accounts = f"{target}.account_id = ANY(${first + self._accounts}::text[])"
                filled.append(accounts if partitioned else "true")
            elif kind == "listed":
                filled.append(f"json_agg({target})::text")
            elif kind == "lock":
                filled.append(f"FOR UPDATE OF {target}")
            elif kind == "claim":
                filled.append(f"FOR UPDATE OF {target} SKIP LOCKED")
            else:
                filled.append(f"${position}::{_type(target)}")
                position += 1
        return self._woven(filled)

    def _woven(self, filled: Sequence[str]) -> str:
        return "".join(chain.from_iterable(zip(self._pieces, [*filled, ""], strict=True)))


def _keys(named: str) -> list[tuple[str, str]]:
    """Return pairs of a table's column and the batch's."""
    pairs = (part.partition("=") for part in named.split(","))
    return [(theirs, ours or theirs) for theirs, _, ours in pairs]


def _looked_up(column: str, partitioned: bool) -> str:  # noqa: FBT001 - called above alone
    """Return what the first column of an index is compared with where nothing but that index may be used.

    By plain equality tables can also be joined, after reading all of one; by this they cannot. Where every statement
    is planned for its own values that is no danger, and plain equality tells which partitions are left out.
    """
    return column if partitioned else f"ANY(ARRAY[{column}])"


def _all_in_one(text: str, columns: int) -> str:
    """Return a SELECT of one JSON value: what another one with so many columns finds."""
    picked = ", ".join(f"c{number}" for number in range(columns))
    return f"WITH found({picked}) AS ({text}) SELECT json_group_array(json_array({picked})) FROM found"


def _without_undo(text: str) -> str:
    for plain, without_undo in _WITHOUT_UNDO:
        if text.startswith(plain):
            return without_undo + text[len(plain) :]
    return text


def _target(text: str) -> str:
    found = _CHANGE.match(text)
    return found.group(1) if found else ""


def _type(name: str) -> str:
    return "bigint" if name in _INTEGERS or name.endswith("_ms") else "text"
