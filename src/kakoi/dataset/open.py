"""Opening: every segment is held against the manifest before it is decrypted.

Steps for each segment, in this order:
 1. The file has the size that the manifest states (``SealedReader``; a stream is counted as it arrives).
 2. The SHA-256 of the ciphertext segment equals the manifest's. This also binds whoever knows the key: a GCM tag does not,
    its holder can make another plaintext for the same tag.
 3. The first segment begins with the header of this format, which gives salt and nonce prefix.
 4. The segment decrypts under the key of this data set, version and file, at this index, as last or not last.

Not done here: the key is compared with the manifest's commitment once per data set (``check_data_key``), and the manifest's
signature by whoever hands it in.
"""

from __future__ import annotations

import hashlib
import io
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from typing import BinaryIO, Final

from kakoi.core.crypto import AeadKey, Secret, same
from kakoi.core.errors import Malformed, Misuse, Refused, cannot_open
from kakoi.dataset.format import (
    DIGEST_BYTES,
    HEADER_BYTES,
    Layout,
    file_key,
    layout,
    sealed_key_commitment,
    segment_nonce,
    split_header,
)

CACHED_SEGMENTS: Final = 4
"""Plaintext segments that a reader keeps: 4 MiB."""


def check_data_key(data_key: Secret, *, commitment: bytes, dataset: str, version: int) -> None:
    """Raise the opaque ``crypto.cannot-open`` unless the manifest committed to this data key."""
    try:
        same(
            sealed_key_commitment(data_key, dataset=dataset, version=version),
            commitment,
            code="crypto.cannot-open",
            message="the data key is not the one that the manifest commits to",
        )
    except Refused:
        raise cannot_open() from None


class _Segments:
    """Checks and decrypts the segments of one file. The first must come first: it carries the header."""

    __slots__ = ("_associated", "_data_key", "_digests", "_key", "_prefix", "layout")

    def __init__(self, *, data_key: Secret, associated_data: bytes, size: int, segment_digests: bytes) -> None:
        self.layout: Layout = layout(size)
        if len(segment_digests) != DIGEST_BYTES * self.layout.segments:
            raise Malformed(
                "dataset.digests",
                f"expected {self.layout.segments} segment digests for {size} bytes, "
                f"got {len(segment_digests) / DIGEST_BYTES:g}",
                hint="the manifest contradicts itself: ask its owner",
            )
        self._digests = segment_digests
        self._data_key: Secret = data_key
        self._associated = associated_data
        self._prefix = b""
        self._key: AeadKey | None = None

    def plaintext(self, index: int, segment: bytes | bytearray) -> bytes:
        """Plaintext of segment ``index``, whose ciphertext is claimed to be ``segment``."""
        expected = self._digests[DIGEST_BYTES * index : DIGEST_BYTES * (index + 1)]
        if hashlib.sha256(segment).digest() != expected:
            raise Refused(
                "dataset.segment-digest",
                f"segment {index} of {self.layout.segments}: expected the digest in the manifest, got other bytes",
                hint="the storage changed, cut or exchanged the file: fetch it again, or ask the owner to upload it again",
            )
        body = memoryview(segment)
        if index == 0:
            salt, self._prefix = split_header(bytes(body[:HEADER_BYTES]))
            if self._key is None:
                self._key = file_key(self._data_key, salt, self._associated)
                self._data_key = b""
            body = body[HEADER_BYTES:]
        if self._key is None:
            raise Misuse("dataset.order", "expected the first segment first, got another")
        last = index == self.layout.segments - 1
        return self._key.decrypt(segment_nonce(self._prefix, index, last=last), body, b"")


def _wrong_size(expected: int, got: str) -> Refused:
    return Refused(
        "dataset.size",
        f"expected {expected} bytes of ciphertext as in the manifest, got {got}",
        hint="the storage cut or extended the file, or this is another file: fetch it again",
    )


class SealedReader(io.RawIOBase):
    """A read-only, seekable file of the plaintext of a sealed file.

    ``source`` is the ciphertext, seekable; ``size`` and ``segment_digests`` come from the signed manifest. The first segment
    is checked and decrypted at once: a reader that exists has the right key. Segments are fetched, checked and decrypted when
    a read touches them, and the last few stay in memory. ``source`` stays open when the reader is closed. Not safe for
    several threads without a lock.

    Raises Malformed (``dataset.layout``, ``dataset.digests``, ``dataset.header``, ``crypto.key-length``), Refused
    (``dataset.size``, ``dataset.segment-digest``) and the opaque ``crypto.cannot-open``.
    """

    def __init__(
        self, source: BinaryIO, *, data_key: Secret, associated_data: bytes, size: int, segment_digests: bytes
    ) -> None:
        super().__init__()
        self._segments = _Segments(
            data_key=data_key, associated_data=associated_data, size=size, segment_digests=segment_digests
        )
        self._source = source
        self._cache: OrderedDict[int, bytes] = OrderedDict()
        self._position = 0
        actual = source.seek(0, io.SEEK_END)
        if actual != size:
            raise _wrong_size(size, f"{actual}")
        self._segment(0)

    @property
    def size(self) -> int:
        """Bytes of plaintext."""
        return self._segments.layout.plaintext_size

    def readable(self) -> bool:
        """Always."""
        return True

    def seekable(self) -> bool:
        """Always."""
        return True

    def tell(self) -> int:
        """Position in the plaintext."""
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move; positions beyond the end read nothing. Raises Misuse for a negative position or another ``whence``."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self.size}.get(whence)
        if base is None or base + offset < 0:
            raise Misuse("dataset.seek", "expected a position from 0 on, got another")
        self._position = base + offset
        return self._position

    def read(self, size: int | None = -1) -> bytes:
        """Up to ``size`` bytes, all to the end if negative; fewer only at the end of the file."""
        self._require_open()
        left = max(0, self.size - self._position)
        wanted = left if size is None or size < 0 else min(size, left)
        parts = []
        while wanted:
            part = self._piece(wanted)
            parts.append(part)
            self._position += len(part)
            wanted -= len(part)
        return bytes(parts[0]) if len(parts) == 1 else b"".join(parts)

    def readall(self) -> bytes:
        """Everything from here to the end."""
        return self.read(-1)

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        """Fill ``buffer``; return how many bytes were there, fewer only at the end of the file."""
        self._require_open()
        view = memoryview(buffer).cast("B")
        wanted = min(len(view), max(0, self.size - self._position))
        done = 0
        while done < wanted:
            part = self._piece(wanted - done)
            view[done : done + len(part)] = part
            done += len(part)
            self._position += len(part)
        return done

    def close(self) -> None:
        """Forget the plaintext that is cached."""
        if not self.closed:
            self._cache.clear()
        super().close()

    def _require_open(self) -> None:
        if self.closed:
            raise Misuse("dataset.closed", "expected an open reader, got a closed one")

    def _piece(self, wanted: int) -> memoryview:
        """From the current position, at most ``wanted`` bytes and at most to the end of the segment."""
        where = self._segments.layout
        index = where.segment_at(self._position)
        start = self._position - where.plaintext_start(index)
        return memoryview(self._segment(index))[start : start + wanted]

    def _segment(self, index: int) -> bytes:
        cached = self._cache.get(index)
        if cached is not None:
            self._cache.move_to_end(index)
            return cached
        offset, length = self._segments.layout.ciphertext_range(index)
        self._source.seek(offset)
        ciphertext = self._source.read(length)
        while len(ciphertext) < length and (part := self._source.read(length - len(ciphertext))):
            ciphertext += part
        plaintext = self._segments.plaintext(index, ciphertext)
        self._cache[index] = plaintext
        if len(self._cache) > CACHED_SEGMENTS:
            self._cache.popitem(last=False)
        return plaintext


def open_stream(
    chunks: Iterable[bytes], *, data_key: Secret, associated_data: bytes, size: int, segment_digests: bytes
) -> Iterator[bytes]:
    """The plaintext of ciphertext that arrives in order, one segment at a time, for a source that cannot seek.

    ``chunks`` may have any lengths (an HTTP body; ``iter(lambda: file.read(65536), b"")``). Memory: one segment and one chunk.
    Every yielded piece is genuine and in its place, but only the end of the iteration says that the file is complete:
    a caller must throw away what it took if this raises. Raises as ``SealedReader`` does.
    """
    segments = _Segments(data_key=data_key, associated_data=associated_data, size=size, segment_digests=segment_digests)
    return _stream(segments, chunks)


def _stream(segments: _Segments, chunks: Iterable[bytes]) -> Iterator[bytes]:
    where = segments.layout
    index, pending = 0, bytearray()
    for chunk in chunks:
        view = memoryview(chunk)
        while view:
            if index == where.segments:
                raise _wrong_size(where.size, "more")
            length = where.ciphertext_range(index)[1]
            part = view[: length - len(pending)]
            pending += part
            view = view[len(part) :]
            if len(pending) == length:
                yield segments.plaintext(index, pending)
                index, pending = index + 1, bytearray()
    if index < where.segments:
        raise _wrong_size(where.size, f"{index * (where.ciphertext_range(0)[1]) + len(pending)}")
