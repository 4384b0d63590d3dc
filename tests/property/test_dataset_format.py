"""Any bytes into the readers give only our errors; any way of writing and reading gives the same bytes."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable

from hypothesis import given, settings
from hypothesis import strategies as st

from kakoi.core.errors import KakoiError
from kakoi.dataset.format import FIRST_PLAINTEXT_BYTES, MAX_SEGMENTS, SEGMENT_BYTES, ciphertext_size, layout
from kakoi.dataset.open import SealedReader, open_stream
from kakoi.dataset.seal import SealedSummary, SealingWriter

KEY, ASSOCIATED = bytes(range(32)), b"a data set"
LONG = hashlib.shake_128(b"long").digest(2 * SEGMENT_BYTES + 1000)


def seal(portions: list[bytes]) -> tuple[bytes, SealedSummary]:
    sink = io.BytesIO()
    with SealingWriter(sink, data_key=KEY, associated_data=ASSOCIATED, salt=b"s" * 32, nonce_prefix=b"p" * 7) as writer:
        for portion in portions:
            writer.write(portion)
    return sink.getvalue(), writer.summary


SEALED, SUMMARY = seal([LONG])


def reader(ciphertext: bytes, summary: SealedSummary) -> SealedReader:
    return SealedReader(
        io.BytesIO(ciphertext),
        data_key=KEY,
        associated_data=ASSOCIATED,
        size=summary.size,
        segment_digests=summary.segment_digests,
    )


@given(st.integers(0, MAX_SEGMENTS * SEGMENT_BYTES - 40 - 16 * MAX_SEGMENTS))
def test_every_plaintext_size_has_one_ciphertext_size(size: int) -> None:
    assert layout(ciphertext_size(size)).plaintext_size == size


@given(st.integers(-100, 5 * SEGMENT_BYTES) | st.integers(-(2**40), 2**40))
def test_layout_accepts_only_what_sealing_writes(size: int) -> None:
    plaintext = size - 40 - 16 * -(-size // SEGMENT_BYTES)
    written = plaintext >= 0 and ciphertext_size(plaintext) == size <= MAX_SEGMENTS * SEGMENT_BYTES
    outcome = "accepted"
    try:
        assert layout(size).plaintext_size == plaintext
    except KakoiError as error:
        outcome = error.code
    assert outcome == ("accepted" if written else "dataset.layout")


@given(st.lists(st.binary(max_size=2000), max_size=8))
def test_portions_do_not_matter(portions: list[bytes]) -> None:
    whole = b"".join(portions)
    assert seal(portions) == seal([whole])
    ciphertext, summary = seal(portions)
    assert reader(ciphertext, summary).read() == whole


@given(st.binary(max_size=400), st.booleans())
def test_any_bytes_give_only_our_errors(data: bytes, agreeing: bool) -> None:
    """Also with a manifest that agrees with them: nobody seals these bytes without the key."""
    digests = hashlib.sha256(data).digest() if agreeing else bytes(32)
    names = {"data_key": KEY, "associated_data": ASSOCIATED, "segment_digests": digests}
    codes = set()
    openings: list[Callable[[], bytes]] = [
        lambda: SealedReader(io.BytesIO(data), size=len(data), **names).read(),
        lambda: b"".join(open_stream([data], size=len(data), **names)),
    ]
    for opening in openings:
        try:
            opening()
        except KakoiError as error:
            codes.add(error.code)
    assert codes
    assert codes <= {"dataset.layout", "dataset.header", "dataset.segment-digest", "crypto.cannot-open"}


@settings(max_examples=40)
@given(st.lists(st.tuples(st.integers(0, len(LONG) + 10), st.integers(0, SEGMENT_BYTES + 5)), max_size=6))
def test_reading_anywhere_is_slicing(reads: list[tuple[int, int]]) -> None:
    source = reader(SEALED, SUMMARY)
    for offset, length in reads:
        source.seek(offset)
        assert source.read(length) == LONG[offset : offset + length]
        assert source.tell() == max(offset, min(offset + length, len(LONG)))


@settings(max_examples=40)
@given(st.lists(st.integers(1, 2 * SEGMENT_BYTES), max_size=6), st.integers(0, len(SEALED)))
def test_streams_may_come_in_any_chunks_and_must_be_whole(lengths: list[int], cut: int) -> None:
    chunks, rest = [], SEALED[:cut]
    for length in lengths:
        chunks.append(rest[:length])
        rest = rest[length:]
    chunks.append(rest)
    names = {"data_key": KEY, "associated_data": ASSOCIATED, "segment_digests": SUMMARY.segment_digests}
    got = bytearray()
    outcome = "whole"
    try:
        for part in open_stream(chunks, size=SUMMARY.size, **names):
            got += part
    except KakoiError as error:
        outcome = error.code
    assert outcome == ("whole" if cut == len(SEALED) else "dataset.size")
    assert bytes(got) == LONG[: len(got)]
    assert len(got) in {0, FIRST_PLAINTEXT_BYTES, FIRST_PLAINTEXT_BYTES + SEGMENT_BYTES - 16, len(LONG)}
