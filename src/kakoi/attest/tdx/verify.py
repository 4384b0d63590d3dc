"""TDX guests: what a verified DCAP quote proves about one, and what a policy has to judge (docs/formats/evidence-dcap.md)."""

from __future__ import annotations

from functools import lru_cache

from kakoi.attest.dcap import facts
from kakoi.attest.dcap import verify as dcap
from kakoi.attest.dcap.parse import TdReport
from kakoi.attest.dcap.roots import INTEL
from kakoi.attest.dcap.verify import VerifiedQuote
from kakoi.attest.identity import by_value
from kakoi.attest.policy import PlatformPolicy
from kakoi.attest.report import (
    Check,
    Claims,
    Collateral,
    Component,
    Evidence,
    VerifiedEvidence,
    component,
    refusal,
)
from kakoi.attest.tdx.settings import AUTHOR_SETTINGS, TUD, measurements, reserved, settings
from kakoi.core.ids import parse_id


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
        reserved(body)
        return _evidence(quote, body)

    def appraise(self, verified: VerifiedEvidence, policy: PlatformPolicy) -> tuple[Check, ...]:
        """A guest is its firmware, its boot loader and kernel, and their command line: each judged by value."""
        return by_value(policy, "mrtd", "rtmr1", "rtmr2")


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
