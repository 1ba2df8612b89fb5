"""What Alembic runs for every command; `hydrasms_app.migrate` gives it the connection."""

from alembic import context

from hydrasms_app.schema import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    # SQLite can change its schema inside a transaction, whatever Alembic supposes: all steps or none.
    transactional_ddl=True,
)
with context.begin_transaction():
    context.run_migrations()
