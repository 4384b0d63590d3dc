"""Reference values and floors as data, in the contract. Unset means deny; a skipped check is a value with a reason."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Final

from kakoi.attest.report import Component, Hex, PlatformKind, TokenService
from kakoi.core.errors import Malformed
from kakoi.core.records import Digest, Limit, Name, Record, Seconds

Status = Annotated[str, Limit(least=1, most=64)]
PRODUCT: Final = "product"
"""A setting of this name judges the product (FMSPC, AMD's line), which evidence need not repeat among its facts."""
NEVER_ACCEPTED: Final = frozenset({"Revoked"})
"""Statuses that no policy can accept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Unchecked(Record):
    """A check that a policy leaves out on purpose. The reason appears in the verdict and in the passport."""

    KIND: ClassVar[str] = "unchecked"

    reason: Annotated[str, Limit(least=10, most=400)]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReferenceValue(Record):
    """The accepted values of one measurement. Every measurement that a kind reports must be listed."""

    name: Name
    accepted: Annotated[tuple[Hex, ...], Limit(least=1, most=64, unique=True)] | Unchecked


@dataclass(frozen=True, slots=True, kw_only=True)
class Grace(Record):
    """Statuses tolerated until a date, for instance ``OutOfDate`` while an operator updates."""

    statuses: Annotated[tuple[Status, ...], Limit(least=1, most=8, unique=True)]
    until: Seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting(Record):
    """A kind-specific requirement, for instance ``vmpl`` = ``0``. Every fact that a kind reports must be listed."""

    name: Name
    accepted: Annotated[tuple[Annotated[str, Limit(most=128)], ...], Limit(least=1, most=16)] | Unchecked


@dataclass(frozen=True, slots=True, kw_only=True)
class PlatformPolicy(Record):
    """What one kind of platform must show. All fields are judged; none may be left out."""

    platform: PlatformKind
    roots: Annotated[tuple[Digest, ...], Limit(least=1, most=8, unique=True)]
    """SHA-256 of accepted root public keys. Hardware kinds also need them to be pinned in the product."""
    measurements: Annotated[tuple[ReferenceValue, ...], Limit(least=1, most=64)]
    statuses: Annotated[tuple[Status, ...], Limit(least=1, most=8, unique=True)]
    advisories: Annotated[tuple[Annotated[str, Limit(most=64)], ...], Limit(most=64, unique=True)]
    """Advisories that the owners accept; any other refuses."""
    grace: Grace | None
    minimum_tcb: Annotated[tuple[Component, ...], Limit(least=1, most=64)] | Unchecked
    minimum_tcb_evaluation_number: Annotated[int, Limit(most=2**32)] | Unchecked
    platforms: Annotated[tuple[Hex, ...], Limit(least=1, most=256, unique=True)] | Unchecked
    """Accepted platform identities (PPID, chip id)."""
    refused_products: Annotated[tuple[Annotated[str, Limit(most=64)], ...], Limit(most=32, unique=True)]
    settings: Annotated[tuple[Setting, ...], Limit(most=64)]
    collateral_max_age: Seconds | Unchecked
    """Oldest accepted collateral, in seconds since its issue date."""

    def check(self) -> None:
        """Names appear once, at least one measurement is judged, and nothing accepts a revoked platform."""
        components = [c.name for c in self.minimum_tcb] if isinstance(self.minimum_tcb, tuple) else []
        for names in ([m.name for m in self.measurements], [s.name for s in self.settings], components):
            if len(set(names)) != len(names):
                raise Malformed("policy.repeated", "expected each measurement, setting and component once")
        if all(isinstance(m.accepted, Unchecked) for m in self.measurements):
            raise Malformed("policy.no-measurement", "expected at least one measurement with accepted values")
        grace = self.grace.statuses if self.grace else ()
        if NEVER_ACCEPTED & {*self.statuses, *grace}:
            raise Malformed("policy.revoked", "expected no status that means a revoked platform")


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenPolicy(Record):
    """A token of an attestation service that has to come **beside** the evidence of one kind of platform (ADR 0095).

    Never instead of it: the evidence is judged by the entry of its kind, whatever the token says.
    """

    KIND: ClassVar[str] = "kakoi/token-policy/v1"

    accompanies: PlatformKind
    """The kind of evidence that it is demanded for."""
    service: TokenService
    claims: PlatformPolicy
    """What the token must say. Its ``roots`` are the keys that may sign it, its ``collateral_max_age`` the token's age."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AttestationPolicy(Record):
    """The platforms a contract accepts: at least one, each kind at most once; and the tokens that they must bring."""

    KIND: ClassVar[str] = "kakoi/attestation-policy/v1"

    accepted: Annotated[tuple[PlatformPolicy, ...], Limit(least=1, most=8)]
    tokens: Annotated[tuple[TokenPolicy, ...], Limit(most=24)] = ()
    """Tokens that are demanded. A kind without an entry here must come without tokens: none is accepted by omission."""

    def check(self) -> None:
        """One entry per kind, one token per kind and service, and none for a kind that is not accepted."""
        kinds = [entry.platform for entry in self.accepted]
        demands = [(token.accompanies, token.service) for token in self.tokens]
        if len(set(kinds)) != len(kinds) or len(set(demands)) != len(demands):
            raise Malformed("policy.repeated", "expected each platform kind once in an attestation policy")
        if not {kind for kind, _ in demands} <= set(kinds):
            raise Malformed(
                "policy.token", "expected tokens for kinds of platform that the policy accepts, got another"
            )

    def tokens_for(self, platform: PlatformKind) -> tuple[TokenPolicy, ...]:
        """The tokens that evidence of this kind must bring, and no other."""
        return tuple(token for token in self.tokens if token.accompanies == platform)
