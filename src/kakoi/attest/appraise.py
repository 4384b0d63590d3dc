"""Appraisal: verified claims against one platform policy, every check at once (RFC 9334 §8.1.2).

The same function judges every kind of hardware. It is strict in both directions: whatever the policy names must be in
the claims, and whatever the claims hold must be named by the policy, with accepted values or with a reason to skip.
"""

from __future__ import annotations

import hmac
from collections.abc import Sequence
from functools import lru_cache
from typing import Final

from kakoi.attest.policy import NEVER_ACCEPTED, PRODUCT, PlatformPolicy, Unchecked
from kakoi.attest.report import AppraisalRefused, Check, CollateralDigest, Mender, Verdict, VerifiedEvidence, check
from kakoi.core.errors import Misuse
from kakoi.core.x509 import utc

REPORT_DATA_SIZES: Final = (32, 48, 64)
SKEW_SECONDS: Final = 60
"""How far ahead of the judge's clock a vendor's may be: evidence can carry a time of its own, a second old or young."""
_KEPT: Final = 4096
_MISSING: Final = "nothing in the policy"
_ABSENT: Final = "not in this evidence"


def _check(name: str, expected: str, got: str, mender: Mender, ok: bool) -> Check:
    return check(name, "passed" if ok else "failed", expected, got, mender)


def _skip(name: str, rule: Unchecked, got: str) -> Check:
    return check(name, "skipped", f"not checked: {rule.reason}", got, "owner-policy")


def _one_of(values: Sequence[str]) -> str:
    return " or ".join(values) if values else "nothing"


def _identity(verified: VerifiedEvidence, policy: PlatformPolicy, report_data: bytes) -> list[Check]:
    claims = verified.claims
    bound = hmac.compare_digest(bytes.fromhex(claims.report_data), report_data)
    product = claims.product.lower() not in {p.lower() for p in policy.refused_products}
    checks = [
        _check("platform", policy.platform, claims.platform, "owner-policy", claims.platform == policy.platform),
        _check("root", _one_of(policy.roots), claims.root, "owner-policy", claims.root in policy.roots),
        _check("debug", "off", "on" if claims.debug else "off", "enclave-author", not claims.debug),
        _check("report-data", report_data.hex(), claims.report_data, "nobody", bound),
        _check("product", f"none of: {_one_of(policy.refused_products)}", claims.product, "owner-policy", product),
    ]
    if isinstance(policy.platforms, Unchecked):
        checks.append(_skip("platform-identity", policy.platforms, claims.platform_identity or "masked"))
    else:
        known = claims.platform_identity != "" and claims.platform_identity in policy.platforms
        expected = f"one of {len(policy.platforms)} listed platforms"
        checks.append(
            _check("platform-identity", expected, claims.platform_identity or "masked", "owner-policy", known)
        )
    return checks


def _hardware(verified: VerifiedEvidence) -> list[Check]:
    if verified.protected_by_hardware:
        return []
    label = "NOT PROTECTED BY HARDWARE"
    return [check("hardware", "skipped", "accepted by name", label, "owner-policy")]


@lru_cache(maxsize=_KEPT)
def _value(name: str, accepted: tuple[str, ...] | Unchecked | None, value: str | None, mender: Mender) -> Check:
    """One named value against what the policy accepts; None stands for a missing policy entry or a missing value."""
    got = _ABSENT if value is None else value
    if accepted is None:
        return _check(name, _MISSING, got, "owner-policy", False)
    if isinstance(accepted, Unchecked):
        return _skip(name, accepted, got)
    return _check(name, _one_of(accepted), got, mender, value in accepted)


def _measurements(verified: VerifiedEvidence, policy: PlatformPolicy) -> list[Check]:
    found = {m.name: m.value for m in verified.claims.measurements}
    checks = [
        _value(f"measurement.{m.name}", m.accepted, found.pop(m.name, None), "enclave-author")
        for m in policy.measurements
    ]
    return checks + [_value(f"measurement.{name}", None, value, "owner-policy") for name, value in found.items()]


def _settings(verified: VerifiedEvidence, policy: PlatformPolicy) -> list[Check]:
    found = {fact.name: fact.value for fact in verified.claims.settings}
    if any(setting.name == PRODUCT for setting in policy.settings):
        found[PRODUCT] = verified.claims.product
    menders: dict[str, Mender] = dict.fromkeys(verified.author_settings, "enclave-author")
    checks = [
        _value(f"setting.{s.name}", s.accepted, found.pop(s.name, None), menders.get(s.name, "platform-operator"))
        for s in policy.settings
    ]
    return checks + [_value(f"setting.{name}", None, value, "owner-policy") for name, value in found.items()]


def _status(verified: VerifiedEvidence, policy: PlatformPolicy, now: int) -> list[Check]:
    claims = verified.claims
    accepted = list(policy.statuses)
    expected = _one_of(policy.statuses)
    if policy.grace is not None:
        expected += f", or until {utc(policy.grace.until)} {_one_of(policy.grace.statuses)}"
        if now <= policy.grace.until:
            accepted += policy.grace.statuses
    ok = claims.tcb_status in accepted and claims.tcb_status not in NEVER_ACCEPTED
    unaccepted = [a for a in claims.advisories if a not in policy.advisories]
    return [
        _check("tcb-status", expected, claims.tcb_status, "platform-operator", ok),
        _check(
            "advisories",
            f"none but {_one_of(policy.advisories)}",
            ", ".join(unaccepted) or "no other",
            "platform-operator",
            not unaccepted,
        ),
    ]


def _tcb(verified: VerifiedEvidence, policy: PlatformPolicy) -> list[Check]:
    minimum = policy.minimum_tcb
    if isinstance(minimum, Unchecked):
        got = ", ".join(f"{c.name}={c.version}" for c in verified.claims.tcb)
        return [_skip("minimum-tcb", minimum, got)]
    found = {c.name: c.version for c in verified.claims.tcb}
    checks = [_at_least(needed.name, needed.version, found.get(needed.name)) for needed in minimum]
    for left in sorted(verified.bounded - {c.name for c in minimum}):
        checks.append(_check(f"minimum-tcb.{left}", _MISSING, str(found.get(left)), "owner-policy", False))
    return checks


@lru_cache(maxsize=_KEPT)
def _at_least(name: str, minimum: int, version: int | None) -> Check:
    got = _ABSENT if version is None else str(version)
    ok = version is not None and version >= minimum
    return _check(f"minimum-tcb.{name}", f"at least {minimum}", got, "platform-operator", ok)


def _evaluation(verified: VerifiedEvidence, policy: PlatformPolicy, floor: int) -> list[Check]:
    rule, number = policy.minimum_tcb_evaluation_number, verified.claims.tcb_evaluation_number
    got = "none" if number is None else str(number)
    if isinstance(rule, Unchecked):
        checks = [_skip("tcb-evaluation-number", rule, got)]
    else:
        ok = number is not None and number >= rule
        checks = [_check("tcb-evaluation-number", f"at least {rule}", got, "platform-operator", ok)]
    # The floor is this judge's own memory. Only a breach shows, so that whoever judges an accepted session again, years
    # later and without that memory, comes to the same verdict.
    if floor and (number is None or number < floor):
        name = "tcb-evaluation-number.rollback"
        checks.append(_check(name, f"at least {floor}, which was seen before", got, "platform-operator", False))
    return checks


def _age(verified: VerifiedEvidence, policy: PlatformPolicy, now: int) -> list[Check]:
    rule, issued = policy.collateral_max_age, verified.collateral_issued_at
    got = "no date" if issued is None else f"issued {utc(issued)}"
    if isinstance(rule, Unchecked):
        return [_skip("collateral-age", rule, got)]
    ok = issued is not None and -SKEW_SECONDS <= now - issued <= rule
    return [_check("collateral-age", f"at most {rule} seconds at {utc(now)}", got, "platform-operator", ok)]


def appraise(
    verified: VerifiedEvidence,
    policy: PlatformPolicy,
    *,
    report_data: bytes,
    now: int,
    evaluation_floor: int = 0,
    more: Sequence[Check] = (),
    collateral: Sequence[CollateralDigest] = (),
) -> Verdict:
    """The verdict of ``policy`` on ``verified``; returned only if no check failed.

    ``report_data`` is the value bound to this session (32, 48 or 64 bytes); ``evaluation_floor`` the highest TCB
    evaluation number that the caller has accepted before (0: none); ``more`` the checks a kind adds, and what of collateral they rest on.

    Raises AppraisalRefused (``appraisal.refused``) with every mismatch; Misuse for report data of another length.
    """
    if len(report_data) not in REPORT_DATA_SIZES:
        raise Misuse("appraisal.report-data", f"expected 32, 48 or 64 bytes of report data, got {len(report_data)}")
    checks = (
        *_hardware(verified),
        *_identity(verified, policy, report_data),
        *_measurements(verified, policy),
        *_settings(verified, policy),
        *_status(verified, policy, now),
        *_tcb(verified, policy),
        *_evaluation(verified, policy, evaluation_floor),
        *_age(verified, policy, now),
        *more,
        *verified.checks,
    )
    verdict = Verdict(
        claims=verified.claims,
        protected_by_hardware=verified.protected_by_hardware,
        checks=checks,
        evaluated_at=now,
        collateral=(*verified.collateral, *collateral),
        collateral_issued_at=verified.collateral_issued_at,
    )
    if verdict.failed:
        raise AppraisalRefused(verdict)
    return verdict
