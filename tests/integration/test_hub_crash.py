"""A hub that is killed, wherever and whenever, loses nothing that it confirmed and does nothing twice."""

from __future__ import annotations

import hashlib
import io
import os
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from kakoi.core.dsse import Envelope
from kakoi.core.errors import KakoiError, Unavailable
from kakoi.core.ids import BlobId
from kakoi.hub.log import SecretLogKey
from kakoi.hub.serve import running
from kakoi.hub.settings import Limits, Settings
from kakoi.net import log as reading
from kakoi.net.answers import Claim
from kakoi.net.caller import Patience
from kakoi.net.client import HubClient
from kakoi.tlog.checkpoint import VerifiedCheckpoint
from support.hub_client import client_at, client_of
from unit.hub.hubkit import HubProcess, Party, World, audit_file, put_all

ONCE = Patience(attempts=1, idle=10)


class Writer(threading.Thread):
    """Puts objects until the hub is gone; remembers what was confirmed, and what was under way."""

    def __init__(self, url: str, name: str) -> None:
        super().__init__()
        self.party = Party(name)
        self.url = url
        self.confirmed: list[Envelope] = []
        self.sent: list[Envelope] = []

    def run(self) -> None:
        with client_at(self.url, patience=ONCE) as hub:
            try:
                hub.put_object(self.party.card)
                for number in range(100_000):
                    envelope = self.party.sign("analysis", author=self.party.id, number=number)
                    self.sent.append(envelope)
                    hub.put_object(envelope)
                    self.confirmed.append(envelope)
            except KakoiError:
                return


@contextmanager
def hub_at(directory: Path) -> Iterator[HubClient]:
    """A hub in this process, which stops cleanly and has a sound state then."""
    with running(Settings(directory=directory, port=0)) as one, client_of(one) as client:
        yield client
    audit_file(directory)


def reread(hub: HubClient, envelopes: list[Envelope]) -> None:
    for envelope in envelopes:
        assert hub.get_object(envelope.payload_id) == envelope


@pytest.mark.slow
def test_killed_during_a_stream_of_objects(tmp_path: Path) -> None:
    process = HubProcess(tmp_path / "hub")
    seen: VerifiedCheckpoint | None = None
    everything: list[Envelope] = []
    for delay in (0.1, 0.6):
        url = process.start()
        key = SecretLogKey.decode((tmp_path / "hub" / "log-key.json").read_bytes()).public
        writers = [Writer(url, f"writer {delay} {number}") for number in range(3)]
        for writer in writers:
            writer.start()
        time.sleep(delay)
        with client_at(url) as hub:
            seen = reading.advance(hub, key, seen)
        time.sleep(delay)
        process.kill()
        for writer in writers:
            writer.join()
        everything += [envelope for writer in writers for envelope in writer.confirmed]
        found = process.audit()
        assert found.size >= max(len(everything), seen.size)

        url = process.start()
        with client_at(url) as hub:
            seen = reading.advance(hub, key, seen)
            assert seen.size == found.size
            reread(hub, everything)
            for writer in writers:  # replays: what was confirmed, and what was under way when it died
                hub.put_object(writer.party.card)
                for envelope in writer.sent:
                    hub.put_object(envelope)
            everything += [e for writer in writers for e in writer.sent[len(writer.confirmed) :]]
            seen = reading.advance(hub, key, seen)
            assert seen.size == len(everything)
            entries = [
                entry.id for start in range(0, seen.size, 1000) for entry in hub.log_entries(start, seen.size)[:1000]
            ]
            assert sorted(entries) == sorted(envelope.payload_id for envelope in everything)
        process.stop()
    assert process.audit().size == len(everything) > 12


# Where it dies, and whether the object that was under way at that moment must have survived.
POINTS = {
    "kakoi.hub.objects:store:before": False,
    "kakoi.hub.objects:store:after": False,
    "kakoi.hub.database:Transaction.finish:before": False,
    "kakoi.hub.database:Transaction.finish:after": False,
    "kakoi.hub.database:Database._deliver:before": True,
    "kakoi.hub.database:Database._deliver:after": True,
}


@pytest.mark.parametrize(("point", "survives"), POINTS.items())
def test_killed_at_each_step_of_storing(tmp_path: Path, point: str, survives: bool) -> None:
    world, process = World(), HubProcess(tmp_path / "hub")
    number = len(world.setup) + ("finish" in point)  # the first transaction of a new hub writes the log's identity
    url = process.start(die=f"{point}:{number}")
    with client_at(url, patience=ONCE) as hub:
        put_all(hub, world.setup[:-1])
        with pytest.raises(Unavailable):
            hub.put_object(world.setup[-1])
    process.died()
    assert process.audit().objects == len(world.setup) - (0 if survives else 1)
    with hub_at(process.directory) as hub:
        put_all(hub, world.setup)
        put_all(hub, world.setup)
    assert process.audit().objects == len(world.setup)
    assert process.audit().size == 3


@pytest.mark.parametrize(
    "name", ["kakoi.hub.log:write_whole", "kakoi.hub.log:checkpoint.sign", "kakoi.hub.files:sync_directory"]
)
@pytest.mark.parametrize("when", ["before", "after"])
def test_killed_at_each_step_of_signing_a_checkpoint(tmp_path: Path, name: str, when: str) -> None:
    world, process = World(), HubProcess(tmp_path / "hub")
    with hub_at(process.directory) as hub:  # once without dying, so that key and token exist
        put_all(hub, world.setup[:-1])
        key = SecretLogKey.decode((tmp_path / "hub" / "log-key.json").read_bytes()).public
        seen = reading.advance(hub, key, None)
        hub.put_object(world.setup[-1])
    first = 2 if name.endswith("sync_directory") else 1  # the address file is the first to be written
    with client_at(process.start(die=f"{name}:{when}:{first}"), patience=ONCE) as hub, pytest.raises(Unavailable):
        reading.advance(hub, key, seen)
    process.died()
    with hub_at(process.directory) as hub:
        assert reading.advance(hub, key, seen).size == 3
        put_all(hub, [world.approval(world.owner), world.approval(world.analyst)])
        assert reading.advance(hub, key, seen).size == 5
    assert process.audit().size == 5


@pytest.fixture
def blob() -> tuple[BlobId, bytes]:
    data = os.urandom(3_000_000)
    return BlobId(hashlib.sha256(data).hexdigest()), data


@pytest.mark.parametrize(
    "point", ["kakoi.hub.blobs:_sync", "kakoi.hub.blobs:sync_directory", "kakoi.hub.blobs:LocalBlobs.require_space"]
)
@pytest.mark.parametrize("when", ["before", "after"])
def test_killed_at_each_step_of_an_upload(tmp_path: Path, blob: tuple[BlobId, bytes], point: str, when: str) -> None:
    name, data = blob
    process = HubProcess(tmp_path / "hub")
    url = process.start(die=f"{point}:{when}:1")
    with client_at(url, patience=ONCE) as hub, pytest.raises(Unavailable):
        hub.put_blob(name, io.BytesIO(data), len(data))
    process.died()
    with hub_at(process.directory) as hub:
        assert list((tmp_path / "hub").rglob(".incoming-*")) == []
        assert hub.blob_size(name) in (None, len(data))  # whole or not at all
        hub.put_blob(name, io.BytesIO(data), len(data))
        assert b"".join(hub.stream_blob(name, most=len(data))) == data


def test_a_claim_outlives_the_hub(tmp_path: Path) -> None:
    world, process = World(), HubProcess(tmp_path / "hub")
    with client_at(process.start()) as hub:
        put_all(hub, world.setup)
        runs = [hub.put_object(world.request(number)).id for number in range(2)]
        mine = hub.claim(enclave="e", seconds=60)
        assert mine is not None
    process.kill()
    with client_at(process.start()) as hub:
        hub.renew(mine)
        hub.put_object(world.session(mine.run)[1], claim=mine.token)
        other = hub.claim(enclave="f", seconds=60)
        assert other is not None
        assert [mine.run, other.run] == runs
    process.kill()
    with client_at(process.start()) as hub:
        assert hub.finish(mine).state == "done"
        assert hub.fail(other).state == "failed"
    process.kill()
    with client_at(process.start()) as hub:
        assert hub.finish(mine).state == "done"
        assert [hub.run(run).state for run in runs] == ["done", "failed"]
    process.stop()
    process.audit()


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_claim_whose_answer_was_lost_comes_back(tmp_path: Path, when: str) -> None:
    world, process = World(), HubProcess(tmp_path / "hub")
    with hub_at(process.directory) as hub:
        put_all(hub, world.setup)
        run = hub.put_object(world.request()).id
    url = process.start(die=f"kakoi.hub.database:Database._deliver:{when}:1")
    got: Claim | None = None
    with client_at(url, patience=ONCE) as hub, pytest.raises(Unavailable):
        got = hub.claim(enclave="e", seconds=2)
    process.died()
    assert got is None
    with hub_at(process.directory) as hub:
        again = hub.claim(enclave="e", seconds=60, wait=20)
        assert again is not None
        assert (again.run, again.attempt) == (run, 2)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    place = tmp_path / "disk"
    place.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", str(place)], capture_output=True, check=False
    )
    if made.returncode != 0:
        pytest.skip("needs the right to mount a small file system")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_a_full_disk_is_one_clear_error_and_no_damage(small_disk: Path) -> None:
    """With the reserve turned off the database itself runs out of space; it recovers when there is space again."""
    settings = Settings(directory=small_disk / "hub", port=0, limits=Limits(free_bytes=0))
    party = Party("Filler")
    with running(settings) as one, client_of(one, patience=ONCE) as hub:
        hub.put_object(party.card)
        data = os.urandom(2_000_000)
        hub.put_blob(BlobId(hashlib.sha256(data).hexdigest()), io.BytesIO(data), len(data))
        confirmed: list[Envelope] = []

        def fill() -> None:
            for number in range(10_000):
                envelope = party.sign("analysis", author=party.id, number=number, text="x" * 50_000)
                hub.put_object(envelope)
                confirmed.append(envelope)

        with pytest.raises(Unavailable) as caught:
            fill()
        assert caught.value.code == "hub.storage-full"
        with pytest.raises(Unavailable) as blob_error:
            hub.put_blob(BlobId(hashlib.sha256(data * 2).hexdigest()), io.BytesIO(data * 2), len(data) * 2)
        assert blob_error.value.code == "hub.storage-full"
        reread(hub, confirmed)
        for path in (small_disk / "hub" / "blobs").glob("*/*"):
            path.unlink()
        hub.put_object(party.sign("analysis", author=party.id, number=10_001))
    assert audit_file(small_disk / "hub").objects == len(confirmed) + 2
