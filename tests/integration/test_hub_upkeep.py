"""Upkeep of a hub: what a backup holds, what a collection leaves, what a check finds."""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import select

from kakoi.core.dsse import Envelope
from kakoi.core.errors import Fatal, Misuse
from kakoi.core.ids import BlobId
from kakoi.hub import migrate, schema, upkeep
from kakoi.hub.database import open_engines
from kakoi.hub.log import SecretLogKey
from kakoi.hub.serve import running
from kakoi.hub.settings import Settings
from kakoi.net import log as reading
from kakoi.net.client import HubClient
from support.hub_client import client_at, client_of
from support.postgresql import Cluster, cluster
from unit.hub.hubkit import Party, World, put_all


def put(hub: HubClient, data: bytes) -> BlobId:
    name = BlobId(hashlib.sha256(data).hexdigest())
    hub.put_blob(name, io.BytesIO(data), len(data))
    return name


def age(directory: Path, blob: BlobId, days: float) -> None:
    path = directory / "blobs" / blob[:2] / blob
    then = time.time() - days * upkeep.DAY
    os.utime(path, (then, then))


def test_collection_takes_what_nobody_names_and_nobody_asked_for(tmp_path: Path) -> None:
    settings, world = Settings(directory=tmp_path, port=0), World()
    now = int(time.time())
    with running(settings) as one, client_of(one) as hub:
        put_all(hub, world.setup)
        named, orphan, asked, fresh = (put(hub, bytes([n]) * 1000) for n in range(4))
        hub.put_object(world.owner.sign("dataset-manifest", owner=world.owner.id, files=[{"blob": named}]))
        for blob in (named, orphan, asked):
            age(tmp_path, blob, days=30)
        assert hub.blob_size(asked) == 1000  # a client that finds it here will not send it: it must stay
        seen = upkeep.collect(settings, now=now, delete=False)
        assert (seen.kept, seen.deleted, seen.deleted_bytes) == (3, 1, 1000)
        assert hub.blob_size(fresh) == 1000
        age(tmp_path, orphan, days=30)
        assert upkeep.collect(settings, now=now, delete=True) == seen
        assert hub.blob_size(orphan) is None
        for blob in (named, asked, fresh):
            assert hub.blob_size(blob) == 1000
        assert upkeep.collect(settings, now=now, delete=True).deleted == 0


def test_a_backup_of_a_busy_hub_is_a_sound_hub(tmp_path: Path) -> None:
    """Everything confirmed before the backup began is in it; what came during it is whole or absent."""
    settings, world = Settings(directory=tmp_path / "hub", port=0), World()
    confirmed: list[Envelope] = []
    stop = threading.Event()

    def write(url: str) -> None:
        party = Party("Busy")
        with client_at(url) as hub:
            hub.put_object(party.card)
            number = 0
            while not stop.is_set():
                envelope = party.sign("analysis", author=party.id, number=number)
                hub.put_object(envelope)
                confirmed.append(envelope)
                number += 1

    with running(settings) as one, client_of(one) as hub:
        put_all(hub, world.setup)
        blob = put(hub, bytes(3_000_000))
        thread = threading.Thread(target=write, args=(one.url,))
        thread.start()
        time.sleep(0.5)
        key = SecretLogKey.decode((tmp_path / "hub" / "log-key.json").read_bytes()).public
        seen = reading.advance(hub, key, None)
        before = list(confirmed)
        upkeep.backup(settings, tmp_path / "backup")
        assert upkeep.check(settings, blobs=True).size >= len(before)  # on the hub that goes on writing
        stop.set()
        thread.join()
    found = upkeep.check(Settings(directory=tmp_path / "backup"), blobs=True)
    assert found.size >= max(seen.size, len(before))
    shutil.rmtree(tmp_path / "hub")  # the disaster
    (tmp_path / "backup").rename(tmp_path / "hub")
    with running(settings) as one, client_of(one) as hub:
        for envelope in [*world.setup, *before]:
            assert hub.get_object(envelope.payload_id) == envelope
        assert b"".join(hub.stream_blob(blob, most=3_000_000)) == bytes(3_000_000)
        assert reading.advance(hub, key, seen).size == found.size
        put_all(hub, confirmed)  # clients send again what they had sent after the backup
        assert reading.advance(hub, key, seen).size >= len(confirmed)


def test_an_old_backup_beside_the_newest_checkpoint_does_not_start(tmp_path: Path) -> None:
    settings, world = Settings(directory=tmp_path / "hub", port=0), World()
    with running(settings) as one, client_of(one) as hub:
        put_all(hub, world.setup[:5])
        hub.log_checkpoint()
        upkeep.backup(settings, tmp_path / "old")
        hub.put_object(world.contract)
        hub.log_checkpoint()
    shutil.copy(tmp_path / "hub" / "checkpoint", tmp_path / "old" / "checkpoint")
    with pytest.raises(Fatal) as caught, running(Settings(directory=tmp_path / "old", port=0)):
        pass
    assert caught.value.code == "log.rolled-back"


def test_the_check_finds_a_damaged_blob(tmp_path: Path) -> None:
    settings = Settings(directory=tmp_path, port=0)
    with running(settings) as one, client_of(one) as hub:
        blob = put(hub, bytes(100_000))
    assert upkeep.check(settings, blobs=True).objects == 0
    path = tmp_path / "blobs" / blob[:2] / blob
    data = bytearray(path.read_bytes())
    data[50_000] ^= 1
    path.write_bytes(data)
    assert upkeep.check(settings, blobs=False).objects == 0
    with pytest.raises(Fatal) as caught:
        upkeep.check(settings, blobs=True)
    assert caught.value.code == "hub.blob-damaged"


@pytest.fixture(scope="module")
def postgresql(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with cluster(tmp_path_factory.mktemp("postgresql")) as made:
        yield made


@pytest.fixture(params=["sqlite", "postgresql"])
def empty(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """URL of an empty database."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'empty.sqlite'}"
    made: Cluster = request.getfixturevalue("postgresql")
    return made.database()


@pytest.mark.xdist_group("postgresql")
def test_migrations_lead_to_the_tables_of_the_source(empty: str) -> None:
    """Alembic, from nothing, makes what the hub makes in an empty database: compared table by table."""
    writer, reader = open_engines(empty)
    try:
        with writer.begin() as connection:
            migrate.upgrade(connection)
        with writer.begin() as connection:
            context = MigrationContext.configure(connection, opts={"compare_type": True})
            assert compare_metadata(context, schema.metadata) == []
            assert connection.execute(select(schema.version.c.version_num)).scalar_one() == schema.VERSION
            assert connection.execute(select(schema.head)).one() == (1, 0, 0, 0)
            migrate.upgrade(connection)  # again changes nothing
    finally:
        writer.dispose()
        reader.dispose()


@pytest.mark.xdist_group("postgresql")
def test_a_migrated_database_is_a_hubs(empty: str, tmp_path: Path) -> None:
    settings, world = Settings(directory=tmp_path / "hub", port=0, database_url=empty), World()
    settings.directory.mkdir()
    assert migrate.migrate(settings) == schema.VERSION
    with running(settings) as one, client_of(one) as hub:
        put_all(hub, world.setup)
        with pytest.raises(Misuse) as caught:
            migrate.migrate(settings)
        assert caught.value.code == "hub.already-running"
    assert migrate.migrate(settings) == schema.VERSION
    assert upkeep.check(settings, blobs=True).objects == len(world.setup)


def test_a_database_of_a_newer_version_is_left_alone(tmp_path: Path) -> None:
    settings = Settings(directory=tmp_path, port=0)
    with running(settings):
        pass
    with closing(sqlite3.connect(tmp_path / "hub.sqlite")) as database:
        database.execute("update alembic_version set version_num = '9999'")
        database.commit()
    with pytest.raises(Fatal) as caught:
        migrate.migrate(settings)
    assert caught.value.code == "hub.schema-newer"


def test_directories_that_are_no_hubs(tmp_path: Path) -> None:
    nothing = Settings(directory=tmp_path / "nothing")
    for call in (
        lambda: upkeep.check(nothing, blobs=False),
        lambda: upkeep.collect(nothing, now=0, delete=False),
        lambda: upkeep.backup(nothing, tmp_path / "copy"),
    ):
        with pytest.raises(Misuse) as caught:
            call()
        assert caught.value.code == "hub.no-database"
    with running(Settings(directory=tmp_path / "hub", port=0)):
        pass
    with pytest.raises(Misuse):
        upkeep.backup(Settings(directory=tmp_path / "hub"), tmp_path / "hub")
    with pytest.raises(Misuse) as caught:
        upkeep.backup(Settings(directory=tmp_path / "hub", database_url="postgresql://x"), tmp_path / "copy")
    assert caught.value.code == "hub.backup"
