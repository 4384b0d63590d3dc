"""Event logs of any form, for tests: crypto-agile TCG logs with the digests that a test wants."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Sequence
from typing import Final

SHA256: Final = 0x000B
SHA384: Final = 0x000C
_NAMES: Final = {0x0004: "sha1", SHA256: "sha256", SHA384: "sha384", 0x000D: "sha512"}
NO_ACTION: Final = 3
SEPARATOR: Final = 4


def first(
    algorithms: Sequence[int] = (SHA256, SHA384),
    *,
    sizes: Sequence[int] | None = None,
    signature: bytes = b"Spec ID Event03\0",
    version: bytes = b"\0\2\2",
    vendor: bytes = b"",
) -> bytes:
    """The specification event. ``version`` is minor, major, errata."""
    sizes = sizes or [hashlib.new(_NAMES[a]).digest_size for a in algorithms]
    body = signature + bytes(4) + version + b"\2" + struct.pack("<I", len(algorithms))
    body += b"".join(struct.pack("<HH", a, size) for a, size in zip(algorithms, sizes, strict=True))
    body += bytes([len(vendor)]) + vendor
    return struct.pack("<II20xI", 0, NO_ACTION, len(body)) + body


def event(
    index: int,
    data: bytes,
    *,
    kind: int = SEPARATOR,
    algorithms: Sequence[int] = (SHA256, SHA384),
    digests: Sequence[bytes] | None = None,
) -> bytes:
    """A TCG_PCR_EVENT2; its digests are the hashes of ``data`` unless given."""
    found = digests if digests is not None else [hashlib.new(_NAMES[a], data).digest() for a in algorithms]
    body = b"".join(struct.pack("<H", a) + d for a, d in zip(algorithms, found, strict=True))
    return struct.pack("<III", index, kind, len(found)) + body + struct.pack("<I", len(data)) + data


def extended(hash_name: str, start: bytes, *datas: bytes) -> bytes:
    """A register after measuring these data."""
    for data in datas:
        start = hashlib.new(hash_name, start + hashlib.new(hash_name, data).digest()).digest()
    return start
