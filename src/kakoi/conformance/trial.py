"""One question to a verifier, and its answer (docs/conformance.md, docs/formats/trial.md).

A trial holds everything that a verdict may depend on, and nothing that tells what is expected.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated, ClassVar, Final, Literal

from kakoi.attest.policy import AttestationPolicy, PlatformPolicy
from kakoi.attest.report import Collateral, Evidence, Hex, Note, Part, PlatformKind
from kakoi.core.records import Digest, Limit, Record, Seconds

Kind = Literal[
    "sgx", "tdx", "snp", "azure-snp", "azure-tdx", "nitro",
    "azure-maa", "google-confidential-space", "intel-trust-authority", "nvidia", "ccel",
]  # fmt: skip
KINDS: Final[tuple[Kind, ...]] = (
    "sgx", "tdx", "snp", "azure-snp", "azure-tdx", "nitro",
    "azure-maa", "google-confidential-space", "intel-trust-authority", "nvidia", "ccel",
)  # fmt: skip
Outcome = Literal["accepted", "refused", "unsupported"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Anchor(Record):
    """A trust anchor: what a verifier of this trial pins, whatever the evidence brings along."""

    spki: Digest
    """SHA-256 of the public key (SubjectPublicKeyInfo)."""
    certificate: Annotated[bytes, Limit(most=16 * 1024)]
    """DER; empty where only a key is pinned (keys of attestation services)."""
    product: Annotated[str, Limit(most=64)]
    """AMD product line that the root stands for; empty for other vendors."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial(Record):
    """Is this evidence genuine at this time, and, if there is a policy, does the policy accept it for this session?"""

    KIND: ClassVar[str] = "kakoi/trial/v1"
    MAX_BYTES: ClassVar[int] = 64 * 1024 * 1024

    format: Kind
    evidence: Evidence
    """For tokens: the token as statement, and the hardware it speaks of as platform."""
    collateral: Collateral
    anchors: Annotated[tuple[Anchor, ...], Limit(least=1, most=8)]
    policy: AttestationPolicy | None
    """None: judge genuineness only."""
    report_data: Hex
    """What the session expects the evidence to bind; empty without a policy."""
    now: Seconds
    evaluation_floor: Annotated[int, Limit(most=2**32)]
    """Highest TCB evaluation number accepted before; 0: none."""

    # Ways to change one thing. All return a new trial.

    def with_statement(self, data: bytes) -> Trial:
        """Another statement."""
        return replace(self, evidence=replace(self.evidence, statement=data))

    def with_parts(self, changed: Mapping[str, bytes | None]) -> Trial:
        """Other parts of the evidence; None removes one."""
        return replace(self, evidence=replace(self.evidence, parts=_changed(self.evidence.parts, changed)))

    def with_collateral(self, changed: Mapping[str, bytes | None]) -> Trial:
        """Other parts of the collateral; None removes one."""
        return replace(self, collateral=Collateral(parts=_changed(self.collateral.parts, changed)))

    def with_entry(self, entry: PlatformPolicy) -> Trial:
        """Another policy, of one entry."""
        return replace(self, policy=AttestationPolicy(accepted=(entry,)))

    def called(self, platform: PlatformKind, kind: Kind) -> Trial:
        """The same bytes, presented and wanted as another kind of platform."""
        evidence = replace(self.evidence, platform=platform)
        if self.policy is None:
            return replace(self, format=kind, evidence=evidence)
        return replace(self, format=kind, evidence=evidence).with_entry(replace(self.entry, platform=platform))

    @property
    def entry(self) -> PlatformPolicy:
        """The policy's only entry. Raises ValueError for a trial without a policy."""
        if self.policy is None:
            raise ValueError("expected a trial with a policy")
        return self.policy.accepted[0]

    def piece(self, name: str) -> bytes:
        """A part of the collateral."""
        return next(part.data for part in self.collateral.parts if part.name == name)


def _changed(parts: tuple[Part, ...], changed: Mapping[str, bytes | None]) -> tuple[Part, ...]:
    found: dict[str, bytes | None] = {part.name: part.data for part in parts}
    found.update(changed)
    return tuple(Part(name=name, data=data) for name, data in found.items() if data is not None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer(Record):
    """What a verifier says about one trial."""

    KIND: ClassVar[str] = "kakoi/trial-answer/v1"
    MAX_BYTES: ClassVar[int] = 64 * 1024

    outcome: Outcome
    """``unsupported``: this verifier does not know this kind of evidence at all. Never a way out for a kind it knows."""
    reason: Note
