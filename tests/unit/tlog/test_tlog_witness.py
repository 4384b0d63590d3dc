"""Witnesses: two histories that each reader alone believes, what a witness refuses, and every cosignature that does not count."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kakoi.contract.model import LogKey
from kakoi.core.crypto import ed25519_public, ed25519_sign
from kakoi.core.encoding import b64, unb64
from kakoi.core.errors import KakoiError, Malformed, Misuse, Refused
from kakoi.tlog import checkpoint, merkle, note, witness
from kakoi.tlog.checkpoint import VerifiedCheckpoint
from kakoi.tlog.merkle import CompactRange, NodeId
from kakoi.tlog.witness import AddCheckpoint, WitnessKey

SECRET, FIRST, SECOND = bytes(range(32)), bytes(range(1, 33)), bytes(range(2, 34))
ORIGIN, NAME = "kakoi.example/log", "clinic.example/witness"
LOG = LogKey(origin=ORIGIN, ed25519=ed25519_public(SECRET))
WITNESS = WitnessKey(name=NAME, ed25519=ed25519_public(FIRST))
OTHER = WitnessKey(name="lab.example/witness", ed25519=ed25519_public(SECOND))
NOW = 1_800_000_000


class Tree:
    """A log of ``count`` entries; another ``salt`` after entry ``same`` is another history."""

    def __init__(self, count: int, salt: bytes = b"", same: int = 0) -> None:
        self.tree, self.nodes = CompactRange(), dict[NodeId, bytes]()
        for number in range(count):
            leaf = merkle.leaf_hash((salt if number >= same else b"") + bytes([number]))
            self.tree, new = self.tree.append(leaf)
            self.nodes.update(new)

    @property
    def note(self) -> bytes:
        return checkpoint.sign(origin=ORIGIN, size=self.tree.size, root=self.tree.root, secret=SECRET)

    @property
    def verified(self) -> VerifiedCheckpoint:
        return checkpoint.verify(self.note, LOG)

    def asked(self, old: int) -> AddCheckpoint:
        proof = merkle.consistency_proof(old, self.tree.size, self.nodes.__getitem__)
        return AddCheckpoint(old=old, proof=proof, checkpoint=self.note)


def cosigned(tree: Tree, *lines: bytes) -> VerifiedCheckpoint:
    return checkpoint.verify(tree.note + b"".join(lines), LOG)


def line(tree: Tree, *, name: str = NAME, secret: bytes = FIRST, time: int = NOW) -> bytes:
    return witness.cosign(tree.verified, name=name, secret=secret, time=time)


def required(seen: VerifiedCheckpoint, *keys: WitnessKey, least: int = 1) -> tuple[int, ...]:
    found = witness.require(seen, keys or (WITNESS,), log=LOG, least=least, not_before=NOW - 60, now=NOW)
    return tuple(item.time for item in found)


def refused(seen: VerifiedCheckpoint | None, asked: AddCheckpoint, log: LogKey = LOG) -> str:
    with pytest.raises((Malformed, Refused)) as caught:
        witness.accept(seen, asked, log)
    return caught.value.code


def not_counted(seen: VerifiedCheckpoint, *keys: WitnessKey, least: int = 1) -> str:
    with pytest.raises((Malformed, Refused)) as caught:
        required(seen, *keys, least=least)
    return caught.value.code


def test_two_histories_that_two_readers_believe_do_not_both_get_a_cosignature() -> None:
    one, two = Tree(7), Tree(9, b"other", same=4)
    for history in (one, two):  # without a witness
        assert checkpoint.advance(None, history.verified).root == history.tree.root
    seen = witness.accept(None, one.asked(0), LOG)
    assert required(cosigned(one, line(one))) == (NOW,)
    assert refused(seen, two.asked(7)) == "log.inconsistent"
    assert refused(seen, Tree(7, b"other", same=4).asked(7)) == "log.fork"
    assert refused(seen, two.asked(0)) == "witness.old-size"
    assert not_counted(two.verified) == "witness.quorum"


def test_a_witness_follows_a_log_that_only_grows() -> None:
    seen: VerifiedCheckpoint | None = None
    for size in (0, 1, 1, 5, 8, 21):
        seen = witness.accept(seen, Tree(size).asked(0 if seen is None else seen.size), LOG)
        assert seen.size == size
    assert refused(seen, Tree(20).asked(20)) == "witness.old-size"
    back = dataclasses.replace(Tree(20).asked(20), old=21)
    assert refused(seen, back) == "witness.syntax"


def test_a_witness_looks_at_signature_and_proof() -> None:
    seen, good = Tree(5).verified, Tree(12).asked(5)
    assert witness.accept(seen, good, LOG).size == 12
    assert refused(seen, good, LogKey(origin=ORIGIN, ed25519=OTHER.ed25519)) == "note.signer"
    assert refused(seen, good, LogKey(origin="another.example", ed25519=LOG.ed25519)) == "note.signer"
    for proof in (good.proof[:-1], (*good.proof, good.proof[0]), good.proof[::-1], ()):
        assert refused(seen, dataclasses.replace(good, proof=proof)) == "log.inconsistent"
    assert refused(None, dataclasses.replace(Tree(12).asked(0), proof=good.proof)) == "log.inconsistent"
    # A witness whose memory was put back asks for proof from there, which a log that has moved on gives; a fork of what is left it cannot see.
    assert witness.accept(Tree(3).verified, Tree(12).asked(3), LOG).size == 12


def test_the_message_is_the_one_of_the_specification() -> None:
    tree = Tree(3)
    blob = unb64(line(tree).decode().split(" ")[2].strip())
    text = tree.note.partition(b"\n\n")[0] + b"\n"
    expected = b"cosignature/v1\ntime 1800000000\n" + text
    assert blob[:4] == WITNESS.key_id
    assert blob[4:12] == NOW.to_bytes(8, "big")
    assert blob[12:] == ed25519_sign(FIRST, expected)


def test_cosignatures_that_count_and_those_that_do_not() -> None:
    tree, longer = Tree(3), Tree(4)
    both = cosigned(tree, line(tree), line(tree, name=OTHER.name, secret=SECOND, time=NOW + 1))
    assert required(both, WITNESS, OTHER, least=2) == (NOW, NOW + 1)
    assert required(both, OTHER) == (NOW + 1,)
    for time in (NOW - 61, NOW + witness.MAX_FUTURE + 1):
        assert not_counted(cosigned(tree, line(tree, time=time))) == "witness.quorum"
    assert not_counted(cosigned(tree, line(tree)), WITNESS, OTHER, least=2) == "witness.quorum"
    assert not_counted(cosigned(tree, line(tree, secret=SECOND))) == "witness.quorum"
    assert not_counted(cosigned(tree, line(tree, name="x"))) == "witness.quorum"
    assert not_counted(cosigned(tree, line(longer))) == "signature.invalid"
    assert not_counted(cosigned(tree, line(tree), line(tree, time=NOW + 1))) == "witness.syntax"


def test_a_plain_note_signature_of_the_witness_is_no_cosignature() -> None:
    tree = Tree(3)
    text = tree.note.partition(b"\n\n")[0].decode() + "\n"
    plain = note.sign(text, name=NAME, secret=FIRST).rpartition(b"\n\n")[2]
    assert not_counted(cosigned(tree, plain)) == "witness.quorum"


def test_another_time_in_a_cosignature_does_not_verify() -> None:
    tree = Tree(3)
    blob = bytearray(unb64(line(tree).decode().split(" ")[2].strip()))
    for place in range(4, len(blob)):
        twin = bytearray(blob)
        twin[place] ^= 1
        assert not_counted(cosigned(tree, f"— {NAME} {b64(bytes(twin))}\n".encode())) in {
            "signature.invalid",
            "witness.syntax",
        }
    for short in (blob[:12], blob[:-1], blob + b"\0"):
        assert not_counted(cosigned(tree, f"— {NAME} {b64(bytes(short))}\n".encode())) == "witness.syntax"


def test_nobody_vouches_for_himself_or_twice() -> None:
    tree = Tree(3)
    itself = WitnessKey(name=NAME, ed25519=LOG.ed25519)
    renamed = WitnessKey(name="renamed.example", ed25519=WITNESS.ed25519)
    seen = cosigned(tree, line(tree), line(tree, name="renamed.example"))
    for keys, least in (
        ((itself,), 1),
        ((WITNESS, renamed), 2),
        ((WITNESS, renamed), 1),
        ((WITNESS,), 2),
        ((WITNESS,), 0),
    ):
        with pytest.raises(Misuse, match="different witnesses"):
            witness.require(seen, keys, log=LOG, least=least, not_before=0, now=NOW)
    with pytest.raises(Misuse, match="after 1970"):
        line(tree, time=0)
    with pytest.raises(TypeError):
        witness.Cosignature(witness=WITNESS, time=NOW, earned=None)


def test_keys_have_one_spelling() -> None:
    text = str(WITNESS)
    assert witness.parse_key(text) == WITNESS
    bad = [text[:end] for end in range(len(text))]
    bad += [text + "=", text + " ", text.upper(), note.verifier_key(NAME, WITNESS.ed25519), "x" + text]
    for other in bad:
        with pytest.raises(Malformed):
            witness.parse_key(other)


@given(st.binary(max_size=400) | st.binary(max_size=200).map(lambda tail: b"old 3\n" + tail))
def test_any_bytes_are_read_as_a_request_in_one_spelling_or_refused(data: bytes) -> None:
    try:
        asked = witness.decode(data)
    except KakoiError:
        return
    assert asked.encode() == data


@pytest.mark.parametrize("old", [0, 5, 12])
def test_requests_keep_what_they_say(old: int) -> None:
    asked = Tree(12).asked(old)
    assert witness.decode(asked.encode()) == asked
    for twin in (b" " + asked.encode(), asked.encode().replace(b"old ", b"old 0"), b"old 3\n" + b"AA==\n" * 2 + b"\n"):
        with pytest.raises(Malformed):
            witness.decode(twin)
    with pytest.raises(Malformed):
        witness.decode(AddCheckpoint(old=old, proof=(bytes(32),) * 64, checkpoint=b"").encode())
