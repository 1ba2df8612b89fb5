"""Whether what guards the ledger is still in the database: triggers, constraints and unique indexes."""

import re
from collections.abc import Mapping

import sqlalchemy as sa
from sqlalchemy.dialects import sqlite
from sqlalchemy.schema import AddConstraint, CreateIndex

from hydrasms_billing.guards import POSTGRES_FUNCTION_BODY, POSTGRES_TRIGGERS, SQLITE_TRIGGERS
from hydrasms_billing.tables import balances, transfers
from hydrasms_core.db.transaction import Transaction

_COMMENT = re.compile(r"--[^\n]*|/\*.*?\*/", re.DOTALL)
_CAST = re.compile(r"::(?:text|character varying|bigint)(?:\[\])?")
_BLANKS_AND_QUOTES = re.compile(r"[\s\"`\[\]]+")

_SQLITE_SCHEMA = sa.text("SELECT name, sql FROM sqlite_master WHERE tbl_name IN ('balances', 'transfers')")

# A guard that does not hold for every row, that fires in some sessions alone or that is not valid is none. Where a
# table is partitioned a trigger must be in every partition as well, for there it can be turned off by itself.
_POSTGRES_SCHEMA = sa.text(
    """
    WITH parts (whole, part) AS (
        VALUES ('balances'::regclass, 'balances'::regclass), ('transfers'::regclass, 'transfers'::regclass)
        UNION ALL
        SELECT inhparent::regclass, inhrelid::regclass FROM pg_inherits
        WHERE inhparent IN ('balances'::regclass, 'transfers'::regclass)
    )
    SELECT conname AS name, pg_get_constraintdef(oid, true) AS sql FROM pg_constraint
        WHERE conrelid IN ('balances'::regclass, 'transfers'::regclass) AND contype IN ('c', 'p') AND convalidated
    UNION ALL
    SELECT tgname, min(words)
        FROM (
            SELECT whole, tgname, replace(pg_get_triggerdef(t.oid, true), part::text, whole::text) AS words
            FROM parts JOIN pg_trigger AS t ON t.tgrelid = part WHERE tgenabled = 'A'
        ) AS firing
        GROUP BY tgname, whole
        HAVING count(DISTINCT words) = 1 AND count(*) = (SELECT count(*) FROM parts WHERE parts.whole = firing.whole)
    UNION ALL
    SELECT indexrelid::regclass::text, replace(pg_get_indexdef(indexrelid, 0, true), ' ON ONLY ', ' ON ')
        FROM pg_index
        WHERE indrelid = 'transfers'::regclass AND indisunique AND NOT indisprimary AND indisvalid
    UNION ALL
    SELECT proname, prosrc FROM pg_proc WHERE oid = to_regprocedure('hydrasms_refuse()')
    """.replace("::", "\\:\\:")
)

# As PostgreSQL gives the constraints and the index back, which is not as they were written, and without the casts
# that it puts between: those are others after a dump and a restore.
_POSTGRES_CONSTRAINTS = {
    "ck_balances_not_negative": "CHECK (balance >= 0)",
    "pk_balances": "PRIMARY KEY (account_id)",
    "pk_transfers": "PRIMARY KEY (account_id, id)",
    "ck_transfers_payment": "CHECK ((kind = 'top_up') = (payment_id <> ''))",
    "ck_transfers_message": "CHECK ((kind = ANY (ARRAY['spend', 'refund'])) = (message_id <> ''))",
    "ck_transfers_parties": (
        "CHECK (kind = 'grant' AND debit_account = 'granted' AND credit_account = account_id"
        " OR kind = 'top_up' AND debit_account = 'sold' AND credit_account = account_id"
        " OR kind = 'spend' AND debit_account = account_id AND credit_account = 'spent'"
        " OR kind = 'refund' AND debit_account = 'spent' AND credit_account = account_id"
        " OR kind = 'adjustment' AND debit_account = 'adjusted' AND credit_account = account_id"
        " OR kind = 'adjustment' AND debit_account = account_id AND credit_account = 'adjusted')"
    ),
    "ck_transfers_amount": "CHECK (amount >= 1 AND amount <= '4611686018427387904' AND amount = amount)",
    "ck_transfers_two_accounts": "CHECK (debit_account <> credit_account)",
    "uq_transfers_message": (
        "CREATE UNIQUE INDEX uq_transfers_message ON transfers USING btree (message_id, kind, account_id)"
        " WHERE message_id <> ''"
    ),
}


async def find_missing_guards(tx: Transaction) -> list[str]:
    """Return the names of triggers, constraints and unique indexes that are gone or are not what they must be."""
    is_postgres = tx.dialect == "postgresql"
    found = await tx.execute(_POSTGRES_SCHEMA if is_postgres else _SQLITE_SCHEMA)
    schema = {row.name: _essence(row.sql or "") for row in found}
    return [
        name
        for name, (place, essence) in (_POSTGRES if is_postgres else _SQLITE).items()
        if (essence != schema.get(place) if place == name else essence not in schema.get(place, ""))
    ]


def _essence(sql: str) -> str:
    """Return a statement without what may differ while it means the same: comments, casts, blanks, quotes, case."""
    return _BLANKS_AND_QUOTES.sub("", _CAST.sub("", _COMMENT.sub(" ", sql))).lower()


def _expected_on_sqlite() -> Mapping[str, tuple[str, str]]:
    """Return, by guard, the object of the schema that holds it and its words there.

    A trigger or an index is an object of its own; a constraint is a part of its table.
    """
    dialect = sqlite.dialect()
    expected = {trigger.name: (trigger.name, _essence(trigger.sqlite)) for trigger in SQLITE_TRIGGERS}
    for table in (balances, transfers):
        for index in table.indexes:
            name = str(index.name)
            expected[name] = (name, _essence(str(CreateIndex(index).compile(dialect=dialect))))
        for constraint in table.constraints:
            # Unless told otherwise, naming a constraint so takes it out of its table's own statement.
            addition = AddConstraint(constraint, isolate_from_table=False).compile(dialect=dialect)
            words = str(addition).partition(" ADD ")[2]
            expected[words.split()[1]] = (table.name, _essence(words))
    return expected


def _expected_on_postgres() -> Mapping[str, tuple[str, str]]:
    """Return the same for PostgreSQL, where every guard is an object of its own."""
    words = {trigger.name: trigger.postgres for trigger in POSTGRES_TRIGGERS}
    words |= {"hydrasms_refuse": POSTGRES_FUNCTION_BODY, **_POSTGRES_CONSTRAINTS}
    return {name: (name, _essence(sql)) for name, sql in words.items()}


_SQLITE = _expected_on_sqlite()
_POSTGRES = _expected_on_postgres()
