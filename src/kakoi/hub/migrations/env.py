"""What Alembic runs around the versions. It works on a connection that ``kakoi.hub.migrate`` opened."""

from alembic import context

from kakoi.hub.schema import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata, render_as_batch=True)
with context.begin_transaction():
    context.run_migrations()
