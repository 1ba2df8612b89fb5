"""What is in the schema of a database, on either kind, to hold one against another."""

import sqlalchemy as sa

Schema = dict[tuple[str, str], object]
"""By kind and name of each object what it is, in the database's own words."""

_SQLITE = sa.text(
    "SELECT type, name, sql FROM sqlite_master WHERE name NOT LIKE 'sqlite_%' AND name <> 'alembic_version'"
)
_POSTGRES = sa.text(
    """
    SELECT 'column' AS kind, table_name || '.' || column_name AS name,
        concat_ws(' ', data_type, character_maximum_length, collation_name, is_nullable, column_default) AS words
        FROM information_schema.columns WHERE table_schema = 'public'
    UNION ALL
    SELECT 'constraint', conrelid::regclass || '.' || conname, pg_get_constraintdef(oid) || convalidated::text
        FROM pg_constraint WHERE connamespace = 'public'::regnamespace
    UNION ALL
    SELECT 'index', indexrelid::regclass::text, pg_get_indexdef(indexrelid) FROM pg_index AS i
        JOIN pg_class AS c ON c.oid = i.indexrelid WHERE c.relnamespace = 'public'::regnamespace
    UNION ALL
    SELECT 'trigger', tgrelid::regclass || '.' || tgname, pg_get_triggerdef(oid) || tgenabled::text
        FROM pg_trigger WHERE NOT tgisinternal
    UNION ALL
    SELECT 'function', proname, prosrc FROM pg_proc WHERE pronamespace = 'public'::regnamespace
    UNION ALL
    SELECT 'table', oid::regclass::text, relkind::text
        FROM pg_class WHERE relkind IN ('r', 'p', 'S', 'v') AND relnamespace = 'public'::regnamespace
    """.replace("::", "\\:\\:")
)


def schema_of(connection: sa.Connection) -> Schema:
    """Return all that is in a database's schema, but for Alembic's own table."""
    on_sqlite = connection.dialect.name == "sqlite"
    rows = connection.execute(_SQLITE if on_sqlite else _POSTGRES).all()
    return {
        (kind, name): _in_any_order(words or "") if on_sqlite else words
        for kind, name, words in rows
        if "alembic_version" not in name
    }


def _in_any_order(sql: str) -> list[str]:
    """Return the words of a definition in any order: constraints are no more and no less, wherever they stand."""
    words = sql.replace("(", " ( ").replace(")", " ) ").replace(",", " , ").replace('"', "").split()
    return sorted(words)
