"""On SQLite the primary keys of messages and transfers are led by the id, and what lists them is kept beside.

Older code works with either, but lists slowly. The two tables are written anew.
"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_ACCOUNT_FIRST = "PRIMARY KEY (account_id, id)"
_ID_FIRST = "PRIMARY KEY (id, account_id)"
_LISTED = ("messages", "transfers")


def upgrade() -> None:
    """Turn the keys round and list all that is there; nothing on PostgreSQL."""
    if op.get_bind().dialect.name != "sqlite":
        return
    op.execute(
        "CREATE TABLE list_marks (list VARCHAR(16) PRIMARY KEY, last_row INTEGER NOT NULL, last_id VARCHAR(36) NOT NULL)"
    )
    for table in _LISTED:
        op.execute(
            f"CREATE TABLE listed_{table} (account_id VARCHAR(36) NOT NULL, id VARCHAR(36) NOT NULL,"
            " PRIMARY KEY (account_id, id)) WITHOUT ROWID"
        )
        op.execute(
            f"INSERT INTO listed_{table} (account_id, id) SELECT account_id, id FROM {table}"
            " ORDER BY account_id, id"
        )
        _write_anew(table, _ACCOUNT_FIRST, _ID_FIRST)
        op.execute(
            f"INSERT INTO list_marks (list, last_row, last_id) SELECT '{table}', rowid, id FROM {table}"
            " ORDER BY rowid DESC LIMIT 1"
        )


def downgrade() -> None:
    """Turn the keys back."""
    if op.get_bind().dialect.name != "sqlite":
        return
    for table in _LISTED:
        _write_anew(table, _ID_FIRST, _ACCOUNT_FIRST)
        op.drop_table(f"listed_{table}")
    op.drop_table("list_marks")


def _write_anew(table: str, key: str, other_key: str) -> None:
    """Give a table another primary key, which SQLite has no statement for; all else about it stays."""
    found = op.get_bind().execute(
        sa.text("SELECT type, sql FROM sqlite_master WHERE tbl_name = :table AND sql IS NOT NULL"),
        {"table": table},
    )
    made_by = [(row.type, row.sql) for row in found]
    (create,) = [sql for kind, sql in made_by if kind == "table"]
    assert create.count(key) == 1
    names = [column["name"] for column in sa.inspect(op.get_bind()).get_columns(table)]
    columns = ", ".join(names)
    op.rename_table(table, f"{table}_before")
    _execute(create.replace(key, other_key))
    op.execute(f"INSERT INTO {table} ({columns}) SELECT {columns} FROM {table}_before ORDER BY rowid")
    op.drop_table(f"{table}_before")
    for kind, sql in made_by:
        if kind != "table":
            _execute(sql)


def _execute(sql: str) -> None:
    # As it stands: what is quoted in it may look like a parameter.
    op.get_bind().exec_driver_sql(sql)
