"""The log against the recursive definitions of RFC 9162, for every tree of up to 70 leaves; and fuzzed formats."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kakoi.contract.model import LogKey
from kakoi.core.crypto import ed25519_public
from kakoi.core.errors import Malformed, Refused
from kakoi.tlog import checkpoint, merkle, note, proof
from kakoi.tlog.merkle import CompactRange, NodeId

MOST = 70
SECRET = bytes(32)
KEY = LogKey(origin="log.example", ed25519=ed25519_public(SECRET))
DATA = [f"entry {number}".encode() for number in range(MOST)]


def split(count: int) -> int:
    """Largest power of two smaller than ``count``, found by counting."""
    power = 1
    while power * 2 < count:
        power *= 2
    return power


def mth(data: Sequence[bytes]) -> bytes:
    if not data:
        return sha256().digest()
    if len(data) == 1:
        return sha256(b"\x00" + data[0]).digest()
    k = split(len(data))
    return sha256(b"\x01" + mth(data[:k]) + mth(data[k:])).digest()


def path(m: int, data: Sequence[bytes]) -> tuple[bytes, ...]:
    if len(data) == 1:
        return ()
    k = split(len(data))
    if m < k:
        return (*path(m, data[:k]), mth(data[k:]))
    return (*path(m - k, data[k:]), mth(data[:k]))


def subproof(m: int, data: Sequence[bytes], whole: bool) -> tuple[bytes, ...]:
    if m == len(data):
        return () if whole else (mth(data),)
    k = split(len(data))
    if m <= k:
        return (*subproof(m, data[:k], whole), mth(data[k:]))
    return (*subproof(m - k, data[k:], False), mth(data[:k]))


def grow(count: int) -> tuple[list[CompactRange], dict[NodeId, bytes]]:
    trees = [CompactRange()]
    nodes: dict[NodeId, bytes] = {}
    for entry in DATA[:count]:
        tree, new = trees[-1].append(merkle.leaf_hash(entry))
        assert not set(dict(new)) & set(nodes)
        trees.append(tree)
        nodes.update(new)
    return trees, nodes


TREES, NODES = grow(MOST)


@pytest.mark.parametrize("size", range(MOST + 1))
def test_every_size_agrees_with_the_definition(size: int) -> None:
    root = mth(DATA[:size])
    assert TREES[size].root == root
    assert merkle.compact_range(size, NODES.__getitem__).root == root
    for index in range(size):
        found = merkle.inclusion_proof(index, size, NODES.__getitem__)
        assert found == path(index, DATA[:size])
        merkle.verify_inclusion(leaf=merkle.leaf_hash(DATA[index]), index=index, size=size, proof=found, root=root)
    for old in range(size + 1):
        found = merkle.consistency_proof(old, size, NODES.__getitem__)
        assert found == (subproof(old, DATA[:size], True) if old else ())
        merkle.verify_consistency(old=old, new=size, old_root=TREES[old].root, new_root=root, proof=found)


def refuses_inclusion(leaf: bytes, index: int, size: int, proof: Sequence[bytes], root: bytes) -> None:
    with pytest.raises((Refused, Malformed)):
        merkle.verify_inclusion(leaf=leaf, index=index, size=size, proof=proof, root=root)


def refuses_consistency(old: int, new: int, old_root: bytes, new_root: bytes, proof: Sequence[bytes]) -> None:
    with pytest.raises((Refused, Malformed)):
        merkle.verify_consistency(old=old, new=new, old_root=old_root, new_root=new_root, proof=proof)


def flips(hashes: Sequence[bytes]) -> list[list[bytes]]:
    """``hashes`` with each byte of each hash changed in turn, cut by one, and longer by one."""
    twins = [list(hashes[:-1])] if hashes else []
    twins.append([*hashes, bytes(32)])
    for place, item in enumerate(hashes):
        for byte in range(len(item)):
            twin = bytearray(item)
            twin[byte] ^= 0x80
            twins.append([*hashes[:place], bytes(twin), *hashes[place + 1 :]])
    return twins


@pytest.mark.parametrize("size", [*range(1, 18), 31, 32, 33, 63, 64, 65, 70])
def test_every_flipped_byte_of_every_proof_is_refused(size: int) -> None:
    root = TREES[size].root
    for index in {0, size // 3, size // 2, size - 1}:
        leaf, good = merkle.leaf_hash(DATA[index]), merkle.inclusion_proof(index, size, NODES.__getitem__)
        for twin in flips(good):
            refuses_inclusion(leaf, index, size, twin, root)
        for wrong in (leaf[:-1] + bytes([leaf[-1] ^ 1]), root):
            if wrong != leaf:
                refuses_inclusion(wrong, index, size, good, root)
        for other in range(size + 2):
            if other != index:
                refuses_inclusion(leaf, other, size, good, root)
    for old in {1, size // 3, size // 2, size - 1} - {0, size}:
        good = merkle.consistency_proof(old, size, NODES.__getitem__)
        for twin in flips(good):
            refuses_consistency(old, size, TREES[old].root, root, twin)
        for other in set(range(size)) - {old}:
            refuses_consistency(other, size, TREES[old].root, root, good)


@given(st.integers(0, MOST), st.integers(0, MOST), st.integers(0, MOST), st.lists(st.binary(min_size=32, max_size=32)))
def test_random_proofs_never_verify_and_never_crash(index: int, size: int, old: int, hashes: list[bytes]) -> None:
    leaf = merkle.leaf_hash(b"not an entry")
    refuses_inclusion(leaf, index, size, hashes, TREES[size].root)
    if old not in (0, size):
        refuses_consistency(old, size, TREES[old].root, TREES[size].root, [*hashes, leaf])


@given(st.binary(max_size=300))
def test_any_bytes_raise_only_our_errors(data: bytes) -> None:
    for wrapped in (data, b"log.example\n3\n" + data, b"x\n\n\xe2\x80\x94 log.example " + data + b"\n"):
        with pytest.raises((Malformed, Refused)):
            checkpoint.verify(wrapped, KEY)
    for wrapped in (data, b"c2sp.org/tlog-proof@v1\nindex 0\n" + data):
        try:
            decoded = proof.decode(wrapped)
        except Malformed:
            continue
        assert decoded.encode() == wrapped


lines = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=20)


@given(st.lists(lines, min_size=1, max_size=5))
def test_notes_give_back_the_text_that_was_signed(parts: list[str]) -> None:
    text = "\n".join(parts) + "\n"
    made = note.sign(text, name=KEY.origin, secret=SECRET)
    assert note.verify(made, name=KEY.origin, public=KEY.ed25519) == text
    assert note.parse(made).text == text


@given(st.integers(0, 2**53 - 1), st.integers(0, MOST), st.lists(st.binary(min_size=32, max_size=32), max_size=60))
def test_log_proofs_round_trip(index: int, size: int, hashes: list[bytes]) -> None:
    signed = checkpoint.sign(origin=KEY.origin, size=size, root=TREES[size].root, secret=SECRET)
    made = proof.LogProof(index=index, hashes=tuple(hashes), checkpoint=signed)
    assert proof.decode(made.encode()) == made
    assert checkpoint.verify(signed, KEY).note == signed
