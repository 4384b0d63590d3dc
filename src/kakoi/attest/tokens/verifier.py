"""Tokens as evidence that the common appraisal judges, under a policy of their own.

A token's claims carry the name of the hardware that the service looked at, but their root is the anchor of the service's
key and they hold the facts ``token`` and ``issuer``: a policy for raw evidence, which names neither, refuses them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from kakoi.attest import parts
from kakoi.attest.appraise import appraise
from kakoi.attest.identity import by_value
from kakoi.attest.policy import PlatformPolicy
from kakoi.attest.report import (
    Check,
    Claims,
    Collateral,
    Component,
    Fact,
    Measurement,
    Verdict,
    VerifiedEvidence,
    passed,
)
from kakoi.attest.tokens import claims as said
from kakoi.attest.tokens.parse import parse
from kakoi.attest.tokens.verify import Service, VerifiedToken, verify
from kakoi.core.ids import ObjectId

_IDENTITIES: Final = ("image-digest", "measurement", "mrtd", "mrenclave", "mrsigner")
_READ: Final[Mapping[Service, Callable[[VerifiedToken], said.Said]]] = {
    "azure-maa": said.azure,
    "google-confidential-space": said.google,
    "intel-trust-authority": said.intel,
}


def verify_token(
    data: bytes, service: Service, collateral: Collateral, *, anchors: frozenset[str], now: int
) -> VerifiedEvidence:
    """What a token proves, if an anchored key of ``service`` signed it. Raises Malformed or Refused.

    ``collateral`` holds the service's key set as ``jwks``, or nothing for tokens that bring their certificates.
    """
    pieces = parts.named(collateral.parts, "token collateral", allowed=("jwks",))
    token = verify(parse(data), service, pieces.get("jwks"), anchors=anchors, now=now)
    found = _READ[service](token)
    facts = {"token": service, "issuer": token.issuer, **found.facts}
    tcb = tuple(Component(name=name, version=version) for name, version in found.components.items())
    return VerifiedEvidence._seal(
        claims=Claims(
            platform=found.platform,
            measurements=tuple(Measurement(name=name, value=value) for name, value in found.measurements.items()),
            report_data=found.report_data.hex(),
            debug=found.debug,
            tcb_status=found.status,
            advisories=found.advisories,
            tcb=tcb,
            tcb_date=None,
            tcb_evaluation_number=None,
            platform_identity="",
            product=found.product,
            root=ObjectId(token.anchor),
            settings=tuple(Fact(name=name, value=value) for name, value in facts.items()),
        ),
        checks=(
            passed("token.key", "anchored by the policy", token.anchor, "owner-policy"),
            passed("token.signature", "the service's", service, "nobody"),
            passed("token.time", "issued, not expired", "so", "platform-operator"),
        ),
        collateral=parts.digests(pieces),
        collateral_issued_at=token.issued_at,
        protected_by_hardware=True,
        bounded=frozenset(component.name for component in tcb),
    )


def judge_token(
    data: bytes, service: Service, collateral: Collateral, policy: PlatformPolicy, *, report_data: bytes, now: int
) -> Verdict:
    """The verdict of a policy for tokens. Its ``roots`` are the anchors, ``collateral_max_age`` bounds the token's age.

    Raises what ``verify_token`` and ``appraise`` raise.
    """
    anchors = frozenset(policy.roots)
    verified = verify_token(data, service, collateral, anchors=anchors, now=now)
    return appraise(verified, policy, report_data=report_data, now=now, more=_identity(verified, policy))


def _identity(verified: VerifiedEvidence, policy: PlatformPolicy) -> tuple[Check, ...]:
    """The measurement that makes it the code the owners know, judged by value; an SGX enclave also by its signer."""
    shown = [m.name for m in verified.claims.measurements if m.name in _IDENTITIES]
    judged = {m.name for m in policy.measurements if isinstance(m.accepted, tuple)}
    known = [name for name in shown if name in judged]
    return by_value(policy, known[0] if known else shown[0])
