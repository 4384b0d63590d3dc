"""Reading a log that nobody trusts: each answer is verified against the last checkpoint that was."""

from __future__ import annotations

from typing import Protocol

from kakoi.core.errors import Refused
from kakoi.net.answers import Inclusion
from kakoi.tlog import checkpoint
from kakoi.tlog.checkpoint import LogKey, VerifiedCheckpoint
from kakoi.tlog.leaf import leaf_hash
from kakoi.tlog.proof import LogProof


class LogSource(Protocol):
    """Whoever serves a log; ``HubClient`` does."""

    def log_checkpoint(self) -> bytes:
        """The newest signed checkpoint."""
        ...

    def log_inclusion(self, leaf: bytes, size: int) -> Inclusion:
        """Index and path of a leaf hash."""
        ...

    def log_consistency(self, old: int, new: int) -> tuple[bytes, ...]:
        """Path between two sizes."""
        ...


def advance(source: LogSource, key: LogKey, seen: VerifiedCheckpoint | None) -> VerifiedCheckpoint:
    """The log's newest checkpoint, if it extends ``seen``: remember it. Raises what ``tlog.checkpoint`` raises."""
    new = checkpoint.verify(source.log_checkpoint(), key)
    needed = seen is not None and 0 < seen.size < new.size
    proof = source.log_consistency(seen.size, new.size) if seen is not None and needed else ()
    return checkpoint.advance(seen, new, proof)


def prove(
    source: LogSource, key: LogKey, *, kind: str, digest: str, seen: VerifiedCheckpoint | None
) -> tuple[LogProof, VerifiedCheckpoint]:
    """Proof that the object ``digest`` (hex id) of ``kind`` is in the log, under a checkpoint that extends ``seen``.

    Raises Refused ``log.missing`` if the log does not have it.
    """
    newest, leaf = advance(source, key, seen), leaf_hash(kind, digest)
    try:
        found = source.log_inclusion(leaf, newest.size)
    except Refused:
        raise Refused(
            "log.missing",
            "expected the object in the transparency log, got the answer that it is not there",
            hint="the hub must log an object before anybody relies on it: ask its operator",
        ) from None
    newest.includes(leaf=leaf, index=found.index, proof=found.hashes)
    return LogProof(index=found.index, hashes=found.hashes, checkpoint=newest.note), newest
