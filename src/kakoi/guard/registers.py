"""Which measured registers say what code ran: one list for exposure, indicators and sightings."""

from __future__ import annotations

from typing import Final

from kakoi.attest.report import Claims

CODE: Final = ("mrenclave", "mrtd", "measurement", "pcr0", "launch-measurement")
"""Names in lower case, by platform."""


def code_of(claims: Claims) -> frozenset[str]:
    """The values of those registers, as hex digits."""
    return frozenset(found.value for found in claims.measurements if found.name.lower() in CODE)
