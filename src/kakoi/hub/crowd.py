"""How many connections there are, whose, and which of them goes first when there are too many.

Everything here happens before a request's first byte is read, and costs microseconds: that is what makes a flood of connections
cheaper for the hub than for whoever sends it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Final

from kakoi.hub.budgets import Buckets
from kakoi.hub.settings import Limits

_PRESSED: Final = 0.75
"""Share of all connections from which on idle and unfinished ones are let go of early."""


class Crowd:
    """The open connections of one hub process, by address prefix."""

    def __init__(self, limits: Limits, clock: Callable[[], float]) -> None:
        self._limits, self._clock = limits, clock
        self._count: Counter[str] = Counter()
        self._new = Buckets(limits.prefix_connections_new, 20 * limits.prefix_connections_new, clock)
        self._penalty: dict[str, float] = {}
        self.total = 0

    def admits(self, prefix: str) -> bool:
        """False if a network has as many connections as it may, or makes them too fast. Asked before one is made."""
        return self._count[prefix] < self._most(prefix) and self._new.take(prefix) == 0

    def enter(self, prefix: str) -> bool:
        """Count a new connection; False if its network has too many by now."""
        self.total += 1
        self._count[prefix] += 1
        return self._count[prefix] <= self._most(prefix)

    def _most(self, prefix: str) -> int:
        punished = self._penalty.get(prefix, 0) > self._clock()
        return self._limits.prefix_connections // (16 if punished else 1)

    def leave(self, prefix: str) -> None:
        """A connection is gone."""
        self.total -= 1
        self._count[prefix] -= 1
        if self._count[prefix] <= 0:
            del self._count[prefix]

    def punish(self, prefix: str) -> None:
        """A network spent its budget of requests: for some seconds it gets few new connections. Those it has go on."""
        now = self._clock()
        if len(self._penalty) > 10_000:
            self._penalty = {name: until for name, until in self._penalty.items() if until > now}
        self._penalty[prefix] = now + self._limits.penalty_seconds

    def punished(self) -> tuple[tuple[str, int], ...]:
        """Networks that get few new connections, and seconds until they get more again."""
        now = self._clock()
        return tuple((prefix, int(until - now) + 1) for prefix, until in self._penalty.items() if until > now)

    @property
    def pressed(self) -> bool:
        """True if there is hardly room for more."""
        return self.total > _PRESSED * self._limits.connections
