"""Blobs: whole and right, or not there."""

from __future__ import annotations

import hashlib
import io
import socket
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from kakoi.core.errors import KakoiError, Malformed, Unavailable
from kakoi.core.ids import BlobId
from kakoi.hub.serve import HubServer, running
from kakoi.hub.settings import Limits, Settings
from kakoi.net.caller import Call, Patience
from kakoi.net.client import HubClient
from support.hub_client import client_at, client_of, signed
from unit.hub.hubkit import ZERO, HubProcess, random_blob


def code(call: Callable[[], object]) -> str:
    with pytest.raises(KakoiError) as caught:
        call()
    return caught.value.code


def name(data: bytes) -> BlobId:
    return BlobId(hashlib.sha256(data).hexdigest())


def put(hub: HubClient, data: bytes, blob: str | None = None) -> None:
    hub.put_blob(BlobId(blob) if blob else name(data), io.BytesIO(data), len(data))


def connect(server: HubServer) -> socket.socket:
    host, port = server.url.removeprefix("http://").split(":")
    return socket.create_connection((host, int(port)))


def leftovers(tmp_path: Path) -> list[str]:
    return [path.name for path in (tmp_path / "hub" / "blobs").rglob(".incoming-*")]


@pytest.mark.parametrize("size", [1, 255, 65536, 1024 * 1024, 1024 * 1024 + 1, 5_000_000])
def test_blobs_come_back_as_they_went(hub: HubClient, tmp_path: Path, size: int) -> None:
    data = random_blob(size)
    assert hub.blob_size(name(data)) is None
    put(hub, data)
    assert hub.blob_size(name(data)) == size
    assert b"".join(hub.stream_blob(name(data), most=size)) == data
    put(hub, data)
    assert leftovers(tmp_path) == []


def test_ranges(hub: HubClient) -> None:
    data = random_blob(1000)
    put(hub, data)
    for start, length in ((0, 1), (0, 1000), (999, 1), (10, 500)):
        assert hub.unverified_range(name(data), start=start, length=length) == data[start : start + length]
    for header in ("bytes=1000-", "bytes=5-4", "bytes=-5", "bytes=0-1,3-4", "lines=0-1", "bytes=a-b"):
        call = Call(method="GET", target=f"/v1/blobs/{name(data)}", headers={"Range": header})
        assert code(partial(hub._caller.read, call, 2000)) == "hub.range"
    assert hub._caller.read(Call(method="GET", target=f"/v1/blobs/{name(data)}"), 2000) == data


def test_wrong_bytes_are_refused_and_leave_nothing(hub: HubClient, tmp_path: Path) -> None:
    data = random_blob(100_000)
    assert code(lambda: put(hub, data, ZERO)) == "hub.digest"
    call = Call(method="PUT", target=f"/v1/blobs/{ZERO}", body=data)  # with the right digest, under another's name
    assert code(lambda: hub._caller.read(call, 2000)) == "hub.blob-digest"
    assert code(lambda: put(hub, data, "xyz")) == "encoding.id"
    assert hub.blob_size(BlobId(ZERO)) is None
    assert code(lambda: list(hub.stream_blob(BlobId(ZERO), most=10))) == "hub.not-found"
    assert leftovers(tmp_path) == []


def test_uploads_need_a_length(hub: HubClient, server: HubServer) -> None:
    assert code(lambda: put(hub, b"")) == "hub.empty"
    with connect(server) as sock:
        head = f"PUT /v1/blobs/{ZERO} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
        sock.sendall(signed(server, head))
        answer = b"".join(iter(lambda: sock.recv(65536), b""))  # the hub hangs up
        assert b"hub.transfer-encoding" in answer


def test_a_sender_that_vanishes_or_dawdles_leaves_nothing(hub: HubClient, server: HubServer, tmp_path: Path) -> None:
    data = random_blob(200_000)
    head = f"PUT /v1/blobs/{name(data)} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(data)}\r\n\r\n".encode()
    with connect(server) as sock:
        sock.sendall(signed(server, head + data[:100_000], body=data))
        time.sleep(0.2)
        assert len(leftovers(tmp_path)) == 1
    with connect(server) as sock:
        sock.sendall(signed(server, head + data[:100_000], body=data))
        started = time.monotonic()
        assert sock.recv(65536).startswith(b"HTTP/1.1 408")  # stall_seconds is 1 here
        assert time.monotonic() - started < 4
    time.sleep(0.2)
    assert leftovers(tmp_path) == []
    assert hub.blob_size(name(data)) is None


def test_more_uploads_than_places_are_asked_to_come_again(hub: HubClient, server: HubServer) -> None:
    data = random_blob(200_000)
    socks = []
    for number in range(6):
        sock = connect(server)
        socks.append(sock)
        head = f"PUT /v1/blobs/{number:064x} HTTP/1.1\r\nHost: x\r\nContent-Length: 9999\r\n\r\nbegin".encode()
        sock.sendall(signed(server, head))
    time.sleep(0.2)
    assert code(lambda: put(hub, data)) == "hub.busy"
    for sock in socks:
        sock.close()
    with client_of(server, patience=Patience(attempts=5)) as patient:
        put(patient, data)  # as soon as they are gone there is room


def test_an_upload_larger_than_the_limit_or_the_disk(tmp_path: Path) -> None:
    limits = Limits(blob_bytes=1000, free_bytes=0)
    with running(Settings(directory=tmp_path / "a", port=0, limits=limits)) as one, client_of(one) as hub:
        with pytest.raises(Malformed) as caught:
            put(hub, bytes(1001))
        assert caught.value.code == "hub.too-large"
    limits = Limits(free_bytes=2**60)
    with running(Settings(directory=tmp_path / "b", port=0, limits=limits)) as one:
        with client_of(one, patience=Patience(attempts=1)) as hub, pytest.raises(Unavailable) as full:
            put(hub, bytes(1001))
        assert full.value.code == "hub.storage-full"


def test_an_upload_refused_early_gets_the_reason_and_not_a_broken_pipe(tmp_path: Path) -> None:
    """The refusal comes while gigabytes are still announced; the hub does not read them."""
    limits = Limits(blob_bytes=1000, free_bytes=0)
    patience = Patience(attempts=1)
    with (
        running(Settings(directory=tmp_path / "hub", port=0, limits=limits)) as one,
        client_of(one, patience=patience) as hub,
        Path("/dev/zero").open("rb") as zeros,
    ):
        started = time.monotonic()
        assert code(lambda: hub.put_blob(BlobId(ZERO), zeros, 2**34)) == "hub.too-large"
        assert time.monotonic() - started < 5


def test_memory_stays_bounded_during_a_large_transfer(tmp_path: Path) -> None:
    """A blob of 256 MiB passes through a hub process, which grows by less than 64 MiB more than for one of 32 MiB."""
    process = HubProcess(tmp_path / "hub")
    url = process.start()
    assert process.process is not None
    most = []
    try:
        with client_at(url) as hub:
            for size in (32 * 1024 * 1024, 256 * 1024 * 1024):
                _through(hub, size)
                most.append(_resident(process.process.pid, peak=True))
    finally:
        process.stop()
    assert most[1] - most[0] < 64 * 1024


def _through(hub: HubClient, size: int) -> None:
    """Zeros go in, and come out."""
    digest, block = hashlib.sha256(), bytes(1024 * 1024)
    for _ in range(size // len(block)):
        digest.update(block)
    blob = BlobId(digest.hexdigest())
    with Path("/dev/zero").open("rb") as zeros:
        hub.put_blob(blob, zeros, size)
    assert sum(map(len, hub.stream_blob(blob, most=size))) == size


def _resident(pid: int, *, peak: bool = False) -> int:
    """Resident kilobytes of a process, now or at most."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:" if peak else "VmRSS:"):
            return int(line.split()[1])
    raise AssertionError("no such line")
