"""Is the hub overloaded? Its event loop is late, and that because of many requests: then strangers are sent away at once.

Lateness alone is not enough: a machine that is busy with other work makes a hub late that has nothing to do.
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
"""How much of the lateness is remembered from one tick to the next, once it is less: half a second to recover."""


class Gauge:
    """Lateness in seconds, and strangers' requests a second."""

    def __init__(self, limits: Limits, chance: Callable[[], float]) -> None:
        self._limits, self._chance = limits, chance
        self._late = self._rate = 0.0
        self._arrived = 0

    async def watch(self) -> None:
        """Measure until cancelled."""
        clock = asyncio.get_running_loop().time
        while True:
            due = clock() + _TICK
            await asyncio.sleep(_TICK)
            now = clock()
            self._late = max(now - due, self._late * _FORGET)
            took = now - due + _TICK
            self._rate = 0.9 * self._rate + 0.1 * self._arrived / took
            self._arrived = 0

    def stranger(self) -> None:
        """A request without a ticket has come. Raises Later if the hub has no time for it."""
        self._arrived += 1
        if self._late > self._limits.late_seconds and self._rate > self._limits.late_requests:
            busy = Unavailable("hub.busy", "expected time for more requests, got none", hint="try again later")
            raise Later(busy, 1 + 3 * self._chance())
