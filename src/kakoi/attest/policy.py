"""Reference values and floors as data, in the contract. Unset means deny; a skipped check is a value with a reason."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from kakoi.attest.report import Component, Hex, PlatformKind
from kakoi.core.errors import Malformed
from kakoi.core.records import Digest, Limit, Name, Record, Seconds

Status = Annotated[str, Limit(least=1, most=64)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Unchecked(Record):
    """A check that a policy leaves out on purpose. The reason appears in the verdict and in the passport."""

    KIND: ClassVar[str] = "unchecked"

    reason: Annotated[str, Limit(least=10, most=400)]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReferenceValue(Record):
    """The accepted values of one measurement."""

    name: Name
    accepted: Annotated[tuple[Hex, ...], Limit(least=1, most=64, unique=True)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Grace(Record):
    """Statuses tolerated until a date, for instance ``OutOfDate`` while an operator updates."""

    statuses: Annotated[tuple[Status, ...], Limit(least=1, most=8, unique=True)]
    until: Seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting(Record):
    """A kind-specific requirement, for instance ``vmpl`` = ``0``; each kind's page lists those it demands."""

    name: Name
    accepted: Annotated[tuple[Annotated[str, Limit(most=128)], ...], Limit(least=1, most=16)] | Unchecked


@dataclass(frozen=True, slots=True, kw_only=True)
class PlatformPolicy(Record):
    """What one kind of platform must show. All fields are judged; none may be left out."""

    platform: PlatformKind
    roots: Annotated[tuple[Digest, ...], Limit(least=1, most=8, unique=True)]
    """SHA-256 of accepted root public keys. Hardware kinds also need them to be pinned in the product."""
    measurements: Annotated[tuple[ReferenceValue, ...], Limit(least=1, most=32)]
    statuses: Annotated[tuple[Status, ...], Limit(least=1, most=8, unique=True)]
    advisories: Annotated[tuple[Annotated[str, Limit(most=64)], ...], Limit(most=64, unique=True)]
    """Advisories that the owners accept; any other refuses."""
    grace: Grace | None
    minimum_tcb: Annotated[tuple[Component, ...], Limit(least=1, most=32)] | Unchecked
    minimum_tcb_evaluation_number: Annotated[int, Limit(most=2**32)] | Unchecked
    platforms: Annotated[tuple[Hex, ...], Limit(least=1, most=256, unique=True)] | Unchecked
    """Accepted platform identities (PPID, chip id)."""
    refused_products: Annotated[tuple[Annotated[str, Limit(most=64)], ...], Limit(most=32, unique=True)]
    settings: Annotated[tuple[Setting, ...], Limit(most=32)]
    collateral_max_age: Seconds
    """Oldest accepted collateral, in seconds since its issue date."""

    def check(self) -> None:
        """Names of measurements and settings appear once."""
        for names in ([m.name for m in self.measurements], [s.name for s in self.settings]):
            if len(set(names)) != len(names):
                raise Malformed("policy.repeated", "expected each measurement and setting once in a platform policy")


@dataclass(frozen=True, slots=True, kw_only=True)
class AttestationPolicy(Record):
    """The platforms a contract accepts: at least one, each kind at most once."""

    KIND: ClassVar[str] = "kakoi/attestation-policy/v1"

    accepted: Annotated[tuple[PlatformPolicy, ...], Limit(least=1, most=8)]

    def check(self) -> None:
        """One entry per kind."""
        kinds = [entry.platform for entry in self.accepted]
        if len(set(kinds)) != len(kinds):
            raise Malformed("policy.repeated", "expected each platform kind once in an attestation policy")
