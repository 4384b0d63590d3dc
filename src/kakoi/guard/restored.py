"""The proof that a backup was restored: what was found in it, signed by whoever restored it. Kept beside what was backed up."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Final, Literal

from kakoi.core import dsse
from kakoi.core.crypto import VerifyingKey
from kakoi.core.dsse import Envelope
from kakoi.core.errors import KakoiError
from kakoi.core.limits import Digest, Limit, Seconds
from kakoi.core.records import Record

FILE: Final = "restored.dsse"


@dataclass(frozen=True, slots=True, kw_only=True)
class RestoreProof(Record):
    """A copy was opened in another place, checked whole, and belongs to what lies here. Signed by the party, or by the hub's event key."""

    KIND: ClassVar[str] = "kakoi/restore-proof/v1"
    MAX_BYTES: ClassVar[int] = 4096

    of: Literal["hub", "party"]
    size: Annotated[int, Limit(most=2**52)]
    """Entries of the hub's log, or decisions of the party's ledger, in the copy."""
    root: Digest
    """Root of that log, or of the tree over those decisions."""
    behind: Annotated[int, Limit(most=2**52)]
    """How many more there were here at that time."""
    restored_at: Seconds


def restored_at(directory: Path, key: VerifyingKey) -> int | None:
    """When a copy of this directory was restored last, by a proof that ``key`` signed; None without one."""
    path = directory / FILE
    if not path.exists():
        return None
    try:
        envelope = Envelope.decode(path.read_bytes()[: 64 * 1024])
        return RestoreProof.decode(dsse.verify(envelope, key)).restored_at
    except KakoiError:
        return None  # what nobody of this house signed proves nothing
