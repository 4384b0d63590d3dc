"""Sizes, ranges and bindings of the sealed format, held against counting by hand."""

from __future__ import annotations

import pytest

from kakoi.core.crypto import AeadKey
from kakoi.core.errors import KakoiError, Malformed, Misuse
from kakoi.dataset import format as f

MIB = 1024 * 1024
BORDERS = sorted(
    {
        0,
        1,
        *(f.FIRST_PLAINTEXT_BYTES + d for d in (-1, 0, 1)),
        *(f.FIRST_PLAINTEXT_BYTES + f.PLAINTEXT_BYTES + d for d in (-1, 0, 1)),
        *(f.FIRST_PLAINTEXT_BYTES + 7 * f.PLAINTEXT_BYTES + d for d in (-1, 0, 1)),
    }
)


def by_hand(plaintext: int) -> list[int]:
    """Ciphertext length of each segment: fill the first, then the others."""
    lengths: list[int] = []
    left, room = plaintext, MIB - 40 - 16
    while not lengths or left:
        part = min(left, room)
        lengths.append(part + 16 + (0 if lengths else 40))
        left, room = left - part, MIB - 16
    return lengths


@pytest.mark.parametrize("plaintext", BORDERS)
def test_layout_counts_as_by_hand(plaintext: int) -> None:
    lengths = by_hand(plaintext)
    size = f.ciphertext_size(plaintext)
    where = f.layout(size)
    assert size == sum(lengths)
    assert where.segments == len(lengths)
    assert where.plaintext_size == plaintext
    assert [where.ciphertext_range(i) for i in range(len(lengths))] == [
        (sum(lengths[:i]), length) for i, length in enumerate(lengths)
    ]
    starts = [sum(n - 16 - (0 if k else 40) for k, n in enumerate(lengths[:i])) for i in range(len(lengths))]
    assert [where.plaintext_start(i) for i in range(len(lengths))] == starts


@pytest.mark.parametrize("position", [b for b in BORDERS if b])
def test_every_byte_belongs_to_the_segment_that_holds_it(position: int) -> None:
    where = f.layout(f.ciphertext_size(20 * MIB))
    index = where.segment_at(position)
    assert where.plaintext_start(index) <= position < where.plaintext_start(index + 1)


@pytest.mark.parametrize("size", [-1, 0, 1, 55, MIB + 1, MIB + 16, 3 * MIB + 16, f.MAX_SEGMENTS * MIB + 17])
def test_sizes_that_no_sealed_file_has(size: int) -> None:
    with pytest.raises(Malformed) as caught:
        f.layout(size)
    assert caught.value.code == "dataset.layout"


@pytest.mark.parametrize("size", [56, 57, MIB, MIB + 17, 2 * MIB, f.MAX_SEGMENTS * MIB])
def test_sizes_at_the_border_are_accepted_and_reversible(size: int) -> None:
    assert f.ciphertext_size(f.layout(size).plaintext_size) == size


def test_associated_data_tells_every_file_from_every_other() -> None:
    cases = {
        f.associated_data(dataset, version, file)
        for dataset in ("a" * 32, "b" * 32, "a" * 31)
        for version in (1, 2, 256)
        for file in ("part-0", "part-1", "apart-0")
    }
    assert len(cases) == 27
    assert f.associated_data("a" * 31, 1, "apart-0") != f.associated_data("a" * 32, 1, "part-0")


def test_key_commitment_depends_on_key_data_set_and_version() -> None:
    key, other = bytes(32), b"\x01" * 32
    made = {
        f.sealed_key_commitment(k, dataset=d, version=v)
        for k in (key, other)
        for d in ("a" * 32, "b" * 32)
        for v in (1, 2)
    }
    assert len(made) == 8
    assert all(len(c) == 32 for c in made)


def test_commitment_is_not_a_file_key_even_under_a_hostile_salt() -> None:
    # HMAC pads its key with zeros: this salt gives the same HKDF-Extract as the commitment's label.
    salt = b"kakoi/key-commitment/v1".ljust(32, b"\0")
    commitment = f.sealed_key_commitment(bytes(32), dataset="a" * 32, version=1)
    nonce = f.segment_nonce(bytes(7), 0, last=True)
    sealed = f.file_key(bytes(32), salt, f.associated_data("a" * 32, 1, "x")).encrypt(nonce, b"x", b"")
    with pytest.raises(KakoiError) as caught:
        AeadKey(commitment).decrypt(nonce, sealed, b"")
    assert caught.value.code == "crypto.cannot-open"


@pytest.mark.parametrize("version", [0, -1, 2**63])
def test_versions_start_at_one(version: int) -> None:
    with pytest.raises(Misuse):
        f.associated_data("a" * 32, version, "part-0")


@pytest.mark.parametrize("length", [0, 16, 31, 33])
def test_keys_and_randomness_have_one_length(length: int) -> None:
    with pytest.raises(Malformed):
        f.file_key(bytes(length), bytes(32), b"")
    with pytest.raises(Malformed):
        f.sealed_key_commitment(bytes(length), dataset="a" * 32, version=1)
    with pytest.raises(Misuse):
        f.header(bytes(length), bytes(7))
    with pytest.raises(Misuse):
        f.header(bytes(32), bytes(length))


def test_nonce_holds_prefix_index_and_last_flag() -> None:
    assert f.segment_nonce(b"1234567", 0x01020304, last=False).hex() == "31323334353637" + "01020304" + "00"
    assert f.segment_nonce(b"1234567", 0, last=True)[-1] == 1
