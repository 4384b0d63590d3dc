"""For tests of any kind of attestation: a policy that accepts exactly what was verified, and ways to spoil bytes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from kakoi.attest.policy import AttestationPolicy, PlatformPolicy, ReferenceValue, Setting, Unchecked
from kakoi.attest.report import Collateral, Part, VerifiedEvidence

_NOT_DATED: Final = Unchecked(reason="this kind, or this test, has no dated collateral")
_NONE: Final = Unchecked(reason="the vendor publishes no such number for this kind")
_MASKED: Final = Unchecked(reason="the platform masks its identity in this test")


def echo(verified: VerifiedEvidence) -> PlatformPolicy:
    """The narrowest policy that accepts ``verified``: every value it shows, and nothing else."""
    claims = verified.claims
    number = claims.tcb_evaluation_number
    return PlatformPolicy(
        platform=claims.platform,
        roots=(claims.root,),
        measurements=tuple(ReferenceValue(name=m.name, accepted=(m.value,)) for m in claims.measurements),
        statuses=(claims.tcb_status,),
        advisories=claims.advisories,
        grace=None,
        minimum_tcb=claims.tcb or Unchecked(reason="this kind shows no components"),
        minimum_tcb_evaluation_number=_NONE if number is None else number,
        platforms=(claims.platform_identity,) if claims.platform_identity else _MASKED,
        refused_products=(),
        settings=tuple(Setting(name=fact.name, accepted=(fact.value,)) for fact in claims.settings),
        collateral_max_age=_NOT_DATED if verified.collateral_issued_at is None else 10 * 365 * 86400,
    )


def only(policy: PlatformPolicy) -> AttestationPolicy:
    """A contract's policy with this one entry."""
    return AttestationPolicy(accepted=(policy,))


def pieces(values: Mapping[str, bytes]) -> tuple[Part, ...]:
    """Parts by name."""
    return tuple(Part(name=name, data=data) for name, data in values.items())


def collateral(**values: bytes) -> Collateral:
    """Collateral of these parts."""
    return Collateral(parts=pieces(values))


def flips(data: bytes, *, step: int = 1, start: int = 0, end: int | None = None) -> Iterator[tuple[int, bytes]]:
    """(position, ``data`` with one bit of the byte there turned), every ``step`` bytes; the bit changes with it."""
    for at in range(start, len(data) if end is None else end, step):
        yield at, data[:at] + bytes([data[at] ^ 1 << (at % 8)]) + data[at + 1 :]


def cuts(data: bytes, *, step: int = 1) -> Iterator[bytes]:
    """Every proper prefix, every ``step`` bytes, and two that are longer by a byte."""
    for end in range(0, len(data), step):
        yield data[:end]
    yield data + b"\0"
    yield data + data[-1:]
