"""For tests of any kind of attestation: a policy that accepts exactly what was verified, and ways to spoil bytes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from kakoi.attest.draft import draft
from kakoi.attest.policy import AttestationPolicy, PlatformPolicy
from kakoi.attest.report import Collateral, Part, VerifiedEvidence


def echo(verified: VerifiedEvidence) -> PlatformPolicy:
    """The narrowest policy that accepts ``verified``: every value it shows, and nothing else."""
    return draft(verified, collateral_max_age=10 * 365 * 86400)


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
