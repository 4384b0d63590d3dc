"""A pretend Azure: confidential VMs whose paravisor, virtual TPM and hardware reports are the tests' own."""

from __future__ import annotations

import hashlib
import json
import struct
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Final

from kakoi.attest import jose
from kakoi.attest.report import Evidence
from kakoi.core.keys import HashName
from kakoi.testing import amd_vendor, attest_kit
from kakoi.testing.azure_vendor_tpm import Tpm
from kakoi.testing.x509_kit import RsaKey

NONCE: Final = bytes(range(64))
_HASH_TYPES: Final[dict[HashName, int]] = {"sha256": 1, "sha384": 2, "sha512": 3}
_NV_BYTES: Final = 2600


@lru_cache(maxsize=4)
def key(which: int = 0) -> RsaKey:
    """An attestation key (RSASSA, SHA-256)."""
    return RsaKey(2048, pss=False)


def jwk(of: RsaKey, kid: str, use: str) -> dict[str, Any]:
    """A JSON web key as the paravisor writes it."""
    n, e = of.public.rsa_numbers()
    numbers = {
        name: jose.b64url(value.to_bytes((value.bit_length() + 7) // 8, "big")) for name, value in (("n", n), ("e", e))
    }
    return {"kid": kid, "key_ops": [use], "kty": "RSA", **numbers}


def claims(ak: RsaKey, **changes: Any) -> dict[str, Any]:
    """Runtime claims; ``changes`` replace members, and None removes one."""
    found = {
        "keys": [jwk(ak, "HCLAkPub", "sign"), jwk(ak, "HCLEkPub", "encrypt")],
        "vm-configuration": {"console-enabled": True, "secure-boot": True, "tpm-enabled": True, "vmUniqueId": "11-22"},
        "user-data": "00" * 64,
        **changes,
    }
    return {name: value for name, value in found.items() if value is not None}


def td_report(report_data: bytes, registers: dict[str, bytes] | None = None) -> bytes:
    """A TDREPORT whose hashes hold. ``registers``: MRTD, … by name, 48 bytes each, zeros if not given."""
    names = ("mrtd", "mrconfigid", "mrowner", "mrownerconfig", "rtmr0", "rtmr1", "rtmr2", "rtmr3")
    info = bytes(16) + b"".join((registers or {}).get(name, bytes(48)) for name in names)
    info = info.ljust(512, b"\0")
    tcb = b"\xff\x01\x03".ljust(239, b"\0")
    head = b"\x81\0\0\0" + bytes(12) + b"\x06" * 16 + hashlib.sha384(tcb).digest() + hashlib.sha384(info).digest()
    return head + report_data + bytes(32) + b"\x5a" * 32 + tcb + bytes(17) + info


def hcl(hardware: bytes, claim_bytes: bytes, *, kind: int, hash_name: HashName = "sha256", version: int = 2) -> bytes:
    """An HCL report as its NV index holds it."""
    size = 20 + len(claim_bytes)
    report = struct.pack("<4sIIII12x", b"HCLA", version, 32 + 1184 + size, 2, 0) + hardware.ljust(1184, b"\0")
    report += struct.pack("<IIIII", size, 1, kind, _HASH_TYPES[hash_name], len(claim_bytes)) + claim_bytes
    return report.ljust(_NV_BYTES, b"\0")


@dataclass(kw_only=True)
class Guest:
    """One confidential VM on SNP. Change its parts to make bad twins."""

    vendor: amd_vendor.AmdVendor
    chip: amd_vendor.Chip
    tpm: Tpm
    claims: dict[str, Any]
    hash_name: HashName = "sha256"
    report_changes: dict[str, Any] = field(default_factory=dict)

    def report_data(self) -> bytes:
        """What the hardware signs: the hash of the claims."""
        return hashlib.new(self.hash_name, self.claim_bytes()).digest().ljust(64, b"\0")

    def claim_bytes(self) -> bytes:
        """The exact JSON."""
        return json.dumps(self.claims, separators=(",", ":")).encode()

    def statement(self) -> bytes:
        """The HCL report."""
        changes = {"report_data": self.report_data(), **self.report_changes}
        return hcl(self.vendor.signed(self.chip, **changes), self.claim_bytes(), kind=2, hash_name=self.hash_name)

    def pieces(self, nonce: bytes = NONCE) -> dict[str, bytes]:
        """The parts of the evidence."""
        quote = self.tpm.attest(nonce)
        return {"tpm-quote": quote, "tpm-signature": self.tpm.sign(quote), "pcrs": b"".join(self.tpm.pcrs)}

    def evidence(self, **parts: bytes) -> Evidence:
        """Evidence of kind ``azure-snp``; ``parts`` (with _ for -) replace or add pieces."""
        pieces = self.pieces() | {name.replace("_", "-"): data for name, data in parts.items()}
        return Evidence(platform="azure-snp", statement=self.statement(), parts=attest_kit.pieces(pieces))


def guest(product: amd_vendor.Product = "Milan", /, **changes: Any) -> Guest:
    """A good guest with a chip and a TPM of its own; ``changes`` go into its claims."""
    vendor = amd_vendor.vendor(product)
    return Guest(vendor=vendor, chip=vendor.chip(), tpm=Tpm(key=key()), claims=claims(key(), **changes))
