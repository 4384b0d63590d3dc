"""Blobs at a cloud's: the same answers as from a disk, and nothing half-stored, whatever the store does."""

from __future__ import annotations

import asyncio
import hashlib
import io
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import obstore
import pytest
from obstore.exceptions import GenericError

from kakoi.core.errors import KakoiError, Misuse, Unavailable
from kakoi.core.ids import BlobId
from kakoi.hub import remote, upkeep
from kakoi.hub.serve import HubServer, running
from kakoi.hub.settings import Limits, Settings
from kakoi.net.caller import Patience
from kakoi.net.client import HubClient
from support.clouds import Cloud, azure, google, s3
from support.hub_client import client_of
from unit.hub.hubkit import ZERO, World, put_all

pytestmark = [pytest.mark.xdist_group("clouds")]
PATIENT = Patience(attempts=4, backoff=0.01)
Call = Callable[..., Awaitable[Any]]


@pytest.fixture(scope="module", params=["s3", "azure", "google"])
def cloud(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    if request.param == "azure":
        with azure(tmp_path_factory.mktemp("azurite")) as made:
            yield made
    else:
        with s3() if request.param == "s3" else google() as made:
            yield made


@pytest.fixture
def settings(cloud: Cloud, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """A hub whose blobs lie there, under a prefix of their own."""
    for name, value in cloud.environment.items():
        monkeypatch.setenv(name, value)
    limits = Limits(stall_seconds=1, free_bytes=0)
    return Settings(directory=tmp_path / "hub", port=0, blobs=f"{cloud.url}/{os.urandom(4).hex()}", limits=limits)


@pytest.fixture
def server(settings: Settings) -> Iterator[HubServer]:
    with running(settings) as one:
        yield one


@pytest.fixture
def hub(server: HubServer) -> Iterator[HubClient]:
    with client_of(server, patience=PATIENT) as client:
        yield client


def name(data: bytes) -> BlobId:
    return BlobId(hashlib.sha256(data).hexdigest())


def put(hub: HubClient, data: bytes, blob: str = "") -> BlobId:
    named = BlobId(blob) if blob else name(data)
    hub.put_blob(named, io.BytesIO(data), len(data))
    return named


def code(call: Callable[[], object]) -> str:
    with pytest.raises(KakoiError) as caught:
        call()
    return caught.value.code


def test_blobs_come_back_as_they_went(hub: HubClient, settings: Settings) -> None:
    for size in (1, 70_000, 12 * 1024 * 1024 + 5):  # the last in several parts of the store's
        data = os.urandom(size)
        assert hub.blob_size(name(data)) is None
        assert put(hub, data) == name(data)
        assert hub.blob_size(name(data)) == size
        assert b"".join(hub.stream_blob(name(data), most=size)) == data
        assert hub.unverified_range(name(data), start=size // 2, length=1) == data[size // 2 : size // 2 + 1]
    assert not (settings.directory / "blobs").exists(), "nothing on the hub's own disk"
    assert upkeep.check(settings, blobs=True).objects == 0


def test_wrong_bytes_and_senders_that_vanish_leave_nothing(hub: HubClient, server: HubServer) -> None:
    assert code(partial(put, hub, os.urandom(6_000_000), ZERO)) == "hub.digest"

    async def vanishing() -> AsyncIterator[bytes]:
        yield bytes(6_000_000)
        raise Unavailable("hub.disconnected", "expected the whole body, got only its beginning")

    with pytest.raises(Unavailable):
        asyncio.run(server.hub.blobs.put(BlobId("1" * 64), 9_000_000, vanishing()))
    assert list(server.hub.blobs.stored()) == []
    assert code(lambda: list(hub.stream_blob(BlobId(ZERO), most=10))) == "hub.not-found"


def failing(original: Call, *, after: bool) -> Call:
    """``original``, which fails once: before doing anything, or after having done it."""
    left = [1]

    async def wrapped(*args: Any, **named: Any) -> Any:
        if left and not after:
            left.clear()
            raise GenericError("storage failed")
        result = await original(*args, **named)
        if left:
            left.clear()
            raise GenericError("storage failed, it said")
        return result

    return wrapped


@pytest.mark.parametrize("after", [False, True], ids=["failed", "stored-but-said-failed"])
@pytest.mark.parametrize("step", ["head_async", "put_async", "get_async"])
def test_each_step_of_storage_may_fail_or_lie(
    hub: HubClient, monkeypatch: pytest.MonkeyPatch, step: str, after: bool
) -> None:
    data = os.urandom(500_000)
    monkeypatch.setattr(obstore, step, failing(getattr(obstore, step), after=after))
    put(hub, data)
    assert b"".join(hub.stream_blob(name(data), most=len(data))) == data


def test_a_store_that_keeps_less_than_it_was_given_is_found_out(
    hub: HubClient, server: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = obstore.put_async

    async def truncating(store: Any, path: str, chunks: AsyncIterator[bytes], **named: Any) -> Any:
        whole = b"".join([chunk async for chunk in chunks])
        return await original(store, path, whole[:-1])

    with monkeypatch.context() as patch:
        patch.setattr(obstore, "put_async", truncating)
        assert code(partial(put, hub, bytes(100_000))) == "hub.storage"
    assert list(server.hub.blobs.stored()) == []
    put(hub, bytes(100_000))


def test_a_store_that_gives_less_than_it_has_is_asked_again(hub: HubClient, monkeypatch: pytest.MonkeyPatch) -> None:
    data = os.urandom(3_000_000)
    put(hub, data)
    original, cut = obstore.get_async, [1_000_000]

    async def short(store: Any, path: str, *, options: Any = None) -> Any:
        if cut and options is not None:
            start, end = options["range"]
            options = {"range": (start, min(end, start + cut.pop()))}
        return await original(store, path, options=options)

    monkeypatch.setattr(obstore, "get_async", short)
    assert b"".join(hub.stream_blob(name(data), most=len(data))) == data


def test_what_was_asked_for_is_not_collected(
    hub: HubClient, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World()
    put_all(hub, world.setup)
    named, orphan, asked = (put(hub, bytes([n]) * 1000) for n in range(3))
    hub.put_object(world.owner.sign("dataset-manifest", owner=world.owner.id, files=[{"blob": named}]))
    monkeypatch.setattr("kakoi.hub.blobs._RENEW_SECONDS", 0)
    time.sleep(1.1)  # stores keep whole seconds
    seen = int(time.time())
    time.sleep(1.1)
    assert hub.blob_size(asked) == 1000
    found = upkeep.collect(settings, now=seen, older_than=0, delete=True)
    assert (found.kept, found.deleted, found.deleted_bytes) == (2, 1, 1000)
    assert [hub.blob_size(blob) for blob in (named, orphan, asked)] == [1000, None, 1000]


def test_a_store_that_is_away_is_unavailable_and_the_hub_goes_on(
    settings: Settings, cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable, value in cloud.environment.items():
        monkeypatch.setenv(variable, value.replace(str(cloud.port), "1"))
    monkeypatch.setattr(remote, "_RETRIES", {"max_retries": 0})
    world = World()
    with running(settings) as one, client_of(one, patience=Patience(attempts=1)) as hub:
        assert code(lambda: list(hub.stream_blob(BlobId(ZERO), most=10))) == "hub.storage"
        put_all(hub, world.setup)


def test_the_directory_remembers_where_its_blobs_are(settings: Settings, cloud: Cloud) -> None:
    data = os.urandom(1000)
    with running(settings) as one, client_of(one) as hub:
        put(hub, data)
    plain = Settings(directory=settings.directory, port=0)
    with running(plain) as one, client_of(one) as hub:
        assert b"".join(hub.stream_blob(name(data), most=1000)) == data
    upkeep.backup(plain, settings.directory.parent / "copy")
    with running(Settings(directory=settings.directory.parent / "copy", port=0)) as one, client_of(one) as hub:
        assert hub.blob_size(name(data)) == 1000
    moved = Settings(directory=settings.directory, port=0, blobs=f"{cloud.url}/elsewhere")
    with pytest.raises(Misuse) as caught, running(moved):
        pass
    assert caught.value.code == "hub.blobs-moved"


@pytest.mark.parametrize("url", ["ftp://x/y", "s3://", "nonsense", "https://example.org/x"])
def test_addresses_that_are_none(tmp_path: Path, url: str) -> None:
    with pytest.raises(Misuse) as caught, running(Settings(directory=tmp_path / "hub", port=0, blobs=url)):
        pass
    assert caught.value.code == "hub.blobs-url"


_AWAY, _HERE = "http://198.51.100.1:9000", "http://127.0.0.1:1"
_AWS, _GOOGLE = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}, {"GOOGLE_BEARER_TOKEN": "test"}


@pytest.mark.parametrize(
    ("url", "environment"),
    [
        ("s3://bucket", _AWS | {"AWS_ENDPOINT_URL": _AWAY}),
        ("gs://bucket", _GOOGLE | {"GOOGLE_BASE_URL": _AWAY}),
        ("gs://bucket", _GOOGLE | {"GOOGLE_BASE_URL": _AWAY, "AWS_ENDPOINT_URL": _HERE}),
    ],
    ids=["s3", "google", "google-beside-an-emulator-of-s3"],
)
def test_credentials_go_nowhere_in_clear(
    url: str, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Plain http only to this machine: with an endpoint elsewhere not a byte leaves, whatever another cloud's endpoint is."""
    for variable, value in environment.items():
        monkeypatch.setenv(variable, value)
    made = remote.RemoteBlobs(url)
    with pytest.raises(Unavailable) as caught:
        asyncio.run(made.size(BlobId(ZERO)))
    assert caught.value.code == "hub.storage"
    assert "builder error" in str(caught.value.__cause__), "refused before a connection is tried"
