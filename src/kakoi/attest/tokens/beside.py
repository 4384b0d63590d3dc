"""Tokens that come beside the hardware's own evidence: taken apart from it, and judged for the same session.

A token travels as a part ``token.SERVICE`` of the evidence, its service's key set as a part ``jwks.SERVICE`` of the
collateral. Whatever else those records hold is the platform's, whose verifier sees it without them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from kakoi.attest.policy import TokenPolicy
from kakoi.attest.report import (
    KEY_SET,
    TOKEN,
    AppraisalRefused,
    Check,
    Claims,
    Collateral,
    CollateralDigest,
    Evidence,
    Part,
    check,
    token_binding,
)
from kakoi.attest.tokens.verifier import judge_token
from kakoi.core.errors import Malformed, Refused

_HINT: Final = "the data owners can change which tokens they demand by a new version of the contract"


@dataclass(frozen=True, slots=True, kw_only=True)
class Apart:
    """Evidence and collateral of a platform, and what came beside them."""

    evidence: Evidence
    collateral: Collateral
    tokens: Mapping[str, bytes]
    """Service → token."""
    key_sets: Mapping[str, bytes]
    """Service → key set."""


def apart(evidence: Evidence, collateral: Collateral) -> Apart:
    """Tokens and key sets taken out. Raises Malformed ``evidence.parts`` for a repeated one."""
    rest, tokens = _split(evidence.parts, TOKEN)
    pieces, key_sets = _split(collateral.parts, KEY_SET)
    return Apart(
        evidence=evidence if not tokens else replace(evidence, parts=rest),
        collateral=collateral if not key_sets else replace(collateral, parts=pieces),
        tokens=tokens,
        key_sets=key_sets,
    )


def _split(parts: Sequence[Part], prefix: str) -> tuple[tuple[Part, ...], dict[str, bytes]]:
    found: dict[str, bytes] = {}
    rest = []
    for part in parts:
        if not part.name.startswith(prefix):
            rest.append(part)
        elif part.name.removeprefix(prefix) in found:
            raise Malformed("evidence.parts", f"expected each {prefix}… part once, got a repeated name")
        else:
            found[part.name.removeprefix(prefix)] = part.data
    return tuple(rest), found


def require(tokens: Mapping[str, bytes], demands: Sequence[TokenPolicy]) -> None:
    """Raise Refused unless the tokens are those that are demanded: ``appraisal.token-missing``, ``appraisal.token-not-accepted``."""
    wanted = {demand.service for demand in demands}
    for service in sorted(wanted - tokens.keys()):
        raise Refused(
            "appraisal.token-missing",
            f"token: expected one of {service} beside the evidence, got none",
            hint=f"the operator starts the enclave with --attest-with {service}=…; or {_HINT}",
        )
    if tokens.keys() - wanted:
        raise Refused(
            "appraisal.token-not-accepted",
            f"tokens: expected those of {', '.join(sorted(wanted)) or 'nobody'} beside the evidence, got another",
            hint=_HINT,
        )


def judge_tokens(
    given: Apart, demands: Sequence[TokenPolicy], hardware: Claims, *, report_data: bytes, now: int
) -> tuple[tuple[Check, ...], tuple[CollateralDigest, ...]]:
    """Every check of every demanded token, named ``token.SERVICE.…``, failed ones too; and the key sets used, by digest.

    ``hardware``: what the evidence itself proves. A measurement that token and evidence both have must be the same in both,
    else the token is about another machine, even if the owners accept either value.

    Raises Malformed and Refused for a token that nobody could accept: forged, out of its time, of another issuer.
    """
    checks: list[Check] = []
    used: list[CollateralDigest] = []
    for demand in demands:
        service = demand.service
        keys = given.key_sets.get(service)
        collateral = Collateral(parts=() if keys is None else (Part(name="jwks", data=keys),))
        bound = token_binding(service, report_data)
        token = given.tokens[service]
        try:
            verdict = judge_token(token, service, collateral, demand.claims, report_data=bound, now=now)
        except AppraisalRefused as error:
            verdict = error.verdict
        found = (*verdict.checks, *_same(verdict.claims, hardware))
        checks += [check(f"{TOKEN}{service}.{c.name}", c.outcome, c.expected, c.got, c.mender) for c in found]
        used += [CollateralDigest(name=f"{KEY_SET}{service}", digest=piece.digest) for piece in verdict.collateral]
    return tuple(checks), tuple(used)


def _same(token: Claims, hardware: Claims) -> list[Check]:
    """One check for each measurement that both report."""
    known = {m.name: m.value for m in hardware.measurements}
    return [
        check(f"same.{m.name}", "passed" if m.value == known[m.name] else "failed", known[m.name], m.value, "nobody")
        for m in token.measurements
        if m.name in known
    ]
