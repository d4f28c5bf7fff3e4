"""Run by Alembic, in the transaction that `migrate` opened."""

from alembic import context

from bettong.storage.tables import metadata

context.configure(connection=context.config.attributes["transaction"], target_metadata=metadata, render_as_batch=True)
context.run_migrations()
