"""Bringing an older hub's database to this version's tables. The hub itself only makes tables in an empty database."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, inspect, select

from kakoi.core.errors import Fatal
from kakoi.hub import schema
from kakoi.hub.database import begin_migration, open_engines, translated
from kakoi.hub.files import exclusively
from kakoi.hub.hub import database_url
from kakoi.hub.settings import Settings


def migrate(settings: Settings) -> str:
    """Upgrade the tables of a hub that does not run; the version they have now. Make a backup first.

    Raises Misuse if the hub runs, Fatal if the database is of a newer version than this program.
    """
    with exclusively(settings.directory):
        writer, reader = open_engines(database_url(settings))
        try:
            with translated(), writer.begin() as connection:
                begin_migration(connection)
                upgrade(connection)
        finally:
            writer.dispose()
            reader.dispose()
    return schema.VERSION


def upgrade(connection: Connection) -> None:
    """Apply the versions that are missing, in the caller's transaction."""
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.attributes["connection"] = connection
    if inspect(connection).has_table(schema.version.name):
        found = connection.execute(select(schema.version.c.version_num)).scalar_one()
        if found > schema.VERSION:
            raise Fatal(
                "hub.schema-newer",
                f"expected a database of at most version {schema.VERSION}, got {found}",
                hint="use the newer version of Kakoi that wrote it",
            )
    command.upgrade(config, schema.VERSION)
