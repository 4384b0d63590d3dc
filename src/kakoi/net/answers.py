"""What the hub answers, as records: both sides encode and decode with these (docs/formats/hub-api.md).

The hub is trusted for availability only. A decoded answer is well-formed and nothing more.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Literal

from kakoi.core.ids import HEX_DIGEST, BlobId
from kakoi.core.records import Digest, Limit, Record

Kind = Annotated[str, Limit(least=1, most=80, pattern=r"[a-z0-9./-]+\Z")]
Sequence = Annotated[int, Limit(most=2**53 - 1)]
Hash = Annotated[bytes, Limit(least=32, most=32)]
RunStatus = Literal["queued", "claimed", "done", "failed", "abandoned"]
MAX_PAGE = 1000
MAX_PARTS = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorAnswer(Record):
    """Body of every answer with a status of 400 or more."""

    MAX_BYTES: ClassVar[int] = 16 * 1024

    code: Annotated[str, Limit(least=1, most=80, pattern=r"[a-z0-9]+(?:[.-][a-z0-9]+)*\Z")]
    message: Annotated[str, Limit(most=2000)]
    hint: Annotated[str, Limit(most=2000)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Health(Record):
    """The hub answers, and its database too."""

    status: Literal["ok"]


@dataclass(frozen=True, slots=True, kw_only=True)
class FeedItem(Record):
    """An object that the hub holds: its place in the feed, id and kind."""

    seq: Sequence
    id: Digest
    kind: Kind


@dataclass(frozen=True, slots=True, kw_only=True)
class FeedPage(Record):
    """Items in order of ``seq``, and the value of ``after`` that continues behind them."""

    MAX_BYTES: ClassVar[int] = 1024 * 1024

    items: Annotated[tuple[FeedItem, ...], Limit(most=MAX_PAGE)]
    next: Sequence


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimRequest(Record):
    """An enclave asks for work: for how long it would wait, and how long it wants to hold a run before it renews."""

    MAX_BYTES: ClassVar[int] = 4096

    enclave: Annotated[str, Limit(least=1, most=80, pattern=r"[A-Za-z0-9_.-]+\Z")]
    wait: Annotated[int, Limit(most=60)]
    seconds: Annotated[int, Limit(least=2, most=3600)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim(Record):
    """A run that was given to one enclave. Whoever has the token can renew and finish it."""

    MAX_BYTES: ClassVar[int] = 4096

    run: Digest
    attempt: Annotated[int, Limit(least=1, most=5)]
    token: Annotated[str, Limit(least=64, most=64, pattern=r"[0-9a-f]{64}\Z")] = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimUpdate(Record):
    """The holder of a claim renews or ends it."""

    MAX_BYTES: ClassVar[int] = 4096

    token: Annotated[str, Limit(least=64, most=64, pattern=r"[0-9a-f]{64}\Z")] = field(repr=False)
    action: Literal["renew", "done", "failed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunState(Record):
    """Where a run is. ``attempt`` is 0 before the first claim."""

    state: RunStatus
    attempt: Annotated[int, Limit(most=5)]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunItem(Record):
    """One run in the list of runs; ``change`` grows with every change of any run."""

    change: Sequence
    run: Digest
    contract: Digest
    state: RunStatus
    attempt: Annotated[int, Limit(most=5)]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunPage(Record):
    """Runs in order of their latest change, and the value of ``after`` that continues behind them."""

    MAX_BYTES: ClassVar[int] = 1024 * 1024

    items: Annotated[tuple[RunItem, ...], Limit(most=MAX_PAGE)]
    next: Sequence


@dataclass(frozen=True, slots=True, kw_only=True)
class Inclusion(Record):
    """Index and path of an entry of the log."""

    index: Sequence
    hashes: Annotated[tuple[Hash, ...], Limit(most=64)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Consistency(Record):
    """Path between two sizes of the log."""

    hashes: Annotated[tuple[Hash, ...], Limit(most=64)]


@dataclass(frozen=True, slots=True, kw_only=True)
class LogEntry(Record):
    """One entry of the log: kind and id of an object."""

    kind: Kind
    id: Digest


@dataclass(frozen=True, slots=True, kw_only=True)
class LogEntries(Record):
    """Entries from ``start`` on, in order; fewer than asked for where the page or the log ends."""

    MAX_BYTES: ClassVar[int] = 1024 * 1024

    start: Sequence
    entries: Annotated[tuple[LogEntry, ...], Limit(most=MAX_PAGE)]


@dataclass(frozen=True, slots=True, kw_only=True)
class BlobStored(Record):
    """A blob is stored."""

    blob: Annotated[BlobId, Limit(least=64, most=64, pattern=HEX_DIGEST.pattern)]


@dataclass(frozen=True, slots=True, kw_only=True)
class PartHeld(Record):
    """One part of a blob that is still coming: its number from 0 on, and the SHA-256 of its bytes."""

    number: Annotated[int, Limit(most=MAX_PARTS)]
    digest: Digest


@dataclass(frozen=True, slots=True, kw_only=True)
class PartsHeld(Record):
    """Where to cut a blob, and the parts of it that are here already, by number."""

    MAX_BYTES: ClassVar[int] = 2 * 1024 * 1024

    part_bytes: Annotated[int, Limit(least=1, most=1024 * 1024 * 1024)]
    parts: Annotated[tuple[PartHeld, ...], Limit(most=MAX_PARTS)]
