"""DCAP quotes, versions 3, 4 and 5: exact bytes to frozen structures. Judges nothing.

Layouts: Intel, "SGX ECDSA QuoteGenReference" appendix A (version 3 and 5) and "TDX DCAP Quoting Library API" appendix 3
(versions 4 and 5, TD report bodies 1.0, 1.5 and 1.5ex). All integers are little-endian.

Every byte is read, reserved bytes are zero, lengths are exact. One tolerance that real machines force on us: the TDX
quote buffer is padded, so versions 4 and 5 may be followed by zero bytes (at most ``MAX_PADDING``). A quote's raw bytes
are therefore never an identity; use what is signed.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final, Literal

from kakoi.core.errors import Malformed

BodyKind = Literal["sgx", "td-1.0", "td-1.5", "td-1.5ex"]
INTEL_QE_VENDOR: Final = bytes.fromhex("939a7233f79c4ca9940a0db3957f0607")
MAX_QUOTE_BYTES: Final = 64 * 1024
MAX_PADDING: Final = 32 * 1024
SGX_BODY: Final = 384
TD10_BODY: Final = 584
TD15_BODY: Final = 648
TD15EX_BODY: Final = 885
_HEADER: Final = 48
_ECDSA_P256: Final = 2
_TEE_SGX: Final = 0
_TEE_TDX: Final = 0x81
_QE_REPORT_DATA: Final = 6
_PCK_CHAIN: Final = 5
_BODY_OF_TYPE: Final[dict[int, tuple[BodyKind, int]]] = {
    1: ("sgx", SGX_BODY),
    2: ("td-1.0", TD10_BODY),
    3: ("td-1.5", TD15_BODY),
    4: ("td-1.5ex", TD15EX_BODY),
}
_SGX_FLAGS_KNOWN: Final = 0x4F7
_CERTIFICATION_TYPES: Final = {
    1: "PPID in clear",
    2: "encrypted PPID (RSA-2048)",
    3: "encrypted PPID (RSA-3072)",
    4: "a single PCK certificate",
    7: "a platform manifest",
}


def _bad(what: str, expected: str, got: str) -> Malformed:
    return Malformed(
        "dcap.quote",
        f"{what}: expected {expected}, got {got}",
        hint="the quote was cut or changed on the way, or is of a kind that this program does not know",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class SgxReport:
    """An SGX REPORT body (SDM vol. 3D §37.16, 384 bytes)."""

    cpu_svn: bytes
    misc_select: bytes
    cet_attributes: int
    isv_ext_prod_id: bytes
    flags: int
    xfrm: int
    attributes: bytes
    """Flags and XFRM as they stand, 16 bytes."""
    mr_enclave: bytes
    mr_signer: bytes
    config_id: bytes
    isv_prod_id: int
    isv_svn: int
    config_svn: int
    isv_family_id: bytes
    report_data: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class TdReport:
    """A TD report body. Fields that only newer bodies have are None in older ones."""

    kind: BodyKind
    tee_tcb_svn: bytes
    mr_seam: bytes
    mr_signer_seam: bytes
    seam_attributes: bytes
    td_attributes: int
    xfam: int
    mr_td: bytes
    mr_config_id: bytes
    mr_owner: bytes
    mr_owner_config: bytes
    rtmr: tuple[bytes, bytes, bytes, bytes]
    report_data: bytes
    tee_tcb_svn2: bytes | None
    mr_service_td: bytes | None
    extended: TdExtension | None


@dataclass(frozen=True, slots=True, kw_only=True)
class TdExtension:
    """What the 1.5ex body adds: the identity of the TD instance, its devices and its service TDs."""

    vm_id: int
    td_id: bytes
    device_info: bytes
    init_service_td_hash: bytes
    init_service_td_attributes: bytes
    init_cpu_svn: bytes
    init_tee_tcb_svn: bytes
    init_tee_fmspc: bytes
    current_service_td_hash: bytes
    current_service_td_attributes: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Quote:
    """A parsed, **unverified** quote."""

    version: int
    tee: Literal["sgx", "tdx"]
    user_data: bytes
    body: SgxReport | TdReport
    signed: bytes
    """Header and body: what the attestation key signs."""
    signature: bytes
    attestation_key: bytes
    """x‖y of a P-256 point."""
    qe_report: SgxReport
    qe_report_bytes: bytes
    qe_report_signature: bytes
    qe_authentication: bytes
    pck_chain: bytes
    """PEM, as embedded."""


def parse_sgx_report(data: bytes, what: str = "SGX report") -> SgxReport:
    """A REPORT body of exactly 384 bytes. Raises Malformed ``dcap.quote``."""
    if len(data) != SGX_BODY:
        raise _bad(what, f"{SGX_BODY} bytes", str(len(data)))
    if any(data[21:32]) or any(data[96:128]) or any(data[160:192]) or any(data[262:304]):
        raise _bad(what, "reserved bytes to be zero", "others")
    flags, xfrm = struct.unpack_from("<QQ", data, 48)
    if flags & ~_SGX_FLAGS_KNOWN:
        raise _bad(what, "known enclave attributes only", f"{flags:#x}")
    prod_id, svn, config_svn = struct.unpack_from("<HHH", data, 256)
    return SgxReport(
        cpu_svn=data[:16],
        misc_select=data[16:20],
        cet_attributes=data[20],
        isv_ext_prod_id=data[32:48],
        flags=flags,
        xfrm=xfrm,
        attributes=data[48:64],
        mr_enclave=data[64:96],
        mr_signer=data[128:160],
        config_id=data[192:256],
        isv_prod_id=prod_id,
        isv_svn=svn,
        config_svn=config_svn,
        isv_family_id=data[304:320],
        report_data=data[320:384],
    )


def _extension(data: bytes) -> TdExtension:
    return TdExtension(
        vm_id=data[648],
        td_id=data[649:681],
        device_info=data[681:729],
        init_service_td_hash=data[729:777],
        init_service_td_attributes=data[777:785],
        init_cpu_svn=data[785:801],
        init_tee_tcb_svn=data[801:817],
        init_tee_fmspc=data[817:829],
        current_service_td_hash=data[829:877],
        current_service_td_attributes=data[877:885],
    )


def parse_td_report(data: bytes, kind: BodyKind) -> TdReport:
    """A TD report body of exactly the length of its kind. Raises Malformed ``dcap.quote``."""
    size = dict(_BODY_OF_TYPE.values())[kind]
    if len(data) != size:
        raise _bad("TD report", f"{size} bytes", str(len(data)))
    attributes, xfam = struct.unpack_from("<QQ", data, 120)
    newer = kind != "td-1.0"
    return TdReport(
        kind=kind,
        tee_tcb_svn=data[:16],
        mr_seam=data[16:64],
        mr_signer_seam=data[64:112],
        seam_attributes=data[112:120],
        td_attributes=attributes,
        xfam=xfam,
        mr_td=data[136:184],
        mr_config_id=data[184:232],
        mr_owner=data[232:280],
        mr_owner_config=data[280:328],
        rtmr=(data[328:376], data[376:424], data[424:472], data[472:520]),
        report_data=data[520:584],
        tee_tcb_svn2=data[584:600] if newer else None,
        mr_service_td=data[600:648] if newer else None,
        extended=_extension(data) if kind == "td-1.5ex" else None,
    )


def _header(data: bytes) -> tuple[int, Literal["sgx", "tdx"]]:
    if len(data) < _HEADER:
        raise _bad("quote", f"a header of {_HEADER} bytes", str(len(data)))
    version, key_type, tee, low, high = struct.unpack_from("<HHIHH", data, 0)
    if version not in (3, 4, 5):
        raise _bad("quote version", "3, 4 or 5", str(version))
    if key_type != _ECDSA_P256:
        raise _bad("attestation key type", f"{_ECDSA_P256} (ECDSA P-256)", str(key_type))
    if tee not in ((_TEE_SGX,) if version == 3 else (_TEE_SGX, _TEE_TDX)):
        raise _bad("TEE type", "0 (SGX), or 0x81 (TDX) from version 4 on", f"{tee:#x}")
    if version != 3 and (low, high) != (0, 0):
        raise _bad("quote header", "reserved bytes to be zero", "others")
    if data[12:28] != INTEL_QE_VENDOR:
        raise _bad("quoting enclave's vendor", "Intel", data[12:28].hex())
    return version, "tdx" if tee == _TEE_TDX else "sgx"


def _body_at(data: bytes, version: int, tee: str) -> tuple[BodyKind, int, int]:
    """Kind, start and end of the report body."""
    if version != 5:
        kind: BodyKind = "td-1.0" if tee == "tdx" else "sgx"
        return kind, _HEADER, _HEADER + (TD10_BODY if tee == "tdx" else SGX_BODY)
    if len(data) < _HEADER + 6:
        raise _bad("quote", "a body descriptor", "the end")
    number, size = struct.unpack_from("<HI", data, _HEADER)
    if number not in _BODY_OF_TYPE or _BODY_OF_TYPE[number][1] != size:
        raise _bad("report body", "a known type with its length", f"type {number} of {size} bytes")
    kind = _BODY_OF_TYPE[number][0]
    if (kind == "sgx") != (tee == "sgx"):
        raise _bad("report body", f"one of the TEE type {tee}", kind)
    return kind, _HEADER + 6, _HEADER + 6 + size


class _Reader:
    """Takes fixed and length-prefixed fields off a buffer, never beyond its end."""

    __slots__ = ("at", "data")

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def take(self, size: int, what: str) -> bytes:
        if self.at + size > len(self.data):
            raise _bad(what, f"{size} bytes", f"{len(self.data) - self.at}")
        self.at += size
        return self.data[self.at - size : self.at]

    def number(self, size: int, what: str) -> int:
        return int.from_bytes(self.take(size, what), "little")

    def end(self, what: str) -> None:
        if self.at != len(self.data):
            raise _bad(what, "its exact length", f"{len(self.data) - self.at} more bytes")


def parse(data: bytes) -> Quote:
    """A quote from exactly ``data``. Raises Malformed ``dcap.quote`` for anything else. Linear in its size."""
    if len(data) > MAX_QUOTE_BYTES:
        raise _bad("quote", f"at most {MAX_QUOTE_BYTES} bytes", str(len(data)))
    version, tee = _header(data)
    kind, start, end = _body_at(data, version, tee)
    outer = _Reader(data)
    signed = outer.take(end, "report body")
    body = signed[start:end]
    reader = _Reader(outer.take(outer.number(4, "signature length"), "signature section"))
    _padding(data[outer.at :], tee)
    signature, key = reader.take(64, "signature"), reader.take(64, "attestation key")
    if version != 3:
        number = reader.number(2, "certification data type")
        if number != _QE_REPORT_DATA:
            raise _bad("outer certification data", f"type {_QE_REPORT_DATA}", str(number))
        inner = reader.take(reader.number(4, "certification data length"), "certification data")
        reader.end("signature section")
        reader = _Reader(inner)
    qe_report, qe_signature = reader.take(SGX_BODY, "QE report"), reader.take(64, "QE report signature")
    authentication = reader.take(reader.number(2, "QE authentication length"), "QE authentication data")
    number = reader.number(2, "certification data type")
    if number != _PCK_CHAIN:
        other = _CERTIFICATION_TYPES.get(number, str(number))
        raise _bad("certification data", f"type {_PCK_CHAIN} (PCK certificate chain)", other)
    chain = reader.take(reader.number(4, "PCK chain length"), "PCK certificate chain")
    reader.end("certification data")
    return Quote(
        version=version,
        tee=tee,
        user_data=data[28:48],
        body=parse_sgx_report(body) if kind == "sgx" else parse_td_report(body, kind),
        signed=signed,
        signature=signature,
        attestation_key=key,
        qe_report=parse_sgx_report(qe_report, "QE report"),
        qe_report_bytes=qe_report,
        qe_report_signature=qe_signature,
        qe_authentication=authentication,
        pck_chain=chain,
    )


def _padding(rest: bytes, tee: str) -> None:
    if rest and (tee != "tdx" or len(rest) > MAX_PADDING or rest.count(0) != len(rest)):
        raise _bad("quote", "no bytes after it (TDX: only zero padding)", f"{len(rest)} bytes")
