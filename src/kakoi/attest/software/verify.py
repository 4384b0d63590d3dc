"""The ``software`` platform: an SGX quote of DCAP format under a local root, judged by the same verifier as Intel's.

Reached only from the broker's development mode and from tests. Whoever holds the local root can claim anything.
"""

from __future__ import annotations

from kakoi.attest.dcap import verify as dcap
from kakoi.attest.dcap.own.verify import SGX_DEBUG, SGX_INIT
from kakoi.attest.dcap.parse import SgxReport
from kakoi.attest.dcap.roots import INTEL
from kakoi.attest.policy import PlatformPolicy, ReferenceValue, Unchecked
from kakoi.attest.report import Check, Claims, Collateral, Evidence, VerifiedEvidence, measurement, refusal
from kakoi.core.errors import Misuse
from kakoi.core.ids import ObjectId, parse_id

LABEL = "NOT PROTECTED BY HARDWARE"


class SoftwareVerifier:
    """Verifies quotes under the given local roots. Claims nothing about hardware."""

    def __init__(self, roots: frozenset[str]) -> None:
        self._roots = roots

    def verify(self, evidence: Evidence, collateral: Collateral, *, now: int) -> VerifiedEvidence:
        """A genuine quote of the local root. Raises what ``attest.dcap.verify`` raises; Refused ``software.kind``."""
        quote = dcap.verify(evidence, collateral, roots=self._roots, now=now)
        body = quote.report.quote.body
        if evidence.platform != "software" or not isinstance(body, SgxReport) or not body.flags & SGX_INIT:
            raise refusal("software.kind", "evidence", "an SGX quote of the software platform", "another", "nobody")
        own = quote.report.collateral
        return VerifiedEvidence._seal(
            claims=Claims(
                platform="software",
                measurements=(measurement("mrenclave", body.mr_enclave.hex()),),
                report_data=body.report_data.hex(),
                debug=bool(body.flags & SGX_DEBUG),
                tcb_status=quote.report.status,
                advisories=quote.report.advisories,
                tcb=quote.tcb,
                tcb_date=quote.report.tcb_date,
                tcb_evaluation_number=quote.report.evaluation_number,
                platform_identity=quote.report.pck.ppid.hex(),
                product=quote.report.pck.fmspc.hex(),
                root=parse_id(own.root.spki_sha256),
                settings=(),
            ),
            checks=quote.checks,
            collateral=own.digests,
            collateral_issued_at=own.issued_at,
            protected_by_hardware=False,
            bounded=frozenset(),
        )

    def appraise(self, verified: VerifiedEvidence, policy: PlatformPolicy) -> tuple[Check, ...]:
        """Nothing beyond the common checks."""
        return ()


def verifier(*roots: str) -> SoftwareVerifier:
    """A verifier for the local roots with these hex SHA-256 of their public keys. Raises Misuse for a vendor's root."""
    for root in roots:
        parse_id(root)
    if not roots or set(roots) & INTEL:
        raise Misuse("software.root", "expected the local root of a software platform, got none or a vendor's")
    return SoftwareVerifier(frozenset(roots))


def reference_policy(*, mrenclave: str, root: str) -> PlatformPolicy:
    """The strictest policy that a contract can have for the software platform, which protects nothing."""
    reason = Unchecked(reason=f"software platform: {LABEL.lower()}, no firmware to bound")
    return PlatformPolicy(
        platform="software",
        roots=(ObjectId(root),),
        measurements=(ReferenceValue(name="mrenclave", accepted=(mrenclave,)),),
        statuses=("UpToDate",),
        advisories=(),
        grace=None,
        minimum_tcb=reason,
        minimum_tcb_evaluation_number=1,
        platforms=reason,
        refused_products=(),
        settings=(),
        collateral_max_age=7 * 86400,
    )
