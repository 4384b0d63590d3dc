"""The Merkle tree of RFC 9162 §2.1 (the same hashing as RFC 6962): append, prove, verify.

The tree is kept as the hashes of its complete subtrees. ``NodeId(level, position)`` names the subtree over the leaves
``[position·2^level, (position+1)·2^level)``; once complete it never changes, so a node is written once and read for ever.
Appending touches the ``CompactRange`` only (at most 53 hashes) and completes two nodes on average, whatever the size.
A proof is first a plan (which nodes make up each of its hashes) and then a fold over them, so that a caller with
the nodes in a database fetches all of them in one query.

Sizes are limited to 2^53-1, the largest integer our JSON carries.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from kakoi.core.encoding import MAX_INTEGER, sha256
from kakoi.core.errors import Malformed, Misuse, Refused

HASH_BYTES: Final = 32
EMPTY_ROOT: Final = sha256()
MAX_PROOF: Final = 64
"""More hashes than any proof in a tree of 2^53-1 leaves can need (54)."""


class NodeId(NamedTuple):
    """A complete subtree: ``2**level`` leaves, the ``position``-th of that size from the left."""

    level: int
    position: int


NodeLookup = Callable[[NodeId], bytes]
"""The stored hash of a complete subtree."""
Proof = tuple[bytes, ...]
Plan = tuple[tuple[NodeId, ...], ...]
"""For each hash of a proof, the complete subtrees that it is folded from, left to right."""


def leaf_hash(data: bytes) -> bytes:
    """Hash of one entry: SHA-256(0x00 || data)."""
    return sha256(b"\x00", data)


def node_hash(left: bytes, right: bytes) -> bytes:
    """Hash of an inner node: SHA-256(0x01 || left || right)."""
    return sha256(b"\x01", left, right)


def _fold(hashes: Sequence[bytes]) -> bytes:
    """Root over complete subtrees, largest first: the right side is always the smaller one."""
    digest = hashes[-1]
    for left in reversed(hashes[:-1]):
        digest = node_hash(left, digest)
    return digest


def cover(start: int, end: int) -> tuple[NodeId, ...]:
    """The fewest complete subtrees that tile the leaves ``[start, end)``, left to right.

    ``start`` must be a multiple of the largest power of two within the range, as it always is in the
    recursion of RFC 9162.
    """
    nodes = []
    while start < end:
        level = (end - start).bit_length() - 1
        nodes.append(NodeId(level, start >> level))
        start += 1 << level
    return tuple(nodes)


@dataclass(frozen=True, slots=True, kw_only=True)
class CompactRange:
    """A whole tree as its size and the hashes of ``cover(0, size)``: all that appending needs."""

    size: int = 0
    peaks: tuple[bytes, ...] = ()

    def append(self, leaf: bytes) -> tuple[CompactRange, tuple[tuple[NodeId, bytes], ...]]:
        """The tree with one more leaf (given as its 32-byte hash), and the nodes that became complete."""
        if len(leaf) != HASH_BYTES or self.size >= MAX_INTEGER:
            raise Misuse("log.append", f"expected a leaf hash of {HASH_BYTES} bytes and a log below 2^53-1 entries")
        peaks, digest, index, level = list(self.peaks), leaf, self.size, 0
        stored = [(NodeId(0, index), digest)]
        while index & 1:
            digest = node_hash(peaks.pop(), digest)
            index, level = index >> 1, level + 1
            stored.append((NodeId(level, index), digest))
        return CompactRange(size=self.size + 1, peaks=(*peaks, digest)), tuple(stored)

    @property
    def root(self) -> bytes:
        """Merkle tree hash, 32 bytes."""
        return _fold(self.peaks) if self.peaks else EMPTY_ROOT


def compact_range(size: int, lookup: NodeLookup) -> CompactRange:
    """The tree of the first ``size`` leaves, from stored nodes."""
    return CompactRange(size=size, peaks=tuple(lookup(node) for node in cover(0, size)))


def inclusion_plan(index: int, size: int) -> Plan:
    """Nodes of the inclusion path of leaf ``index`` in a tree of ``size`` leaves (RFC 9162 §2.1.3.1)."""
    if not 0 <= index < size <= MAX_INTEGER:
        raise Misuse("log.plan", "expected a leaf index below the tree size")
    path, start, end = [], 0, size
    while end - start > 1:
        middle = start + (1 << ((end - start - 1).bit_length() - 1))
        if index < middle:
            path.append(cover(middle, end))
            end = middle
        else:
            path.append(cover(start, middle))
            start = middle
    return tuple(reversed(path))


def consistency_plan(old: int, new: int) -> Plan:
    """Nodes of the consistency path between two sizes (RFC 9162 §2.1.4.1). Empty where nothing needs proof."""
    if not 0 <= old <= new <= MAX_INTEGER:
        raise Misuse("log.plan", "expected an old size of at most the new size")
    if old in (0, new):
        return ()
    path, start, end = [], 0, new
    while old != end:
        middle = start + (1 << ((end - start - 1).bit_length() - 1))
        if old <= middle:
            path.append(cover(middle, end))
            end = middle
        else:
            path.append(cover(start, middle))
            start = middle
    if start > 0:  # else the old tree is a complete subtree whose root the verifier already has
        path.append(cover(start, end))
    return tuple(reversed(path))


def build(plan: Plan, lookup: NodeLookup) -> Proof:
    """The hashes of a planned proof."""
    return tuple(_fold([lookup(node) for node in nodes]) for nodes in plan)


def inclusion_proof(index: int, size: int, lookup: NodeLookup) -> Proof:
    """Hashes that lead from leaf ``index`` to the root of ``size`` leaves."""
    return build(inclusion_plan(index, size), lookup)


def consistency_proof(old: int, new: int, lookup: NodeLookup) -> Proof:
    """Hashes that show the tree of ``old`` leaves to be a prefix of the tree of ``new`` leaves."""
    return build(consistency_plan(old, new), lookup)


def _hashes(proof: Iterable[bytes], *roots: bytes) -> list[bytes]:
    path = list(proof)
    if len(path) > MAX_PROOF or any(len(item) != HASH_BYTES for item in (*path, *roots)):
        raise Malformed("log.proof", f"expected at most {MAX_PROOF} hashes of {HASH_BYTES} bytes, got something else")
    return path


def verify_inclusion(*, leaf: bytes, index: int, size: int, proof: Iterable[bytes], root: bytes) -> None:
    """Raise Refused unless ``proof`` places the leaf hash ``leaf`` at ``index`` under ``root`` (RFC 9162 §2.1.3.2).

    1. the index lies within the tree;
    2. each hash is combined on the side that the index demands;
    3. the path is neither longer nor shorter than the tree is high;
    4. the result is the root.
    """
    refusal = Refused("log.inclusion", "expected a proof that the entry is in the log, got one that does not fit")
    path = _hashes(proof, leaf, root)
    if not 0 <= index < size <= MAX_INTEGER:
        raise refusal
    fn, sn, digest = index, size - 1, leaf
    for sibling in path:
        if sn == 0:
            raise refusal
        if fn & 1 or fn == sn:
            digest = node_hash(sibling, digest)
            while not fn & 1 and fn:
                fn, sn = fn >> 1, sn >> 1
        else:
            digest = node_hash(digest, sibling)
        fn, sn = fn >> 1, sn >> 1
    if sn or digest != root:
        raise refusal


def verify_consistency(*, old: int, new: int, old_root: bytes, new_root: bytes, proof: Iterable[bytes]) -> None:
    """Raise Refused unless ``proof`` shows the old tree to be a prefix of the new one (RFC 9162 §2.1.4.2).

    1. equal sizes need equal roots, and an empty old tree needs the empty root; both take an empty proof;
    2. otherwise the proof rebuilds both roots, and is neither longer nor shorter than needed.
    """
    refusal = Refused(
        "log.inconsistent",
        "expected the log to be an extension of the one seen before, got one that is not",
        hint="the log's operator rewrote history: keep both checkpoints as proof, and ask the other parties for theirs",
    )
    path = _hashes(proof, old_root, new_root)
    if not 0 <= old <= new <= MAX_INTEGER or (old in (0, new)) == bool(path):
        raise refusal
    if not path:
        if old_root != (new_root if old == new else EMPTY_ROOT):
            raise refusal
        return
    if old & (old - 1) == 0:
        path.insert(0, old_root)
    if _rebuild(old, new, path) != (old_root, new_root):
        raise refusal


def _rebuild(old: int, new: int, path: list[bytes]) -> tuple[bytes, bytes]:
    """Both roots that a consistency path leads to; two empty strings if its length is wrong."""
    fn, sn = old - 1, new - 1
    while fn & 1:
        fn, sn = fn >> 1, sn >> 1
    fr = sr = path[0]
    for item in path[1:]:
        if sn == 0:
            return b"", b""
        if fn & 1 or fn == sn:
            fr, sr = node_hash(item, fr), node_hash(item, sr)
            while not fn & 1 and fn:
                fn, sn = fn >> 1, sn >> 1
        else:
            sr = node_hash(sr, item)
        fn, sn = fn >> 1, sn >> 1
    return (fr, sr) if sn == 0 else (b"", b"")
