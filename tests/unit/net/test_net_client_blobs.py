"""Blobs through the client: streamed, resumed, cut, altered, refused early."""

from __future__ import annotations

import io
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kakoi.core.encoding import dumps
from kakoi.core.errors import Malformed, Misuse
from kakoi.net.caller import Patience
from unit.net.clientkit import (
    BLOB,
    BLOB_ID,
    ZERO,
    Serve,
    always,
    client,
    closed_afterwards,
    raises,
)

__all__ = ["closed_afterwards"]


def blob_script(*, cut: int = 0, body: bytes = BLOB, asked: list[str] | None = None) -> Callable[[Any], None]:
    """Serves ranges of ``body``; with ``cut``, each connection ends after that many bytes."""

    def script(peer: Any) -> None:
        while (got := peer.request())[0]:
            start = int(got[1]["range"].removeprefix("bytes=").split("-")[0])
            end = got[1]["range"].split("-")[1]
            part = body[start : int(end) + 1] if end else body[start:]
            if asked is not None:
                asked.append(got[1]["range"])
            head = f"Content-Range: bytes {start}-{start + len(part) - 1}/{len(body)}\r\nContent-Length: {len(part)}\r\n\r\n"
            peer.say(b"HTTP/1.1 206 X\r\n" + head.encode() + part[: cut or None])
            if cut and len(part) > cut:
                return

    return script


def test_a_blob_streams_in_blocks(serve: Serve) -> None:
    blocks = list(client(serve(blob_script())).stream_blob(BLOB_ID, most=len(BLOB)))
    assert b"".join(blocks) == BLOB
    assert max(map(len, blocks)) <= 256 * 1024


def test_a_broken_download_goes_on_where_it_stopped(serve: Serve) -> None:
    asked: list[str] = []
    hub = client(serve(blob_script(cut=300_000, asked=asked)))
    assert b"".join(hub.stream_blob(BLOB_ID, most=len(BLOB))) == BLOB
    assert asked == ["bytes=0-", "bytes=300000-", "bytes=600000-", "bytes=900000-"]


def test_a_download_that_only_trickles_is_given_up(serve: Serve) -> None:
    asked: list[str] = []
    hub = client(serve(blob_script(cut=1, asked=asked)))
    assert raises(lambda: list(hub.stream_blob(BLOB_ID, most=len(BLOB)))).code == "hub.cut"
    assert len(asked) == 3


def test_an_altered_blob_is_refused_at_its_end(serve: Serve) -> None:
    altered = BLOB[:-1] + b"x"
    blocks = client(serve(blob_script(body=altered))).stream_blob(BLOB_ID, most=len(BLOB))
    received: list[bytes] = []

    def drain() -> None:
        received.extend(blocks)

    assert raises(drain).code == "hub.blob-altered"
    assert len(b"".join(received)) == len(BLOB)


@pytest.mark.parametrize(
    ("status", "range_header"),
    [
        (200, "bytes 0-1/2"),
        (206, "bytes 0-1/9999999"),
        (206, "bytes 1-2/3"),
        (206, "bytes 0-5/3"),
        (206, "bytes 0-1/1"),
        (206, "bytes 0--1/0"),
        (206, ""),
    ],
)
def test_odd_ranges_are_malformed(serve: Serve, status: int, range_header: str) -> None:
    hub = client(serve(always(b"ab", status=status, headers=f"Content-Range: {range_header}\r\n")))
    assert isinstance(raises(lambda: list(hub.stream_blob(ZERO, most=100))), Malformed)


def test_a_part_of_a_blob(serve: Serve) -> None:
    hub = client(serve(blob_script()))
    assert hub.unverified_range(BLOB_ID, start=5, length=10) == BLOB[5:15]
    assert raises(lambda: hub.unverified_range(BLOB_ID, start=len(BLOB) - 5, length=10)).code == "hub.answer"


def upload_script(log: list[tuple[str, bytes]], *, failures: int = 0, present: bool = False) -> Callable[[Any], None]:
    def script(peer: Any) -> None:
        while (got := peer.request())[0]:
            method = got[0].split()[0]
            if method == "HEAD":
                length = f"Content-Length: {len(BLOB)}\r\n\r\n" if present else "Content-Length: 0\r\n\r\n"
                peer.say(f"HTTP/1.1 {200 if present else 404} X\r\n{length}".encode())
                continue
            log.append((method, peer.body(int(got[1]["content-length"]))))
            if len(log) <= failures:
                return
            peer.answer(dumps({"blob": BLOB_ID}), status=201)

    return script


def test_a_blob_is_uploaded_from_where_the_source_stands(serve: Serve) -> None:
    log: list[tuple[str, bytes]] = []
    source = io.BytesIO(b"skipped" + BLOB)
    source.seek(7)
    client(serve(upload_script(log, failures=1))).put_blob(BLOB_ID, source, len(BLOB))
    assert log == [("PUT", BLOB)] * 2  # the first was cut, so it was sent again from the start


def test_a_blob_that_is_there_is_not_sent(serve: Serve) -> None:
    log: list[tuple[str, bytes]] = []
    client(serve(upload_script(log, present=True))).put_blob(BLOB_ID, io.BytesIO(BLOB), len(BLOB))
    assert log == []


def test_sources_that_are_short_or_broken_are_the_callers_fault(serve: Serve) -> None:
    class Broken(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            raise OSError(5, "Input/output error")

    hub = client(serve(upload_script([])))
    assert isinstance(raises(lambda: hub.put_blob(BLOB_ID, io.BytesIO(b"short"), len(BLOB))), Misuse)
    assert "Input/output" in raises(lambda: hub.put_blob(BLOB_ID, Broken(BLOB), len(BLOB))).message


def test_an_upload_refused_early_gives_the_hubs_reason(serve: Serve) -> None:
    def script(peer: Any) -> None:
        if peer.request()[0].startswith("HEAD"):
            peer.answer(status=404)
            peer.request()
        peer.answer(dumps({"code": "hub.too-large", "message": "m", "hint": "h"}), status=413)
        peer.sock.shutdown(socket.SHUT_WR)
        while peer.sock.recv(65536):
            pass

    big = 64 * 1024 * 1024
    hub = client(serve(script), patience=Patience(attempts=1))
    with Path("/dev/zero").open("rb") as zeros:
        assert raises(lambda: hub.put_blob(ZERO, zeros, big)).code == "hub.too-large"
