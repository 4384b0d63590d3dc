"""Proofs that outlive the log (c2sp.org/tlog-proof): checkpoint, index and path of one entry in one small file."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from kakoi.core.encoding import MAX_INTEGER, b64, unb64
from kakoi.core.errors import Malformed
from kakoi.tlog import checkpoint
from kakoi.tlog.checkpoint import LogKey, VerifiedCheckpoint
from kakoi.tlog.merkle import HASH_BYTES, MAX_PROOF, Proof
from kakoi.tlog.note import MAX_NOTE_BYTES

_HEADER: Final = b"c2sp.org/tlog-proof@v1"
_INDEX: Final = re.compile(rb"index (0|[1-9][0-9]{0,15})\Z")
MAX_PROOF_BYTES: Final = MAX_NOTE_BYTES + 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class LogProof:
    """An inclusion proof with the checkpoint it leads to. Nothing is verified yet."""

    index: int
    hashes: Proof
    checkpoint: bytes

    def encode(self) -> bytes:
        """The file's bytes."""
        path = b"".join(b64(item).encode() + b"\n" for item in self.hashes)
        return b"%s\nindex %d\n%s\n%s" % (_HEADER, self.index, path, self.checkpoint)


def decode(data: bytes) -> LogProof:
    """The proof in a file. The optional ``extra`` line is refused: Kakoi has no use for it. Raises Malformed."""
    head, separator, note = data.partition(b"\n\n")
    lines = head.split(b"\n")
    index = _INDEX.match(lines[1]) if len(lines) > 1 else None
    if (
        len(data) > MAX_PROOF_BYTES
        or not separator
        or lines[0] != _HEADER
        or index is None
        or len(lines) > MAX_PROOF + 2
    ):
        raise Malformed("log.proof", "expected a C2SP tlog-proof, got something else")
    try:
        hashes = tuple(unb64(line.decode("ascii")) for line in lines[2:])
    except UnicodeDecodeError:
        raise Malformed("log.proof", "expected base64 in a tlog-proof, got something else") from None
    if any(len(item) != HASH_BYTES for item in hashes) or int(index[1]) > MAX_INTEGER:
        raise Malformed("log.proof", "expected an index and hashes of 32 bytes, got something else")
    return LogProof(index=int(index[1]), hashes=hashes, checkpoint=note)


def verify(proof: LogProof, key: LogKey, *, leaf: bytes) -> VerifiedCheckpoint:
    """The checkpoint under which the log ``key`` holds the leaf hash ``leaf``. Raises Malformed or Refused.

    Whoever remembers an earlier checkpoint of the log passes the result to ``checkpoint.advance``.
    """
    verified = checkpoint.verify(proof.checkpoint, key)
    verified.includes(leaf=leaf, index=proof.index, proof=proof.hashes)
    return verified
