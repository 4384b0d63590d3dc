"""Changes of the hub's tables, one file per version, applied by Alembic (``kakoi.hub.migrate``)."""
