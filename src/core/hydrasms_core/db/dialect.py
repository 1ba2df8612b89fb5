"""All that differs between the databases.

A `SetStatement` is one SQL text for a whole batch of rows: it takes the batch as a table-valued parameter, so
that a thousand rows cost one statement. Everything else is SQLAlchemy Core and needs no care.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import orjson

_NAMED = re.compile(r":([a-z_]+)\b", re.ASCII)


class Dialect(Protocol):
    """What a statement must know of the database that it runs on."""

    name: str

    def rows(self, columns: Sequence[str]) -> str:
        """Return a FROM item that yields the batch, one column a name."""
        ...


class SqliteDialect:
    """SQLite 3.38 or newer: the batch is one JSON array of arrays, read by json_each."""

    name = "sqlite"

    def rows(self, columns: Sequence[str]) -> str:
        """Return the sub-select that turns the JSON parameter into rows."""
        picked = ", ".join(f"value ->> {index} AS {name}" for index, name in enumerate(columns))
        return f"(SELECT {picked} FROM json_each(:rows))"


class SetStatement:
    """One SQL text over a batch of rows.

    The text holds `{rows}` where the batch stands as a FROM item with the given columns, and `:name` where a
    plain parameter stands.
    """

    def __init__(self, text: str, columns: Sequence[str]) -> None:
        self._text = text
        self._columns = tuple(columns)
        self._compiled: dict[str, tuple[str, tuple[str, ...]]] = {}

    def for_sqlite(
        self, dialect: Dialect, rows: Sequence[Sequence[Any]], parameters: Mapping[str, Any]
    ) -> tuple[str, tuple[Any, ...]]:
        """Return the text with question marks and the values for them, in order."""
        compiled = self._compiled.get(dialect.name)
        if compiled is None:
            named = self._text.format(rows=dialect.rows(self._columns))
            names = tuple(_NAMED.findall(named))
            compiled = self._compiled[dialect.name] = (_NAMED.sub("?", named), names)
        text, names = compiled
        # Named tuples are rows as well, and orjson takes none but plain ones.
        values = {"rows": orjson.dumps(rows, default=tuple).decode(), **parameters}
        return text, tuple(values[name] for name in names)
