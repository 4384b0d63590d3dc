"""Large blobs in parts, what each party may keep, and who may ask how often."""

from __future__ import annotations

import hashlib
import io
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kakoi.core.errors import KakoiError, Malformed, Misuse, Refused
from kakoi.core.ids import BlobId
from kakoi.hub import upkeep
from kakoi.hub.budgets import Buckets, Budgets, Identity, Later, prefix_of
from kakoi.hub.serve import HubServer, running
from kakoi.hub.settings import Limits, Settings
from kakoi.net import client as client_module
from kakoi.net.caller import Call, Patience
from kakoi.net.client import HubClient
from support.hub_client import client_of
from unit.hub.hubkit import ZERO, World, audit_file, put_all

KIB = 1024
PART = 64 * KIB
LIMITS = Limits(part_bytes=PART, free_bytes=0)


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "PART", PART)


@contextmanager
def hub_with(directory: Path, limits: Limits = LIMITS) -> Iterator[tuple[HubServer, HubClient]]:
    with (
        running(Settings(directory=directory, port=0, limits=limits)) as server,
        client_of(server, patience=Patience(attempts=3, backoff=0.01)) as client,
    ):
        yield server, client
    audit_file(directory)


def name(data: bytes) -> BlobId:
    return BlobId(hashlib.sha256(data).hexdigest())


def put(hub: HubClient, data: bytes, **more: Any) -> BlobId:
    hub.put_blob(name(data), io.BytesIO(data), len(data), **more)
    return name(data)


def code(call: Callable[[], object]) -> str:
    with pytest.raises(KakoiError) as caught:
        call()
    return caught.value.code


def keeps(directory: Path) -> dict[str, tuple[int, int]]:
    """Blobs and bytes of everybody who keeps any."""
    found = upkeep.usage(Settings(directory=directory))
    return {item.identity: (item.blobs, item.blob_bytes) for item in found if item.blobs}


LOOPBACK = "prefix:127.0.0.0/24"


# -- parts


@pytest.mark.parametrize("size", [PART + 1, 5 * PART, 5 * PART + 17])
def test_a_large_blob_goes_and_comes_in_parts(tmp_path: Path, size: int) -> None:
    data = os.urandom(size)
    sent: list[int] = []
    with hub_with(tmp_path / "hub") as (server, hub):
        put(hub, data, progress=sent.append)
        assert sum(sent) == size
        assert b"".join(hub.stream_blob(name(data), most=size)) == data
        got: list[int] = []
        hub.fetch_blob(name(data), tmp_path / "copy", most=size, progress=got.append)
        assert (tmp_path / "copy").read_bytes() == data
        assert sum(got) == size
        put(hub, data)
        assert [item.blob for item in server.hub.blobs.stored()] == [name(data)], "no parts are left"
    assert keeps(tmp_path / "hub") == {LOOPBACK: (1, size)}


def test_an_upload_goes_on_where_it_ended(tmp_path: Path) -> None:
    """The client dies after three parts of eight, and the hub too; five parts travel afterwards."""
    data = os.urandom(8 * PART)
    taken: list[bytes] = []

    class Dying(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            if self.tell() >= 3 * PART:
                raise OSError(5, "the disk went away")
            return super().read(size)

    with hub_with(tmp_path / "hub") as (_, hub):
        assert code(lambda: hub.put_blob(name(data), Dying(data), len(data))) == "net.source"
        assert hub.blob_size(name(data)) is None
    with hub_with(tmp_path / "hub") as (server, hub):
        original = server.hub.blobs.put_part

        async def counted(upload: str, number: int, digest: str, data: bytes | bytearray) -> None:
            taken.append(bytes(data))
            await original(upload, number, digest, data)

        server.hub.blobs.put_part = counted  # type: ignore[method-assign]
        put(hub, data)
        assert b"".join(hub.stream_blob(name(data), most=len(data))) == data
    assert 5 <= len(taken) <= 6  # a part that was under way may have arrived or not
    assert keeps(tmp_path / "hub") == {LOOPBACK: (1, len(data))}


def test_a_download_goes_on_where_it_ended(tmp_path: Path) -> None:
    data = os.urandom(6 * PART)
    with hub_with(tmp_path / "hub") as (_, hub):
        put(hub, data)
        (tmp_path / "copy.part").write_bytes(data[: 4 * PART])
        asked: list[int] = []
        original = hub._unverified

        def counted(blob: BlobId, start: int, length: int) -> bytes:
            asked.append(start)
            return original(blob, start, length)

        hub._unverified = counted  # type: ignore[method-assign]
        hub.fetch_blob(name(data), tmp_path / "copy", most=len(data))
        assert (tmp_path / "copy").read_bytes() == data
        assert sorted(asked) == [4 * PART, 5 * PART]
        (tmp_path / "other.part").write_bytes(bytes(PART))  # of something else
        assert code(lambda: hub.fetch_blob(name(data), tmp_path / "other", most=len(data))) == "hub.blob-altered"
        assert not (tmp_path / "other.part").exists()
        hub.fetch_blob(name(data), tmp_path / "other", most=len(data))
        assert code(lambda: hub.fetch_blob(BlobId(ZERO), tmp_path / "none", most=9)) == "hub.not-found"
        assert code(lambda: hub.fetch_blob(name(data), tmp_path / "none", most=9)) == "hub.answer-size"


def test_parts_are_checked_one_by_one_and_together(tmp_path: Path) -> None:
    data = os.urandom(2 * PART)
    digest = hashlib.sha256(data[:PART]).hexdigest()

    def part(number: object, body: bytes, named: str = digest, size: int = len(data)) -> Call:
        target = f"/v1/blobs/{name(data)}/parts/{number}?size={size}&sha256={named}"
        return Call(method="PUT", target=target, body=body)

    def join(blob: str, size: int = len(data)) -> Call:
        return Call(method="POST", target=f"/v1/blobs/{blob}/parts?size={size}")

    with hub_with(tmp_path / "hub") as (server, hub):
        send = partial(hub._caller.read, limit=1000)
        assert code(lambda: send(part(0, data[PART:]))) == "hub.blob-digest"
        assert code(lambda: send(part(0, data))) == "hub.too-large"
        assert code(lambda: send(part(2, data[:PART]))) == "hub.part"
        assert code(lambda: send(part("x", data[:PART]))) == "hub.query"
        assert code(lambda: send(part(0, data[:PART], named="x"))) == "encoding.id"
        assert code(lambda: send(part(0, data[:PART], size=2**52))) == "hub.too-large"
        send(part(0, data[:PART]))
        assert code(lambda: send(join(name(data)))) == "hub.parts-missing"
        send(part(1, data[:PART]))  # a part of another file, honestly named
        assert code(lambda: send(join(name(data)))) == "hub.blob-digest"
        assert list(server.hub.blobs.stored()) == [], "what can never become the blob is gone"
        assert code(lambda: send(join(ZERO))) == "hub.parts-missing"
        put(hub, data)
    assert keeps(tmp_path / "hub") == {LOOPBACK: (1, len(data))}


def test_a_file_that_is_not_what_it_is_called_is_not_sent_to_its_end(tmp_path: Path) -> None:
    with hub_with(tmp_path / "hub") as (_, hub):
        data = os.urandom(3 * PART)
        with pytest.raises(Misuse) as caught:
            hub.put_blob(BlobId(ZERO), io.BytesIO(data), len(data))
        assert caught.value.code == "net.source"
        assert hub.blob_size(BlobId(ZERO)) is None


def test_two_clients_send_the_same_blob_at_once(tmp_path: Path) -> None:
    data, errors = os.urandom(7 * PART), []
    with hub_with(tmp_path / "hub") as (server, _):

        def send() -> None:
            try:
                with client_of(server) as hub:
                    put(hub, data)
            except KakoiError as error:
                errors.append(error)

        threads = [threading.Thread(target=send) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(timeout=60)
        assert errors == []
        with client_of(server) as hub:
            assert b"".join(hub.stream_blob(name(data), most=len(data))) == data
    assert keeps(tmp_path / "hub") == {LOOPBACK: (1, len(data))}


def test_what_is_left_of_an_upload_is_collected(tmp_path: Path) -> None:
    data = os.urandom(2 * PART)
    settings = Settings(directory=tmp_path / "hub", port=0, limits=LIMITS)
    with hub_with(tmp_path / "hub") as (server, hub):
        digest = hashlib.sha256(data[:PART]).hexdigest()
        target = f"/v1/blobs/{name(data)}/parts/0?size={len(data)}&sha256={digest}"
        hub._caller.read(Call(method="PUT", target=target, body=data[:PART]), 1000)
        now = int(server.hub.blobs.stored().__next__().used)
        assert upkeep.collect(settings, now=now, delete=True).deleted == 0
        assert upkeep.collect(settings, now=now + 8 * upkeep.DAY, delete=True).deleted_bytes == PART
    assert not any((tmp_path / "hub" / "blobs" / ".uploads").iterdir())


# -- quotas


def test_uploads_that_fail_cost_nothing(tmp_path: Path) -> None:
    with hub_with(tmp_path / "hub") as (_, hub):
        for _ in range(3):
            with pytest.raises((Malformed, Refused)):
                hub.put_blob(BlobId(ZERO), io.BytesIO(b"no"), 2)
    assert keeps(tmp_path / "hub") == {}


def test_objects_count_against_their_signer(tmp_path: Path) -> None:
    world = World()
    limits = Limits(free_bytes=0, quota_objects=5)
    with hub_with(tmp_path / "hub", limits) as (_, hub):
        put_all(hub, world.setup)
        put_all(hub, [world.owner.sign("analysis", author=world.owner.id, n=n) for n in range(4)])
        last = world.owner.sign("analysis", author=world.owner.id, n=5)
        assert code(lambda: hub.put_object(last)) == "hub.quota"
        hub.put_object(world.manifest)  # what is there costs nothing
        hub.put_object(world.analyst.sign("analysis", author=world.analyst.id))
        assert hub.log_checkpoint().splitlines()[1] == b"8"
    found = {item.identity: item.objects for item in upkeep.usage(Settings(directory=tmp_path / "hub"))}
    assert found == {LOOPBACK: 3, f"party:{world.owner.id}": 5, f"party:{world.analyst.id}": 3}


def test_the_operator_allows_a_party_more_or_less(tmp_path: Path) -> None:
    settings = Settings(directory=tmp_path / "hub", port=0)
    with hub_with(tmp_path / "hub"):
        upkeep.allow(settings, ZERO, 12345)
        assert [(item.identity, item.most_bytes) for item in upkeep.usage(settings)] == [(f"party:{ZERO}", 12345)]
        upkeep.allow(settings, ZERO, None)
        assert upkeep.usage(settings)[0].most_bytes == Limits().quota_bytes


# -- budgets


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_bucket_fills_as_time_passes_and_never_over_its_brim() -> None:
    clock = Clock()
    buckets = Buckets(2, 10, clock)
    assert [buckets.take("a") for _ in range(10)] == [0] * 10
    assert buckets.take("a") == pytest.approx(0.5)
    assert buckets.take("b") == 0, "others have their own"
    clock.now += 1
    assert buckets.take("a", 2) == 0
    assert buckets.wait("a", 3) == pytest.approx(1.5)
    clock.now += 1000
    assert buckets.wait("a", 10) == 0
    assert buckets.take("a", 11) == 0, "more than ever fits is given when it is full"
    assert buckets.take("a") > 0


def test_the_number_of_buckets_is_bounded() -> None:
    buckets = Buckets(1, 1, Clock(), most=100)
    for number in range(1000):
        buckets.take(f"n{number}")
    assert len(buckets) == 100
    assert buckets.take("n999") > 0, "the newest are remembered"


@pytest.mark.parametrize(
    ("host", "prefix"),
    [
        ("203.0.113.77", "203.0.113.0/24"),
        ("::ffff:203.0.113.77", "203.0.113.0/24"),
        ("2001:db8:1:2:3::1", "2001:db8:1::/56"),
        ("fe80::1%eth0", "fe80::/56"),
        ("", "local"),
        ("testclient", "local"),
    ],
)
def test_prefixes(host: str, prefix: str) -> None:
    assert prefix_of(host) == prefix


@given(st.text(max_size=50))
def test_any_text_has_a_prefix(text: str) -> None:
    assert prefix_of(text)


def test_a_network_that_asks_too_often_is_told_when_to_come_back() -> None:
    clock = Clock()
    budgets = Budgets(Limits(prefix_requests=1), clock)
    flood, other = Identity(prefix="a"), Identity(prefix="b")
    for _ in range(20):
        budgets.request(flood)
    with pytest.raises(Later) as caught:
        budgets.request(flood)
    assert caught.value.code == "hub.rate"
    assert caught.value.after == pytest.approx(1)
    budgets.request(other)


def test_the_answer_says_when_and_the_client_adds_chance(tmp_path: Path) -> None:
    with hub_with(tmp_path / "hub") as (server, _):
        server.hub.budgets._requests = Buckets(0.5, 1, server.hub.budgets._requests._clock)
        pauses: list[float] = []

        def pause(seconds: float) -> None:
            pauses.append(seconds)
            server.hub.budgets._requests = Buckets(0.5, 1, server.hub.budgets._requests._clock)

        with client_of(server, pause=pause, chance=lambda: 0.5) as hub:
            hub.health()
            hub.health()
    assert pauses == [pytest.approx(2 * 1.25 + 0.5 * 0.4)]
