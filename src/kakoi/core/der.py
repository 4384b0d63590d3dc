"""DER (ITU-T X.690 §10), the little of it that attestation needs: read strictly, write.

Accepted: low tag numbers, definite minimal lengths, no leftovers. Everything else is ``Malformed``.
"""

from __future__ import annotations

from typing import Final

from kakoi.core.errors import Malformed

INTEGER: Final = 0x02
OCTET_STRING: Final = 0x04
NULL: Final = 0x05
OID: Final = 0x06
ENUMERATED: Final = 0x0A
BOOLEAN: Final = 0x01
IA5_STRING: Final = 0x16
SEQUENCE: Final = 0x30
_LONG_FORM: Final = 0x80
_MAX_ITEMS: Final = 200_000


def _bad(what: str) -> Malformed:
    return Malformed("der.encoding", f"expected DER, got {what}", hint="the certificate was cut or changed on the way")


def _header(data: bytes, at: int) -> tuple[int, int, int]:
    """Tag, start and end of the value that begins at ``at``."""
    if at + 2 > len(data):
        raise _bad("a value that ends early")
    tag, length, start = data[at], data[at + 1], at + 2
    if tag & 0x1F == 0x1F:
        raise _bad("a high tag number")
    if length >= _LONG_FORM:
        count = length & 0x7F
        if not 1 <= count <= 4 or start + count > len(data):
            raise _bad("a length of unsupported form")
        length = int.from_bytes(data[start : start + count], "big")
        if length < _LONG_FORM or data[start] == 0:
            raise _bad("a length that is not minimal")
        start += count
    if start + length > len(data):
        raise _bad("a value that ends early")
    return tag, start, start + length


def items(data: bytes) -> list[tuple[int, bytes]]:
    """All (tag, value) pairs that make up ``data`` exactly."""
    found, at = [], 0
    while at < len(data):
        tag, start, end = _header(data, at)
        found.append((tag, data[start:end]))
        if len(found) > _MAX_ITEMS:
            raise _bad(f"more than {_MAX_ITEMS} items")
        at = end
    return found


def one(data: bytes, tag: int) -> bytes:
    """The value of ``data``, which must be exactly one item with this tag."""
    found = items(data)
    if len(found) != 1 or found[0][0] != tag:
        raise _bad(f"something else than one item with tag {tag:#04x}")
    return found[0][1]


def sequence(data: bytes) -> list[tuple[int, bytes]]:
    """The items of exactly one SEQUENCE."""
    return items(one(data, SEQUENCE))


def integer(value: bytes) -> int:
    """A minimally encoded INTEGER or ENUMERATED value."""
    if not value or (len(value) > 1 and (value[0], value[1] >> 7) in ((0, 0), (0xFF, 1))):
        raise _bad("an integer that is not minimal")
    return int.from_bytes(value, "big", signed=True)


def boolean(value: bytes) -> bool:
    """A BOOLEAN value: 00 or FF."""
    if value not in (b"\x00", b"\xff"):
        raise _bad("a boolean that is neither 00 nor FF")
    return value == b"\xff"


def oid(value: bytes) -> str:
    """Dotted form of an OBJECT IDENTIFIER value."""
    if not value or value[-1] & 0x80 or len(value) > 64:
        raise _bad("an object identifier that is cut or too long")
    arcs, arc = [], 0
    for i, byte in enumerate(value):
        if arc == 0 and byte == 0x80 and (i == 0 or not value[i - 1] & 0x80):
            raise _bad("an object identifier that is not minimal")
        arc = arc << 7 | byte & 0x7F
        if not byte & 0x80:
            arcs.append(arc)
            arc = 0
    first = min(arcs[0] // 40, 2)
    return ".".join(map(str, [first, arcs[0] - 40 * first, *arcs[1:]]))


def write(tag: int, *values: bytes) -> bytes:
    """One item: tag, minimal length, concatenated values."""
    body = b"".join(values)
    if len(body) < _LONG_FORM:
        return bytes([tag, len(body)]) + body
    size = len(body).to_bytes((len(body).bit_length() + 7) // 8, "big")
    return bytes([tag, _LONG_FORM | len(size)]) + size + body


def write_integer(number: int, tag: int = INTEGER) -> bytes:
    """An INTEGER (or ENUMERATED)."""
    return write(tag, number.to_bytes(number.bit_length() // 8 + 1, "big", signed=True))


def write_oid(dotted: str) -> bytes:
    """An OBJECT IDENTIFIER from its dotted form."""
    first, second, *rest = map(int, dotted.split("."))
    out = bytearray()
    for arc in [40 * first + second, *rest]:
        groups = [arc & 0x7F]
        while arc := arc >> 7:
            groups.append(arc & 0x7F | 0x80)
        out += bytes(reversed(groups))
    return write(OID, bytes(out))
