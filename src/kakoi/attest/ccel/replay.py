"""Replay of an event log to the registers it claims to explain, and comparison with signed ones.

1. Every event but EV_NO_ACTION extends its register: new = H(old ‖ digest) (Firmware Profile 1.05, 3.2.3).
2. Registers begin with zeros; PCR 17 to 22 with FFh (PTP 1.05); PCR 0 with the locality that a StartupLocality event
   names, which may come only before anything was extended into PCR 0.
3. The values are compared with the **signed** registers. Only then does a log explain anything, and only its digests: an
   event's data is the writer's word, unless the digest is the data's own hash (``proven_data``).

In the log of a TDX guest, index 0 is MRTD (never extended at run time) and index i is RTMR i-1 (UEFI 2.10, 38.4.1).
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from typing import Final

from kakoi.attest.ccel.parse import HASHES, NO_ACTION, Event, EventLog, parse
from kakoi.attest.report import refusal
from kakoi.core.errors import Malformed
from kakoi.core.keys import HashName

__all__ = ["check_registers", "check_rtmrs", "parse", "proven_data", "replay"]
_LOCALITY: Final = b"StartupLocality\0"
_DYNAMIC: Final = range(17, 23)
_RTMRS: Final = 4


def _bad(expected: str, got: str) -> Malformed:
    return Malformed("evidence.malformed", f"event log: expected {expected}, got {got}")


def _initial(index: int, size: int) -> bytes:
    return (b"\xff" if index in _DYNAMIC else b"\0") * size


def _locality(event: Event) -> int | None:
    """The locality of a StartupLocality event, else None."""
    if event.kind != NO_ACTION or event.index != 0 or not event.data.startswith(_LOCALITY):
        return None
    locality = event.data[len(_LOCALITY) :]
    if locality not in (b"\0", b"\3", b"\4"):
        raise _bad("a start-up locality of 0, 3 or 4", "another")
    return locality[0]


def replay(log: EventLog, hash_name: HashName) -> dict[int, bytes]:
    """Register → value after the last event, for all registers that the log extends or starts. Raises Malformed."""
    number = HASHES[hash_name]
    size = hashlib.new(hash_name).digest_size
    if number not in log.algorithms:
        raise _bad(f"digests of {hash_name}", "none")
    registers: dict[int, bytes] = {}
    for event in log.events:
        locality = _locality(event)
        if locality is not None:
            if 0 in registers:
                raise _bad("the start-up locality before any measurement into PCR 0", "it later")
            registers[0] = bytes([*bytes(size - 1), locality])
        elif event.kind != NO_ACTION:
            old = registers.get(event.index, _initial(event.index, size))
            registers[event.index] = hashlib.new(hash_name, old + event.digests[number]).digest()
    return registers


def check_registers(log: EventLog, signed: Mapping[int, bytes], hash_name: HashName, what: str) -> None:
    """Raise Refused ``ccel.replay``, naming every register, unless the log replays to all of ``signed``.

    A register that the log extends and that is not in ``signed`` is not judged.
    """
    registers = replay(log, hash_name)
    wrong = []
    for index, value in signed.items():
        got = registers.get(index, _initial(index, len(value)))
        if not hmac.compare_digest(got, value):
            wrong.append(f"{index}: {value.hex()}, replayed {got.hex()}")
    if wrong:
        raise refusal("ccel.replay", what, "a log that replays to the signed values", "; ".join(wrong), "nobody")


def check_rtmrs(log: EventLog, rtmrs: tuple[bytes, ...]) -> None:
    """Raise Refused ``ccel.replay`` unless a TDX guest's log replays to all four of ``rtmrs`` (48 bytes each)."""
    if len(rtmrs) != _RTMRS or any(event.index == 0 and event.kind != NO_ACTION for event in log.events):
        raise _bad("four RTMRs and no event that extends MRTD", "others")
    check_registers(log, {i + 1: value for i, value in enumerate(rtmrs)}, "sha384", "RTMR (by log index)")


def proven_data(event: Event, hash_name: HashName) -> bytes:
    """The data of an event whose digest is the hash of exactly this data. Raises Refused ``ccel.data``."""
    got = hashlib.new(hash_name, event.data).digest()
    expected = event.digests.get(HASHES[hash_name], b"")
    if not hmac.compare_digest(got, expected):
        raise refusal("ccel.data", "data of an event", expected.hex(), f"data with hash {got.hex()}", "nobody")
    return event.data
