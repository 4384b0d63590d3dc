"""Witnesses of a log: cosignatures (c2sp.org/tlog-cosignature, Ed25519) and what is asked of a witness (c2sp.org/tlog-witness).

A witness signs a checkpoint only if it extends the last one that it signed. So an operator who wants to show two
histories needs as many dishonest witnesses as the number that readers insist on, and not one reader has to meet another.
A cosignature has a key type of its own (0x04): a log's signature never passes for one, nor the other way round.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import InitVar, dataclass
from typing import Final

from kakoi.core.crypto import ed25519_public, ed25519_sign, ed25519_verify, require_ed25519_public
from kakoi.core.encoding import MAX_INTEGER, b64, unb64
from kakoi.core.errors import Malformed, Misuse, Refused
from kakoi.tlog import checkpoint as checkpoints
from kakoi.tlog import note as notes
from kakoi.tlog.checkpoint import LogKey, VerifiedCheckpoint
from kakoi.tlog.merkle import EMPTY_ROOT, HASH_BYTES, Proof, verify_consistency
from kakoi.tlog.note import MAX_NOTE_BYTES, NoteSignature

MAX_REQUEST_BYTES: Final = MAX_NOTE_BYTES + 4096
MAX_REQUEST_PROOF: Final = 63
MAX_FUTURE: Final = 300
"""Seconds that a witness's clock may be ahead of the reader's."""
_COSIGNATURE: Final = b"\x04"
_TIME_BYTES: Final = 8
_ED25519_BYTES: Final = 64
_OLD: Final = re.compile(rb"old (0|[1-9][0-9]{0,15})\Z")
_EARNED: Final = object()


def _bad(expected: str) -> Malformed:
    return Malformed("witness.syntax", f"expected {expected}, got something else")


@dataclass(frozen=True, slots=True, kw_only=True)
class WitnessKey:
    """Whom a reader trusts to have looked: the witness's name and its 32-byte Ed25519 key."""

    name: str
    ed25519: bytes

    def __post_init__(self) -> None:
        notes.check_name(self.name)
        require_ed25519_public(self.ed25519)

    @property
    def key_id(self) -> bytes:
        """The 4 bytes that stand before its cosignatures."""
        return notes.key_id(self.name, self.ed25519, _COSIGNATURE)

    def __str__(self) -> str:
        """The C2SP verifier key: ``name+id+base64(0x04 || key)``."""
        return notes.verifier_key(self.name, self.ed25519, _COSIGNATURE)


def parse_key(text: str) -> WitnessKey:
    """The witness key in a C2SP verifier key of type 0x04, in its only spelling. Raises Malformed."""
    parts = text.split("+", 2)
    blob = unb64(parts[2]) if len(parts) == 3 else b""
    if blob[:1] != _COSIGNATURE:
        raise _bad("a C2SP verifier key of a witness (type 0x04)")
    key = WitnessKey(name=parts[0], ed25519=blob[1:])
    if str(key) != text:
        raise _bad("a verifier key whose id fits its name and key")
    return key


@dataclass(frozen=True, slots=True, kw_only=True)
class Cosignature:
    """A witness's verified word that, at ``time`` (seconds since 1970), this was the newest state it knew. Only ``cosignatures`` makes one."""

    witness: WitnessKey
    time: int
    earned: InitVar[object]

    def __post_init__(self, earned: object) -> None:
        if earned is not _EARNED:
            raise TypeError("Cosignature is made by kakoi.tlog.witness.cosignatures only")


def _message(text: str, time: int) -> bytes:
    return f"cosignature/v1\ntime {time}\n{text}".encode()


def cosign(checkpoint: VerifiedCheckpoint, *, name: str, secret: bytes, time: int) -> bytes:
    """The signature line of a witness under ``checkpoint``, at ``time``. ``secret`` is its 32-byte Ed25519 seed.

    The caller must have stored, before this, that it accepted ``checkpoint`` (``accept``).
    """
    if not 0 < time <= MAX_INTEGER:
        raise Misuse("witness.clock", "expected a time after 1970, got another")
    key = WitnessKey(name=name, ed25519=ed25519_public(secret))
    signature = ed25519_sign(secret, _message(notes.parse(checkpoint.note).text, time))
    blob = time.to_bytes(_TIME_BYTES, "big") + signature
    return NoteSignature(name=name, key_id=key.key_id, signature=blob).line()


def cosignatures(checkpoint: VerifiedCheckpoint, witnesses: Iterable[WitnessKey]) -> tuple[Cosignature, ...]:
    """The cosignatures of ``witnesses`` under a checkpoint, at most one of each, in their order. Lines under other keys are ignored.

    Raises Malformed for one of another length or time, or two of one witness, and Refused ``signature.invalid`` for one that does not verify.
    """
    parsed = notes.parse(checkpoint.note)
    found: list[Cosignature] = []
    for witness in witnesses:
        wanted = (witness.name, witness.key_id)
        mine = [item.signature for item in parsed.signatures if (item.name, item.key_id) == wanted]
        if len(mine) > 1:
            raise _bad("one cosignature of each witness")
        found.extend(_verified(parsed.text, blob, witness) for blob in mine)
    return tuple(found)


def _verified(text: str, blob: bytes, witness: WitnessKey) -> Cosignature:
    time = int.from_bytes(blob[:_TIME_BYTES], "big")
    if len(blob) != _TIME_BYTES + _ED25519_BYTES or not 0 < time <= MAX_INTEGER:
        raise _bad("a time and an Ed25519 signature in a cosignature")
    ed25519_verify(witness.ed25519, _message(text, time), blob[_TIME_BYTES:])
    return Cosignature(witness=witness, time=time, earned=_EARNED)


def require(
    checkpoint: VerifiedCheckpoint,
    witnesses: Sequence[WitnessKey],
    *,
    log: LogKey,
    least: int,
    not_before: int,
    now: int,
) -> tuple[Cosignature, ...]:
    """The cosignatures that count, if there are ``least`` of them. Times are seconds since 1970.

    1. the witnesses are different keys, and none is the log's own: nobody vouches for himself or twice;
    2. each cosignature of theirs verifies (``cosignatures``);
    3. one from before ``not_before``, or more than ``MAX_FUTURE`` after ``now``, does not count;
    4. at least ``least`` are left.

    Raises Misuse for 1 or a ``least`` that cannot be reached, else Malformed or Refused ``witness.quorum``.
    """
    keys = {witness.ed25519 for witness in witnesses}
    if len(keys) != len(witnesses) or log.ed25519 in keys or not 0 < least <= len(keys):
        raise Misuse("witness.policy", "expected different witnesses, none of them the log, and at most as many needed")
    found = cosignatures(checkpoint, witnesses)
    counted = tuple(item for item in found if not_before <= item.time <= now + MAX_FUTURE)
    if len(counted) < least:
        raise Refused(
            "witness.quorum",
            f"expected cosignatures of {least} witnesses in time, got {len(counted)}",
            hint="ask the witnesses what they saw: the log may have shown them another history",
        )
    return counted


@dataclass(frozen=True, slots=True, kw_only=True)
class AddCheckpoint:
    """What a witness is asked: a checkpoint, and the proof from the size that it saw last. Nothing is verified yet."""

    old: int
    proof: Proof
    checkpoint: bytes

    def encode(self) -> bytes:
        """The body of ``POST /add-checkpoint``."""
        path = b"".join(b64(item).encode() + b"\n" for item in self.proof)
        return b"old %d\n%s\n%s" % (self.old, path, self.checkpoint)


def decode(data: bytes) -> AddCheckpoint:
    """The body of ``POST /add-checkpoint``. Raises Malformed."""
    head, separator, note = data.partition(b"\n\n")
    lines = head.split(b"\n")
    old = _OLD.match(lines[0])
    if len(data) > MAX_REQUEST_BYTES or not separator or old is None or len(lines) > MAX_REQUEST_PROOF + 1:
        raise _bad("the body of a C2SP add-checkpoint request")
    try:
        proof = tuple(unb64(line.decode("ascii")) for line in lines[1:])
    except UnicodeDecodeError:
        raise _bad("base64 in a consistency proof") from None
    if any(len(item) != HASH_BYTES for item in proof) or int(old[1]) > MAX_INTEGER:
        raise _bad("a size and hashes of 32 bytes")
    return AddCheckpoint(old=int(old[1]), proof=proof, checkpoint=note)


def accept(seen: VerifiedCheckpoint | None, asked: AddCheckpoint, log: LogKey) -> VerifiedCheckpoint:
    """The checkpoint that a witness may cosign once it has stored it. ``seen`` is the last one that it cosigned.

    1. the log signed the checkpoint;
    2. the old size is at most its size, and is the size that the witness saw last (0: none);
    3. the proof leads from the one to the other; equal sizes have equal roots.

    Looking at ``seen`` and storing the answer must be one step, or two requests at once roll the witness back.
    Raises Malformed, or Refused: ``note.signer`` (HTTP 403), ``witness.old-size`` and ``log.fork`` (409), ``log.inconsistent`` (422).
    """
    new = checkpoints.verify(asked.checkpoint, log)
    if asked.old > new.size:
        raise _bad("an old size of at most the checkpoint's")
    if asked.old != (0 if seen is None else seen.size):
        raise Refused(
            "witness.old-size",
            "expected a proof from the size that this witness cosigned last, got one from another",
            hint="ask the witness for its size and prove from there",
        )
    if seen is not None:
        return checkpoints.advance(seen, new, asked.proof)
    verify_consistency(old=0, new=new.size, old_root=EMPTY_ROOT, new_root=new.root, proof=asked.proof)
    return new
