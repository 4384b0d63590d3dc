"""SGX enclaves: what a verified DCAP quote proves about one, and what a policy has to judge (docs/formats/evidence-dcap.md)."""

from __future__ import annotations

from kakoi.attest.dcap import facts
from kakoi.attest.dcap import verify as dcap
from kakoi.attest.dcap.own.verify import SGX_DEBUG, SGX_INIT
from kakoi.attest.dcap.parse import SgxReport
from kakoi.attest.dcap.roots import INTEL
from kakoi.attest.dcap.verify import VerifiedQuote
from kakoi.attest.policy import PlatformPolicy, Unchecked
from kakoi.attest.report import (
    Check,
    Claims,
    Collateral,
    Evidence,
    VerifiedEvidence,
    check,
    component,
    measurement,
    refusal,
)
from kakoi.attest.sgx.settings import AUTHOR_SETTINGS, settings
from kakoi.core.ids import parse_id


class SgxVerifier:
    """Verifies SGX quotes (DCAP version 3) under Intel's root, or others given by a test."""

    def __init__(self, roots: frozenset[str] = INTEL) -> None:
        self._roots = roots

    def verify(self, evidence: Evidence, collateral: Collateral, *, now: int) -> VerifiedEvidence:
        """A genuine SGX quote. Raises what ``attest.dcap.verify`` raises; Refused ``sgx.kind``, ``sgx.not-initialised``."""
        quote = dcap.verify(evidence, collateral, roots=self._roots, now=now)
        body = quote.report.quote.body
        if evidence.platform != "sgx" or not isinstance(body, SgxReport):
            raise refusal(
                "sgx.kind", "evidence", "a quote of an SGX enclave", "a quote of a TDX guest", "enclave-author"
            )
        if not body.flags & SGX_INIT:
            raise refusal("sgx.not-initialised", "enclave", "initialised (attribute INIT)", "not", "nobody")
        return _evidence(quote, body)

    def appraise(self, verified: VerifiedEvidence, policy: PlatformPolicy) -> tuple[Check, ...]:
        """Without MRENCLAVE, an enclave is MRSIGNER, product and a minimum SVN together; each is then needed."""
        accepted = {m.name: m.accepted for m in policy.measurements}
        if isinstance(accepted.get("mrenclave"), tuple):
            return ()
        products = {s.name: s.accepted for s in policy.settings}.get("isv-prod-id")
        minimum = policy.minimum_tcb if isinstance(policy.minimum_tcb, tuple) else ()
        complete = (
            isinstance(accepted.get("mrsigner"), tuple)
            and products is not None
            and not isinstance(products, Unchecked)
            and any(component.name == "isv-svn" for component in minimum)
        )
        return (
            check(
                "sgx.identity",
                "passed" if complete else "failed",
                "mrenclave, or mrsigner with isv-prod-id and a minimum isv-svn",
                "the latter" if complete else "a policy with neither",
                "owner-policy",
            ),
        )


def _evidence(quote: VerifiedQuote, body: SgxReport) -> VerifiedEvidence:
    report = quote.report
    return VerifiedEvidence._seal(
        claims=Claims(
            platform="sgx",
            measurements=(
                measurement("mrenclave", body.mr_enclave.hex()),
                measurement("mrsigner", body.mr_signer.hex()),
            ),
            report_data=body.report_data.hex(),
            debug=bool(body.flags & SGX_DEBUG),
            tcb_status=report.status,
            advisories=report.advisories,
            tcb=(*quote.tcb, component("isv-svn", body.isv_svn)),
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
