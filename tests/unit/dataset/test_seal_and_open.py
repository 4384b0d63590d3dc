"""A sealed file opens as itself and as nothing else: round trips and bad twins."""

from __future__ import annotations

import gc
import hashlib
import io
import tracemalloc
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import BinaryIO, cast

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from kakoi.core.errors import KakoiError, Malformed, Misuse, Refused, Unavailable
from kakoi.dataset.format import (
    FIRST_PLAINTEXT_BYTES,
    HEADER_BYTES,
    PLAINTEXT_BYTES,
    SEGMENT_BYTES,
    associated_data,
    ciphertext_size,
    sealed_key_commitment,
)
from kakoi.dataset.open import CACHED_SEGMENTS, SealedReader, check_data_key, open_stream
from kakoi.dataset.seal import SealedSummary, SealingWriter

KEY = bytes(range(32))
DATASET = "0123456789abcdef" * 2
ASSOCIATED = associated_data(DATASET, 1, "part-0")
SALT, PREFIX = b"s" * 32, b"p" * 7
SIZES = [
    0,
    1,
    1000,
    FIRST_PLAINTEXT_BYTES - 1,
    FIRST_PLAINTEXT_BYTES,
    FIRST_PLAINTEXT_BYTES + 1,
    FIRST_PLAINTEXT_BYTES + PLAINTEXT_BYTES,
    FIRST_PLAINTEXT_BYTES + PLAINTEXT_BYTES + 1,
    4 * 1024 * 1024 + 5,
]


@lru_cache(maxsize=16)
def plain(size: int) -> bytes:
    """Bytes that differ from place to place, so that a displaced segment shows."""
    return b"".join(hashlib.sha256(i.to_bytes(8, "big")).digest() for i in range(size // 32 + 1))[:size]


def seal(
    plaintext: bytes, *, key: bytes = KEY, associated: bytes = ASSOCIATED, salt: bytes = SALT
) -> tuple[bytes, SealedSummary]:
    sink = io.BytesIO()
    with SealingWriter(sink, data_key=key, associated_data=associated, salt=salt, nonce_prefix=PREFIX) as writer:
        writer.write(plaintext)
    return sink.getvalue(), writer.summary


@lru_cache(maxsize=16)
def sealed(size: int) -> tuple[bytes, SealedSummary]:
    return seal(plain(size))


def digests(ciphertext: bytes) -> bytes:
    """What a liar who does not know the key writes into a manifest for ``ciphertext``."""
    parts = [ciphertext[i : i + SEGMENT_BYTES] for i in range(0, len(ciphertext), SEGMENT_BYTES)]
    return b"".join(hashlib.sha256(p).digest() for p in parts)


def read(ciphertext: bytes, summary: SealedSummary, *, key: bytes = KEY, associated: bytes = ASSOCIATED) -> bytes:
    reader = SealedReader(
        io.BytesIO(ciphertext),
        data_key=key,
        associated_data=associated,
        size=summary.size,
        segment_digests=summary.segment_digests,
    )
    return reader.read()


def stream(ciphertext: bytes, summary: SealedSummary, *, key: bytes = KEY, associated: bytes = ASSOCIATED) -> bytes:
    chunks = (ciphertext[i : i + 300_000] for i in range(0, len(ciphertext), 300_000))
    return b"".join(
        open_stream(
            chunks,
            data_key=key,
            associated_data=associated,
            size=summary.size,
            segment_digests=summary.segment_digests,
        )
    )


Opening = Callable[..., bytes]
both = pytest.mark.parametrize("opening", [read, stream])


def code_of(opening: Opening, ciphertext: bytes, summary: SealedSummary, **names: bytes) -> str:
    with pytest.raises(KakoiError) as caught:
        opening(ciphertext, summary, **names)
    return caught.value.code


@both
@pytest.mark.parametrize("size", SIZES)
def test_round_trip(opening: Opening, size: int) -> None:
    ciphertext, summary = sealed(size)
    assert opening(ciphertext, summary) == plain(size)
    assert summary == SealedSummary(
        blob=hashlib.sha256(ciphertext).hexdigest(),
        size=ciphertext_size(size),
        segment_digests=digests(ciphertext),
        plaintext_size=size,
    )


def test_same_bytes_in_any_portions() -> None:
    whole, _ = sealed(SIZES[-1])
    sink = io.BytesIO()
    writer = SealingWriter(sink, data_key=KEY, associated_data=ASSOCIATED, salt=SALT, nonce_prefix=PREFIX)
    rest = memoryview(plain(SIZES[-1]))
    for portion in (1, 0, FIRST_PLAINTEXT_BYTES - 1, 1, 777, 2 * PLAINTEXT_BYTES, 10**9):
        assert writer.write(rest[:portion]) == len(rest[:portion])
        rest = rest[portion:]
        assert writer.tell() == SIZES[-1] - len(rest)
    writer.flush()
    writer.close()
    writer.close()
    assert sink.getvalue() == whole


# --- bad twins -------------------------------------------------------------------------------------------------------


@both
def test_each_byte_flipped(opening: Opening) -> None:
    ciphertext, summary = sealed(100)
    for place in range(len(ciphertext)):
        twin = bytearray(ciphertext)
        twin[place] ^= 1 << place % 8
        assert code_of(opening, bytes(twin), summary) == "dataset.segment-digest"


@both
def test_each_byte_flipped_and_the_manifest_too(opening: Opening) -> None:
    """The manifest cannot be forged, but the AEAD must hold without it."""
    ciphertext, _ = sealed(100)
    for place in range(len(ciphertext)):
        twin = bytearray(ciphertext)
        twin[place] ^= 1 << place % 8
        lie = SealedSummary(blob="", size=len(twin), segment_digests=digests(bytes(twin)), plaintext_size=100)
        assert code_of(opening, bytes(twin), lie) == ("crypto.cannot-open" if place else "dataset.header")


@both
def test_each_byte_of_the_digests_flipped(opening: Opening) -> None:
    ciphertext, summary = sealed(FIRST_PLAINTEXT_BYTES + 1)
    for place in range(64):
        wrong = bytearray(summary.segment_digests)
        wrong[place] ^= 1
        lie = SealedSummary(blob="", size=summary.size, segment_digests=bytes(wrong), plaintext_size=0)
        with pytest.raises(Refused) as caught:
            opening(ciphertext, lie)
        assert caught.value.code == "dataset.segment-digest"
        assert f"segment {place // 32} of 2" in caught.value.message


@both
@pytest.mark.parametrize("index", range(5))
def test_changed_segment_is_named(opening: Opening, index: int) -> None:
    ciphertext, summary = sealed(SIZES[-1])
    twin = bytearray(ciphertext)
    twin[min(index * SEGMENT_BYTES + 50_000, len(twin) - 1)] ^= 0x80
    with pytest.raises(Refused) as caught:
        opening(bytes(twin), summary)
    assert caught.value.code == "dataset.segment-digest"
    assert f"segment {index} of 5" in caught.value.message


@both
def test_truncated(opening: Opening) -> None:
    ciphertext, summary = sealed(SIZES[-1])
    cuts = [0, 1, HEADER_BYTES, 56, SEGMENT_BYTES - 1, SEGMENT_BYTES, SEGMENT_BYTES + 1, 4 * SEGMENT_BYTES]
    for cut in (*cuts, len(ciphertext) - 17, len(ciphertext) - 1):
        assert code_of(opening, ciphertext[:cut], summary) == "dataset.size"


@both
def test_truncated_at_a_segment_border_with_a_manifest_that_agrees(opening: Opening) -> None:
    ciphertext, _ = sealed(SIZES[-1])
    for segments in (1, 2, 4):
        cut = ciphertext[: segments * SEGMENT_BYTES]
        lie = SealedSummary(blob="", size=len(cut), segment_digests=digests(cut), plaintext_size=0)
        assert code_of(opening, cut, lie) == "crypto.cannot-open"


@both
def test_extended(opening: Opening) -> None:
    ciphertext, summary = sealed(FIRST_PLAINTEXT_BYTES)
    for more in (b"\0", bytes(17), ciphertext):
        longer = ciphertext + more
        assert code_of(opening, longer, summary) == "dataset.size"
        lie = SealedSummary(blob="", size=len(longer), segment_digests=digests(longer), plaintext_size=0)
        assert code_of(opening, longer, lie) in {"crypto.cannot-open", "dataset.layout"}


@both
@pytest.mark.parametrize(("a", "b"), [(1, 2), (1, 3), (2, 3)])
def test_segments_exchanged(opening: Opening, a: int, b: int) -> None:
    ciphertext, summary = sealed(SIZES[-1])
    parts = [ciphertext[i : i + SEGMENT_BYTES] for i in range(0, len(ciphertext), SEGMENT_BYTES)]
    parts[a], parts[b] = parts[b], parts[a]
    twin = b"".join(parts)
    with pytest.raises(Refused) as caught:
        opening(twin, summary)
    assert caught.value.code == "dataset.segment-digest"
    assert f"segment {a} of 5" in caught.value.message
    lie = SealedSummary(blob="", size=len(twin), segment_digests=digests(twin), plaintext_size=0)
    assert code_of(opening, twin, lie) == "crypto.cannot-open"


@both
def test_foreign_file_old_version_other_name_and_wrong_key(opening: Opening) -> None:
    mine, summary = sealed(1000)
    for associated in (
        associated_data("f" * 32, 1, "part-0"),
        associated_data(DATASET, 2, "part-0"),
        associated_data(DATASET, 1, "part-1"),
    ):
        foreign, theirs = seal(plain(1000), associated=associated)
        assert code_of(opening, foreign, summary) == "dataset.segment-digest"
        assert code_of(opening, foreign, theirs) == "crypto.cannot-open"
        assert code_of(opening, mine, summary, associated=associated) == "crypto.cannot-open"
    assert code_of(opening, mine, summary, key=bytes(32)) == "crypto.cannot-open"


def test_every_secret_dependent_failure_reads_the_same() -> None:
    mine, summary = sealed(1000)
    texts = set()
    cases: list[dict[str, bytes]] = [{"key": bytes(32)}, {"associated": b""}, {"associated": ASSOCIATED + b"x"}]
    for names in cases:
        with pytest.raises(Refused) as caught:
            read(mine, summary, **names)
        texts.add((str(caught.value), caught.value.hint))
    assert len(texts) == 1


@both
def test_manifest_that_contradicts_itself(opening: Opening) -> None:
    ciphertext, summary = sealed(FIRST_PLAINTEXT_BYTES + 1)
    for wrong in (b"", summary.segment_digests[:-1], summary.segment_digests[:32], summary.segment_digests * 2):
        lie = SealedSummary(blob="", size=summary.size, segment_digests=wrong, plaintext_size=0)
        assert code_of(opening, ciphertext, lie) == "dataset.digests"
    for size in (0, 55, SEGMENT_BYTES + 16):
        lie = SealedSummary(blob="", size=size, segment_digests=summary.segment_digests, plaintext_size=0)
        assert code_of(opening, ciphertext, lie) == "dataset.layout"


@both
@pytest.mark.parametrize("length", [0, 31, 33, 64])
def test_key_of_another_length(opening: Opening, length: int) -> None:
    ciphertext, summary = sealed(1)
    assert code_of(opening, ciphertext, summary, key=bytes(length)) == "crypto.key-length"


def test_data_key_against_the_commitment() -> None:
    commitment = sealed_key_commitment(KEY, dataset=DATASET, version=3)
    check_data_key(KEY, commitment=commitment, dataset=DATASET, version=3)
    twins: list[tuple[bytes, str, int]] = [(bytes(32), DATASET, 3), (KEY, "f" * 32, 3), (KEY, DATASET, 2)]
    for key, dataset, version in twins:
        with pytest.raises(Refused) as caught:
            check_data_key(key, commitment=commitment, dataset=dataset, version=version)
        assert caught.value.code == "crypto.cannot-open"


# --- the writer as a file --------------------------------------------------------------------------------------------


def test_abandoned_or_dropped_writer_leaves_nothing_that_opens() -> None:
    for end in ("abandoned", "dropped", "exception"):
        sink = io.BytesIO()
        writer = SealingWriter(sink, data_key=KEY, associated_data=ASSOCIATED, salt=SALT, nonce_prefix=PREFIX)
        writer.write(plain(3 * SEGMENT_BYTES))
        if end == "abandoned":
            writer.abandon()
        if end == "exception":
            with pytest.raises(ZeroDivisionError), writer:
                raise ZeroDivisionError
        if end != "dropped":
            with pytest.raises(Misuse):
                _ = writer.summary
            with pytest.raises(Misuse):
                writer.write(b"x")
        del writer
        gc.collect()
        left = sink.getvalue()
        assert len(left) == 3 * SEGMENT_BYTES
        lie = SealedSummary(blob="", size=len(left), segment_digests=digests(left), plaintext_size=0)
        assert code_of(read, left, lie) == "crypto.cannot-open"


def test_writer_is_a_write_only_stream() -> None:
    writer = SealingWriter(io.BytesIO(), data_key=KEY, associated_data=ASSOCIATED, salt=SALT, nonce_prefix=PREFIX)
    assert (writer.writable(), writer.readable(), writer.seekable(), writer.closed) == (True, False, False, False)
    with pytest.raises(Misuse) as caught:
        _ = writer.summary
    assert caught.value.code == "dataset.not-closed"
    writer.close()
    assert writer.closed
    with pytest.raises(Misuse) as caught:
        writer.write(b"")
    assert caught.value.code == "dataset.closed"


class Portions:
    """A sink that takes at most ``most`` bytes at a time and fails after ``room`` bytes, as a full disk does."""

    def __init__(self, most: int, room: int, failure: Exception | None = None) -> None:
        self.kept, self.most, self.room, self.failure = bytearray(), most, room, failure

    def write(self, data: bytes, /) -> int:
        part = data[: min(self.most, self.room - len(self.kept))]
        if data and not part and self.failure:
            raise self.failure
        self.kept += part
        return len(part)


def test_sink_that_takes_portions() -> None:
    whole, _ = sealed(SIZES[-1])
    sink = Portions(most=70_001, room=10**9)
    with SealingWriter(sink, data_key=KEY, associated_data=ASSOCIATED, salt=SALT, nonce_prefix=PREFIX) as writer:
        writer.write(plain(SIZES[-1]))
    assert bytes(sink.kept) == whole


@pytest.mark.parametrize("failure", [None, OSError(28, "No space left on device")])
def test_sink_that_fails_ends_the_writer(failure: Exception | None) -> None:
    sink = Portions(most=10**9, room=SEGMENT_BYTES + 9, failure=failure)
    writer = SealingWriter(sink, data_key=KEY, associated_data=ASSOCIATED, salt=SALT, nonce_prefix=PREFIX)
    with pytest.raises((OSError, Unavailable)):
        writer.write(plain(SIZES[-1]))
    with pytest.raises(Misuse):
        writer.write(b"x")
    writer.close()
    with pytest.raises(Misuse):
        _ = writer.summary


# --- the reader as a file --------------------------------------------------------------------------------------------


def reader_of(size: int, source: BinaryIO | None = None) -> SealedReader:
    ciphertext, summary = sealed(size)
    return SealedReader(
        source or io.BytesIO(ciphertext),
        data_key=KEY,
        associated_data=ASSOCIATED,
        size=summary.size,
        segment_digests=summary.segment_digests,
    )


def test_reader_is_a_seekable_file() -> None:
    size = SIZES[-1]
    with reader_of(size) as reader:
        assert (reader.readable(), reader.seekable(), reader.writable(), reader.size) == (True, True, False, size)
        assert reader.seek(-10, io.SEEK_END) == size - 10
        assert reader.read(100) == plain(size)[-10:]
        assert reader.read(1) == b""
        assert reader.seek(size + 5) == size + 5
        assert (reader.read(), reader.readinto(bytearray(3))) == (b"", 0)
        reader.seek(SEGMENT_BYTES - 100)
        assert reader.seek(50, io.SEEK_CUR) == SEGMENT_BYTES - 50
        buffer = bytearray(3 * SEGMENT_BYTES)
        assert reader.readinto(buffer) == len(buffer)
        assert buffer == plain(size)[SEGMENT_BYTES - 50 : 4 * SEGMENT_BYTES - 50]
        reader.seek(1)
        assert reader.readall() == plain(size)[1:]
        for offset, whence in ((-1, io.SEEK_SET), (0, 9), (-size - 1, io.SEEK_END)):
            with pytest.raises(Misuse):
                reader.seek(offset, whence)
    with pytest.raises(Misuse):
        reader.read(1)
    with pytest.raises(Misuse):
        reader.readinto(bytearray(1))


class Counting(io.BytesIO):
    """Counts what is asked of it and answers in portions, as a network file system does."""

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self.asked = 0

    def read(self, size: int | None = -1, /) -> bytes:
        data = super().read(min(size or 0, 100_000))
        self.asked += len(data)
        return data


def test_only_the_segments_that_are_touched_are_fetched_and_each_once() -> None:
    source = Counting(sealed(SIZES[-1])[0])
    reader = reader_of(SIZES[-1], source)
    assert source.asked == SEGMENT_BYTES
    for _ in range(3):
        reader.seek(2 * SEGMENT_BYTES + 1000)
        assert reader.read(10) == plain(SIZES[-1])[2 * SEGMENT_BYTES + 1000 :][:10]
    assert source.asked == 2 * SEGMENT_BYTES


def test_reading_and_streaming_stay_in_bounded_memory() -> None:
    size = 24 * SEGMENT_BYTES
    ciphertext, summary = sealed(size)

    def chunks() -> Iterator[bytes]:
        for i in range(0, len(ciphertext), 65536):
            yield ciphertext[i : i + 65536]

    tracemalloc.start()
    names = {"data_key": KEY, "associated_data": ASSOCIATED, "segment_digests": summary.segment_digests}
    total = sum(len(part) for part in open_stream(chunks(), size=summary.size, **names))
    streamed = tracemalloc.get_traced_memory()[1]
    tracemalloc.reset_peak()
    reader = reader_of(size, cast(BinaryIO, io.BytesIO(ciphertext)))
    while part := reader.read(65536):
        total += len(part)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert total == 2 * size
    assert streamed < 5 * SEGMENT_BYTES
    assert peak < (CACHED_SEGMENTS + 5) * SEGMENT_BYTES


def test_a_file_that_changes_under_the_reader_is_noticed() -> None:
    source = io.BytesIO(sealed(SIZES[-1])[0])
    reader = reader_of(SIZES[-1], source)
    source.seek(3 * SEGMENT_BYTES)
    source.write(b"gotcha")
    with pytest.raises(Refused) as caught:
        reader.read()
    assert caught.value.code == "dataset.segment-digest"
    source.truncate(2 * SEGMENT_BYTES + 1)
    reader.seek(2 * SEGMENT_BYTES)
    with pytest.raises(Refused):
        reader.read(SEGMENT_BYTES)


def test_parquet_through_both_ends() -> None:
    table = pa.table({"id": list(range(200_000)), "text": [f"t{i % 1013}" for i in range(200_000)]})
    sink = io.BytesIO()
    with SealingWriter(sink, data_key=KEY, associated_data=ASSOCIATED, salt=SALT, nonce_prefix=PREFIX) as writer:
        pq.write_table(table, writer, row_group_size=50_000, compression="none", use_dictionary=False)
    reader = SealedReader(
        io.BytesIO(sink.getvalue()),
        data_key=KEY,
        associated_data=ASSOCIATED,
        size=writer.summary.size,
        segment_digests=writer.summary.segment_digests,
    )
    assert pq.read_table(reader).equals(table)
    assert pq.ParquetFile(reader).read_row_group(2, columns=["id"]).column("id")[0].as_py() == 100_000


def test_malformed_header_is_reported_only_after_the_digest() -> None:
    twin = bytes([41]) + sealed(100)[0][1:]
    lie = SealedSummary(blob="", size=len(twin), segment_digests=digests(twin), plaintext_size=100)
    with pytest.raises(Malformed) as caught:
        read(twin, lie)
    assert caught.value.code == "dataset.header"
