"""The chain through a stream of events, and its signed heads: what was removed, altered or put in between shows. Pure.

Event n is a line of canonical JSON that holds the hash of the one before it; its own hash is SHA-256 over a framed tag, that hash and the
line. A head says how long the stream was at some time and what its last hash was, signed by the party's keys. Cutting off
the end behind the last head leaves no trace in the stream itself: whoever keeps a head elsewhere sees that too.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Final

from kakoi.core import dsse, encoding
from kakoi.core.crypto import Signer, VerifyingKey
from kakoi.core.dsse import Envelope
from kakoi.core.encoding import framed, sha256
from kakoi.core.errors import Malformed, Refused
from kakoi.core.ids import ObjectId
from kakoi.core.limits import Digest, Limit, Seconds
from kakoi.core.records import Record
from kakoi.core.sealed import Sealed

GENESIS: Final = bytes(32)
MAX_LINE: Final = 16 * 1024
_HINT: Final = "somebody who can write the stream's file altered it: compare with what was exported, and find out who"


@dataclass(frozen=True, slots=True, kw_only=True)
class EventHead(Record):
    """How long a stream was, and its last hash. ``stream`` is the Ed25519 key id of the party's signing key."""

    KIND: ClassVar[str] = "kakoi/event-head/v1"
    MAX_BYTES: ClassVar[int] = 1024

    stream: Digest
    size: Annotated[int, Limit(least=1, most=2**52)]
    digest: Digest
    signed_at: Seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class EventKey(Record):
    """The public key under which a program without a party card signs its stream (hub, enclave host)."""

    KIND: ClassVar[str] = "kakoi/event-key/v1"
    MAX_BYTES: ClassVar[int] = 8192

    ed25519: Annotated[bytes, Limit(least=32, most=32)]
    mldsa65: Annotated[bytes, Limit(least=1952, most=1952)]

    @property
    def verifying_key(self) -> VerifyingKey:
        """As ``core.crypto`` takes it."""
        return VerifyingKey(ed25519=self.ed25519, mldsa65=self.mldsa65)


def link(previous: bytes, line: bytes) -> bytes:
    """The hash of an event behind the one whose hash is ``previous``."""
    return sha256(framed(b"kakoi/event/v1", previous, line))


def sign_head(*, stream: str, size: int, digest: bytes, at: int, signer: Signer) -> Envelope:
    """A signed head."""
    record = EventHead(stream=ObjectId(stream), size=size, digest=ObjectId(digest.hex()), signed_at=at)
    return dsse.sign(record.encode(), signer)


def open_head(envelope: Envelope, key: VerifyingKey) -> EventHead:
    """A head that ``key`` signed about its own stream. Raises Malformed or Refused."""
    head = EventHead.decode(dsse.verify(envelope, key))
    if head.stream != key.ed25519_keyid:
        raise Refused("event.head", "expected a head of this key's own stream, got another stream's")
    return head


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedStream(metaclass=Sealed):
    """A stream without gap or alteration. ``signed`` events stand under a head; those behind it rest on the file alone."""

    size: int
    signed: int
    digest: bytes
    head: EventHead | None


def read_line(line: bytes) -> Any:
    """One event. Raises Malformed for anything that is not a line of a stream."""
    event = encoding.loads(line, limit=MAX_LINE)
    try:
        number, previous = event["metadata"]["sequence"], event["unmapped"]["kakoi"]["previous"]
    except (KeyError, TypeError, IndexError):
        raise Malformed("event.line", "expected an event with its place in a stream, got something else") from None
    if not isinstance(number, int) or not isinstance(previous, str):
        raise Malformed("event.line", "expected an event with its place in a stream, got something else")
    return event


def verify_stream(
    lines: Iterable[bytes], heads: Iterable[Envelope], key: VerifyingKey, *, known: Iterable[EventHead] = ()
) -> VerifiedStream:
    """A stream, whole from its first event.

    1. every line is an event in canonical JSON, numbered from 1 without a gap;
    2. every line holds the hash of the one before it;
    3. every head is signed by ``key`` about its own stream, and heads only grow;
    4. at every head, and at every ``known`` one (kept elsewhere), the stream had the hash that the head says.

    Raises Malformed, or Refused: ``event.gap``, ``event.altered``, ``event.cut``, ``event.head``.
    """
    opened = sorted((*(open_head(envelope, key) for envelope in heads), *known), key=lambda head: head.size)
    wanted = {head.size: head for head in opened}
    digest, number = GENESIS, 0
    for number, line in enumerate(lines, start=1):
        event = read_line(line)
        if event["metadata"]["sequence"] != number:
            raise Refused("event.gap", f"expected event number {number}, got another", hint=_HINT)
        if event["unmapped"]["kakoi"]["previous"] != digest.hex():
            raise Refused("event.altered", f"expected event {number} to hold the hash of the one before", hint=_HINT)
        digest = link(digest, line)
        if number in wanted and wanted[number].digest != digest.hex():
            raise Refused("event.altered", f"expected the hash that was signed at event {number}", hint=_HINT)
    last = opened[-1] if opened else None
    if last is not None and last.size > number:
        raise Refused("event.cut", f"expected at least {last.size} events, which a head names, got fewer", hint=_HINT)
    _require_growth(opened)
    made: VerifiedStream = VerifiedStream._seal(size=number, signed=last.size if last else 0, digest=digest, head=last)
    return made


def _require_growth(heads: list[EventHead]) -> None:
    for before, after in itertools.pairwise(heads):
        if before.size == after.size and before.digest != after.digest:
            raise Refused("event.head", "expected one history, got two heads of one size that differ", hint=_HINT)
