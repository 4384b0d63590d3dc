"""Where the fields of each binary format lie, and statements taken apart and put together again.

Written from the vendors' tables, apart from the parsers that they are held against.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

from kakoi.conformance.spoil import Span, consecutive

# --- DCAP quotes (Intel, SGX ECDSA QuoteGenReference A.4; TDX DCAP Quoting Library A.3) ------------------------------

QUOTE_PADDING: Final = 32 * 1024
"""TDX quote buffers end in zeros on every machine seen; so many are tolerated (docs/formats/evidence-dcap.md)."""
_QUOTE_HEADER: Final = (
    ("header.version", 2), ("header.key-type", 2), ("header.tee-type", 4), ("header.qe-svn", 2), ("header.pce-svn", 2),
    ("header.vendor", 16), ("header.user-data", 20),
)  # fmt: skip
_SGX_BODY: Final = (
    ("cpu-svn", 16), ("misc-select", 4), ("cet", 1), ("reserved-1", 11), ("isv-ext-prod-id", 16), ("flags", 8),
    ("xfrm", 8), ("mr-enclave", 32), ("reserved-2", 32), ("mr-signer", 32), ("reserved-3", 32), ("config-id", 64),
    ("isv-prod-id", 2), ("isv-svn", 2), ("config-svn", 2), ("reserved-4", 42), ("isv-family-id", 16),
    ("report-data", 64),
)  # fmt: skip
_TD_BODY: Final = (
    ("tee-tcb-svn", 16), ("mr-seam", 48), ("mr-signer-seam", 48), ("seam-attributes", 8), ("td-attributes", 8),
    ("xfam", 8), ("mr-td", 48), ("mr-config-id", 48), ("mr-owner", 48), ("mr-owner-config", 48), ("rtmr0", 48),
    ("rtmr1", 48), ("rtmr2", 48), ("rtmr3", 48), ("report-data", 64),
)  # fmt: skip
_TD15: Final = (("tee-tcb-svn2", 16), ("mr-service-td", 48))
_TD15EX: Final = (
    ("vm-id", 1), ("td-id", 32), ("device-info", 48), ("init-service-td-hash", 48), ("init-service-td-attributes", 8),
    ("init-cpu-svn", 16), ("init-tee-tcb-svn", 16), ("init-tee-fmspc", 12), ("current-service-td-hash", 48),
    ("current-service-td-attributes", 8),
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class QuoteParts:
    """A quote in pieces. ``write`` puts them together with all lengths right."""

    version: int
    body: str
    """``sgx``, ``td-1.0``, ``td-1.5``, ``td-1.5ex``."""
    signed: bytes
    signature: bytes
    key: bytes
    qe_report: bytes
    qe_signature: bytes
    authentication: bytes
    certification_type: int
    chain: bytes
    padding: bytes

    def write(self) -> bytes:
        """The quote."""
        inner = b"".join(
            (
                self.qe_report, self.qe_signature, struct.pack("<H", len(self.authentication)), self.authentication,
                struct.pack("<HI", self.certification_type, len(self.chain)), self.chain,
            )
        )  # fmt: skip
        if self.version != 3:
            inner = struct.pack("<HI", 6, len(inner)) + inner
        section = self.signature + self.key + inner
        return self.signed + struct.pack("<I", len(section)) + section + self.padding

    def spans(self) -> list[Span]:
        """The fields of what ``write`` gives."""
        body = {
            "sgx": _SGX_BODY, "td-1.0": _TD_BODY, "td-1.5": _TD_BODY + _TD15, "td-1.5ex": _TD_BODY + _TD15 + _TD15EX,
        }[self.body]  # fmt: skip
        head = _QUOTE_HEADER + ((("body.type", 2), ("body.size#", 4)) if self.version == 5 else ())
        outer = (("certification.outer-type", 2), ("certification.outer-size#", 4)) if self.version != 3 else ()
        return consecutive(
            *head,
            *((f"body.{name}", size) for name, size in body),
            ("signature-section-size#", 4),
            ("signature", 64),
            ("attestation-key", 64),
            *outer,
            *((f"qe-report.{name}", size) for name, size in _SGX_BODY),
            ("qe-report-signature", 64),
            ("qe-authentication-size#", 2),
            ("qe-authentication", len(self.authentication)),
            ("certification-type", 2),
            ("pck-chain-size#", 4),
            ("pck-chain", len(self.chain)),
            ("padding", len(self.padding)),
        )


_BODY_OF_SIZE: Final = {584: "td-1.0", 648: "td-1.5", 885: "td-1.5ex"}


def quote_parts(raw: bytes) -> QuoteParts:
    """The pieces of a good quote."""
    version, _, tee = struct.unpack_from("<HHI", raw)
    if version == 5:
        size, start = struct.unpack_from("<I", raw, 50)[0], 54
    else:
        size, start = (584 if tee else 384), 48
    at = start + size
    section = struct.unpack_from("<I", raw, at)[0]
    end = at + 4 + section
    inner = at + 4 + 128 + (6 if version != 3 else 0)
    authentication = struct.unpack_from("<H", raw, inner + 448)[0]
    certified = inner + 450 + authentication
    kind, chain = struct.unpack_from("<HI", raw, certified)
    return QuoteParts(
        version=version,
        body=_BODY_OF_SIZE[size] if tee else "sgx",
        signed=raw[:at],
        signature=raw[at + 4 : at + 68],
        key=raw[at + 68 : at + 132],
        qe_report=raw[inner : inner + 384],
        qe_signature=raw[inner + 384 : inner + 448],
        authentication=raw[inner + 450 : certified],
        certification_type=kind,
        chain=raw[certified + 6 : certified + 6 + chain],
        padding=raw[end:],
    )


# --- SEV-SNP report (AMD 56860, ATTESTATION_REPORT) ------------------------------------------------------------------

SNP_REPORT: Final = tuple(
    consecutive(
        ("version", 4), ("guest-svn", 4), ("policy", 8), ("family-id", 16), ("image-id", 16), ("vmpl", 4),
        ("signature-algorithm", 4), ("current-tcb", 8), ("platform-info", 8), ("key-flags", 4), ("reserved-4c", 4),
        ("report-data", 64), ("measurement", 48), ("host-data", 32), ("id-key-digest", 48), ("author-key-digest", 48),
        ("report-id", 32), ("report-id-ma", 32), ("reported-tcb", 8), ("cpuid", 3), ("reserved-18b", 21),
        ("chip-id", 64), ("committed-tcb", 8), ("current-firmware", 3), ("reserved-1eb", 1), ("committed-firmware", 3),
        ("reserved-1ef", 1), ("launch-tcb", 8), ("launch-mitigations", 8), ("current-mitigations", 8),
        ("reserved-208", 152), ("signature.r", 48), ("signature.r-padding", 24), ("signature.s", 48),
        ("signature.s-padding", 24), ("signature.reserved", 368),
    )
)  # fmt: skip

# --- Azure HCL report, TDREPORT, TPM quote ---------------------------------------------------------------------------

_TD_REPORT: Final = (
    ("td-report.type", 4), ("td-report.reserved-1", 12), ("td-report.cpu-svn", 16), ("td-report.tcb-info-hash", 48),
    ("td-report.info-hash", 48), ("td-report.report-data", 64), ("td-report.reserved-2", 32), ("td-report.mac", 32),
    ("td-report.tcb-info", 239), ("td-report.reserved-3", 17), ("td-report.info", 512), ("td-report.padding", 160),
)  # fmt: skip
TD_REPORT_AT: Final = 32
TD_BLIND: Final = frozenset(
    {*range(TD_REPORT_AT + 16, TD_REPORT_AT + 32), *range(TD_REPORT_AT + 224, TD_REPORT_AT + 256)}
)
"""CPUSVN and MAC of the unsigned TDREPORT: only the processor that made them can judge them."""


def hcl_spans(raw: bytes, hardware: str) -> list[Span]:
    """The fields of an HCL report."""
    claims = struct.unpack_from("<I", raw, 1232)[0]
    report = [(f"report.{s.name}", s.end - s.start) for s in SNP_REPORT] if hardware == "snp" else list(_TD_REPORT)
    return consecutive(
        ("header.signature", 4), ("header.version", 4), ("header.report-size#", 4), ("header.request-type", 4),
        ("header.status", 4), ("header.reserved", 12),
        *report,
        ("runtime.size#", 4), ("runtime.version", 4), ("runtime.report-type", 4), ("runtime.hash-type", 4),
        ("runtime.claims-size#", 4), ("claims", claims),
    )  # fmt: skip


def tpm_quote_spans(raw: bytes) -> list[Span]:
    """The fields of a TPMS_ATTEST of type quote with one selection of three bytes."""
    signer = struct.unpack_from(">H", raw, 6)[0]
    extra = struct.unpack_from(">H", raw, 8 + signer)[0]
    return consecutive(
        ("magic", 4), ("type", 2), ("qualified-signer-size#", 2), ("qualified-signer", signer), ("extra-data-size#", 2),
        ("extra-data", extra), ("clock", 8), ("reset-count", 4), ("restart-count", 4), ("safe", 1),
        ("firmware-version", 8), ("selections#", 4), ("selection.hash", 2), ("selection.size#", 1),
        ("selection.bits", 3), ("digest-size#", 2), ("digest", 32),
    )  # fmt: skip


def tpm_signature_spans(raw: bytes) -> list[Span]:
    """The fields of a TPMT_SIGNATURE (RSASSA)."""
    return consecutive(("scheme", 2), ("hash", 2), ("size#", 2), ("value", len(raw) - 6))


_DIGESTS: Final = {0x0004: 20, 0x000B: 32, 0x000C: 48, 0x000D: 64}
LOG_BLIND: Final = ("class", "errata", "uintn-size", "vendor", "kind", "data", "other-digest")
"""What no register covers: labels, an event's data (the writer's word), digests of banks that were not quoted."""


def event_log_spans(raw: bytes, used: int = 0x000B) -> list[Span]:
    """The fields of a crypto-agile event log up to its padding; ``used`` is the algorithm whose digests registers hold."""
    count = struct.unpack_from("<I", raw, 56)[0]
    vendor = raw[60 + 4 * count]
    fields: list[tuple[str, int]] = [
        ("first.index", 4), ("first.type", 4), ("first.digest", 20), ("first.size#", 4), ("first.signature", 16),
        ("first.class", 4), ("first.version", 2), ("first.errata", 1), ("first.uintn-size", 1),
        ("first.algorithms#", 4), *(("first.algorithm", 4) for _ in range(count)), ("first.vendor-size#", 1),
        ("first.vendor", vendor),
    ]  # fmt: skip
    at, number = sum(size for _, size in fields), 0
    while at < len(raw) and raw[at : at + 16].strip(b"\0\xff"):
        name = f"event{number}"
        event = [(f"{name}.index", 4), (f"{name}.kind", 4), (f"{name}.digests#", 4)]
        inner = at + 12
        for _ in range(count):
            algorithm = struct.unpack_from("<H", raw, inner)[0]
            what = "digest" if algorithm == used else "other-digest"
            event += [(f"{name}.algorithm", 2), (f"{name}.{what}", _DIGESTS[algorithm])]
            inner += 2 + _DIGESTS[algorithm]
        size = struct.unpack_from("<I", raw, inner)[0]
        fields += [*event, (f"{name}.size#", 4), (f"{name}.data", size)]
        at, number = inner + 4 + size, number + 1
    return consecutive(*fields)


# --- CBOR and compact JSON ---------------------------------------------------------------------------------------------


def cbor_spans(raw: bytes, at: int = 0, path: str = "") -> tuple[list[Span], int]:
    """Heads and contents of a CBOR item and of everything in it, and where it ends. Byte strings are not looked into."""
    first = raw[at]
    major, info = first >> 5, first & 31
    width = 1 << (info - 24) if 24 <= info < 28 else 0
    count = int.from_bytes(raw[at + 1 : at + 1 + width], "big") if width else info
    head = Span(name=f"{path or 'item'} head", start=at, end=at + 1 + width)
    at += 1 + width
    if major in (2, 3):
        return [head, Span(name=f"{path or 'item'} content", start=at, end=at + count)], at + count
    if major not in (4, 5, 6):
        return [head], at
    found, index = [head], 0
    items = None if info == 31 else count * (2 if major == 5 else 1) if major != 6 else 1
    while raw[at] != 0xFF if items is None else index < items:
        inner, at = cbor_spans(raw, at, f"{path}/{index}")
        found += inner
        index += 1
    if items is None:
        found.append(Span(name=f"{path or 'item'} end", start=at, end=at + 1))
        at += 1
    return found, at


def token_spans(raw: bytes) -> list[Span]:
    """Header, claims and signature of a compact token, and the dots."""
    header, claims, signature = raw.split(b".")
    return consecutive(
        ("header", len(header)), ("first-dot", 1), ("claims", len(claims)), ("second-dot", 1),
        ("signature", len(signature)),
    )  # fmt: skip
