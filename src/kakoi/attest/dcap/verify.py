"""A quote that both verifiers accept: ours (``own``) and dcap-qvl (``second``)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from kakoi.attest.dcap import second
from kakoi.attest.dcap.own import collateral as own_collateral
from kakoi.attest.dcap.own import verify as own_verify
from kakoi.attest.dcap.own.verify import OwnReport
from kakoi.attest.dcap.parse import parse
from kakoi.attest.report import Check, Collateral, Component, Evidence, check, component, passed
from kakoi.core.errors import Malformed
from kakoi.core.sealed import Sealed

CHECKS: Final[tuple[Check, ...]] = (
    passed("dcap.quote", "exact bytes, reserved zero, known version", "so", "nobody"),
    passed("dcap.collateral", "signed under the pinned root, in its window, not revoked", "so", "platform-operator"),
    passed("dcap.pck-chain", "signed under the pinned root, in its window, not revoked", "so", "vendor"),
    passed("dcap.platform", "FMSPC and PCEID of the TCB information", "so", "platform-operator"),
    passed(
        "dcap.qe-report", "signed by the PCK key, binds the attestation key, rest of report data zero", "so", "nobody"
    ),
    passed("dcap.qe-identity", "Intel's quoting enclave, not in debug mode", "so", "platform-operator"),
    passed("dcap.signature", "header and body signed by the attestation key", "so", "nobody"),
    passed("dcap.tcb-level", "a level that Intel lists and has not revoked", "so", "platform-operator"),
)
"""What a quote has gone through when it is a ``VerifiedQuote``."""
_AGREES: Final = passed("dcap.second-opinion", "dcap-qvl accepts too, with the same status", "so", "nobody")

_ALL: Final = (*CHECKS, _AGREES)


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedQuote(metaclass=Sealed):
    """A genuine quote. Only ``verify`` makes one."""

    report: OwnReport
    second_opinion: str
    """``agrees``, or why dcap-qvl cannot judge this quote."""

    @property
    def checks(self) -> tuple[Check, ...]:
        """What verification proved, by name."""
        if self.second_opinion == second.AGREES:
            return _ALL
        reason = f"not checked: dcap-qvl has a fixed rule ({self.second_opinion})"
        return (*CHECKS, check("dcap.second-opinion", "skipped", reason, "no opinion", "owner-policy"))

    @property
    def tcb(self) -> tuple[Component, ...]:
        """The platform's SVNs."""
        return _tcb(self.report.pck.components, self.report.pck.pce_svn)


@lru_cache(maxsize=256)
def _tcb(components: tuple[int, ...], pce_svn: int) -> tuple[Component, ...]:
    named = (component(f"sgx-{i:02d}", version) for i, version in enumerate(components, 1))
    return (*named, component("pce", pce_svn))


def verify(evidence: Evidence, collateral: Collateral, *, roots: frozenset[str], now: int) -> VerifiedQuote:
    """A quote that is genuine at ``now`` under one of ``roots``, by two independent verifiers.

    1. No other parts than the quote itself.
    2. ``parse``, then ``own.collateral.verify``, then ``own.verify.verify`` (their own numbered steps).
    3. dcap-qvl accepts the same bytes with the same status, advisories and PPID, or has no opinion by a known rule.

    Raises what those raise; Malformed ``dcap.parts``; Refused ``dcap.second-opinion``.
    """
    if evidence.parts:
        raise Malformed("dcap.parts", f"evidence: expected a quote and nothing else, got {len(evidence.parts)} parts")
    quote = parse(evidence.statement)
    verified = own_collateral.verify(collateral, roots=roots, now=now)
    report = own_verify.verify(quote, verified, roots=roots, now=now)
    return VerifiedQuote._seal(report=report, second_opinion=second.opinion(evidence.statement, report, now))
