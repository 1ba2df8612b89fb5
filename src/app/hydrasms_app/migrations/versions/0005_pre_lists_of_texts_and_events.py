"""On SQLite the primary keys of texts, events and attempts to push end with the account; 0004 has the reason.

What lists texts and events is kept beside. Older code works with either, but lists slowly. The tables are written
anew.
"""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

_LISTED = {"inbound_messages": ("id",), "events": ("position", "id")}
_GROWING = {**_LISTED, "webhook_attempts": ("delivery_id", "number")}
_TYPES = {"id": "VARCHAR(36)", "position": "INTEGER"}
# The first index of events is how its primary key now begins.
_INDEX = "CREATE INDEX ix_events_position_id ON events (position, id)"
_FOLLOW = (
    (
        "CREATE TRIGGER listed_inbound_messages_follow AFTER UPDATE OF account_id ON inbound_messages BEGIN"
        " DELETE FROM listed_inbound_messages WHERE account_id = OLD.account_id AND id = OLD.id;"
        " INSERT INTO listed_inbound_messages (account_id, id) VALUES (NEW.account_id, NEW.id) ON CONFLICT DO NOTHING;"
        " END"
    ),
    (
        "CREATE TRIGGER listed_events_follow AFTER DELETE ON events BEGIN"
        " DELETE FROM listed_events WHERE account_id = OLD.account_id AND position = OLD.position AND id = OLD.id;"
        " END"
    ),
)


def upgrade() -> None:
    """Turn the keys round and list all that is there; nothing on PostgreSQL."""
    if op.get_bind().dialect.name != "sqlite":
        return
    op.drop_index("ix_events_position_id", "events")
    for table, growing in _GROWING.items():
        # Of events row numbers grow as positions do.
        _write_anew(table, ("account_id", *growing), (*growing, "account_id"), order=", ".join(growing))
    for table, growing in _LISTED.items():
        columns = ", ".join(f"{name} {_TYPES[name]} NOT NULL" for name in growing)
        key = ", ".join(("account_id", *growing))
        op.execute(
            f"CREATE TABLE listed_{table} (account_id VARCHAR(36) NOT NULL, {columns}, PRIMARY KEY ({key}))"
            " WITHOUT ROWID"
        )
        op.execute(f"INSERT INTO listed_{table} ({key}) SELECT {key} FROM {table} ORDER BY {key}")
        op.execute(
            f"INSERT INTO list_marks (list, last_row, last_id) SELECT '{table}', rowid, id FROM {table}"
            " ORDER BY rowid DESC LIMIT 1"
        )
    for trigger in _FOLLOW:
        _execute(trigger)


def downgrade() -> None:
    """Turn the keys back."""
    if op.get_bind().dialect.name != "sqlite":
        return
    for table in _LISTED:
        op.execute(f"DROP TRIGGER listed_{table}_follow")
        op.drop_table(f"listed_{table}")
        op.execute(f"DELETE FROM list_marks WHERE list = '{table}'")
    for table, growing in _GROWING.items():
        _write_anew(table, (*growing, "account_id"), ("account_id", *growing), order="rowid")
    op.execute(_INDEX)


def _write_anew(table: str, key: tuple[str, ...], other_key: tuple[str, ...], *, order: str) -> None:
    """Give a table another primary key, which SQLite has no statement for; all else about it stays."""
    found = op.get_bind().execute(
        sa.text("SELECT type, sql FROM sqlite_master WHERE tbl_name = :table AND sql IS NOT NULL"),
        {"table": table},
    )
    made_by = [(row.type, row.sql) for row in found]
    (create,) = [sql for kind, sql in made_by if kind == "table"]
    before, after = (f"PRIMARY KEY ({', '.join(columns)})" for columns in (key, other_key))
    assert create.count(before) == 1
    columns = ", ".join(column["name"] for column in sa.inspect(op.get_bind()).get_columns(table))
    op.rename_table(table, f"{table}_before")
    _execute(create.replace(before, after))
    op.execute(f"INSERT INTO {table} ({columns}) SELECT {columns} FROM {table}_before ORDER BY {order}")
    op.drop_table(f"{table}_before")
    for kind, sql in made_by:
        if kind != "table":
            _execute(sql)


def _execute(sql: str) -> None:
    # As it stands: what is quoted in it may look like a parameter.
    op.get_bind().exec_driver_sql(sql)
