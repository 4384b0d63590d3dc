"""A pretended Intel: its PKI, collateral and quoting enclaves, under a root of its own, with every knob that an attack needs.

``Vendor()`` is a good one: ``quote`` and ``collateral`` are accepted by both DCAP verifiers under ``vendor.roots``.
Change a field and mint again to get a bad twin. Formats are genuine, so what refuses here refuses real evidence.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import Any, Final

from kakoi.attest.dcap.parse import INTEL_QE_VENDOR, TD10_BODY, TD15_BODY, TD15EX_BODY, BodyKind
from kakoi.attest.report import Collateral, Evidence, Part, PlatformKind
from kakoi.core import der
from kakoi.core.encoding import dumps, sha256
from kakoi.core.x509 import utc
from kakoi.core.x509_fields import to_pem
from kakoi.evidence import mint
from kakoi.testing import x509_kit as kit

NOW: Final = kit.NOW
DAY: Final = 86400
SGX_OID: Final = "1.2.840.113741.1.13.1"
REPORT_DATA: Final = bytes(range(64))
MRENCLAVE: Final = sha256(b"an enclave")
MRSIGNER: Final = sha256(b"its signer")
QE_MRSIGNER: Final = sha256(b"the vendor's signer")
MRTD: Final = sha256(b"a guest") + bytes(16)
TD_ATTRIBUTES: Final = 1 << 28
XFAM: Final = 0x602E7
_BODY_TYPE: Final[dict[BodyKind, int]] = {"sgx": 1, "td-1.0": 2, "td-1.5": 3, "td-1.5ex": 4}
_BODY_SIZE: Final[dict[BodyKind, int]] = {"td-1.0": TD10_BODY, "td-1.5": TD15_BODY, "td-1.5ex": TD15EX_BODY}
Json = dict[str, Any]


def intel_name(common_name: str) -> bytes:
    """A subject with one of Intel's common names, under an organisation that says what it is."""
    return mint.name(cn=common_name, o="Pretended vendor of the Kakoi tests")


def level(
    sgx: int | list[int], pce: int, status: str, *, tdx: int | list[int] = 0, advisories: tuple[str, ...] = ()
) -> Json:
    """One level of TCB information. A single number stands for 16 equal components."""
    components = [sgx] * 16 if isinstance(sgx, int) else sgx
    tdx_components = [tdx] * 16 if isinstance(tdx, int) else tdx
    return {
        "tcb": {
            "sgxtcbcomponents": [{"svn": svn} for svn in components],
            "pcesvn": pce,
            "tdxtcbcomponents": [{"svn": svn} for svn in tdx_components],
        },
        "tcbDate": "2025-11-12T00:00:00Z",
        "tcbStatus": status,
        **({"advisoryIDs": list(advisories)} if advisories else {}),
    }


def svn_level(isv_svn: int, status: str, advisories: tuple[str, ...] = ()) -> Json:
    """One level of the QE identity or of a TDX module."""
    more = {"advisoryIDs": list(advisories)} if advisories else {}
    return {"tcb": {"isvsvn": isv_svn}, "tcbDate": "2025-11-12T00:00:00Z", "tcbStatus": status, **more}


def sgx_body(
    *,
    cpu_svn: bytes = bytes([5] * 16),
    flags: int = 0x5,
    mr_enclave: bytes = MRENCLAVE,
    mr_signer: bytes = MRSIGNER,
    prod_id: int = 1,
    svn: int = 3,
    report_data: bytes = REPORT_DATA,
) -> bytes:
    """An SGX REPORT body."""
    return b"".join(
        (
            cpu_svn,
            bytes(32),
            struct.pack("<QQ", flags, 0xE7),
            mr_enclave,
            bytes(32),
            mr_signer,
            bytes(96),
            struct.pack("<HH", prod_id, svn),
            bytes(60),
            report_data,
        )
    )


def td_body(
    kind: BodyKind = "td-1.5",
    *,
    tee_tcb_svn: bytes = bytes([3, 1, 5]) + bytes(13),
    tee_tcb_svn2: bytes | None = None,
    mr_signer_seam: bytes = bytes(48),
    seam_attributes: bytes = bytes(8),
    attributes: int = TD_ATTRIBUTES,
    xfam: int = XFAM,
    mr_td: bytes = MRTD,
    mr_service_td: bytes = bytes(48),
    report_data: bytes = REPORT_DATA,
) -> bytes:
    """A TD report body of this kind."""
    body = b"".join(
        (
            tee_tcb_svn,
            sha256(b"module") + bytes(16),
            mr_signer_seam,
            seam_attributes,
            struct.pack("<QQ", attributes, xfam),
            mr_td,
            bytes(48 * 3),
            *(sha256(b"rtmr", bytes([i])) + bytes(16) for i in range(4)),
            report_data,
            tee_tcb_svn2 or tee_tcb_svn,
            mr_service_td,
            b"\x01",
            bytes(TD15EX_BODY - TD15_BODY - 1),
        )
    )
    return body[: _BODY_SIZE[kind]]


@dataclass(kw_only=True)
class Vendor:
    """A vendor with one platform. All fields can be changed before minting."""

    root: kit.Authority = field(default_factory=lambda: kit.root(name=intel_name("Intel SGX Root CA"), path_length=1))
    fmspc: bytes = bytes.fromhex("00906ED50000")
    pce_id: bytes = bytes(2)
    ppid: bytes = sha256(b"a platform")[:16]
    components: tuple[int, ...] = (5,) * 16
    pce_svn: int = 13
    sgx_type: int = 1
    configuration: tuple[bool, bool, bool] | None = (True, True, False)
    """Dynamic platform, cached keys, SMT."""
    issued: int = NOW - DAY
    next_update: int = NOW + 29 * DAY
    evaluation_number: int = 17
    qe_evaluation_number: int = 17
    tcb_version: int = 3
    tcb_levels: list[Json] = field(
        default_factory=lambda: [
            level(5, 13, "UpToDate", tdx=[3, 1, 5, *[0] * 13]),
            level(4, 13, "OutOfDate", tdx=[2, 1, 5, *[0] * 13], advisories=("INTEL-SA-00001",)),
        ]
    )
    qe_levels: list[Json] = field(default_factory=lambda: [svn_level(8, "UpToDate"), svn_level(6, "OutOfDate")])
    modules: list[Json] = field(
        default_factory=lambda: [
            {
                "id": "TDX_01",
                "mrsigner": "00" * 48,
                "attributes": "00" * 8,
                "attributesMask": "FF" * 8,
                "tcbLevels": [svn_level(3, "UpToDate"), svn_level(2, "OutOfDate", ("INTEL-SA-00002",))],
            }
        ]
    )
    qe_svn: int = 8
    qe_flags: int = 0x15
    qe_mr_signer: bytes = QE_MRSIGNER
    qe_report_tail: bytes = bytes(32)
    qe_signed_key: bytes | None = None
    """Attestation key that the quoting enclave reported, if not the one used."""
    authentication: bytes = bytes(32)
    attestation_key: mint.EcKey = field(default_factory=mint.EcKey.generate)
    pck_key: mint.EcKey = field(default_factory=mint.EcKey.generate)
    pck_validity: tuple[int, int] = (kit.EPOCH, kit.EPOCH + 2 * kit.YEAR)
    crl_window: tuple[int, int] = (NOW - DAY, NOW + 29 * DAY)
    certification_type: int = 5

    def __post_init__(self) -> None:
        self.ca = self.root.child("", name=intel_name("Intel SGX PCK Platform CA"), path_length=0)
        self.signer_key = mint.EcKey.generate()
        self.signer = self.root.leaf("", name=intel_name("Intel SGX TCB Signing"), key=self.signer_key.public)
        self._pck: bytes | None = None

    @property
    def roots(self) -> frozenset[str]:
        """What a verifier pins."""
        return frozenset({self.root.certificate.spki_sha256})

    # --- certificates ---

    def sgx_extension(self) -> bytes:
        """The SGX extension of the PCK certificate."""

        def pair(suffix: str, value: bytes) -> bytes:
            return der.write(der.SEQUENCE, der.write_oid(SGX_OID + suffix), value)

        tcb = [pair(f".2.{i}", der.write_integer(svn)) for i, svn in enumerate(self.components, 1)]
        tcb += [pair(".2.17", der.write_integer(self.pce_svn)), pair(".2.18", der.write(4, bytes(self.components)))]
        parts = [
            pair(".1", der.write(4, self.ppid)),
            pair(".2", der.write(der.SEQUENCE, *tcb)),
            pair(".3", der.write(4, self.pce_id)),
            pair(".4", der.write(4, self.fmspc)),
            pair(".5", der.write_integer(self.sgx_type, der.ENUMERATED)),
        ]
        if self.configuration is not None:
            flags = [
                pair(f".7.{i}", der.write(der.BOOLEAN, b"\xff" if flag else b"\0"))
                for i, flag in enumerate(self.configuration, 1)
            ]
            parts += [pair(".6", der.write(4, bytes(16))), pair(".7", der.write(der.SEQUENCE, *flags))]
        return der.write(der.SEQUENCE, *parts)

    def pck(self) -> bytes:
        """DER of the PCK certificate. Minted once; ``renew`` forgets it."""
        if self._pck is None:
            self._pck = self.ca.leaf(
                "",
                name=intel_name("Intel SGX PCK Certificate"),
                key=self.pck_key.public,
                validity=self.pck_validity,
                more=((SGX_OID, False, self.sgx_extension()),),
            )
        return self._pck

    def renew(self) -> None:
        """The next PCK certificate shows the fields as they are then."""
        self._pck = None

    def chain(self) -> bytes:
        """PEM of the PCK chain, as quotes embed it."""
        return to_pem(self.pck(), *self.ca.chain) + b"\0"

    # --- quotes ---

    def qe_report(self, key: bytes) -> bytes:
        """The quoting enclave's report over an attestation key."""
        return sgx_body(
            flags=self.qe_flags,
            mr_enclave=sha256(b"quoting enclave"),
            mr_signer=self.qe_mr_signer,
            prod_id=1,
            svn=self.qe_svn,
            report_data=sha256(key, self.authentication) + self.qe_report_tail,
        )

    def quote(self, body: bytes | None = None, *, kind: BodyKind = "sgx", version: int | None = None) -> bytes:
        """A quote over ``body`` (default: a good one of ``kind``), of the version that kind usually has."""
        version = version or {"sgx": 3, "td-1.0": 4}.get(kind, 5)
        body = body or (sgx_body() if kind == "sgx" else td_body(kind))
        tee = 0 if kind == "sgx" else 0x81
        header = struct.pack("<HHIHH", version, 2, tee, 0, 0) + INTEL_QE_VENDOR + bytes(20)
        if version == 5:
            header += struct.pack("<HI", _BODY_TYPE[kind], len(body))
        point = self.attestation_key.public.point
        report = self.qe_report(self.qe_signed_key or point)
        certified = b"".join(
            (
                report,
                self.pck_key.sign_raw(report),
                struct.pack("<H", len(self.authentication)),
                self.authentication,
                struct.pack("<HI", self.certification_type, len(self.chain())),
                self.chain(),
            )
        )
        if version != 3:
            certified = struct.pack("<HI", 6, len(certified)) + certified
        section = self.attestation_key.sign_raw(header + body) + point + certified
        return header + body + struct.pack("<I", len(section)) + section

    def evidence(self, body: bytes | None = None, *, kind: BodyKind = "sgx", version: int | None = None) -> Evidence:
        """A quote as evidence."""
        platform: PlatformKind = "sgx" if kind == "sgx" else "tdx"
        return Evidence(platform=platform, statement=self.quote(body, kind=kind, version=version), parts=())

    # --- collateral ---

    def tcb_info(self, kind: BodyKind = "sgx") -> Json:
        """TCB information as a JSON value."""
        tdx = kind != "sgx"
        info: Json = {
            "version": self.tcb_version,
            "issueDate": utc(self.issued),
            "nextUpdate": utc(self.next_update),
            "fmspc": self.fmspc.hex().upper(),
            "pceId": self.pce_id.hex().upper(),
            "tcbType": 0,
            "tcbEvaluationDataNumber": self.evaluation_number,
            "tcbLevels": [self._level(item, tdx) for item in self.tcb_levels],
        }
        if self.tcb_version >= 3:
            info["id"] = "TDX" if tdx else "SGX"
        if tdx:
            info["tdxModule"] = {"mrsigner": "00" * 48, "attributes": "00" * 8, "attributesMask": "FF" * 8}
            info["tdxModuleIdentities"] = self.modules
        return info

    def _level(self, item: Json, tdx: bool) -> Json:
        tcb = dict(item["tcb"])
        if not tdx:
            del tcb["tdxtcbcomponents"]
        if self.tcb_version == 2:
            components = tcb.pop("sgxtcbcomponents")
            tcb |= {f"sgxtcbcomp{i:02d}svn": c["svn"] for i, c in enumerate(components, 1)}
        return {**item, "tcb": tcb}

    def qe_identity(self, kind: BodyKind = "sgx") -> Json:
        """The QE identity as a JSON value."""
        return {
            "id": "QE" if kind == "sgx" else "TD_QE",
            "version": 2,
            "issueDate": utc(self.issued),
            "nextUpdate": utc(self.next_update),
            "tcbEvaluationDataNumber": self.qe_evaluation_number,
            "miscselect": "00000000",
            "miscselectMask": "FFFFFFFF",
            "attributes": "11" + "00" * 15,
            "attributesMask": "FBFFFFFFFFFFFFFF0000000000000000",
            "mrsigner": QE_MRSIGNER.hex().upper(),
            "isvprodid": 1,
            "tcbLevels": self.qe_levels,
        }

    def parts(self, kind: BodyKind = "sgx") -> dict[str, bytes]:
        """The nine parts of collateral, by name."""
        info, identity = dumps(self.tcb_info(kind)), dumps(self.qe_identity(kind))
        signers = to_pem(self.signer, self.root.der)
        return {
            "pck_crl_issuer_chain": to_pem(*self.ca.chain),
            "root_ca_crl": self.root.crl(window=self.crl_window),
            "pck_crl": self.ca.crl(window=self.crl_window),
            "tcb_info_issuer_chain": signers,
            "tcb_info": info,
            "tcb_info_signature": self.signer_key.sign_raw(info),
            "qe_identity_issuer_chain": signers,
            "qe_identity": identity,
            "qe_identity_signature": self.signer_key.sign_raw(identity),
        }

    def collateral(self, kind: BodyKind = "sgx", *, changed: dict[str, bytes] | None = None) -> Collateral:
        """Collateral for a quote of this kind, with some parts replaced."""
        return as_collateral({**self.parts(kind), **(changed or {})})

    def sign(self, what: str, value: Json) -> dict[str, bytes]:
        """Parts for a changed TCB information or QE identity, signed anew."""
        data = dumps(value)
        return {what: data, f"{what}_signature": self.signer_key.sign_raw(data)}


def as_collateral(parts: dict[str, bytes]) -> Collateral:
    """A collateral record of named parts."""
    return Collateral(parts=tuple(Part(name=name, data=data) for name, data in parts.items()))
