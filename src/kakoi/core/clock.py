"""Time as an argument. Pure rooms take seconds since 1970-01-01 UTC; only edges own a Clock."""

from __future__ import annotations

from typing import Protocol


class Clock(Protocol):
    """Where an edge program gets its time."""

    def now(self) -> int:
        """Whole seconds since the Unix epoch, UTC."""
        ...
