"""NVIDIA attestation reports: an SPDM GET_MEASUREMENTS exchange; strict bytes to frozen objects.

Source: DMTF DSP0274 (SPDM) 1.1, 10.11 (GET_MEASUREMENTS, MEASUREMENTS), and NVIDIA's public attestation SDK for the fields
of the opaque data. Little-endian. The report is the request as it was sent (37 bytes) and the response:

    request   11h E0h, 01h (signature wanted), FFh (all blocks), nonce of 32 bytes, slot
    response  11h 60h, two bytes, number of blocks, length (3 bytes), blocks, nonce, opaque length, opaque data, signature

A block is index, specification 01h (DMTF), size, then type, size and a SHA-384 digest. Opaque data is type, length, value,
each type once. The signature covers everything before it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from kakoi.core.cursor import Cursor

MAX_BYTES: Final = 16 * 1024
NONCE_BYTES: Final = 32
SIGNATURE_BYTES: Final = 96
_REQUEST: Final = bytes.fromhex("11e001ff")
_RESPONSE: Final = bytes.fromhex("1160")
_DIGEST: Final = 48
_BLOCK: Final = 3 + _DIGEST
_MAX_OPAQUE: Final = 4096
_MAX_FILL: Final = 4
"""Some drivers hand out a buffer that is a byte longer than the report."""

DRIVER: Final = 3
VBIOS: Final = 6
FWID: Final = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """A parsed, **unverified** report."""

    nonce: bytes
    """The requester's nonce."""
    slot: int
    measurements: Mapping[int, bytes]
    """Index → SHA-384 digest."""
    opaque: Mapping[int, bytes]
    signed: bytes
    signature: bytes
    """r‖s, big-endian, 48 bytes each."""


def parse(data: bytes) -> Report:
    """The report in ``data``. Raises Malformed ``evidence.malformed``."""
    cursor = Cursor(data, "NVIDIA report", "little")
    if len(data) > MAX_BYTES:
        raise cursor.bad(f"at most {MAX_BYTES} bytes", f"{len(data)}")
    if cursor.take(4, "the request") != _REQUEST:
        raise cursor.bad("a signed request for all measurements (SPDM 1.1)", "another request")
    nonce, slot = cursor.take(NONCE_BYTES, "the request's nonce"), cursor.number(1, "the slot")
    if cursor.take(2, "the response") != _RESPONSE:
        raise cursor.bad("MEASUREMENTS (SPDM 1.1)", "another response")
    cursor.take(1, "the first parameter")
    if slot > 7 or cursor.number(1, "the second parameter") & 0x0F != slot:
        raise cursor.bad("the same slot in request and response, at most 7", "others")
    count, length = cursor.number(1, "the number of blocks"), cursor.number(3, "the length of the blocks")
    measurements = _blocks(cursor.take(length, "the blocks"), count)
    cursor.take(NONCE_BYTES, "the response's nonce")
    opaque = _opaque(cursor.sized(2, _MAX_OPAQUE, "the opaque data"))
    signed = data[: cursor.at]
    signature = cursor.take(SIGNATURE_BYTES, "the signature")
    if cursor.left > _MAX_FILL:
        raise cursor.bad(f"at most {_MAX_FILL} zeros after the signature", f"{cursor.left} bytes")
    cursor.zeros(cursor.left, "the filling after the signature")
    return Report(nonce=nonce, slot=slot, measurements=measurements, opaque=opaque, signed=signed, signature=signature)


def _blocks(data: bytes, count: int) -> dict[int, bytes]:
    cursor = Cursor(data, "NVIDIA measurement blocks", "little")
    found: dict[int, bytes] = {}
    for expected in range(1, count + 1):
        index, specification = cursor.number(1, "an index"), cursor.number(1, "a specification")
        size = cursor.number(2, "a block's size")
        kind, digest_size = cursor.number(1, "a type"), cursor.number(2, "a digest's size")
        if (index, specification, size, digest_size) != (expected, 1, _BLOCK, _DIGEST) or kind > 0x7F:
            raise cursor.bad("DMTF blocks with SHA-384 digests, numbered from 1", "others")
        found[index] = cursor.take(_DIGEST, "a digest")
    cursor.done()
    if not found:
        raise cursor.bad("at least one measurement", "none")
    return found


def _opaque(data: bytes) -> dict[int, bytes]:
    cursor = Cursor(data, "NVIDIA opaque data", "little")
    found: dict[int, bytes] = {}
    while cursor.left:
        kind = cursor.number(2, "a field's type")
        if kind in found:
            raise cursor.bad("each field once", "a repetition")
        found[kind] = cursor.sized(2, _MAX_OPAQUE, "a field")
    return found
