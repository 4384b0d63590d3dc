"""SEV-SNP attestation reports, versions 2 to 5, and AMD's certificate table: strict bytes to frozen objects.

Source: AMD "SEV Secure Nested Paging Firmware ABI Specification" (publication 56860), ATTESTATION_REPORT, TCB_VERSION,
GUEST_POLICY; "GHCB Standardization" (56421) for the certificate table. All integers are little-endian. Version 2 has
no CPUID fields; 3 adds them and the alias check; 5 adds the mitigation vectors. Version 4 has the layout of 3.

A report is signed as a whole, so parsing judges form only: exact length, reserved bytes zero, no unknown version,
algorithm, key or policy bit. PLATFORM_INFO bit 6 is documented as reserved, yet genuine Turin firmware (1.55.61) sets
it: it is accepted here and shown by name (``undocumented-6``), so that a policy decides; higher bits are refused.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple
from uuid import UUID

from kakoi.core.cursor import Cursor
from kakoi.core.errors import Malformed

REPORT_BYTES: Final = 1184
SIGNED_BYTES: Final = 0x2A0
VERSIONS: Final = (2, 3, 4, 5)
MAX_TABLE_BYTES: Final = 64 * 1024
HOST_REQUEST: Final = 0xFFFFFFFF
"""VMPL of a report that the host asked for, not the guest."""
ZERO_CHIP_ID: Final = bytes(64)

Product = Literal["Milan", "Genoa", "Turin"]
SigningKey = Literal["VCEK", "VLEK"]

POLICY_BITS: Final[Mapping[str, int]] = {
    "smt": 16,
    "migrate-ma": 18,
    "debug": 19,
    "single-socket": 20,
    "cxl": 21,
    "mem-aes-256-xts": 22,
    "rapl-disabled": 23,
    "ciphertext-hiding-dram": 24,
    "page-swap-disabled": 25,
}
"""GUEST_POLICY: what the guest's owner demanded of the platform at launch."""
PLATFORM_BITS: Final[Mapping[str, int]] = {
    "smt": 0,
    "tsme": 1,
    "ecc": 2,
    "rapl-disabled": 3,
    "ciphertext-hiding-dram": 4,
    "alias-check-complete": 5,
    "undocumented-6": 6,
    "tio": 7,
}
"""PLATFORM_INFO: how the platform is configured now."""
_POLICY_MUST_BE_ONE: Final = 17
_POLICY_TOP: Final = 26
_PLATFORM_TOP: Final = 8
_KEYS: Final[Mapping[int, SigningKey]] = {0: "VCEK", 1: "VLEK"}
_ECDSA_P384_SHA384: Final = 1


class _Fields(NamedTuple):
    """ATTESTATION_REPORT in order. ``r_`` and ``s_`` are the two halves of the signature; ``mbz_`` must be zero."""

    version: int
    guest_svn: int
    policy: int
    family_id: bytes
    image_id: bytes
    vmpl: int
    signature_algorithm: int
    current_tcb: bytes
    platform_info: int
    flags: int
    mbz_4c: bytes
    report_data: bytes
    measurement: bytes
    host_data: bytes
    id_key_digest: bytes
    author_key_digest: bytes
    report_id: bytes
    report_id_ma: bytes
    reported_tcb: bytes
    cpuid: bytes
    mbz_18b: bytes
    chip_id: bytes
    committed_tcb: bytes
    current_build: int
    current_minor: int
    current_major: int
    mbz_1eb: bytes
    committed_build: int
    committed_minor: int
    committed_major: int
    mbz_1ef: bytes
    launch_tcb: bytes
    launch_mitigations: int
    current_mitigations: int
    mbz_208: bytes
    r_value: bytes
    mbz_r: bytes
    s_value: bytes
    mbz_s: bytes
    mbz_330: bytes


_LAYOUT: Final = struct.Struct("<IIQ16s16sII8sQI4s64s48s32s48s48s32s32s8s3s21s64s8s3B1s3B1s8sQQ152s48s24s48s24s368s")
_RESERVED: Final = tuple(name for name in _Fields._fields if name.startswith("mbz_"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Firmware:
    """A firmware version, major.minor.build."""

    major: int
    minor: int
    build: int

    def __str__(self) -> str:
        return f"{self.major}.{self.minor}.{self.build}"

    @property
    def number(self) -> int:
        """One comparable integer."""
        return self.major << 16 | self.minor << 8 | self.build


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """A parsed, **unverified** report. TCB versions stay raw: their layout depends on the product."""

    version: int
    guest_svn: int
    policy: int
    family_id: bytes
    image_id: bytes
    vmpl: int
    current_tcb: bytes
    platform_info: int
    author_key_en: bool
    mask_chip_key: bool
    signing_key: SigningKey
    report_data: bytes
    measurement: bytes
    host_data: bytes
    id_key_digest: bytes
    author_key_digest: bytes
    report_id: bytes
    report_id_ma: bytes
    reported_tcb: bytes
    cpuid: tuple[int, int, int] | None
    """Family, model and stepping; None before version 3."""
    chip_id: bytes
    committed_tcb: bytes
    current_firmware: Firmware
    committed_firmware: Firmware
    launch_tcb: bytes
    launch_mitigations: int | None
    current_mitigations: int | None
    """Mitigation vectors; None before version 5."""
    signature: bytes
    """r‖s, big-endian, 48 bytes each."""
    signed: bytes
    """The 672 bytes under the signature."""

    @property
    def abi(self) -> Firmware:
        """The minimum ABI version that the guest policy demands (build is 0)."""
        return Firmware(major=self.policy >> 8 & 0xFF, minor=self.policy & 0xFF, build=0)


def _bad(expected: str, got: str) -> Malformed:
    return Malformed(
        "snp.malformed",
        f"SNP report: expected {expected}, got {got}",
        hint="the report was cut or changed on the way, or comes from firmware newer than this verifier",
    )


def _zero(value: bytes, field: str) -> None:
    if any(value):
        raise _bad(f"zeros in {field}", "another value")


def parse(data: bytes) -> Report:
    """The report in ``data`` (1184 bytes). Raises Malformed."""
    if len(data) != REPORT_BYTES:
        raise _bad(f"{REPORT_BYTES} bytes", f"{len(data)}")
    raw = _Fields._make(_LAYOUT.unpack(data))
    _check_form(raw)
    return Report(
        version=raw.version,
        guest_svn=raw.guest_svn,
        policy=raw.policy,
        family_id=raw.family_id,
        image_id=raw.image_id,
        vmpl=raw.vmpl,
        current_tcb=raw.current_tcb,
        platform_info=raw.platform_info,
        author_key_en=bool(raw.flags & 1),
        mask_chip_key=bool(raw.flags >> 1 & 1),
        signing_key=_KEYS[raw.flags >> 2],
        report_data=raw.report_data,
        measurement=raw.measurement,
        host_data=raw.host_data,
        id_key_digest=raw.id_key_digest,
        author_key_digest=raw.author_key_digest,
        report_id=raw.report_id,
        report_id_ma=raw.report_id_ma,
        reported_tcb=raw.reported_tcb,
        cpuid=(raw.cpuid[0], raw.cpuid[1], raw.cpuid[2]) if raw.version >= 3 else None,
        chip_id=raw.chip_id,
        committed_tcb=raw.committed_tcb,
        current_firmware=Firmware(major=raw.current_major, minor=raw.current_minor, build=raw.current_build),
        committed_firmware=Firmware(major=raw.committed_major, minor=raw.committed_minor, build=raw.committed_build),
        launch_tcb=raw.launch_tcb,
        launch_mitigations=raw.launch_mitigations if raw.version >= 5 else None,
        current_mitigations=raw.current_mitigations if raw.version >= 5 else None,
        signature=raw.r_value[::-1] + raw.s_value[::-1],
        signed=data[:SIGNED_BYTES],
    )


def _check_form(raw: _Fields) -> None:
    if raw.version not in VERSIONS:
        raise _bad("version 2, 3, 4 or 5", f"version {raw.version}")
    if raw.signature_algorithm != _ECDSA_P384_SHA384:
        raise _bad("signature algorithm 1 (ECDSA P-384 with SHA-384)", f"algorithm {raw.signature_algorithm}")
    if raw.vmpl > 3 and raw.vmpl != HOST_REQUEST:
        raise _bad("VMPL 0 to 3 or a host request", f"{raw.vmpl}")
    if not raw.policy >> _POLICY_MUST_BE_ONE & 1 or raw.policy >> _POLICY_TOP:
        raise _bad("a guest policy with bit 17 set and no bit above 25", "another")
    if raw.platform_info >> _PLATFORM_TOP:
        raise _bad("no platform information bit above 7", "one")
    if raw.flags >> 5 or raw.flags >> 2 not in _KEYS:
        raise _bad("a report signed by a VCEK or a VLEK", "unknown flags, another signing key or an unsigned report")
    _check_zeros(raw)


def _check_zeros(raw: _Fields) -> None:
    for name in _RESERVED:
        _zero(getattr(raw, name), f"the reserved bytes {name.removeprefix('mbz_')}")
    if not raw.flags & 1:
        _zero(raw.author_key_digest, "AUTHOR_KEY_DIGEST, as AUTHOR_KEY_EN is 0")
    if raw.version == 2:
        _zero(raw.cpuid, "the bytes that hold CPUID from version 3 on")
    if raw.version < 5 and (raw.launch_mitigations or raw.current_mitigations):
        raise _bad("zeros in the bytes that hold mitigation vectors from version 5 on", "another value")


VCEK_GUID: Final = "63da758d-e664-4564-adc5-f4b93be8accd"
VLEK_GUID: Final = "a8074bc2-a25a-483e-aae6-39c045a0b8a1"
ASK_GUID: Final = "4ab7b379-bbac-4fe4-a02f-05aef327c782"
ARK_GUID: Final = "c0b406a4-a803-4952-9743-3fb6014cd0ae"
_MAX_ENTRIES: Final = 16


def parse_certificate_table(data: bytes) -> dict[str, bytes]:
    """GUID (text) → DER certificate, from the certificate table that a host adds to a report (GHCB 4.1.8.1).

    Entries are GUID, offset and length, ended by an entry of zeros. GUID bytes are in network order, as Linux hands
    them out. Certificates lie inside the table, after its header; a GUID appears once. Bytes that no entry names are
    padding of the page and must be zero. Raises Malformed.
    """
    if len(data) > MAX_TABLE_BYTES:
        raise _bad(f"a certificate table of at most {MAX_TABLE_BYTES} bytes", f"{len(data)}")
    cursor = Cursor(data, "SNP certificate table", "little")
    spans: list[tuple[int, int, str]] = []
    while (guid := cursor.take(16, "a GUID")) != bytes(16):
        spans.append((cursor.number(4, "an offset"), cursor.number(4, "a length"), str(UUID(bytes=guid))))
        if len(spans) > _MAX_ENTRIES:
            raise _bad(f"at most {_MAX_ENTRIES} certificates", "more")
    cursor.zeros(8, "the last entry")
    found: dict[str, bytes] = {}
    at = cursor.at
    for offset, length, guid_text in sorted(spans):
        if offset < at or not length or offset + length > len(data) or guid_text in found:
            raise _bad("certificates that lie apart, inside the table, each GUID once", "another arrangement")
        _zero(data[at:offset], "the gap before a certificate")
        found[guid_text] = data[offset : offset + length]
        at = offset + length
    _zero(data[at:], "the padding after the certificates")
    return found
