"""Run by Alembic: applies the revisions on the connection, and in the transaction, that `schema.migrate` hands over."""

from alembic import context

from processor.stores.tables import METADATA

context.configure(connection=context.config.attributes["connection"], target_metadata=METADATA)
with context.begin_transaction():
    context.run_migrations()
