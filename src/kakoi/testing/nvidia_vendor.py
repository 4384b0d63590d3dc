"""A pretend NVIDIA: device chains and SPDM measurement reports of any form."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Final

from kakoi.core import der
from kakoi.evidence import mint
from kakoi.testing import x509_kit as kit

MODEL: Final = "GB100 A01 GSP FMC LF"
FIRMWARE: Final = b"\x5f" * 48
_SHA384: Final = "2.16.840.1.101.3.4.2.2"


def fwid(digest: bytes, algorithm: str = _SHA384) -> bytes:
    """FWID (TCG DICE)."""
    return der.write(der.SEQUENCE, der.write_oid(algorithm), der.write(der.OCTET_STRING, digest))


def tcb_info(*fwids: bytes) -> mint.ExtensionSpec:
    """DiceTcbInfo with these FWIDs."""
    vendor, model = der.write(0x80, b"NVIDIA"), der.write(0x81, b"GB100")
    return ("2.23.133.5.4.1.1", False, der.write(der.SEQUENCE, vendor, model, der.write(0xA6, *fwids)))


def composite_id(key: bytes, digest: bytes) -> mint.ExtensionSpec:
    """The older composite id: version, key, FWID."""
    return ("2.23.133.5.4.1", False, der.write(der.SEQUENCE, der.write_integer(1), key, fwid(digest)))


def blocks(count: int = 64, *, kind: int = 1, size: int = 48, start: int = 1) -> bytes:
    """Measurement blocks."""
    one = (struct.pack("<BBHBH", i, 1, size + 3, kind, size) + bytes([i]) * size for i in range(start, start + count))
    return b"".join(one)


def opaque(values: dict[int, bytes]) -> bytes:
    """Opaque data."""
    return b"".join(struct.pack("<HH", kind, len(value)) + value for kind, value in values.items())


OPAQUE: Final = {3: b"575.32\0", 6: b"\0\x88\0\x97", 20: FIRMWARE}


@dataclass(kw_only=True)
class Device:
    """One device: CAs from the root down to the chip, and the firmware's key."""

    root: kit.Authority
    line: kit.Authority
    provisioner: kit.Authority
    chip: kit.Authority
    key: mint.EcKey = field(default_factory=lambda: mint.EcKey.generate("P-384"))

    @property
    def roots(self) -> frozenset[str]:
        """What a verifier must pin to accept this vendor."""
        return frozenset({self.root.certificate.spki_sha256})

    def leaf(self, extension: mint.ExtensionSpec | None = None, **changes: Any) -> bytes:
        """The firmware's certificate."""
        extensions = [("2.5.29.15", True, b"\x03\x02\x07\x80"), extension or tcb_info(fwid(FIRMWARE), fwid(bytes(48)))]
        return self.chip.leaf(MODEL, **{"key": self.key.public, "extensions": extensions, **changes})

    def chain(self, leaf: bytes | None = None) -> list[bytes]:
        """Leaf first, root last."""
        return [leaf or self.leaf(), *self.chip.chain]

    def report(
        self,
        nonce: bytes,
        *,
        record: bytes | None = None,
        count: int = 64,
        fields: bytes | None = None,
        request: bytes = b"\x11\xe0\x01\xff",
        response: bytes = b"\x11\x60\0\0",
        slot: int = 0,
        key: mint.EcKey | None = None,
    ) -> bytes:
        """A signed report."""
        found = blocks() if record is None else record
        tail = opaque(OPAQUE) if fields is None else fields
        signed = request + nonce + bytes([slot]) + response + bytes([count]) + len(found).to_bytes(3, "little") + found
        signed += b"\xab" * 32 + struct.pack("<H", len(tail)) + tail
        return signed + (key or self.key).sign_raw(signed)


@lru_cache(maxsize=2)
def device(which: int = 0) -> Device:
    """The pretend device number ``which``."""

    def key() -> mint.EcKey:
        return mint.EcKey.generate("P-384")

    root = kit.root("Pretend Device Identity CA", key=key(), path_length=None)
    line = root.child("Pretend GB100 Identity", key=key(), path_length=None)
    provisioner = line.child("Pretend Provisioner", key=key(), path_length=None)
    chip = provisioner.child("Pretend BROM", key=key(), path_length=None)
    return Device(root=root, line=line, provisioner=provisioner, chip=chip)
