"""The triggers that keep the ledger append-only.

Migrations hold their own frozen copy of these statements; `verify.py` holds what it finds in a database against
what stands here. INSERT OR REPLACE deletes rows without firing a DELETE trigger unless the connection has
`recursive_triggers` on, which every connection of `db/sqlite.py` has.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Trigger:
    """A trigger of a table, as the statement that makes it."""

    name: str
    table: str
    create: str


def _refusing(name: str, table: str, change: str, words: str) -> Trigger:
    return Trigger(
        name,
        table,
        f"CREATE TRIGGER {name} BEFORE {change} ON {table} BEGIN SELECT RAISE(ABORT, '{words}'); END",
    )


SQLITE_TRIGGERS = (
    _refusing("transfers_refuse_update", "transfers", "UPDATE", "transfers are append-only"),
    _refusing("transfers_refuse_delete", "transfers", "DELETE", "transfers are append-only"),
    # A balance may change, but it stays, and stays its account's, for as long as there are transfers: for ever.
    _refusing("balances_refuse_delete", "balances", "DELETE", "balances are never deleted"),
    _refusing("balances_refuse_move", "balances", "UPDATE OF account_id", "a balance keeps its account"),
)
"""All triggers, in SQLite's words."""
