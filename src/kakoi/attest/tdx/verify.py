"""TDX guests: what a verified DCAP quote proves about one, and what a policy has to judge (docs/formats/evidence-dcap.md)."""

from __future__ import annotations

from functools import lru_cache
from typing import Final

from kakoi.attest.dcap import facts
from kakoi.attest.dcap import verify as dcap
from kakoi.attest.dcap.parse import TdReport
from kakoi.attest.dcap.roots import INTEL
from kakoi.attest.dcap.verify import VerifiedQuote
from kakoi.attest.policy import PlatformPolicy
from kakoi.attest.report import (
    Check,
    Claims,
    Collateral,
    Component,
    Evidence,
    Fact,
    Measurement,
    VerifiedEvidence,
    check,
    component,
    fact,
    measurement,
    refusal,
)
from kakoi.core.ids import parse_id

# TD attributes (Intel TDX Module ABI, "ATTRIBUTES"): bits 0-7 put the TD under debug or profiling, whatever else they
# mean. Bits 18 to 22 have meanings in newer modules only; a policy judges them as they stand.
TUD: Final = 0xFF
_BITS: Final = {
    "icssd": 16,
    "service-td-ext": 17,
    "lass": 27,
    "sept-ve-disable": 28,
    "migratable": 29,
    "pks": 30,
    "key-locker": 31,
    "tpa": 62,
    "perfmon": 63,
}
_NEWER: Final = 0x7C0000
_KNOWN: Final = TUD | _NEWER | sum(1 << bit for bit in _BITS.values())
# XFAM (same document): x87 and SSE always on; bits that no module allows off.
_XFAM_FIXED1: Final = 0x3
_XFAM_ALLOWED: Final = 0x6DBE7 | 1 << 19
_ON: Final = ("no", "yes")
_NONE: Final = bytes(48)
AUTHOR_SETTINGS: Final = frozenset({*_BITS, "newer-attributes", "xfam"})


def settings(body: TdReport) -> tuple[Fact, ...]:
    """The facts of the guest itself."""
    values = {"td-body": body.kind.removeprefix("td-"), "xfam": f"{body.xfam:#x}"}
    values |= {name: _ON[body.td_attributes >> bit & 1] for name, bit in _BITS.items()}
    values["newer-attributes"] = f"{body.td_attributes & _NEWER:#x}"
    if body.extended is not None:
        extended = body.extended
        values |= {
            "vm-id": str(extended.vm_id),
            "td-id": extended.td_id.hex(),
            "device-info": extended.device_info.hex(),
            "init-service-td-attributes": extended.init_service_td_attributes.hex(),
            "current-service-td-attributes": extended.current_service_td_attributes.hex(),
            "init-cpu-svn": extended.init_cpu_svn.hex(),
            "init-tee-tcb-svn": extended.init_tee_tcb_svn.hex(),
            "init-tee-fmspc": extended.init_tee_fmspc.hex(),
        }
    return tuple(fact(name, value) for name, value in values.items())


def measurements(body: TdReport) -> tuple[Measurement, ...]:
    """Everything measured, also what older bodies do not have (then all zero, as those guests have no service TD)."""
    values = {
        "mrtd": body.mr_td,
        **{f"rtmr{i}": value for i, value in enumerate(body.rtmr)},
        "mrconfigid": body.mr_config_id,
        "mrowner": body.mr_owner,
        "mrownerconfig": body.mr_owner_config,
        "mrseam": body.mr_seam,
        "mrsignerseam": body.mr_signer_seam,
        "mrservicetd": body.mr_service_td or _NONE,
    }
    if body.extended is not None:
        values |= {
            "initservicetd": body.extended.init_service_td_hash,
            "currentservicetd": body.extended.current_service_td_hash,
        }
    return tuple(measurement(name, value.hex()) for name, value in values.items())


def _reserved(body: TdReport) -> None:
    """Bits that no module defines, or that every module fixes. Raises Refused ``tdx.attributes``, ``tdx.xfam``."""
    if body.td_attributes & ~_KNOWN:
        unknown = f"{body.td_attributes & ~_KNOWN:#x}"
        raise refusal("tdx.attributes", "TD attributes", "known bits only", unknown, "enclave-author")
    if body.xfam & _XFAM_FIXED1 != _XFAM_FIXED1 or body.xfam & ~_XFAM_ALLOWED:
        expected = f"x87 and SSE, within {_XFAM_ALLOWED:#x}"
        raise refusal("tdx.xfam", "XFAM", expected, f"{body.xfam:#x}", "enclave-author")


class TdxVerifier:
    """Verifies TDX quotes (DCAP versions 4 and 5) under Intel's root, or others given by a test."""

    def __init__(self, roots: frozenset[str] = INTEL) -> None:
        self._roots = roots

    def verify(self, evidence: Evidence, collateral: Collateral, *, now: int) -> VerifiedEvidence:
        """A genuine TDX quote. Raises what ``attest.dcap.verify`` raises; Refused ``tdx.kind``, ``.attributes``, ``.xfam``."""
        quote = dcap.verify(evidence, collateral, roots=self._roots, now=now)
        body = quote.report.quote.body
        if evidence.platform != "tdx" or not isinstance(body, TdReport):
            raise refusal(
                "tdx.kind", "evidence", "a quote of a TDX guest", "a quote of an SGX enclave", "enclave-author"
            )
        _reserved(body)
        return _evidence(quote, body)

    def appraise(self, verified: VerifiedEvidence, policy: PlatformPolicy) -> tuple[Check, ...]:
        """A guest is its first measurement and its boot: MRTD has to be judged by value."""
        accepted = {m.name: m.accepted for m in policy.measurements}
        ok = isinstance(accepted.get("mrtd"), tuple)
        got = "so" if ok else "left out"
        expected = "mrtd judged by accepted values"
        return (check("tdx.identity", "passed" if ok else "failed", expected, got, "owner-policy"),)


@lru_cache(maxsize=256)
def _tcb(tee_tcb_svn: bytes) -> tuple[Component, ...]:
    return tuple(component(f"tdx-{i:02d}", version) for i, version in enumerate(tee_tcb_svn, 1))


def _evidence(quote: VerifiedQuote, body: TdReport) -> VerifiedEvidence:
    report = quote.report
    return VerifiedEvidence._seal(
        claims=Claims(
            platform="tdx",
            measurements=measurements(body),
            report_data=body.report_data.hex(),
            debug=bool(body.td_attributes & TUD),
            tcb_status=report.status,
            advisories=report.advisories,
            tcb=(*quote.tcb, *_tcb(body.tee_tcb_svn)),
            tcb_date=report.tcb_date,
            tcb_evaluation_number=report.evaluation_number,
            platform_identity=report.pck.ppid.hex(),
            product=report.pck.fmspc.hex(),
            root=parse_id(report.collateral.root.spki_sha256),
            settings=(*settings(body), *facts.platform(quote)),
        ),
        checks=quote.checks,
        collateral=report.collateral.digests,
        collateral_issued_at=report.collateral.issued_at,
        protected_by_hardware=True,
        bounded=frozenset(),
        author_settings=AUTHOR_SETTINGS,
    )
