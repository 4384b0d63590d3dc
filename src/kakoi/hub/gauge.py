"""Is the hub overloaded? Its event loop is late again and again, and that because of many requests: then strangers are sent away at once.

Lateness alone is not enough: a machine that is busy with other work makes a hub late that has nothing to do. Nor is being late once: a
process that was not let run for a second, or a disk that paused, is no overload.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from kakoi.core.errors import Unavailable
from kakoi.hub.budgets import Later
from kakoi.hub.settings import Limits

_TICK: Final = 0.05
_FORGET: Final = 0.8
_MANY: Final = 1.5
"""Late ticks, each counting for 0.8 of the one after it: two in a row, or with one between them. A third of a second forgets many."""


class Gauge:
    """How often the hub's timers were late just now, and strangers' requests a second."""

    def __init__(self, limits: Limits, chance: Callable[[], float]) -> None:
        self._limits, self._chance = limits, chance
        self._late = self._rate = 0.0
        self._arrived = 0

    @property
    def late(self) -> float:
        """Seconds by which the event loop is late."""
        return self._late

    @property
    def rate(self) -> float:
        """Strangers' requests a second."""
        return self._rate

    async def watch(self) -> None:
        """Measure until cancelled."""
        clock = asyncio.get_running_loop().time
        while True:
            due = clock() + _TICK
            await asyncio.sleep(_TICK)
            self.tick(clock() - due)

    def tick(self, late: float) -> None:
        """A timer rang, ``late`` seconds after it should have."""
        self._late = _FORGET * self._late + (late > self._limits.late_seconds)
        self._rate = 0.9 * self._rate + 0.1 * self._arrived / (late + _TICK)
        self._arrived = 0

    @property
    def overloaded(self) -> bool:
        """True if there is no time for strangers."""
        return self._late > _MANY and self._rate > self._limits.late_requests

    def stranger(self) -> None:
        """A request without a ticket has come. Raises Later if the hub has no time for it."""
        self._arrived += 1
        if self.overloaded:
            busy = Unavailable("hub.busy", "expected time for more requests, got none", hint="try again later")
            raise Later(busy, 1 + 3 * self._chance())
