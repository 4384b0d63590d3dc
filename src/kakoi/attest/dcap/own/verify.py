"""A DCAP quote judged by our own reading of Intel's rules, without dcap-qvl."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from kakoi.attest.dcap.own import pck, tcb
from kakoi.attest.dcap.own.collateral import PCK_CAS, ROOT_CA, VerifiedCollateral
from kakoi.attest.dcap.own.kept import Unkeyed
from kakoi.attest.dcap.parse import Quote, SgxReport, TdReport
from kakoi.attest.report import refusal
from kakoi.core.encoding import sha256
from kakoi.core.errors import Malformed
from kakoi.core.keys import PublicKey, ec_key, from_spki
from kakoi.core.sealed import Sealed
from kakoi.core.x509 import Certificate, Revocation, parse_pem_chain, verify_chain
from kakoi.core.x509_fields import to_pem

PCK_LEAF: Final = "Intel SGX PCK Certificate"
SGX_INIT: Final = 1
SGX_DEBUG: Final = 2
_REPORT_DATA: Final = 320
_KEPT: Final = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnReport(metaclass=Sealed):
    """A quote that is genuine, and what Intel's collateral says about the platform that made it."""

    quote: Quote
    pck: pck.PckExtension
    status: str
    advisories: tuple[str, ...]
    """Sorted, each once: of platform, TDX module and quoting enclave."""
    tcb_date: int
    """The oldest date of the levels that were reached."""
    evaluation_number: int
    """The lower of TCB information's and QE identity's."""
    collateral: VerifiedCollateral


@dataclass(frozen=True, slots=True, kw_only=True)
class _Platform(metaclass=Sealed):
    """A verified PCK chain."""

    key: PublicKey
    extension: pck.PckExtension
    valid_from: int
    valid_until: int


def _chain(data: bytes) -> tuple[Certificate, ...]:
    """The embedded chain. It is not signed as a whole, so only one spelling of it is accepted."""
    text = data.removesuffix(b"\0")
    chain = parse_pem_chain(text, 3)
    spelled = to_pem(*(certificate.der for certificate in chain))
    if text not in (spelled, spelled.removesuffix(b"\n")):
        raise Malformed("dcap.pck-spelling", "PCK certificate chain: expected PEM in lines of 64, got another spelling")
    return chain


def _platform(data: bytes, collateral: VerifiedCollateral, roots: frozenset[str], now: int) -> _Platform:
    chain = _chain(data)
    lists = Revocation(lists=[collateral.pck_crl, collateral.root_crl])
    verified = verify_chain(chain, roots=roots, now=now, revocation=lists)
    names = [certificate.common_name for certificate in chain]
    if names[0] != PCK_LEAF or names[1] not in PCK_CAS or names[2] != ROOT_CA:
        raise refusal("dcap.pck-chain", "names of the PCK chain", "Intel's", ", ".join(names), "nobody")
    if verified.root_spki_sha256 != collateral.root.spki_sha256:
        raise refusal("dcap.pck-chain", "root of the PCK chain", "the collateral's", "another", "nobody")
    return _Platform._seal(
        key=verified.leaf.public_key,
        extension=pck.parse(verified.leaf),
        valid_from=verified.valid_from,
        valid_until=verified.valid_until,
    )


@lru_cache(maxsize=_KEPT)
def _kept_platform(
    data: bytes,
    lists: tuple[bytes, bytes],
    roots: frozenset[str],
    collateral: Unkeyed[VerifiedCollateral],
    now: Unkeyed[int],
) -> _Platform:
    """``_platform`` by the bytes of the chain and of the lists it was judged against."""
    return _platform(data, collateral.value, roots, now.value)


def _equal(check: str, expected: bytes, got: bytes, code: str) -> None:
    if expected != got:
        raise refusal(code, check, expected.hex(), got.hex(), "platform-operator")


@lru_cache(maxsize=_KEPT)
def _attestation_key(spki: bytes, report: bytes, signature: bytes, point: bytes, authentication: bytes) -> PublicKey:
    """The attestation key that a quoting enclave reported and the PCK key (``spki``) vouches for.

    A quoting enclave keeps its key for a long time, so the same bytes come again: a pure function of them, kept.
    """
    from_spki(spki).verify_ecdsa_raw(signature, report, "the quoting enclave's report")
    if report[_REPORT_DATA:] != sha256(point, authentication) + bytes(32):
        raise refusal("dcap.qe-binding", "attestation key", "the one the quoting enclave reported", "another", "nobody")
    return ec_key("P-256", point)


def _qe_identity(report: SgxReport, identity: tcb.QeIdentity) -> tcb.Level:
    code = "dcap.qe-identity"
    _equal("MRSIGNER of the quoting enclave", identity.mr_signer, report.mr_signer, code)
    _equal(
        "product of the quoting enclave",
        identity.isv_prod_id.to_bytes(2, "big"),
        report.isv_prod_id.to_bytes(2, "big"),
        code,
    )
    _equal(
        "MISCSELECT of the quoting enclave",
        tcb.masked(identity.misc_select, identity.misc_select_mask),
        tcb.masked(report.misc_select, identity.misc_select_mask),
        code,
    )
    _equal(
        "attributes of the quoting enclave",
        tcb.masked(identity.attributes, identity.attributes_mask),
        tcb.masked(report.attributes, identity.attributes_mask),
        code,
    )
    if report.flags & SGX_DEBUG or not report.flags & SGX_INIT:
        raise refusal(code, "quoting enclave", "initialised and not in debug mode", hex(report.flags), "nobody")
    return tcb.module_level(identity.levels, report.isv_svn, "quoting enclave")


def _module(info: tcb.TcbInfo, body: TdReport, tee_tcb_svn: bytes) -> tcb.Level | None:
    """The level of the TDX module, if modules are listed by version; its signer and attributes in any case."""
    version = tee_tcb_svn[1]
    name = f"TDX_{version:02X}"
    identity = info.module if version == 0 else info.modules.get(name)
    if identity is None:
        raise refusal(
            "dcap.tdx-module", "TDX module", f"one that Intel lists ({', '.join(info.modules)})", name, "vendor"
        )
    code = "dcap.tdx-module"
    _equal("signer of the TDX module", identity.mr_signer, body.mr_signer_seam, code)
    _equal(
        "attributes of the TDX module",
        tcb.masked(identity.attributes, identity.attributes_mask),
        body.seam_attributes,
        code,
    )
    return tcb.module_level(identity.levels, tee_tcb_svn[0], "TDX module") if version else None


def _levels(
    info: tcb.TcbInfo, extension: pck.PckExtension, body: TdReport | None, tee_tcb_svn: bytes | None
) -> list[tcb.Level]:
    """Level of the platform, then of the TDX module if it has one."""
    found = [tcb.platform_level(info, extension.components, extension.pce_svn, tee_tcb_svn).level]
    if body is not None and tee_tcb_svn is not None:
        module = _module(info, body, tee_tcb_svn)
        if module is not None:
            found.append(module)
    return found


def _merge(levels: Sequence[tcb.Level]) -> str:
    status = levels[0].status
    for level in levels[1:]:
        status = tcb.converge(status, level.status)
    return status


def _same_platform(info: tcb.TcbInfo, extension: pck.PckExtension) -> None:
    for name, ours, theirs in (("FMSPC", info.fmspc, extension.fmspc), ("PCEID", info.pce_id, extension.pce_id)):
        if ours != theirs:
            raise refusal(
                "dcap.other-platform",
                f"{name} of the TCB information",
                f"{theirs.hex()}, the platform's",
                ours.hex(),
                "platform-operator",
            )


def _kind(quote: Quote, collateral: VerifiedCollateral) -> None:
    wanted = ("TDX", "TD_QE") if quote.tee == "tdx" else ("SGX", "QE")
    got = (collateral.tcb_info.id, collateral.qe_identity.id)
    if got != wanted:
        raise refusal("dcap.other-tee", "collateral", " and ".join(wanted), " and ".join(got), "platform-operator")


def verify(quote: Quote, collateral: VerifiedCollateral, *, roots: frozenset[str], now: int) -> OwnReport:
    """A genuine quote of a platform that Intel knows, at ``now``. Says nothing about who wants it.

    1. Collateral is of the quote's TEE (Intel PCS v4).
    2. PCK chain: three certificates, one spelling, pinned root, windows, revocation, names.
    3. FMSPC and PCEID of the TCB information are the platform's.
    4. QE report signed by the PCK key; binds the attestation key; upper 32 bytes of its report data zero; the
       attestation key signs header and body.
    5. QE report against the QE identity: MRSIGNER, product, masked MISCSELECT and attributes, no debug; its level.
    6. Level of the platform; TDX module identity and its level; both converge with the QE's.
    7. TD 1.5: the same for the module that runs now (second SVN): relaunch advised.
    8. A revoked level is refused.

    Raises Refused ``x509.*``, ``dcap.pck-chain``, ``.other-tee``, ``.other-platform``, ``.qe-binding``,
    ``.qe-identity``, ``.tdx-module``, ``.tcb-not-supported``, ``.revoked``; Malformed.
    """
    _kind(quote, collateral)
    lists = (collateral.pck_crl.der, collateral.root_crl.der)
    platform = _kept_platform(quote.pck_chain, lists, roots, Unkeyed(collateral), Unkeyed(now))
    if not platform.valid_from <= now <= platform.valid_until:
        platform = _platform(quote.pck_chain, collateral, roots, now)
    extension, info = platform.extension, collateral.tcb_info
    _same_platform(info, extension)
    _attestation_key(
        platform.key.spki,
        quote.qe_report_bytes,
        quote.qe_report_signature,
        quote.attestation_key,
        quote.qe_authentication,
    ).verify_ecdsa_raw(quote.signature, quote.signed, "the quote")
    qe_level = _qe_identity(quote.qe_report, collateral.qe_identity)
    body = quote.body if isinstance(quote.body, TdReport) else None
    levels = [*_levels(info, extension, body, body.tee_tcb_svn if body else None), qe_level]
    status = _merge(levels)
    if body is not None and body.tee_tcb_svn2 is not None:
        status = tcb.relaunch(status, _merge([*_levels(info, extension, body, body.tee_tcb_svn2), qe_level]))
    if status == "Revoked":
        raise refusal("dcap.revoked", "TCB status", "one that is not revoked", "Revoked", "vendor")
    return OwnReport._seal(
        quote=quote,
        pck=extension,
        status=status,
        advisories=tuple(sorted({advisory for level in levels for advisory in level.advisories})),
        tcb_date=min(level.date for level in levels),
        evaluation_number=min(info.evaluation_number, collateral.qe_identity.evaluation_number),
        collateral=collateral,
    )
