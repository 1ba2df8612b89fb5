"""All that differs between the databases.

A `SetStatement` is one SQL text for a whole batch of rows: it takes the batch as a table-valued parameter, so
that a thousand rows cost one statement. Everything else is SQLAlchemy Core and needs no care.
"""

import re
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

import orjson

_TOKEN = re.compile(r"\{rows\}|:[a-z_]+\b", re.ASCII)
_BATCH = ""

MAX_BOUND_VALUES = 8_192
"""How many values a batch binds one by one at most; a larger one goes as JSON. SQLite itself allows 32,766, but
keeps a program with a part for every row."""


class SetStatement:
    """One SQL text over a batch of rows.

    The text holds `{rows}` once, where the batch stands as a FROM item with the given columns, and `:name` where a
    plain parameter stands. The first column of a batch is never null.
    """

    def __init__(self, text: str, columns: Sequence[str]) -> None:
        tokens = _TOKEN.findall(text)
        if tokens.count("{rows}") != 1:
            raise ValueError("a set statement takes its rows in one place")
        self._pieces = _TOKEN.split(text)
        self._order = [_BATCH if found == "{rows}" else found[1:] for found in tokens]
        self._columns = tuple(columns)
        self._texts: dict[int, str] = {}

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
        text = self._texts.get(slots)
        if text is None:
            text = self._texts[slots] = self._sqlite_text(slots)
        values: list[Any] = []
        for name in self._order:
            if name == _BATCH:
                values += bound
            else:
                values.append(parameters[name])
        return text, values

    def _sqlite_text(self, slots: int) -> str:
        """Return the text for so many rows of VALUES, or, for 0, with the rows as JSON."""
        if slots:
            picked = ", ".join(f"column{number} AS {name}" for number, name in enumerate(self._columns, 1))
            row = f"({', '.join('?' * len(self._columns))})"
            batch = f"(SELECT {picked} FROM (VALUES {', '.join([row] * slots)}) WHERE column1 IS NOT NULL)"
        else:
            picked = ", ".join(f"value ->> {index} AS {name}" for index, name in enumerate(self._columns))
            batch = f"(SELECT {picked} FROM json_each(?))"
        filled = [batch if name == _BATCH else "?" for name in self._order]
        return "".join(chain.from_iterable(zip(self._pieces, [*filled, ""], strict=True)))
