"""One piece of evidence judged by itself, outside any run: what ``kakoi attest verify`` shows.

What was not appraised never looks like a verdict: without a policy the report holds claims and the checks of
verification only, and says ``not-appraised``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Final, Literal

from kakoi.attest.draft import draft
from kakoi.attest.policy import AttestationPolicy
from kakoi.attest.registry import HARDWARE, judge
from kakoi.attest.report import (
    NOTE,
    AppraisalRefused,
    Check,
    Claims,
    Collateral,
    CollateralDigest,
    Evidence,
    Note,
    Verdict,
    VerifiedEvidence,
)
from kakoi.attest.software.admit import with_software
from kakoi.core.errors import KakoiError, Misuse, Refused
from kakoi.core.records import Limit, Record, Seconds, Slug

Outcome = Literal["accepted", "refused", "not-genuine", "not-appraised"]
DAY: Final = 86400
DRAFT_AGE: Final = 30 * DAY
"""``collateral_max_age`` of a drafted policy, in seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trouble(Record):
    """Why there is no verdict: an error of verification, or a kind of platform that the policy does not accept."""

    code: Slug
    message: Note
    hint: Note


@dataclass(frozen=True, slots=True, kw_only=True)
class Unappraised(Record):
    """What signatures prove, which nobody has judged."""

    claims: Claims
    protected_by_hardware: bool
    checks: Annotated[tuple[Check, ...], Limit(most=512)]
    collateral: Annotated[tuple[CollateralDigest, ...], Limit(most=64)]


@dataclass(frozen=True, slots=True, kw_only=True)
class AttestReport(Record):
    """The answer about one piece of evidence. Exactly one of ``verdict``, ``unappraised`` and ``trouble`` is there."""

    KIND: ClassVar[str] = "kakoi/attest-report/v1"

    outcome: Outcome
    evaluated_at: Seconds
    verdict: Verdict | None
    """Of the policy: for ``accepted`` and ``refused``."""
    unappraised: Unappraised | None
    trouble: Trouble | None


def report(
    outcome: Outcome,
    now: int,
    *,
    verdict: Verdict | None = None,
    proved: Unappraised | None = None,
    trouble: Trouble | None = None,
) -> AttestReport:
    """A report with one of its three parts."""
    return AttestReport(outcome=outcome, evaluated_at=now, verdict=verdict, unappraised=proved, trouble=trouble)


def verify_only(evidence: Evidence, collateral: Collateral, *, now: int) -> VerifiedEvidence:
    """What the hardware's signatures prove at ``now``. Raises Malformed and Refused; Refused ``appraisal.no-verifier``."""
    verifier = HARDWARE.get(evidence.platform)
    if verifier is None:
        raise Refused(
            "attest.no-verifier",
            f"platform: expected one that this program verifies without a policy, got {evidence.platform}",
            hint="the root of the software platform is in the policy: give it with --policy",
        )
    return verifier.verify(evidence, collateral, now=now)


def examine(
    evidence: Evidence, collateral: Collateral, policy: AttestationPolicy | None, *, report_data: bytes | None, now: int
) -> tuple[AttestReport, KakoiError | None]:
    """The report, and the error that it tells of, if it tells of one.

    Raises Misuse ``attest.report-data`` for a policy without the report data of the session.
    """
    if policy is not None and report_data is None:
        raise Misuse(
            "attest.report-data",
            "expected the report data of the session beside a policy, got none",
            hint="evidence of another session is worth nothing: give --report-data, in hex",
        )
    try:
        if policy is None or report_data is None:
            return report("not-appraised", now, proved=unappraised(verify_only(evidence, collateral, now=now))), None
        verifiers = with_software(policy)
        verdict = judge(evidence, collateral, policy, report_data=report_data, now=now, verifiers=verifiers)
        return report("accepted", now, verdict=verdict), None
    except AppraisalRefused as error:
        return report("refused", now, verdict=error.verdict), error
    except Misuse:
        raise
    except KakoiError as error:
        told = Trouble(code=error.code, message=error.message[:NOTE], hint=error.hint[:NOTE])
        outcome: Outcome = "refused" if error.code.startswith("appraisal.") else "not-genuine"
        return report(outcome, now, trouble=told), error


def unappraised(verified: VerifiedEvidence) -> Unappraised:
    """What verification proved, marked as judged by nobody."""
    return Unappraised(
        claims=verified.claims,
        protected_by_hardware=verified.protected_by_hardware,
        checks=verified.checks,
        collateral=verified.collateral,
    )


def draft_policy(evidence: Evidence, collateral: Collateral, *, now: int) -> AttestationPolicy:
    """A policy that accepts exactly what this evidence shows (``attest.draft``). Raises what verification raises."""
    verified = verify_only(evidence, collateral, now=now)
    return AttestationPolicy(accepted=(draft(verified, collateral_max_age=DRAFT_AGE),))
