"""What every verifier takes and gives, whatever the hardware (RATS, RFC 9334 names).

``Evidence`` goes in. ``Claims`` is what signatures prove about it. ``Verdict`` is claims judged against one
policy, with every check by name; it travels in key grants and passports.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated, ClassVar, Final, Literal

from kakoi.core.encoding import framed, sha256
from kakoi.core.errors import Refused
from kakoi.core.records import Digest, Limit, Name, Record, Seconds
from kakoi.core.sealed import Sealed
from kakoi.core.text import TEXT, TEXT_FORM, plain

PlatformKind = Literal["software", "sgx", "tdx", "snp", "azure-snp", "azure-tdx", "nitro", "vtpm"]
TokenService = Literal["azure-maa", "google-confidential-space", "intel-trust-authority"]
TOKEN: Final = "token."  # noqa: S105 - the beginning of a name
"""Before a service's name: the part of evidence that is its token, and the checks of that token in a verdict."""
KEY_SET: Final = "jwks."
"""Before a service's name: the part of collateral that is its key set."""
_TOKEN_NONCE: Final = b"kakoi/token-nonce/v1"
Hex = Annotated[str, Limit(most=512, pattern=r"(?:[0-9a-f]{2})*\Z")]
NOTE: Final = 2000
Note = Annotated[str, Limit(most=NOTE, pattern=TEXT, form=TEXT_FORM)]
_KEPT: Final = 4096
Outcome = Literal["passed", "failed", "skipped"]
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
class Fact(Record):
    """A kind-specific property that a policy must judge by a ``Setting`` of the same name: ``vmpl``, ``smt``."""

    name: Name
    value: Annotated[str, Limit(most=128)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Claims(Record):
    """What the hardware's signatures prove, before any policy. Common to all kinds."""

    platform: PlatformKind
    measurements: Annotated[tuple[Measurement, ...], Limit(most=64)]
    report_data: Hex
    """The 64 bytes that the enclave chose (32 on platforms that have only 32)."""
    debug: bool
    tcb_status: Annotated[str, Limit(most=64)]
    advisories: tuple[Annotated[str, Limit(most=64)], ...]
    tcb: tuple[Component, ...]
    tcb_date: Seconds | None
    """When the vendor published the TCB level that the platform reaches; None where the vendor publishes none."""
    tcb_evaluation_number: Annotated[int, Limit(most=2**32)] | None
    platform_identity: Hex
    """PPID, chip id or equivalent; empty where the platform masks it."""
    product: Annotated[str, Limit(most=64)]
    """FMSPC, or the product line such as Milan."""
    root: Digest
    """SHA-256 of the root public key (SubjectPublicKeyInfo) the chain ends in."""
    settings: Annotated[tuple[Fact, ...], Limit(most=64)]
    """Everything else that a policy of this kind has to judge."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Check(Record):
    """One named check and its outcome. A skipped check carries the policy's reason."""

    name: Annotated[str, Limit(least=1, most=128)]
    outcome: Outcome
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
    collateral: Annotated[tuple[CollateralDigest, ...], Limit(most=64)]
    collateral_issued_at: Seconds | None
    """Issue date of the oldest piece of collateral used; None where the kind has no dated collateral."""

    @property
    def failed(self) -> tuple[Check, ...]:
        """The checks that refuse; empty for an accepted verdict."""
        return tuple(check for check in self.checks if check.outcome == "failed")


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedEvidence(metaclass=Sealed):
    """Evidence whose signatures hold up to a pinned root. Only a kind's ``verify`` makes one.

    Says nothing about whether anybody wants such a platform: that is ``appraise``.
    """

    claims: Claims
    checks: tuple[Check, ...]
    """What verification proved, by name; all passed, or skipped with the reason."""
    collateral: tuple[CollateralDigest, ...]
    collateral_issued_at: int | None
    protected_by_hardware: bool
    bounded: frozenset[str]
    """Names of TCB components that a policy of this kind has to give a minimum for."""
    author_settings: frozenset[str] = frozenset()
    """Names of settings that whoever builds and starts the enclave chooses; all others are the platform's."""


def token_binding(service: TokenService, report_data: bytes) -> bytes:
    """What a token of ``service`` has to be bound to, for a session whose evidence is bound to ``report_data``.

    The report data itself, or a hash of it where the service takes no nonce of that size: Google's are at most 74 characters
    (Confidential Space, "custom attestation tokens").
    """
    if service == "google-confidential-space":
        return sha256(framed(_TOKEN_NONCE, report_data))
    return report_data


HINTS: Final[dict[Mender, str]] = {
    "owner-policy": "the data owners can accept this by a new version of the contract",
    "platform-operator": "the operator of the machine can mend this (firmware, configuration, fresh collateral)",
    "vendor": "only the hardware vendor can mend this",
    "enclave-author": "whoever builds and starts the enclave can mend this",
    "nobody": "nobody can mend this: the evidence is not genuine, or belongs to another session",
}


def refusal(code: str, check: str, expected: str, got: str, mender: Mender) -> Refused:
    """The error for one check that verification itself makes: names the check, both values and who can mend it."""
    return Refused(code, f"{check}: expected {expected}, got {got}", hint=HINTS[mender])


# Small immutable records that the same platforms and policies give again and again: each is made, and judged against
# its limits, once. A verdict has about a hundred of them.


@lru_cache(maxsize=_KEPT)
def check(name: str, outcome: Outcome, expected: str, got: str, mender: Mender) -> Check:
    """A check. Texts beyond the record's limits are cut, and lose what could steer a terminal."""
    return Check(name=name, outcome=outcome, expected=plain(expected)[:NOTE], got=plain(got)[:NOTE], mender=mender)


@lru_cache(maxsize=_KEPT)
def component(name: str, version: int) -> Component:
    """A component."""
    return Component(name=name, version=version)


@lru_cache(maxsize=_KEPT)
def fact(name: str, value: str) -> Fact:
    """A fact."""
    return Fact(name=name, value=value)


@lru_cache(maxsize=_KEPT)
def measurement(name: str, value: str) -> Measurement:
    """A measurement."""
    return Measurement(name=name, value=value)


def passed(name: str, expected: str, got: str, mender: Mender) -> Check:
    """A check that held."""
    return check(name, "passed", expected, got, mender)


class AppraisalRefused(Refused):
    """Genuine evidence that the owners' policy does not accept. ``verdict`` holds every check, also those that held."""

    def __init__(self, verdict: Verdict) -> None:
        failed = verdict.failed
        lines = "; ".join(f"{c.name}: expected {c.expected}, got {c.got} ({c.mender})" for c in failed)
        menders = list(dict.fromkeys(c.mender for c in failed))
        super().__init__(
            "appraisal.refused",
            f"{verdict.claims.platform}: {len(failed)} of {len(verdict.checks)} checks refuse: {lines}",
            hint="; ".join(HINTS[mender] for mender in menders),
        )
        self.verdict = verdict
