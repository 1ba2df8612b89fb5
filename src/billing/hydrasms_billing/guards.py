"""The triggers that keep the ledger append-only.

Migrations hold their own frozen copy of these statements; `verify.py` holds what it finds in a database against
what stands here. On SQLite INSERT OR REPLACE deletes rows without firing a DELETE trigger unless the connection has
`recursive_triggers` on, which every connection of `db/sqlite.py` has. On PostgreSQL the triggers fire always, in
replicas' sessions too.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Trigger:
    """A trigger of a table: the change that it refuses, and in which words."""

    name: str
    table: str
    change: str
    words: str

    @property
    def sqlite(self) -> str:
        """The statement that makes it on SQLite."""
        return (
            f"CREATE TRIGGER {self.name} BEFORE {self.change} ON {self.table}"
            f" BEGIN SELECT RAISE(ABORT, '{self.words}'); END"
        )

    @property
    def postgres(self) -> str:
        """The statement that makes it on PostgreSQL, where `POSTGRES_FUNCTION` is."""
        each = "STATEMENT" if self.change == "TRUNCATE" else "ROW"
        return (
            f"CREATE TRIGGER {self.name} BEFORE {self.change} ON {self.table}"
            f" FOR EACH {each} EXECUTE FUNCTION hydrasms_refuse('{self.words}')"
        )


POSTGRES_FUNCTION_BODY = (
    "BEGIN RAISE EXCEPTION '%', TG_ARGV[0] USING ERRCODE = 'integrity_constraint_violation'; END"
)
POSTGRES_FUNCTION = (
    f"CREATE FUNCTION hydrasms_refuse() RETURNS trigger LANGUAGE plpgsql AS $$ {POSTGRES_FUNCTION_BODY} $$"
)

_EVERYWHERE = (
    Trigger("transfers_refuse_update", "transfers", "UPDATE", "transfers are append-only"),
    Trigger("transfers_refuse_delete", "transfers", "DELETE", "transfers are append-only"),
    # A balance may change, but it stays, and stays its account's, for as long as there are transfers: for ever.
    Trigger("balances_refuse_delete", "balances", "DELETE", "balances are never deleted"),
    Trigger("balances_refuse_move", "balances", "UPDATE OF account_id", "a balance keeps its account"),
)

SQLITE_TRIGGERS = _EVERYWHERE
"""All triggers on SQLite."""

POSTGRES_TRIGGERS = (
    *_EVERYWHERE,
    Trigger("transfers_refuse_truncate", "transfers", "TRUNCATE", "transfers are append-only"),
    Trigger("balances_refuse_truncate", "balances", "TRUNCATE", "balances are never deleted"),
)
"""All triggers on PostgreSQL."""
