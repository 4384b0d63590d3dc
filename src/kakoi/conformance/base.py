"""A good piece of evidence, ready to be spoiled: its trial with the narrowest policy that accepts it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from kakoi.attest.draft import draft
from kakoi.attest.policy import AttestationPolicy
from kakoi.attest.report import Collateral, Evidence, Part, VerifiedEvidence
from kakoi.conformance import own
from kakoi.conformance.corpus import Group, one
from kakoi.conformance.trial import Anchor, Kind, Trial
from kakoi.core.ids import parse_id
from kakoi.core.x509 import parse_certificate

AGE = 10 * 365 * 86400
"""``collateral_max_age`` of drafted policies: recorded collateral is as old as it is."""
BINDABLE = (32, 48, 64)
"""Sizes of report data that a session can have. Some recorded evidence is bound to a short text instead."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Base:
    """A good trial, and what verification proved about it."""

    name: str
    trial: Trial
    verified: VerifiedEvidence

    @property
    def kind(self) -> Kind:
        """The kind of evidence."""
        return self.trial.format

    @property
    def appraised(self) -> bool:
        """Whether the trial has a policy."""
        return self.trial.policy is not None

    def good(self) -> Group:
        """The group of the good one itself."""
        return one("good", "good", "verify", lambda: self.trial, "nothing")


def anchor(certificate: bytes, product: str = "") -> Anchor:
    """A root certificate as anchor."""
    return Anchor(spki=parse_id(parse_certificate(certificate).spki_sha256), certificate=certificate, product=product)


def key_anchor(spki: str) -> Anchor:
    """A bare key as anchor."""
    return Anchor(spki=parse_id(spki), certificate=b"", product="")


def parts(values: Mapping[str, bytes]) -> tuple[Part, ...]:
    """Parts by name."""
    return tuple(Part(name=name, data=data) for name, data in values.items())


def plain_trial(kind: Kind, evidence: Evidence, collateral: Collateral, anchors: Iterable[Anchor], now: int) -> Trial:
    """A trial of genuineness only."""
    return Trial(
        format=kind,
        evidence=evidence,
        collateral=collateral,
        anchors=tuple(anchors),
        policy=None,
        report_data="",
        now=now,
        evaluation_floor=0,
    )


def wanted(name: str, trial: Trial) -> Base:
    """A trial with the policy that is drafted from it, whatever it is bound to. Raises if it does not verify."""
    verified = own.verify(trial)
    report_data = verified.claims.report_data
    if len(bytes.fromhex(report_data)) not in BINDABLE:
        report_data = "00" * 64
    policy = AttestationPolicy(accepted=(draft(verified, collateral_max_age=AGE),))
    return Base(name=name, trial=replace(trial, policy=policy, report_data=report_data), verified=verified)


def base(name: str, trial: Trial) -> Base:
    """A good trial with a policy, where its report data can be a session's. Raises if it does not verify."""
    verified = own.verify(trial)
    if len(bytes.fromhex(verified.claims.report_data)) not in BINDABLE:
        return Base(name=name, trial=trial, verified=verified)
    return wanted(name, trial)
