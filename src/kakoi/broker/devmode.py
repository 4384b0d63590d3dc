"""The only place where a broker learns to accept the ``software`` platform, which protects nothing.

Three separate acts admit it: the contract names it, the broker is started with its flag, and the environment variable
says so too. Each half alone refuses (tested for every missing half).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from kakoi.attest import registry
from kakoi.attest.policy import AttestationPolicy
from kakoi.attest.registry import Verifier
from kakoi.attest.report import PlatformKind
from kakoi.core.errors import Misuse

VARIABLE: Final = "KAKOI_ACCEPT_SOFTWARE_PLATFORM"
CONSENT: Final = "I know that it protects nothing"


Verifiers = Callable[[AttestationPolicy], Mapping[PlatformKind, Verifier]]
"""The verifiers to judge with, given the contract's policy."""


def verifiers(*, flag: bool, environment: Mapping[str, str]) -> Verifiers:
    """The verifiers a broker judges with: hardware only, or with ``software`` if flag and environment both say so.

    Raises Misuse if only one of the two does, so that a half-set machine does not go unnoticed.
    """
    said = environment.get(VARIABLE, "") == CONSENT
    if flag != said:
        raise Misuse(
            "software-platform.half",
            "expected both --accept-software-platform and the environment variable, or neither; got one",
            hint=f'for tests only: export {VARIABLE}="{CONSENT}"; in production remove whichever is set',
        )
    if not flag:
        return lambda policy: registry.HARDWARE
    # Imported here so that a broker in production never loads it.
    from kakoi.attest.software.admit import with_software

    return with_software
