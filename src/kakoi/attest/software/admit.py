"""Verifiers that include the ``software`` platform, for those who decided to have it: see ``broker.devmode``."""

from __future__ import annotations

from collections.abc import Mapping

from kakoi.attest.policy import AttestationPolicy
from kakoi.attest.registry import HARDWARE, Verifier
from kakoi.attest.report import PlatformKind
from kakoi.attest.software.verify import verifier


def with_software(policy: AttestationPolicy) -> Mapping[PlatformKind, Verifier]:
    """Hardware verifiers, and ``software`` under the local roots that the contract names, if it names any.

    Raises Misuse if the policy gives a vendor's root for the software platform.
    """
    for entry in policy.accepted:
        if entry.platform == "software":
            return {**HARDWARE, "software": verifier(*entry.roots)}
    return HARDWARE
