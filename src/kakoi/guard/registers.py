"""Which measured registers say what code ran: one list for exposure, indicators, quarantine and sightings.

A platform measures code into one register or several: whoever names the value of any of them names that code. On Azure
the launch measurement is Microsoft's paravisor, the same for everybody; the guest's image is in PCR 4 (boot loader) and PCR 11 (unified
kernel image). TDX measures firmware into MRTD and what it boots into RTMR 1 to 3 (Intel TDX Virtual Firmware Design Guide, §8);
RTMR 0 holds the machine's configuration, and is left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from kakoi.attest.policy import PlatformPolicy, Unchecked
from kakoi.attest.report import Claims

_IMAGE: Final = ("pcr4", "pcr11")
_TD: Final = ("mrtd", "rtmr1", "rtmr2", "rtmr3")
BY_PLATFORM: Final[Mapping[str, tuple[str, ...]]] = {
    "software": ("mrenclave",),
    "sgx": ("mrenclave",),
    "tdx": _TD,
    "snp": ("measurement",),
    "azure-snp": _IMAGE,
    "azure-tdx": (*_IMAGE, *_TD),
    "nitro": ("pcr0",),
    "vtpm": _IMAGE,
}
CODE: Final = tuple(dict.fromkeys(name for names in BY_PLATFORM.values() for name in names))
"""All of them, in lower case, for records that do not name their platform."""


def is_blank(value: str) -> bool:
    """Whether a register's value is that of one nobody measured anything into: every machine has some, so they name no code."""
    return not value.strip("0") or not value.strip("f")


def code_of(claims: Claims) -> frozenset[str]:
    """The values of those registers, as hex digits."""
    names = BY_PLATFORM.get(claims.platform, CODE)
    return frozenset(m.value for m in claims.measurements if m.name.lower() in names and not is_blank(m.value))


def code_accepted(policy: PlatformPolicy) -> frozenset[str]:
    """The values of those registers that a policy accepts."""
    names = BY_PLATFORM.get(policy.platform, CODE)
    return frozenset(
        value
        for reference in policy.measurements
        if reference.name.lower() in names and not isinstance(reference.accepted, Unchecked)
        for value in reference.accepted
        if not is_blank(value)
    )
