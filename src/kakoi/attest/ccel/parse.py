"""TCG event logs (crypto agile, "Spec ID Event03"): strict bytes to frozen objects.

Source: TCG "PC Client Platform Firmware Profile" 1.05, chapter 10; for TDX the log lies behind the ACPI table CCEL (UEFI
2.10, 38.4). Little-endian. The first event is a TCG_PCR_EVENT that names the hash algorithms; all others are
TCG_PCR_EVENT2 with one digest per algorithm. The area after the last event is filled with FFh or 00h throughout.

Limits: 1 MiB, 10,000 events, 8 algorithms. A log is no evidence by itself: ``replay`` compares it with signed registers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from kakoi.core.cursor import Cursor
from kakoi.core.keys import HashName

MAX_BYTES: Final = 1024 * 1024
MAX_EVENTS: Final = 10_000
NO_ACTION: Final = 0x00000003
_MAX_ALGORITHMS: Final = 8
_SIZES: Final[Mapping[int, int]] = {0x0004: 20, 0x000B: 32, 0x000C: 48, 0x000D: 64, 0x0012: 32}
HASHES: Final[Mapping[HashName, int]] = {"sha256": 0x000B, "sha384": 0x000C, "sha512": 0x000D}
_SPEC_ID: Final = b"Spec ID Event03\0"
_NO_INDEX: Final = 0xFFFFFFFF
"""Index of SP 800-155 events, which extend nothing."""
_MAX_INDEX: Final = 31


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One event. ``digests`` by TCG algorithm number; ``data`` is what the writer says, not what was measured."""

    index: int
    kind: int
    digests: Mapping[int, bytes]
    data: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class EventLog:
    """A parsed, **unverified** log without its first event."""

    algorithms: tuple[int, ...]
    events: tuple[Event, ...]


def parse(data: bytes) -> EventLog:
    """The log in ``data``. Raises Malformed ``evidence.malformed``."""
    cursor = Cursor(data, "event log", "little")
    if len(data) > MAX_BYTES:
        raise cursor.bad(f"at most {MAX_BYTES} bytes", f"{len(data)}")
    algorithms = _first(cursor)
    events: list[Event] = []
    while cursor.left and not _filled(data, cursor.at):
        if len(events) == MAX_EVENTS:
            raise cursor.bad(f"at most {MAX_EVENTS} events", "more")
        events.append(_event(cursor, algorithms))
    return EventLog(algorithms=algorithms, events=tuple(events))


def _filled(data: bytes, at: int) -> bool:
    """Whether everything from ``at`` on is one filling byte. Looks on only where an event cannot begin.

    An event with index and kind FFh… or 00h… would carry no digest, so four such words mark the end of the log.
    """
    head = data[at : at + 16]
    filler = head[:1]
    return head == filler * len(head) and filler in (b"\xff", b"\0") and data.count(filler, at) == len(data) - at


def _first(cursor: Cursor) -> tuple[int, ...]:
    """The algorithms that the specification event names."""
    index, kind = cursor.number(4, "the index"), cursor.number(4, "the type")
    cursor.zeros(20, "the digest of the first event")
    body = Cursor(cursor.sized(4, 256, "the first event"), "specification event", "little")
    if kind != NO_ACTION or index > 1 or body.take(16, "the signature") != _SPEC_ID:
        raise cursor.bad("a specification event (Spec ID Event03) first", "another event")
    body.take(4, "the platform class")
    minor, major = body.number(1, "the minor version"), body.number(1, "the major version")
    body.take(1, "the errata")
    if (major, minor) != (2, 0) or body.number(1, "the size of UINTN") not in (1, 2):
        raise body.bad("version 2.0 of a 32-bit or 64-bit platform", "another")
    count = body.number(4, "the number of algorithms")
    if not 1 <= count <= _MAX_ALGORITHMS:
        raise body.bad(f"1 to {_MAX_ALGORITHMS} algorithms", f"{count}")
    pairs = [(body.number(2, "an algorithm"), body.number(2, "a digest size")) for _ in range(count)]
    body.sized(1, 255, "the vendor's information")
    body.done()
    algorithms = tuple(algorithm for algorithm, _ in pairs)
    if len(set(algorithms)) != count or any(_SIZES.get(algorithm) != size for algorithm, size in pairs):
        raise body.bad("known algorithms, each once, with their sizes", "others")
    return algorithms


def _event(cursor: Cursor, algorithms: tuple[int, ...]) -> Event:
    index, kind = cursor.number(4, "the index"), cursor.number(4, "the type")
    if index > _MAX_INDEX and (index, kind) != (_NO_INDEX, NO_ACTION):
        raise cursor.bad(f"an index of at most {_MAX_INDEX}", f"{index}")
    count = cursor.number(4, "the number of digests")
    if count != len(algorithms):
        raise cursor.bad(f"{len(algorithms)} digests per event", f"{count}")
    digests: dict[int, bytes] = {}
    for _ in range(count):
        algorithm = cursor.number(2, "the algorithm of a digest")
        if algorithm not in algorithms or algorithm in digests:
            raise cursor.bad("one digest of each algorithm", "another")
        digests[algorithm] = cursor.take(_SIZES[algorithm], "a digest")
    return Event(index=index, kind=kind, digests=digests, data=cursor.sized(4, MAX_BYTES, "an event"))
