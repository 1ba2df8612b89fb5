"""How an account's rows are found, newest first, among those of all accounts.

On PostgreSQL by the primary key, which the account leads. On SQLite such a key costs a page of the log for every
row, because a batch's rows are of as many accounts, and that is most of what a send writes. There the id leads the
primary key, so that new rows lie side by side, and what finds an account's rows follows later, for thousands of
rows at once and in the accounts' order (`list_keeper.py`): a page is then written once for all rows that go there.
Those that came since, the tail, are few enough to be looked through.

The tail is told by SQLite's own row numbers, which grow as rows are added, whatever clocks say. That relies on no
row ever being deleted. docs/decisions/0012 has the figures.
"""

from collections.abc import Sequence
from typing import Any, Literal

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.ext.compiler import compiles

from hydrasms_core.db.metadata import metadata
from hydrasms_core.paging import PageRequest

LISTED = ("messages", "transfers")
"""The tables that are listed so."""


class ListKey(sa.PrimaryKeyConstraint):
    """The primary key of a table in LISTED: account_id and id, led by that which the database wants in front."""

    def __init__(self) -> None:
        super().__init__("account_id", "id")


@compiles(ListKey, "sqlite")
def _id_first(constraint: ListKey, compiler: Any, **options: Any) -> str:
    text: str = compiler.visit_primary_key_constraint(constraint, **options)
    return text.replace("(account_id, id)", "(id, account_id)")


DDL = (
    "CREATE TABLE list_marks (list VARCHAR(16) PRIMARY KEY, last_row INTEGER NOT NULL, last_id VARCHAR(36) NOT NULL)",
    *(
        f"CREATE TABLE listed_{table} (account_id VARCHAR(36) NOT NULL, id VARCHAR(36) NOT NULL,"
        " PRIMARY KEY (account_id, id)) WITHOUT ROWID"
        for table in LISTED
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
    dialect: Literal["sqlite", "postgresql"],
    columns: Sequence[sa.Column[Any]],
    account_id: str,
    page: PageRequest,
) -> sa.Select[Any]:
    """Return the query for these columns of a table in LISTED: an account's rows, one more than the page holds."""
    table = columns[0].table
    query = sa.select(*columns).where(table.c.account_id == account_id)
    if dialect == "sqlite":
        query = query.where(_found_on_sqlite(str(table.name), account_id, page))
    elif page.before is not None:
        query = query.where(table.c.id < page.before)
    return query.order_by(table.c.id.desc()).limit(page.size + 1)


def _found_on_sqlite(table: str, account_id: str, page: PageRequest) -> sa.TextClause:
    # The plus signs keep SQLite from the primary key: all ids below one are many more than the tail.
    below = ("AND id < :before", "AND +id < :before") if page.before is not None else ("", "")
    text = (
        f"id IN (SELECT id FROM (SELECT id FROM listed_{table} WHERE account_id = :account_id {below[0]}"
        " ORDER BY id DESC LIMIT :most)"
        " UNION ALL"
        f" SELECT id FROM (SELECT id FROM {table} WHERE rowid >"
        f" (SELECT coalesce(max(last_row), 0) FROM list_marks WHERE list = '{table}')"
        f" AND +account_id = :account_id {below[1]} ORDER BY +id DESC LIMIT :most))"
    )
    values: dict[str, Any] = {"account_id": account_id, "most": page.size + 1}
    if page.before is not None:
        values["before"] = page.before
    return sa.text(text).bindparams(**values)
