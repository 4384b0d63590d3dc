"""Checkpoints (c2sp.org/tlog-checkpoint): a log's signed statement of its size and root.

Whoever relies on a log keeps the last checkpoint it verified and lets ``advance`` decide whether the next one may
replace it. An operator who shows different histories to different people then has to keep them apart for ever,
and two of their checkpoints side by side convict it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import InitVar, dataclass
from typing import Final, Protocol

from kakoi.core.encoding import MAX_INTEGER, b64, unb64
from kakoi.core.errors import Malformed, Refused
from kakoi.tlog import note as notes
from kakoi.tlog.merkle import EMPTY_ROOT, HASH_BYTES, verify_consistency, verify_inclusion

_SIZE: Final = re.compile(r"(?:0|[1-9][0-9]{0,15})\Z")
_EARNED: Final = object()
_HISTORY: Final = (
    "the log's operator rewrote history: keep both checkpoints as proof, and ask the other parties for theirs"
)


class LogKey(Protocol):
    """A log's identity, as a contract names it: origin (also the key's name) and Ed25519 public key."""

    @property
    def origin(self) -> str:
        """First line of every checkpoint."""
        ...

    @property
    def ed25519(self) -> bytes:
        """32 bytes."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedCheckpoint:
    """A checkpoint whose signature was verified. Only ``verify`` makes one."""

    origin: str
    size: int
    root: bytes
    note: bytes
    """The signed note, to be stored and verified again after a restart."""
    earned: InitVar[object]

    def __post_init__(self, earned: object) -> None:
        if earned is not _EARNED:
            raise TypeError("VerifiedCheckpoint is made by kakoi.tlog.checkpoint.verify only")

    def includes(self, *, leaf: bytes, index: int, proof: Iterable[bytes]) -> None:
        """Raise Refused unless the leaf hash ``leaf`` is entry ``index`` of the log at this size."""
        verify_inclusion(leaf=leaf, index=index, size=self.size, proof=proof, root=self.root)


def verify(note: bytes, key: LogKey) -> VerifiedCheckpoint:
    """The checkpoint in a note signed by ``key``.

    1. the note parses, and ``key`` signed it (names of key and origin are one);
    2. origin, size and root are one line each, in their only spelling; further lines are not empty;
    3. the origin is the key's;
    4. a log without entries has the empty root.

    Raises Malformed, or Refused for another signer or origin.
    """
    text = notes.verify(note, name=key.origin, public=key.ed25519)
    lines = text[:-1].split("\n")
    if len(lines) < 3 or not all(lines) or not _SIZE.match(lines[1]) or int(lines[1]) > MAX_INTEGER:
        raise Malformed("log.checkpoint", "expected origin, size and root of a log, got other lines")
    if lines[0] != key.origin:
        raise Refused("log.origin", "expected a checkpoint of the contract's log, got one of another log")
    size, root = int(lines[1]), unb64(lines[2])
    if len(root) != HASH_BYTES or (size == 0 and root != EMPTY_ROOT):
        raise Malformed("log.checkpoint", "expected a root of 32 bytes that fits the size, got another")
    return VerifiedCheckpoint(origin=key.origin, size=size, root=root, note=note, earned=_EARNED)


def sign(*, origin: str, size: int, root: bytes, secret: bytes) -> bytes:
    """A signed checkpoint note. ``secret`` is the log's 32-byte Ed25519 seed.

    The caller must never sign two checkpoints of which one does not extend the other.
    """
    return notes.sign(f"{origin}\n{size}\n{b64(root)}\n", name=origin, secret=secret)


def advance(
    seen: VerifiedCheckpoint | None, new: VerifiedCheckpoint, proof: Iterable[bytes] = ()
) -> VerifiedCheckpoint:
    """The checkpoint to remember: ``new``, if it extends ``seen``. ``proof`` leads from the one to the other.

    With nothing seen before, the first checkpoint is taken on trust. Raises Refused ``log.rollback`` for a smaller
    log, ``log.fork`` for another history of the same size, ``log.inconsistent`` for a larger log that is not an
    extension, ``log.origin`` for another log.
    """
    if seen is None:
        return new
    if seen.origin != new.origin:
        raise Refused("log.origin", "expected a checkpoint of the same log, got one of another log")
    if new.size < seen.size:
        raise Refused(
            "log.rollback", "expected a log at least as long as the one seen before, got a shorter one", hint=_HISTORY
        )
    if new.size == seen.size and new.root != seen.root:
        raise Refused("log.fork", "expected the same root for the same size, got another", hint=_HISTORY)
    verify_consistency(old=seen.size, new=new.size, old_root=seen.root, new_root=new.root, proof=proof)
    return new
