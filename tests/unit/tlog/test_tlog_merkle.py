"""Known answers for the Merkle tree, and what its verifiers refuse."""

from __future__ import annotations

import time
from typing import Any

import pytest

from kakoi.core.errors import Malformed, Misuse, Refused
from kakoi.tlog import merkle
from kakoi.tlog.merkle import CompactRange, NodeId

# The eight leaves and roots that Certificate Transparency's own tests have used since RFC 6962 was drafted.
LEAVES = [
    bytes.fromhex(text)
    for text in ("", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f")
]
ROOTS = (
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
)
# RFC 9162 §2.1.5 draws the tree of seven leaves d0..d6 and names its nodes:
#   a..f, j are the leaf hashes 0..6; g, h, i the pairs; k, l the fours (l = i and the lone j).
SEVEN_INCLUSION = {0: "bhl", 3: "cgl", 4: "fjk", 6: "ik"}
SEVEN_CONSISTENCY = {3: "cdgl", 4: "l", 6: "ijk"}


def grow(count: int) -> tuple[CompactRange, dict[NodeId, bytes]]:
    tree = CompactRange()
    nodes: dict[NodeId, bytes] = {}
    for leaf in LEAVES[:count]:
        tree, new = tree.append(merkle.leaf_hash(leaf))
        nodes.update(new)
    return tree, nodes


def named() -> dict[str, bytes]:
    names = dict(zip("abcdefj", (merkle.leaf_hash(leaf) for leaf in LEAVES[:7]), strict=True))
    for parent, pair in {"g": "ab", "h": "cd", "i": "ef", "k": "gh", "l": "ij"}.items():
        names[parent] = merkle.node_hash(names[pair[0]], names[pair[1]])
    return names


@pytest.mark.parametrize("size", range(9))
def test_roots_are_the_published_ones(size: int) -> None:
    tree, nodes = grow(size)
    assert tree.root.hex() == ROOTS[size]
    assert merkle.compact_range(size, nodes.__getitem__) == tree


@pytest.mark.parametrize(("index", "letters"), SEVEN_INCLUSION.items())
def test_inclusion_paths_of_the_rfc(index: int, letters: str) -> None:
    tree, nodes = grow(7)
    names = named()
    proof = merkle.inclusion_proof(index, 7, nodes.__getitem__)
    assert proof == tuple(names[letter] for letter in letters)
    merkle.verify_inclusion(leaf=names["abcdefj"[index]], index=index, size=7, proof=proof, root=tree.root)


@pytest.mark.parametrize(("old", "letters"), SEVEN_CONSISTENCY.items())
def test_consistency_paths_of_the_rfc(old: int, letters: str) -> None:
    tree, nodes = grow(7)
    names = named()
    proof = merkle.consistency_proof(old, 7, nodes.__getitem__)
    assert proof == tuple(names[letter] for letter in letters)
    merkle.verify_consistency(old=old, new=7, old_root=grow(old)[0].root, new_root=tree.root, proof=proof)


def refused(**case: Any) -> str:
    judge = merkle.verify_inclusion if "leaf" in case else merkle.verify_consistency
    with pytest.raises((Refused, Malformed)) as caught:
        judge(**case)
    return caught.value.code


def test_inclusion_refuses_each_wrong_part() -> None:
    tree, nodes = grow(7)
    leaf = merkle.leaf_hash(LEAVES[3])
    good: dict[str, Any] = {
        "leaf": leaf,
        "index": 3,
        "size": 7,
        "proof": merkle.inclusion_proof(3, 7, nodes.__getitem__),
        "root": tree.root,
    }
    merkle.verify_inclusion(**good)
    path = list(merkle.inclusion_proof(3, 7, nodes.__getitem__))
    changes: tuple[dict[str, Any], ...] = (
        {"index": 2},
        {"index": 7},
        {"index": -1},
        {"size": 3},
        {"size": 2**53},
        {"leaf": merkle.leaf_hash(LEAVES[2])},
        {"root": grow(6)[0].root},
        {"proof": path[:-1]},
        {"proof": [*path, path[0]]},
        {"proof": path[::-1]},
        {"proof": []},
    )
    for change in changes:
        assert refused(**{**good, **change}) == "log.inclusion"
    malformed: tuple[dict[str, Any], ...] = (
        {"proof": [b"x", *path[1:]]},
        {"root": b""},
        {"leaf": leaf + b"\0"},
        {"proof": path * 30},
    )
    for bad in malformed:
        assert refused(**{**good, **bad}) == "log.proof"


def test_consistency_refuses_each_wrong_part() -> None:
    tree, nodes = grow(7)
    old = grow(5)[0]
    path = list(merkle.consistency_proof(5, 7, nodes.__getitem__))
    good: dict[str, Any] = {"old": 5, "new": 7, "old_root": old.root, "new_root": tree.root, "proof": path}
    merkle.verify_consistency(**good)
    changes: tuple[dict[str, Any], ...] = (
        {"old": 4},
        {"old": 7},
        {"new": 5},
        {"old": 8},
        {"old": 0},
        {"new": 2**53},
        {"old_root": tree.root},
        {"new_root": old.root},
        {"proof": path[:-1]},
        {"proof": [*path, path[0]]},
        {"proof": []},
    )
    for change in changes:
        assert refused(**{**good, **change}) == "log.inconsistent"


def test_trivial_consistency_needs_the_right_roots_and_no_proof() -> None:
    tree, _ = grow(4)
    same_size: dict[str, Any] = {"old": 4, "new": 4, "old_root": tree.root, "new_root": tree.root}
    merkle.verify_consistency(**same_size, proof=[])
    assert refused(**same_size, proof=[tree.root]) == "log.inconsistent"
    assert refused(old=4, new=4, old_root=tree.root, new_root=merkle.EMPTY_ROOT, proof=[]) == "log.inconsistent"
    merkle.verify_consistency(old=0, new=4, old_root=merkle.EMPTY_ROOT, new_root=tree.root, proof=[])
    assert refused(old=0, new=4, old_root=tree.root, new_root=tree.root, proof=[]) == "log.inconsistent"


def test_leaf_and_node_hashes_are_apart() -> None:
    """Without the prefixes of RFC 6962 an inner node could be passed off as an entry."""
    left, right = merkle.leaf_hash(b"l"), merkle.leaf_hash(b"r")
    assert merkle.leaf_hash(left + right) != merkle.node_hash(left, right)


@pytest.mark.parametrize("index", [4, -1])
def test_plans_out_of_range_are_misuse(index: int) -> None:
    with pytest.raises(Misuse):
        merkle.inclusion_plan(index, 4)
    with pytest.raises(Misuse):
        merkle.consistency_plan(5, 4)
    with pytest.raises(Misuse):
        CompactRange().append(b"short")


def test_a_hundred_thousand_entries_stay_fast() -> None:
    """Appending costs two hashes on average, a proof costs tens: both are independent of what lies before."""
    tree = CompactRange()
    nodes: dict[NodeId, bytes] = {}
    started = time.process_time()
    for number in range(100_000):
        tree, new = tree.append(merkle.leaf_hash(number.to_bytes(4, "big")))
        nodes.update(new)
    assert time.process_time() - started < 10
    assert len(nodes) < 2 * tree.size
    proof = merkle.inclusion_proof(77_777, tree.size, nodes.__getitem__)
    leaf = merkle.leaf_hash((77_777).to_bytes(4, "big"))
    merkle.verify_inclusion(leaf=leaf, index=77_777, size=tree.size, proof=proof, root=tree.root)
    assert len(proof) == 17
    assert sum(map(len, merkle.inclusion_plan(77_777, tree.size))) < 40
