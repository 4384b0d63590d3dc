"""What every verifier takes and gives, whatever the hardware (RATS, RFC 9334 names).

``Evidence`` goes in. ``Claims`` is what signatures prove about it. ``Verdict`` is claims judged against one
policy, with every check by name; it travels in key grants and passports.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from kakoi.core.records import Digest, Limit, Name, Record, Seconds

PlatformKind = Literal["software", "sgx", "tdx", "snp", "azure-snp", "azure-tdx", "nitro", "vtpm"]
Hex = Annotated[str, Limit(most=512, pattern=r"(?:[0-9a-f]{2})*\Z")]
Note = Annotated[str, Limit(most=2000)]
Mender = Literal["owner-policy", "platform-operator", "vendor", "enclave-author", "nobody"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Part(Record):
    """A named piece of evidence or collateral: a certificate, a CRL, an event log."""

    name: Name
    data: Annotated[bytes, Limit(most=4 * 1024 * 1024)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence(Record):
    """What an enclave presents: the hardware's statement, and whatever else its kind needs."""

    KIND: ClassVar[str] = "kakoi/evidence/v1"

    platform: PlatformKind
    statement: Annotated[bytes, Limit(least=1, most=1024 * 1024)]
    parts: Annotated[tuple[Part, ...], Limit(most=16)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Collateral(Record):
    """Endorsements from the vendor: certificates, CRLs, TCB information, by name (see each kind's page)."""

    KIND: ClassVar[str] = "kakoi/collateral/v1"

    parts: Annotated[tuple[Part, ...], Limit(most=32)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement(Record):
    """One measured register: ``mrenclave``, ``mrtd``, ``rtmr0``, ``pcr4``, ``measurement``."""

    name: Name
    value: Hex


@dataclass(frozen=True, slots=True, kw_only=True)
class Component(Record):
    """One security version number of the platform's TCB."""

    name: Name
    version: Annotated[int, Limit(most=2**32)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Claims(Record):
    """What the hardware's signatures prove, before any policy. Common to all kinds."""

    platform: PlatformKind
    measurements: tuple[Measurement, ...]
    report_data: Hex
    """The 64 bytes that the enclave chose (32 on platforms that have only 32)."""
    debug: bool
    tcb_status: Annotated[str, Limit(most=64)]
    advisories: tuple[Annotated[str, Limit(most=64)], ...]
    tcb: tuple[Component, ...]
    tcb_evaluation_number: int | None
    platform_identity: Hex
    """PPID, chip id or equivalent; empty where the platform masks it."""
    product: Annotated[str, Limit(most=64)]
    """FMSPC, or the product line such as Milan."""
    root: Digest
    """SHA-256 of the root public key (SubjectPublicKeyInfo) the chain ends in."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Check(Record):
    """One named check and its outcome. A skipped check carries the policy's reason."""

    name: Annotated[str, Limit(least=1, most=80)]
    outcome: Literal["passed", "failed", "skipped"]
    expected: Note
    got: Note
    mender: Mender


@dataclass(frozen=True, slots=True, kw_only=True)
class CollateralDigest(Record):
    """Which bytes of collateral a verdict rests on."""

    name: Name
    digest: Digest


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict(Record):
    """Claims judged against one policy at one time."""

    KIND: ClassVar[str] = "kakoi/verdict/v1"

    claims: Claims
    protected_by_hardware: bool
    checks: Annotated[tuple[Check, ...], Limit(least=1, most=512)]
    evaluated_at: Seconds
    collateral: tuple[CollateralDigest, ...]
