"""A pretend TPM: quotes of any form, signed with a key of the test's own (RSASSA or ECDSA)."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from kakoi.attest.tpm import parse
from kakoi.core.encoding import sha256
from kakoi.evidence.mint import EcKey
from kakoi.testing.x509_kit import RsaKey

SHA1: Final = 0x0004
SHA256: Final = 0x000B
SHA384: Final = 0x000C
AK_ATTRIBUTES: Final = 0x00050072
"""fixedTPM, fixedParent, sensitiveDataOrigin, userWithAuth, restricted, sign."""


def sized(data: bytes) -> bytes:
    """TPM2B: two bytes of length, then the data."""
    return struct.pack(">H", len(data)) + data


def select(pcrs: Sequence[int], *, bank: int = SHA256, width: int = 3) -> bytes:
    """TPMS_PCR_SELECTION."""
    bits = sum(1 << index for index in pcrs)
    return struct.pack(">HB", bank, width) + bits.to_bytes(width, "little")


@dataclass(kw_only=True)
class Tpm:
    """PCRs of the SHA-256 bank and an attestation key."""

    key: RsaKey | EcKey
    pcrs: list[bytes] = field(default_factory=lambda: [sha256(b"pcr", bytes([i])) for i in range(24)])

    def attest(
        self,
        nonce: bytes,
        *,
        selections: Sequence[bytes] = (select(range(24)),),
        digest: bytes | None = None,
        magic: int = parse.MAGIC,
        kind: int = parse.TYPE_QUOTE,
        safe: int = 1,
    ) -> bytes:
        """TPMS_ATTEST over the given selections; the digest is that of all 24 PCRs unless another is given."""
        return (
            struct.pack(">IH", magic, kind)
            + sized(b"\0\x0b" + bytes(32))
            + sized(nonce)
            + struct.pack(">QIIBQ", 12345, 2, 0, safe, 0x2020_0312_0012_0003)
            + struct.pack(">I", len(selections))
            + b"".join(selections)
            + sized(sha256(*self.pcrs) if digest is None else digest)
        )

    def sign(self, message: bytes) -> bytes:
        """TPMT_SIGNATURE with SHA-256."""
        if isinstance(self.key, RsaKey):
            return struct.pack(">HH", 0x0014, SHA256) + sized(self.key.sign(message))
        raw = self.key.sign_raw(message)
        return struct.pack(">HH", 0x0018, SHA256) + sized(raw[:32]) + sized(raw[32:])

    def public(self, *, attributes: int = AK_ATTRIBUTES, policy: bytes = b"") -> bytes:
        """TPMT_PUBLIC of the attestation key."""
        head = struct.pack(">HI", SHA256, attributes) + sized(policy)
        if isinstance(self.key, RsaKey):
            n, _ = self.key.public.rsa_numbers()
            scheme = struct.pack(">HHHHI", 0x0010, 0x0014, SHA256, n.bit_length(), 0)
            return b"\0\1" + head + scheme + sized(n.to_bytes(n.bit_length() // 8, "big"))
        point = self.key.public.point
        return (
            b"\0\x23"
            + head
            + struct.pack(">HHHHH", 0x0010, 0x0018, SHA256, 3, 0x0010)
            + sized(point[:32])
            + sized(point[32:])
        )
