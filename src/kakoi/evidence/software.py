"""The ``software`` platform: genuine SGX DCAP format, signed by keys in files. **Protects nothing.**

``create`` mints a local root with everything below it, as Intel's provisioning service has: PCK CA, PCK certificate,
TCB signer. ``quote`` makes evidence, ``collateral`` what a broker needs to judge it. Who can read the directory can
claim any measurement; that is why brokers accept this platform only after three separate acts, and label it always.

Not trusted by anybody's data. The directory's files have mode 600 and are written beside and renamed.
"""

from __future__ import annotations

import os
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from kakoi.attest.report import Collateral, Evidence, Part
from kakoi.core import der
from kakoi.core.encoding import dumps, sha256
from kakoi.core.errors import Malformed, Misuse, Unavailable
from kakoi.core.ids import ObjectId
from kakoi.core.x509_fields import to_pem
from kakoi.evidence import mint

HOUR: Final = 3600
DAY: Final = 24 * HOUR
COLLATERAL_LIFE: Final = 7 * DAY
_VALIDITY: Final = (1_735_689_600, 2_524_607_999)
"""2025-01-01 to 2049-12-31: the certificates outlive any demonstration; revocation lists and TCB information do not."""
_OWNER: Final = "Kakoi software platform - NOT PROTECTED BY HARDWARE"
_QE_VENDOR: Final = bytes.fromhex("939a7233f79c4ca9940a0db3957f0607")
_SGX_EXTENSION: Final = "1.2.840.113741.1.13.1"
_CPU_SVN: Final = (1,) * 2 + (0,) * 14
_PCE_SVN: Final = 1
_PCE_ID: Final = bytes(2)
_FMSPC: Final = b"KAKOI\x00"
_QE_SVN: Final = 1
_EVALUATION_NUMBER: Final = 1
_TCB_DATE: Final = "2025-01-01T00:00:00Z"
_FLAGS_INIT_64BIT: Final = 5
_XFRM: Final = 3
_KEYS: Final = ("root", "pck-ca", "tcb-signer", "pck")
_PPID: Final = "ppid"
_RFC3339: Final = "%Y-%m-%dT%H:%M:%SZ"


def _name(common_name: str) -> bytes:
    return mint.name(cn=common_name, o=_OWNER)


_ROOT_NAME: Final = _name("Intel SGX Root CA")
_CA_NAME: Final = _name("Intel SGX PCK Platform CA")
_SIGNER_NAME: Final = _name("Intel SGX TCB Signing")
_LEAF_NAME: Final = _name("Intel SGX PCK Certificate")
"""Intel's common names, which verifiers demand, under an organisation that says what this is."""


def _write(path: Path, data: bytes) -> None:
    """Write beside and rename, mode 600: never half a file, never readable by others."""
    beside = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        beside.rename(path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise


def _sgx_extension(ppid: bytes) -> bytes:
    """The extension of a PCK certificate (Intel's PCK certificate profile §1.3.5)."""

    def pair(suffix: str, value: bytes) -> bytes:
        return der.write(der.SEQUENCE, der.write_oid(_SGX_EXTENSION + suffix), value)

    components = [pair(f".2.{i}", der.write_integer(svn)) for i, svn in enumerate(_CPU_SVN, 1)]
    tcb = [
        *components,
        pair(".2.17", der.write_integer(_PCE_SVN)),
        pair(".2.18", der.write(der.OCTET_STRING, bytes(_CPU_SVN))),
    ]
    return der.write(
        der.SEQUENCE,
        pair(".1", der.write(der.OCTET_STRING, ppid)),
        pair(".2", der.write(der.SEQUENCE, *tcb)),
        pair(".3", der.write(der.OCTET_STRING, _PCE_ID)),
        pair(".4", der.write(der.OCTET_STRING, _FMSPC)),
        pair(".5", der.write_integer(0, der.ENUMERATED)),
    )


def _report(*, flags: int, mr_enclave: bytes, mr_signer: bytes, svn: int, report_data: bytes) -> bytes:
    """An SGX REPORT body, 384 bytes."""
    return b"".join(
        (
            bytes(_CPU_SVN),
            bytes(32),
            flags.to_bytes(8, "little"),
            _XFRM.to_bytes(8, "little"),
            mr_enclave,
            bytes(32),
            mr_signer,
            bytes(96),
            (1).to_bytes(2, "little"),
            svn.to_bytes(2, "little"),
            bytes(60),
            report_data,
        )
    )


def _tcb_info(issued: str, until: str) -> bytes:
    tcb = {"sgxtcbcomponents": [{"svn": svn} for svn in _CPU_SVN], "pcesvn": _PCE_SVN}
    level = {"tcb": tcb, "tcbDate": _TCB_DATE, "tcbStatus": "UpToDate"}
    return dumps(
        {
            "id": "SGX",
            "version": 3,
            "issueDate": issued,
            "nextUpdate": until,
            "fmspc": _FMSPC.hex().upper(),
            "pceId": _PCE_ID.hex().upper(),
            "tcbType": 0,
            "tcbEvaluationDataNumber": _EVALUATION_NUMBER,
            "tcbLevels": [level],
        }
    )


def _qe_identity(issued: str, until: str, mr_signer: bytes) -> bytes:
    return dumps(
        {
            "id": "QE",
            "version": 2,
            "issueDate": issued,
            "nextUpdate": until,
            "tcbEvaluationDataNumber": _EVALUATION_NUMBER,
            "miscselect": "00000000",
            "miscselectMask": "FFFFFFFF",
            "attributes": f"{_FLAGS_INIT_64BIT:02X}{'00' * 15}",
            "attributesMask": f"{'FF' * 8}{'00' * 8}",
            "mrsigner": mr_signer.hex().upper(),
            "isvprodid": 1,
            "tcbLevels": [{"tcb": {"isvsvn": _QE_SVN}, "tcbDate": _TCB_DATE, "tcbStatus": "UpToDate"}],
        }
    )


def _utc(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime(_RFC3339)


@dataclass(frozen=True, slots=True, kw_only=True)
class SoftwarePlatform:
    """A loaded software platform: keys in memory, certificates minted from them."""

    keys: dict[str, mint.EcKey]
    ppid: bytes
    root: bytes
    pck_ca: bytes
    tcb_signer: bytes
    pck: bytes

    @classmethod
    def load(cls, directory: Path) -> SoftwarePlatform:
        """The platform that ``create`` made there. Raises Misuse if there is none, Malformed if it is damaged."""
        try:
            files = {name: (directory / f"{name}.key").read_bytes() for name in _KEYS}
            ppid = (directory / _PPID).read_bytes()
        except FileNotFoundError:
            raise Misuse(
                "software.no-platform",
                "expected the files of a software platform, got at least one missing",
                hint="create it first",
            ) from None
        except OSError:
            raise Unavailable("software.unreadable", "expected to read the software platform's files") from None
        if len(ppid) != 16:
            raise Malformed("software.damaged", "expected a platform id of 16 bytes", hint="create the platform anew")
        return _assemble({name: mint.EcKey.load(data) for name, data in files.items()}, ppid)

    @property
    def root_spki_sha256(self) -> ObjectId:
        """Hex SHA-256 of the root's public key: what a broker in development mode pins, and a contract names."""
        return ObjectId(self.keys["root"].public.spki_sha256)

    @property
    def qe_mr_signer(self) -> bytes:
        """Signer of the pretended quoting enclave."""
        return sha256(b"kakoi software quoting enclave", self.keys["root"].public.spki)

    def quote(self, report_data: bytes, mrenclave: bytes) -> Evidence:
        """An SGX quote, version 3, with this report data (64 bytes) and measurement (32 bytes). Raises Misuse."""
        if (len(report_data), len(mrenclave)) != (64, 32):
            raise Misuse("software.quote", "expected 64 bytes of report data and 32 of measurement, got others")
        header = (3).to_bytes(2, "little") + (2).to_bytes(2, "little") + bytes(8) + _QE_VENDOR + bytes(20)
        body = _report(
            flags=_FLAGS_INIT_64BIT, mr_enclave=mrenclave, mr_signer=bytes(32), svn=1, report_data=report_data
        )
        return Evidence(platform="software", statement=header + body + self._signature(header + body), parts=())

    def _signature(self, signed: bytes) -> bytes:
        """The signature section: attestation key, QE report, PCK chain."""
        key = mint.EcKey.generate()
        point, authentication = key.public.point, bytes(32)
        qe = _report(
            flags=_FLAGS_INIT_64BIT,
            mr_enclave=sha256(b"kakoi software quoting enclave"),
            mr_signer=self.qe_mr_signer,
            svn=_QE_SVN,
            report_data=sha256(point, authentication) + bytes(32),
        )
        chain = to_pem(self.pck, self.pck_ca, self.root) + b"\0"
        section = b"".join(
            (
                key.sign_raw(signed),
                point,
                qe,
                self.keys["pck"].sign_raw(qe),
                len(authentication).to_bytes(2, "little"),
                authentication,
                (5).to_bytes(2, "little"),
                len(chain).to_bytes(4, "little"),
                chain,
            )
        )
        return len(section).to_bytes(4, "little") + section

    def collateral(self, now: int) -> Collateral:
        """Fresh collateral, valid from the beginning of the hour of ``now`` for a week. The same within an hour."""
        start = now - now % HOUR
        issued, until = _utc(start), _utc(start + COLLATERAL_LIFE)
        window = (start, start + COLLATERAL_LIFE)
        signer, signers = self.keys["tcb-signer"], to_pem(self.tcb_signer, self.root)
        info, identity = _tcb_info(issued, until), _qe_identity(issued, until, self.qe_mr_signer)
        parts = {
            "pck_crl_issuer_chain": to_pem(self.pck_ca, self.root),
            "root_ca_crl": mint.revocation_list(issuer=_ROOT_NAME, signer=self.keys["root"], window=window),
            "pck_crl": mint.revocation_list(issuer=_CA_NAME, signer=self.keys["pck-ca"], window=window),
            "tcb_info_issuer_chain": signers,
            "tcb_info": info,
            "tcb_info_signature": signer.sign_raw(info),
            "qe_identity_issuer_chain": signers,
            "qe_identity": identity,
            "qe_identity_signature": signer.sign_raw(identity),
        }
        return Collateral(parts=tuple(Part(name=name, data=data) for name, data in parts.items()))


def _assemble(keys: dict[str, mint.EcKey], ppid: bytes) -> SoftwarePlatform:
    """All certificates follow from the keys: signatures are deterministic, so nothing else needs a file."""
    root = keys["root"]

    def issue(
        subject: bytes, who: str, issuer: bytes, by: str, serial: int, extensions: list[mint.ExtensionSpec]
    ) -> bytes:
        return mint.certificate(
            subject=subject,
            key=keys[who].public,
            issuer=issuer,
            signer=keys[by],
            serial=serial,
            validity=_VALIDITY,
            extensions=extensions,
        )

    ca = keys["pck-ca"]
    sgx: mint.ExtensionSpec = (_SGX_EXTENSION, False, _sgx_extension(ppid))
    leaf = mint.leaf_extensions(keys["pck"].public, ca.public)
    signer = mint.leaf_extensions(keys["tcb-signer"].public, root.public)
    return SoftwarePlatform(
        keys=keys,
        ppid=ppid,
        root=issue(_ROOT_NAME, "root", _ROOT_NAME, "root", 1, mint.ca_extensions(root.public, root.public, 1)),
        pck_ca=issue(_CA_NAME, "pck-ca", _ROOT_NAME, "root", 2, mint.ca_extensions(ca.public, root.public, 0)),
        tcb_signer=issue(_SIGNER_NAME, "tcb-signer", _ROOT_NAME, "root", 3, signer),
        pck=issue(_LEAF_NAME, "pck", _CA_NAME, "pck-ca", 4, [*leaf, sgx]),
    )


def create(directory: Path) -> SoftwarePlatform:
    """A new software platform in ``directory`` (made if missing). Raises Misuse if one is there already."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    if any((directory / name).exists() for name in (_PPID, *(f"{key}.key" for key in _KEYS))):
        raise Misuse("software.exists", "expected a directory without a software platform, got one", hint="load it")
    for name in _KEYS:
        _write(directory / f"{name}.key", mint.EcKey.generate().pkcs8())
    _write(directory / _PPID, secrets.token_bytes(16))
    return SoftwarePlatform.load(directory)
