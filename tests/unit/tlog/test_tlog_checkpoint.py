"""Signed notes, checkpoints, leaves and log proofs: published vectors, and every way to be wrong."""

from __future__ import annotations

import base64
import dataclasses
from dataclasses import dataclass

import pytest

from kakoi.contract.model import LogKey as ContractLogKey
from kakoi.core.crypto import ed25519_public, ed25519_sign
from kakoi.core.encoding import b64
from kakoi.core.errors import KakoiError, Malformed, Misuse, Refused
from kakoi.tlog import checkpoint, leaf, merkle, note, proof
from kakoi.tlog.merkle import CompactRange, NodeId

SECRET, OTHER = bytes(range(32)), bytes(range(1, 33))
ORIGIN = "kakoi.example/log"
KEY = ContractLogKey(origin=ORIGIN, ed25519=ed25519_public(SECRET))

# c2sp.org/signed-note, section "Example".
C2SP_KEY = "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k"
C2SP_NOTE = (
    "This is an example message.\n\n— example.com/foo "
    "Uw2QOkn8srV1yJGh2VYRlL1Tnagv1YEq6TfXppzi2ONncAlTgK7Ztg1ERYNZXsYjOBH3mFXmRKuwHjG1Yu72IneyaQM=\n"
).encode()


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    origin: str
    ed25519: bytes


def split(vkey: str) -> tuple[str, bytes]:
    name, _, key = vkey.split("+")
    return name, base64.b64decode(key)[1:]


def log(count: int, salt: bytes = b"") -> tuple[CompactRange, dict[NodeId, bytes]]:
    tree = CompactRange()
    nodes: dict[NodeId, bytes] = {}
    for number in range(count):
        tree, new = tree.append(merkle.leaf_hash(salt + bytes([number])))
        nodes.update(new)
    return tree, nodes


def signed(tree: CompactRange, secret: bytes = SECRET, origin: str = ORIGIN) -> bytes:
    return checkpoint.sign(origin=origin, size=tree.size, root=tree.root, secret=secret)


def verified(tree: CompactRange) -> checkpoint.VerifiedCheckpoint:
    return checkpoint.verify(signed(tree), KEY)


def code(data: bytes, key: checkpoint.LogKey = KEY) -> str:
    with pytest.raises((Malformed, Refused)) as caught:
        checkpoint.verify(data, key)
    return caught.value.code


def resign(text: str) -> bytes:
    """A note with a valid signature over text that ``checkpoint.sign`` would not write."""
    return note.sign(text, name=ORIGIN, secret=SECRET)


def test_the_published_note_verifies_under_its_published_key() -> None:
    name, public = split(C2SP_KEY)
    assert note.verify(C2SP_NOTE, name=name, public=public) == "This is an example message.\n"
    assert note.verifier_key(name, public) == C2SP_KEY


def test_every_flipped_byte_of_the_published_note_is_refused() -> None:
    name, public = split(C2SP_KEY)
    for place in range(len(C2SP_NOTE)):
        for bit in range(8):
            twin = bytearray(C2SP_NOTE)
            twin[place] ^= 1 << bit
            with pytest.raises((Malformed, Refused)):
                note.verify(bytes(twin), name=name, public=public)


def test_every_cut_or_longer_checkpoint_is_refused() -> None:
    good = signed(log(5)[0])
    assert checkpoint.verify(good, KEY).size == 5
    for end in range(len(good)):
        code(good[:end])
    for tail in (b"\n", b" ", b"x", good):
        code(good + tail)


def test_a_contracts_log_key_and_any_object_of_its_shape_will_do() -> None:
    tree, _ = log(3)
    mine = checkpoint.verify(signed(tree), Key(origin=KEY.origin, ed25519=KEY.ed25519))
    assert (mine.size, mine.root, mine.origin) == (3, tree.root, ORIGIN)
    assert mine.note == signed(tree)


def test_other_keys_are_not_enough_and_do_no_harm() -> None:
    tree, _ = log(3)
    good, text = signed(tree), signed(tree).partition(b"\n\n")[0].decode() + "\n"
    witness = note.sign(text, name="witness.example", secret=OTHER).rpartition(b"\n\n")[2]
    assert checkpoint.verify(good + witness, KEY).size == 3
    assert checkpoint.verify(text.encode() + b"\n" + witness + good.rpartition(b"\n\n")[2], KEY).size == 3
    assert code(text.encode() + b"\n" + witness) == "note.signer"
    assert code(signed(tree, secret=OTHER)) == "note.signer"
    assert code(good + good.rpartition(b"\n\n")[2]) == "note.syntax"
    assert code(good + b"".join([witness] * 32)) == "note.syntax"
    assert code(good, Key(origin="other.example", ed25519=KEY.ed25519)) == "note.signer"


def test_a_signature_of_the_right_name_and_id_must_verify() -> None:
    tree, _ = log(3)
    text = signed(tree).partition(b"\n\n")[0] + b"\n"
    blob = note.key_id(ORIGIN, KEY.ed25519) + ed25519_sign(OTHER, text)
    assert code(text + f"\n— {ORIGIN} {b64(blob)}\n".encode()) == "signature.invalid"


@pytest.mark.parametrize(
    "text",
    [
        f"{ORIGIN}\n3\n",
        f"{ORIGIN}\n03\n{b64(bytes(32))}\n",
        f"{ORIGIN}\n+3\n{b64(bytes(32))}\n",
        f"{ORIGIN}\n٣\n{b64(bytes(32))}\n",
        f"{ORIGIN}\n3 \n{b64(bytes(32))}\n",
        f"{ORIGIN}\n{2**53}\n{b64(bytes(32))}\n",
        f"{ORIGIN}\n3\n{b64(bytes(31))}\n",
        f"{ORIGIN}\n0\n{b64(bytes(32))}\n",
        f"{ORIGIN}\n3\n{b64(bytes(32))}\n\nextension after an empty line\n",
        f"\n3\n{b64(bytes(32))}\n",
    ],
)
def test_odd_checkpoints_are_malformed_even_if_signed(text: str) -> None:
    assert code(resign(text)) == "log.checkpoint"


def test_origin_must_be_the_keys() -> None:
    assert code(resign(f"another.example\n3\n{b64(bytes(32))}\n")) == "log.origin"
    assert code(resign(f"{ORIGIN}\n3\nnot base64\n")) == "encoding.base64"


def test_extension_lines_are_carried() -> None:
    assert checkpoint.verify(resign(f"{ORIGIN}\n3\n{b64(bytes(32))}\nextension\n"), KEY).size == 3


@pytest.mark.parametrize("name", ["", "two words", "a+b", "nbsp\u00a0x", "line\nbreak", "tab\tx"])
def test_bad_key_names(name: str) -> None:
    with pytest.raises(Malformed):
        note.sign("text\n", name=name, secret=SECRET)


@pytest.mark.parametrize("text", ["no newline", "tab\t\n", "\x00\n"])
def test_text_that_a_note_cannot_carry_is_not_signed(text: str) -> None:
    with pytest.raises(Malformed):
        note.sign(text, name=ORIGIN, secret=SECRET)


def test_verified_checkpoints_cannot_be_made_by_hand() -> None:
    good = verified(log(3)[0])
    with pytest.raises(TypeError):
        checkpoint.VerifiedCheckpoint(origin=ORIGIN, size=1, root=bytes(32), note=b"", earned=None)
    with pytest.raises((TypeError, ValueError)):
        dataclasses.replace(good, size=9)  # type: ignore[call-arg]


def test_advance_takes_extensions_only() -> None:
    tree, nodes = log(9)
    first, second = verified(log(4)[0]), verified(tree)
    path = merkle.consistency_proof(4, 9, nodes.__getitem__)
    assert checkpoint.advance(None, first) is first
    assert checkpoint.advance(first, second, path) is second
    assert checkpoint.advance(second, second) is second

    def refused(seen: checkpoint.VerifiedCheckpoint, new: checkpoint.VerifiedCheckpoint, *hashes: bytes) -> str:
        with pytest.raises(Refused) as caught:
            checkpoint.advance(seen, new, hashes)
        return caught.value.code

    assert refused(second, first, *path) == "log.rollback"
    assert refused(verified(log(9, b"other")[0]), second) == "log.fork"
    assert refused(verified(log(4, b"other")[0]), second, *path) == "log.inconsistent"
    assert refused(first, second) == "log.inconsistent"
    other = checkpoint.verify(signed(tree, origin="b.example"), Key(origin="b.example", ed25519=KEY.ed25519))
    assert refused(first, other, *path) == "log.origin"


def test_leaves_name_kind_and_digest() -> None:
    digest = "ab" * 32
    data = leaf.leaf_data("kakoi/contract/v1", digest)
    assert data == b"kakoi/log-leaf/v1\0kakoi/contract/v1\0" + b"\xab" * 32
    assert leaf.leaf_hash("kakoi/contract/v1", digest) == merkle.leaf_hash(data)
    with pytest.raises(Malformed):
        leaf.leaf_data("kakoi/contract/v1", "AB" * 32)
    for kind in ("", "a\0b", "é"):
        with pytest.raises(Misuse):
            leaf.leaf_data(kind, digest)


def test_log_proofs_round_trip_and_verify() -> None:
    tree, nodes = log(9)
    for index in range(9):
        path = merkle.inclusion_proof(index, 9, nodes.__getitem__)
        made = proof.LogProof(index=index, hashes=path, checkpoint=signed(tree))
        assert proof.decode(made.encode()) == made
        assert proof.verify(made, KEY, leaf=merkle.leaf_hash(bytes([index]))).size == 9
        with pytest.raises(Refused):
            proof.verify(made, KEY, leaf=merkle.leaf_hash(bytes([index + 1])))
    alone = proof.LogProof(index=0, hashes=(), checkpoint=signed(log(1)[0]))
    assert proof.decode(alone.encode()) == alone


def test_every_flipped_byte_of_a_log_proof_is_refused() -> None:
    tree, nodes = log(9)
    made = proof.LogProof(
        index=5, hashes=merkle.inclusion_proof(5, 9, nodes.__getitem__), checkpoint=signed(tree)
    ).encode()
    for place in range(len(made)):
        twin = bytearray(made)
        twin[place] ^= 0x01
        with pytest.raises(KakoiError):
            proof.verify(proof.decode(bytes(twin)), KEY, leaf=merkle.leaf_hash(bytes([5])))
    for end in range(len(made)):
        with pytest.raises(KakoiError):
            proof.verify(proof.decode(made[:end]), KEY, leaf=merkle.leaf_hash(bytes([5])))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"c2sp.org/tlog-proof@v2\nindex 0\n\nx",
        b"c2sp.org/tlog-proof@v1\nextra AAAA\nindex 0\n\nx",
        b"c2sp.org/tlog-proof@v1\nindex 00\n\nx",
        b"c2sp.org/tlog-proof@v1\nindex 9999999999999999\n\nx",
        b"c2sp.org/tlog-proof@v1\nindex 0\nAAAA\n\nx",
        b"c2sp.org/tlog-proof@v1\nindex 0\n\xff\n\nx",
        b"c2sp.org/tlog-proof@v1\nindex 0\n" + b64(bytes(32)).encode() + b"x",
    ],
)
def test_odd_log_proofs_are_malformed(data: bytes) -> None:
    with pytest.raises(Malformed):
        proof.decode(data)
