"""Sealing: plaintext goes in as it arrives, ciphertext comes out a segment at a time."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Literal, Protocol, Self

from kakoi.core.errors import Misuse, Unavailable
from kakoi.dataset.format import (
    FIRST_PLAINTEXT_BYTES,
    MAX_SEGMENTS,
    PLAINTEXT_BYTES,
    file_key,
    header,
    segment_nonce,
)

Bytes = bytes | bytearray | memoryview


class Sink(Protocol):
    """Where ciphertext goes: any binary file that is open for writing."""

    def write(self, data: bytes, /) -> int | None:
        """Take some or all of ``data``; return how many bytes were taken."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class SealedSummary:
    """What a manifest says about a sealed file."""

    blob: str
    """SHA-256 of the whole ciphertext, hex."""
    size: int
    """Bytes of ciphertext."""
    segment_digests: bytes
    """SHA-256 of every ciphertext segment, concatenated."""
    plaintext_size: int


class SealingWriter:
    """A write-only file that seals what is written into ``sink``.

    Memory stays bounded by two segments. ``close`` writes the last segment; a writer that is dropped or abandoned before
    leaves a file without one, which opens nowhere. The class is deliberately no ``io.IOBase``: that closes itself when it
    is collected, and half a file would become a whole one. As a context manager it closes on success and abandons on an
    exception. ``sink`` is neither flushed nor closed; its exceptions pass through and end the writer.

    ``salt`` (32 bytes) and ``nonce_prefix`` (7 bytes) must be fresh random bytes for every file.
    Raises Malformed for a bad key length and Misuse for bad randomness.
    """

    mode: Final = "wb"

    def __init__(
        self, sink: Sink, *, data_key: bytes, associated_data: bytes, salt: bytes, nonce_prefix: bytes
    ) -> None:
        self._sink = sink
        self._key = file_key(data_key, salt, associated_data)
        self._prefix = nonce_prefix
        self._head = header(salt, nonce_prefix)
        self._pending = bytearray(PLAINTEXT_BYTES)
        self._filled = 0
        self._limit = FIRST_PLAINTEXT_BYTES
        self._written = 0
        self._size = 0
        self._whole = hashlib.sha256()
        self._digests = bytearray()
        self._state: Literal["open", "closed", "abandoned"] = "open"

    @property
    def closed(self) -> bool:
        """Whether nothing more can be written."""
        return self._state != "open"

    @property
    def summary(self) -> SealedSummary:
        """What was sealed. Raises Misuse before ``close``."""
        if self._state != "closed":
            raise Misuse("dataset.not-closed", f"expected a closed sealing writer, got one that is {self._state}")
        return SealedSummary(
            blob=self._whole.hexdigest(),
            size=self._size,
            segment_digests=bytes(self._digests),
            plaintext_size=self._written,
        )

    def writable(self) -> bool:
        """Always."""
        return True

    def readable(self) -> bool:
        """Never."""
        return False

    def seekable(self) -> bool:
        """Never: segments that were written cannot be changed."""
        return False

    def tell(self) -> int:
        """Plaintext bytes written so far."""
        return self._written

    def flush(self) -> None:
        """Nothing: a segment leaves when it is full."""

    def write(self, data: Bytes) -> int:
        """Seal ``data`` and return its length in bytes. Raises Misuse after ``close`` and beyond the largest file."""
        self._require_open()
        view = memoryview(data).cast("B")
        taken = 0
        while taken < len(view):
            if self._filled == self._limit:
                # Only now is it known that the segment is not the last.
                self._emit(last=False)
            part = view[taken : taken + self._limit - self._filled]
            self._pending[self._filled : self._filled + len(part)] = part
            self._filled += len(part)
            taken += len(part)
        self._written += len(view)
        return len(view)

    def close(self) -> None:
        """Write the last segment. Does nothing when already closed or abandoned."""
        if self._state == "open":
            self._emit(last=True)
            self._state = "closed"
            self._pending = bytearray()

    def abandon(self) -> None:
        """Give up: the file stays without a last segment. Does nothing after ``close``."""
        if self._state == "open":
            self._state = "abandoned"
            self._pending = bytearray()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.abandon()

    def _require_open(self) -> None:
        if self._state != "open":
            raise Misuse("dataset.closed", f"expected an open sealing writer, got one that is {self._state}")

    def _emit(self, *, last: bool) -> None:
        index = len(self._digests) // 32
        if index >= MAX_SEGMENTS:
            self.abandon()
            raise Misuse(
                "dataset.too-long",
                f"expected at most {MAX_SEGMENTS} segments in one file, got more",
                hint="split the data set into several files",
            )
        nonce = segment_nonce(self._prefix, index, last=last)
        segment = self._key.encrypt(nonce, memoryview(self._pending)[: self._filled], b"")
        if index == 0:
            segment = self._head + segment
        try:
            self._put(segment)
        except BaseException:
            self.abandon()
            raise
        self._whole.update(segment)
        self._digests += hashlib.sha256(segment).digest()
        self._size += len(segment)
        self._filled, self._limit = 0, PLAINTEXT_BYTES

    def _put(self, segment: bytes) -> None:
        """Write all of ``segment``: an unbuffered file may take less at a time."""
        taken = self._sink.write(segment)
        while taken is not None and 0 < taken < len(segment):
            segment = segment[taken:]
            taken = self._sink.write(segment)
        if not taken:
            raise Unavailable(
                "dataset.sink",
                "expected the sink to take the ciphertext, got a write of nothing",
                hint="the disk may be full, or the sink does not block",
            )
