"""How an account's rows are found, in order, among those of all accounts.

On PostgreSQL by the primary key, which the account leads. On SQLite such a key costs a page of the log for every
row, because a batch's rows are of as many accounts, and that is most of what a send or a text writes. There the
account ends the primary key, so that new rows lie side by side, and what finds an account's rows follows later, for
thousands of rows at once and in the accounts' order (`list_keeper.py`): a page is then written once for all rows that
go there. Those that came since, the tail, are few enough to be looked through.

The tail is told by SQLite's own row numbers, which grow as rows are added, whatever clocks say. Should SQLite have
numbered rows anew since they were listed, all are the tail until they are listed again. docs/decisions/0012 has the
figures.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.ext.compiler import compiles

from hydrasms_core.db.metadata import metadata
from hydrasms_core.paging import PageRequest

Dialect = Literal["sqlite", "postgresql"]

LISTED: Mapping[str, tuple[str, ...]] = {
    "messages": ("id",),
    "transfers": ("id",),
    "inbound_messages": ("id",),
    "events": ("position", "id"),
}
"""The tables that are listed so, and what gives the rows of an account their order."""


class AccountKey(sa.PrimaryKeyConstraint):
    """A primary key of the account and of what grows with time, led by that which the database wants in front."""

    def __init__(self, *growing: str) -> None:
        super().__init__("account_id", *growing)
        self.growing = growing


@compiles(AccountKey, "sqlite")
def _account_last(constraint: AccountKey, compiler: Any, **options: Any) -> str:
    text: str = compiler.visit_primary_key_constraint(constraint, **options)
    growing = ", ".join(constraint.growing)
    return text.replace(f"(account_id, {growing})", f"({growing}, account_id)")


_COLUMNS = {"id": "VARCHAR(36)", "position": "INTEGER"}

DDL = (
    "CREATE TABLE list_marks (list VARCHAR(16) PRIMARY KEY, last_row INTEGER NOT NULL, last_id VARCHAR(36) NOT NULL)",
    *(
        f"CREATE TABLE listed_{table} (account_id VARCHAR(36) NOT NULL,"
        f" {', '.join(f'{name} {_COLUMNS[name]} NOT NULL' for name in order)},"
        f" PRIMARY KEY (account_id, {', '.join(order)})) WITHOUT ROWID"
        for table, order in LISTED.items()
    ),
    # A text that was nobody's may be given to an account.
    (
        "CREATE TRIGGER listed_inbound_messages_follow AFTER UPDATE OF account_id ON inbound_messages BEGIN"
        " DELETE FROM listed_inbound_messages WHERE account_id = OLD.account_id AND id = OLD.id;"
        " INSERT INTO listed_inbound_messages (account_id, id) VALUES (NEW.account_id, NEW.id)"
        " ON CONFLICT DO NOTHING;"
        " END"
    ),
    # Events are forgotten when their time is past.
    (
        "CREATE TRIGGER listed_events_follow AFTER DELETE ON events BEGIN"
        " DELETE FROM listed_events WHERE account_id = OLD.account_id AND position = OLD.position AND id = OLD.id;"
        " END"
    ),
)
"""What SQLite has besides: everything in it can be made anew, and is, by deleting the marks."""

for _statement in DDL:
    event.listen(
        metadata,
        "after_create",
        sa.DDL(_statement).execute_if(dialect="sqlite"),  # type: ignore[no-untyped-call]
    )


def newest_first(
    dialect: Dialect, columns: Sequence[sa.Column[Any]], account_id: str, page: PageRequest
) -> sa.Select[Any]:
    """Return the query for these columns of a table that is listed by id: an account's rows, one more than the page
    holds.
    """
    table = columns[0].table
    most = page.size + 1
    if dialect == "sqlite":
        name = str(table.name)
        values = {} if page.before is None else {"before": page.before}
        # The plus signs keep SQLite from the primary key: all ids below one are many more than the tail.
        found = _found_on_sqlite(
            name,
            "true" if page.before is None else "id < :before",
            f"rowid > {_mark(name, 'rowid')} AND {'true' if page.before is None else '+id < :before'}",
            "DESC",
            {"account_id": account_id, "most": most, **values},
        )
        return _rows(found, columns).order_by(found.c.id.desc()).limit(most)
    query = sa.select(*columns).where(table.c.account_id == account_id)
    if page.before is not None:
        query = query.where(table.c.id < page.before)
    return query.order_by(table.c.id.desc()).limit(most)


def oldest_first(
    dialect: Dialect, columns: Sequence[sa.Column[Any]], account_id: str, after: tuple[int, str], most: int
) -> sa.Select[Any]:
    """Return the query for these columns of a table that is listed by position and id: so many of an account's rows
    at most, the first behind a place.
    """
    table = columns[0].table
    position, last_id = after
    if dialect == "sqlite":
        name = str(table.name)
        found = _found_on_sqlite(
            name,
            "(position, id) > (:position, :id)",
            # Rows are added in the order of their positions.
            f"position >= max(:position, {_mark(name, 'position')}) AND (+position, +id) > (:position, :id)",
            "ASC",
            {"account_id": account_id, "most": most, "position": position, "id": last_id},
        )
        return _rows(found, columns).order_by(found.c.position, found.c.id).limit(most)
    place = sa.tuple_(sa.literal(position, sa.BigInteger), sa.literal(last_id, sa.String))
    query = sa.select(*columns).where(
        table.c.account_id == account_id, sa.tuple_(table.c.position, table.c.id) > place
    )
    return query.order_by(table.c.position, table.c.id).limit(most)


def _mark(table: str, column: str) -> str:
    """Return what the last row that is listed has in a column that grows; 0 where none is, or it is another now."""
    return (
        f"coalesce((SELECT last.{column} FROM list_marks AS mark JOIN {table} AS last"
        f" ON last.rowid = mark.last_row AND last.id = mark.last_id WHERE mark.list = '{table}'), 0)"
    )


def _found_on_sqlite(
    table: str,
    wanted: str,
    wanted_of_tail: str,
    direction: Literal["ASC", "DESC"],
    values: Mapping[str, str | int],
) -> sa.Subquery:
    """Return the keys of the first rows that are wanted, of the list and of the tail, `most` of each at most."""
    order = LISTED[table]
    key = ", ".join(order)
    text = (
        f"SELECT account_id, {key} FROM (SELECT account_id, {key} FROM listed_{table}"
        f" WHERE account_id = :account_id AND {wanted}"
        f" ORDER BY {', '.join(f'{name} {direction}' for name in order)} LIMIT :most)"
        # Not UNION ALL: what was listed a moment ago may be in both.
        " UNION"
        f" SELECT account_id, {key} FROM (SELECT account_id, {key} FROM {table}"
        f" WHERE {wanted_of_tail} AND +account_id = :account_id"
        f" ORDER BY {', '.join(f'+{name} {direction}' for name in order)} LIMIT :most)"
    )
    columns: list[sa.ColumnClause[Any]] = [sa.column(name) for name in ("account_id", *order)]
    return sa.text(text).bindparams(**values).columns(*columns).subquery("found")


def _rows(found: sa.Subquery, columns: Sequence[sa.Column[Any]]) -> sa.Select[Any]:
    """Return the query for columns of the rows that have these keys."""
    table = columns[0].table
    same = sa.and_(*(table.c[column.name] == column for column in found.c))
    return sa.select(*columns).select_from(found.join(table, same))
