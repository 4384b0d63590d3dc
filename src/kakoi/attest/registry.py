"""From evidence to verdict: find the platform policy, then parse, verify and appraise."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, Protocol

from kakoi.attest.appraise import appraise
from kakoi.attest.azure.verifier import AzureSnpVerifier, AzureTdxVerifier
from kakoi.attest.nitro.verifier import NitroVerifier
from kakoi.attest.policy import AttestationPolicy, PlatformPolicy
from kakoi.attest.report import Check, Collateral, Evidence, PlatformKind, Verdict, VerifiedEvidence
from kakoi.attest.sgx.verify import SgxVerifier
from kakoi.attest.snp.verifier import SnpVerifier
from kakoi.attest.tdx.verify import TdxVerifier
from kakoi.attest.tokens.beside import apart, judge_tokens, require
from kakoi.core.errors import Refused


class Verifier(Protocol):
    """One kind of hardware. Stateless but for caches of verified collateral."""

    def verify(self, evidence: Evidence, collateral: Collateral, *, now: int) -> VerifiedEvidence:
        """Parse and verify. Raises Malformed or Refused; returns only what signatures up to a pinned root prove."""
        ...

    def appraise(self, verified: VerifiedEvidence, policy: PlatformPolicy) -> tuple[Check, ...]:
        """Checks of this kind beyond the common ones; usually none, since facts are judged by settings."""
        ...


HARDWARE: Final[Mapping[PlatformKind, Verifier]] = MappingProxyType(
    {
        "sgx": SgxVerifier(),
        "tdx": TdxVerifier(),
        "snp": SnpVerifier(),
        "azure-snp": AzureSnpVerifier(),
        "azure-tdx": AzureTdxVerifier(TdxVerifier()),
        "nitro": NitroVerifier(),
    }
)
"""The verifiers of real hardware. Never holds ``software``: the broker's development mode adds that by itself."""
_NO_FLOORS: Final[Mapping[str, int]] = MappingProxyType({})


def find_policy(evidence: Evidence, policy: AttestationPolicy) -> PlatformPolicy:
    """The entry of ``policy`` for this kind of platform. Raises Refused ``appraisal.platform-not-accepted``."""
    for entry in policy.accepted:
        if entry.platform == evidence.platform:
            return entry
    accepted = ", ".join(entry.platform for entry in policy.accepted)
    raise Refused(
        "appraisal.platform-not-accepted",
        f"platform: expected one of {accepted}, got {evidence.platform}",
        hint="the data owners can accept this kind of platform by a new version of the contract",
    )


def judge(
    evidence: Evidence,
    collateral: Collateral,
    policy: AttestationPolicy,
    *,
    report_data: bytes,
    now: int,
    verifiers: Mapping[PlatformKind, Verifier] = HARDWARE,
    evaluation_floor: int = 0,
    evaluation_floors: Mapping[str, int] = _NO_FLOORS,
) -> Verdict:
    """The verdict on ``evidence``, returned only if it is genuine and the policy accepts all of it.

    ``evaluation_floor``, and ``evaluation_floors`` by product: the highest TCB evaluation numbers accepted before.

    Tokens that the policy demands for this kind of platform must be there, and no other; they are judged after the
    hardware's own evidence, for the same session, and every check of theirs is in the verdict (``attest.tokens.beside``).

    Raises Malformed and Refused from verification; Refused ``appraisal.platform-not-accepted``, ``appraisal.no-verifier``,
    ``appraisal.token-missing``, ``appraisal.token-not-accepted``; AppraisalRefused ``appraisal.refused`` with ``.verdict``
    for every mismatch at once.
    """
    entry = find_policy(evidence, policy)
    verifier = verifiers.get(evidence.platform)
    if verifier is None:
        raise Refused(
            "appraisal.no-verifier",
            f"platform: expected one that this program verifies, got {evidence.platform}",
            hint="the software platform is judged only in development mode",
        )
    given, demands = apart(evidence, collateral), policy.tokens_for(evidence.platform)
    require(given.tokens, demands)
    verified = verifier.verify(given.evidence, given.collateral, now=now)
    of_tokens, key_sets = judge_tokens(given, demands, verified.claims, report_data=report_data, now=now)
    floor = max(evaluation_floor, evaluation_floors.get(verified.claims.product, 0))
    return appraise(
        verified,
        entry,
        report_data=report_data,
        now=now,
        evaluation_floor=floor,
        more=(*verifier.appraise(verified, entry), *of_tokens),
        collateral=key_sets,
    )
