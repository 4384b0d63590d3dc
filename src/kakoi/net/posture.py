"""What a client says of itself with every request, under its signature: its version, and whether it trusts the software platform.

A claim, and no evidence: a changed program can say anything. It lets a hub's operator send away programs that are honestly old, or
honestly set up for trying things out, before they do harm by mistake.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from kakoi.core.errors import Malformed

FIELD: Final = "Kakoi-Posture"
VERSION: Final = "0.1.0"
"""Of this program; a test compares it with the package's."""
_FORM: Final = re.compile(
    r'version="(0|[1-9][0-9]{0,3})\.(0|[1-9][0-9]{0,3})\.(0|[1-9][0-9]{0,3})", software=\?([01])\Z'
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Posture:
    """One client's."""

    version: tuple[int, int, int]
    software: bool
    """It runs on the software platform, or accepts it."""

    @property
    def number(self) -> int:
        """The version as one number that grows with it."""
        return (self.version[0] * 10_000 + self.version[1]) * 10_000 + self.version[2]

    def text(self) -> str:
        """The field's value: a dictionary of RFC 9651 in one spelling."""
        return f'version="{".".join(map(str, self.version))}", software=?{int(self.software)}'


UNDECLARED: Final = Posture(version=(0, 0, 0), software=False)


def own(*, software: bool = False) -> Posture:
    """This program's."""
    return parse(f'version="{VERSION}", software=?{int(software)}')


def parse(text: str) -> Posture:
    """The posture in a field; ``UNDECLARED`` if it is empty. Raises Malformed for another spelling."""
    if not text:
        return UNDECLARED
    match = _FORM.match(text)
    if match is None:
        raise Malformed(
            "net.posture", f"expected {FIELD} with version and software in one spelling, got something else"
        )
    return Posture(version=(int(match[1]), int(match[2]), int(match[3])), software=match[4] == "1")
