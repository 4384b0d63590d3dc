"""What an operator does to a hub besides running it: check it, back it up, collect what nobody names.

All of it works on a hub that runs.
"""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sqlalchemy import Connection, create_engine, select

from kakoi.core.errors import Fatal, Misuse
from kakoi.hub import networks, quota, schema
from kakoi.hub.audit import Audit, audit
from kakoi.hub.blobs import storage_errors
from kakoi.hub.budgets import Identity
from kakoi.hub.database import open_engines, translated
from kakoi.hub.files import TEMPORARY, disk_errors, sync_directory, write_whole
from kakoi.hub.hub import DATABASE_FILE, TOKEN_FILE, database_url
from kakoi.hub.listen import networks as networks_in
from kakoi.hub.log import CHECKPOINT_FILE, KEY_FILE
from kakoi.hub.remote import URL_FILE, open_blobs
from kakoi.hub.settings import Settings

DAY: Final = 86400
BACKUP_FILE: Final = "last-backup"
"""An empty file: its time says when the last copy was made."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Collected:
    """What ``collect`` found. Sizes are bytes."""

    kept: int
    deleted: int
    deleted_bytes: int


@contextmanager
def _connected(settings: Settings) -> Iterator[Connection]:
    url = database_url(settings)
    if not settings.database_url and not (settings.directory / DATABASE_FILE).exists():
        raise Misuse("hub.no-database", "expected the directory of a hub, got one without its database")
    sqlite = url.startswith("sqlite")
    engine = create_engine(url, isolation_level="AUTOCOMMIT" if sqlite else "REPEATABLE READ")
    with ExitStack() as stack:
        stack.callback(engine.dispose)
        stack.enter_context(translated())
        connection = stack.enter_context(engine.connect())
        if sqlite:
            connection.exec_driver_sql("BEGIN")  # one view of everything, while the hub goes on
        yield connection


def check(settings: Settings, *, blobs: bool) -> Audit:
    """Re-verify the database (``audit``) and, if ``blobs``, the digest of every blob. Raises Fatal."""
    with _connected(settings) as connection:
        found = audit(connection)
    store = open_blobs(settings) if blobs else None
    with storage_errors():
        stored = list(store.stored()) if store is not None else []
    for item in stored:
        if store is not None and item.blob and store.digest(item.blob) != item.blob:
            raise Fatal(
                "hub.blob-damaged", "expected every blob to have the digest in its name, got another", hint=item.blob
            )
    return found


def collect(settings: Settings, *, now: int, older_than: int = 7 * DAY, delete: bool) -> Collected:
    """Delete blobs (or, without ``delete``, count them) that no object names and nobody asked for in ``older_than`` seconds.

    The age protects uploads whose manifest is still to come: asking for a blob, or sending it again, renews it.
    """
    with _connected(settings) as connection:
        named = set(connection.execute(select(schema.refs.c.value).where(schema.refs.c.member == "blob")).scalars())
    kept = deleted = size = 0
    store = open_blobs(settings)
    gone: list[str] = []
    with storage_errors():
        found = list(store.stored())
    for item in found:
        if item.used > now - older_than or (item.blob and item.blob in named):
            kept += 1
            continue
        deleted, size = deleted + 1, size + item.size
        if delete:
            store.delete(item)
            gone.append(item.blob)
    _forget(settings, [blob for blob in gone if blob])
    return Collected(kept=kept, deleted=deleted, deleted_bytes=size)


def _forget(settings: Settings, gone: Sequence[str]) -> None:
    """Give the quota of collected blobs back, beside a hub that may be running."""
    if not gone:
        return
    with _changing(settings) as connection:
        for blob in gone:
            quota.forget(connection, blob)


@contextmanager
def _changing(settings: Settings) -> Iterator[Connection]:
    writer, reader = open_engines(database_url(settings))
    with ExitStack() as stack:
        stack.callback(writer.dispose)
        stack.callback(reader.dispose)
        stack.enter_context(translated())
        yield stack.enter_context(writer.begin())


def usage(settings: Settings) -> list[quota.Usage]:
    """Who keeps how much here, the largest first."""
    with _connected(settings) as connection:
        return quota.all_usage(connection, settings.limits)


def allow(settings: Settings, party: str, most_bytes: int | None) -> None:
    """Let a party keep ``most_bytes`` of blobs; None: as much as others."""
    with _connected(settings):
        pass  # a hub's directory, or a clear error
    with _changing(settings) as connection:
        quota.allow(connection, Identity(prefix="", party=party).name, most_bytes)


def networks_of(settings: Settings) -> dict[str, tuple[str, ...]]:
    """From where parties may ask, by the id of their first card; those that may from everywhere are not in it."""
    with _connected(settings) as connection:
        return {party: tuple(map(str, found)) for party, found in networks.read(connection).items()}


def allow_networks(settings: Settings, party: str, texts: Sequence[str]) -> None:
    """Let a party ask only from these networks; none: from everywhere. A running hub follows within seconds."""
    wanted = networks_in(texts)
    with _connected(settings):
        pass  # a hub's directory, or a clear error
    with _changing(settings) as connection:
        networks.write(connection, party, wanted)


def backed_up_at(directory: Path) -> int | None:
    """When ``backup`` last copied this hub, in seconds since the epoch."""
    try:
        return int((directory / BACKUP_FILE).stat().st_mtime)
    except OSError:
        return None


def backup(settings: Settings, target: Path) -> None:
    """Copy a hub, which may be running, to a new directory ``target``. Raises Misuse if that exists.

    The order makes the copy consistent: first the checkpoint, then the database (which therefore holds at least what was
    signed), then the blobs (at least those that the database's objects name). Blobs in a cloud's store are not copied: its
    versioning keeps them, and the copy knows where they are.
    """
    source = settings.directory
    if settings.database_url:
        raise Misuse(
            "hub.backup", "expected a hub with a database of its own, got one on a database server", hint="pg_dump"
        )
    if not (source / DATABASE_FILE).exists():
        raise Misuse("hub.no-database", "expected the directory of a hub, got one without its database")
    with disk_errors(target.parent):
        target.mkdir(mode=0o700)
        for name in (CHECKPOINT_FILE, KEY_FILE, TOKEN_FILE, URL_FILE):
            if (source / name).exists():
                open_to_all = name in (CHECKPOINT_FILE, URL_FILE)
                write_whole(target / name, (source / name).read_bytes(), mode=0o644 if open_to_all else 0o600)
        with (
            closing(sqlite3.connect(source / DATABASE_FILE)) as database,
            closing(sqlite3.connect(target / DATABASE_FILE)) as copy,
        ):
            database.backup(copy)
        for path in _blobs(source):
            place = target / "blobs" / path.parent.name / path.name
            place.parent.mkdir(parents=True, exist_ok=True)
            part = place.with_name(TEMPORARY + path.name)
            shutil.copyfile(path, part)
            part.replace(place)
            sync_directory(place.parent)
        write_whole(source / BACKUP_FILE, b"")


def _blobs(directory: Path) -> Iterator[Path]:
    """Files of a hub's blobs, without those that are arriving."""
    return (path for path in sorted((directory / "blobs").glob("??/*")) if not path.name.startswith(TEMPORARY))
