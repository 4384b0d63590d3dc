"""A pretend AMD: product roots, chip keys, revocation lists and signed reports, and every way they can be wrong.

Mints what no public vector holds: VLEK on Genoa and Turin, lists with entries, masked chips, mitigation vectors. Its
roots are its own; a verifier accepts them only if a test passes ``AmdVendor.roots``.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Final
from uuid import UUID

from kakoi.attest.snp import parse
from kakoi.attest.snp.endorsement import TCB_LAYOUT
from kakoi.attest.snp.parse import Product as Product
from kakoi.attest.snp.parse import Report
from kakoi.core import der
from kakoi.evidence import mint
from kakoi.testing import x509_kit as kit

_AMD: Final = "1.3.6.1.4.1.3704.1."
_SPL_OID: Final = {"boot-loader": "3.1", "tee": "3.2", "snp": "3.3", "microcode": "3.8", "fmc": "3.9"}
_CPUID: Final[dict[Product, tuple[int, int, int]]] = {
    "Milan": (0x19, 0x01, 1),
    "Genoa": (0x19, 0x11, 1),
    "Turin": (0x1A, 0x02, 1),
}
GOOD_TCB: Final[dict[Product, dict[str, int]]] = {
    "Milan": {"boot-loader": 4, "tee": 0, "snp": 24, "microcode": 219},
    "Genoa": {"boot-loader": 10, "tee": 0, "snp": 25, "microcode": 84},
    "Turin": {"fmc": 1, "boot-loader": 2, "tee": 1, "snp": 3, "microcode": 71},
}


def amd_name(common_name: str) -> bytes:
    """AMD's distinguished name with this common name."""
    return mint.name(ou="Engineering", c="US", l="Santa Clara", st="CA", o="Advanced Micro Devices", cn=common_name)


def pack_tcb(product: Product, tcb: dict[str, int]) -> bytes:
    """TCB_VERSION in the product's layout."""
    raw = bytearray(8)
    for name, version in tcb.items():
        raw[TCB_LAYOUT[product][name]] = version
    return bytes(raw)


def encode(report: Report, *, signature: bytes | None = None) -> bytes:
    """The 1184 bytes of ``report``: the inverse of ``parse``. ``signature`` is r‖s, big-endian."""
    flags = report.author_key_en | report.mask_chip_key << 1 | {"VCEK": 0, "VLEK": 1}[report.signing_key] << 2
    current, committed = report.current_firmware, report.committed_firmware
    signed = struct.pack(
        "<IIQ16s16sII8sQI4x64s48s32s48s48s32s32s8s3B21x64s8s3Bx3Bx8sQQ152x",
        report.version, report.guest_svn, report.policy, report.family_id, report.image_id, report.vmpl, 1,
        report.current_tcb, report.platform_info, flags, report.report_data, report.measurement, report.host_data,
        report.id_key_digest, report.author_key_digest, report.report_id, report.report_id_ma, report.reported_tcb,
        *(report.cpuid or (0, 0, 0)), report.chip_id, report.committed_tcb, current.build, current.minor,
        current.major, committed.build, committed.minor, committed.major, report.launch_tcb,
        report.launch_mitigations or 0, report.current_mitigations or 0,
    )  # fmt: skip
    r_s = report.signature if signature is None else signature
    return signed + r_s[:48][::-1] + bytes(24) + r_s[48:][::-1] + bytes(24) + bytes(368)


@dataclass(frozen=True, slots=True, kw_only=True)
class Chip:
    """One processor: its signing key and the certificate AMD gave it."""

    key: mint.EcKey
    kind: parse.SigningKey
    certificate: bytes
    hwid: bytes
    tcb: dict[str, int]


@dataclass(kw_only=True)
class AmdVendor:
    """One product line: ARK, ASK, ASVK."""

    product: Product
    ark: kit.Authority
    ask: kit.Authority
    asvk: kit.Authority
    chips: int = field(default=0)

    @property
    def roots(self) -> dict[str, Product]:
        """What a verifier must pin to accept this vendor."""
        return {self.ark.certificate.spki_sha256: self.product}

    def intermediate(self, kind: parse.SigningKey) -> kit.Authority:
        """ASK for a VCEK, ASVK for a VLEK."""
        return self.ask if kind == "VCEK" else self.asvk

    def crl(self, *, revoked: list[int] | None = None, window: tuple[int, int] | None = None) -> bytes:
        """The ARK's revocation list."""
        return mint.revocation_list(
            issuer=self.ark.name,
            signer=self.ark.key,
            window=window or (kit.NOW - 86400, kit.NOW + 30 * 86400),
            revoked=revoked or [],
        )

    def chip(
        self,
        kind: parse.SigningKey = "VCEK",
        *,
        tcb: dict[str, int] | None = None,
        hwid: bytes | None = None,
        common_name: str = "",
        product_name: str = "",
        spoil: dict[str, bytes | None] | None = None,
        key: mint.EcKey | None = None,
        validity: tuple[int, int] = (kit.EPOCH, kit.EPOCH + 7 * kit.YEAR),
        issuer: kit.Authority | None = None,
    ) -> Chip:
        """A chip with a certificate. ``spoil`` replaces (or with None removes) AMD extensions by their last arcs."""
        self.chips += 1
        tcb = tcb or GOOD_TCB[self.product]
        size = 8 if self.product == "Turin" else 64
        hwid = hwid if hwid is not None else self.chips.to_bytes(2, "big") * (size // 2)
        extensions: dict[str, bytes] = {
            "1": der.write_integer(1 if self.product == "Turin" else 0),
            "2": der.write(der.IA5_STRING, (product_name or self.product).encode()),
            **{_SPL_OID[name]: der.write_integer(version) for name, version in tcb.items()},
        }
        if kind == "VCEK":
            extensions["4"] = hwid
        else:
            extensions["5"] = der.write(der.IA5_STRING, b"CN=cloud.example")
        for oid, value in (spoil or {}).items():
            if value is None:
                extensions.pop(oid)
            else:
                extensions[oid] = value
        key = key or mint.EcKey.generate("P-384")
        certificate = (issuer or self.intermediate(kind)).leaf(
            "",
            key=key.public,
            serial=0,
            validity=validity,
            extensions=[(_AMD + oid, False, value) for oid, value in extensions.items()],
            name=amd_name(common_name or f"SEV-{kind}"),
        )
        return Chip(key=key, kind=kind, certificate=certificate, hwid=hwid, tcb=tcb)

    def report(self, chip: Chip, *, version: int = 5) -> Report:
        """A good, unsigned report of ``chip``; change it with ``dataclasses.replace``."""
        tcb = pack_tcb(self.product, chip.tcb)
        firmware = parse.Firmware(major=1, minor=55, build=43)
        return Report(
            version=version, guest_svn=3, policy=0x3001F, family_id=bytes(16), image_id=bytes(16), vmpl=0,
            current_tcb=tcb, platform_info=0x25, author_key_en=False, mask_chip_key=False, signing_key=chip.kind,
            report_data=bytes(range(64)), measurement=b"\x11" * 48, host_data=bytes(32), id_key_digest=bytes(48),
            author_key_digest=bytes(48), report_id=b"\x22" * 32, report_id_ma=b"\xff" * 32, reported_tcb=tcb,
            cpuid=_CPUID[self.product] if version >= 3 else None,
            chip_id=chip.hwid.ljust(64, b"\0") if chip.kind == "VCEK" else bytes(64), committed_tcb=tcb,
            current_firmware=firmware, committed_firmware=firmware, launch_tcb=tcb,
            launch_mitigations=1 if version >= 5 else None, current_mitigations=1 if version >= 5 else None,
            signature=bytes(96), signed=b"",
        )  # fmt: skip

    def sign(self, report: Report, key: mint.EcKey) -> bytes:
        """The bytes of ``report``, signed by ``key``."""
        return encode(report, signature=key.sign_raw(encode(report)[: parse.SIGNED_BYTES]))

    def signed(self, chip: Chip, *, version: int = 5, **changes: object) -> bytes:
        """A report of ``chip`` with some fields changed, signed by the chip."""
        return self.sign(replace(self.report(chip, version=version), **changes), chip.key)  # type: ignore[arg-type]

    def collateral(self, chip: Chip, *, crl: bytes | None = None) -> dict[str, bytes]:
        """The parts of ``kakoi/collateral/v1`` for reports of ``chip``; an empty ``crl`` leaves the list out."""
        parts = {
            chip.kind.lower(): chip.certificate,
            "intermediate": self.intermediate(chip.kind).der,
            "root": self.ark.der,
        }
        if crl is None or crl:
            parts["crl"] = crl or self.crl()
        return parts


@lru_cache(maxsize=8)
def _keys(count: int) -> tuple[kit.RsaKey, ...]:
    return tuple(kit.RsaKey(2048) for _ in range(count))


@lru_cache(maxsize=8)
def vendor(product: Product, *, which: int = 0) -> AmdVendor:
    """The pretend AMD of this product line. RSA keys are shared by all lines with the same ``which``."""
    keys = _keys(6)[3 * which : 3 * which + 3]
    ark = kit.root(key=keys[0], path_length=None, name=amd_name(f"ARK-{product}"))
    return AmdVendor(
        product=product,
        ark=ark,
        ask=ark.child("", key=keys[1], name=amd_name(f"SEV-{product}")),
        asvk=ark.child("", key=keys[2], name=amd_name(f"SEV-VLEK-{product}")),
    )


def certificate_table(entries: dict[str, bytes], *, pad: int = 4096) -> bytes:
    """AMD's certificate table (GHCB): GUID → certificate, padded with zeros to a multiple of ``pad``."""
    offset = 24 * (len(entries) + 1)
    head, body = b"", b""
    for guid, certificate in entries.items():
        head += UUID(guid).bytes + struct.pack("<II", offset + len(body), len(certificate))
        body += certificate
    table = head + bytes(24) + body
    return table + bytes(-len(table) % pad)
