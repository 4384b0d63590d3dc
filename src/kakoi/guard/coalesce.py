"""Many of the same in a moment are one event with a count: nobody fills a disk or hides something by making noise. Pure.

The first of its kind goes out at once; what comes within the window is counted and goes out when the window ends. What is counted
together: the same kind, outcome, code, address, operation and names. An address that tries many things is one line each; a flood
from more addresses than ``most`` is counted without them.
"""

from __future__ import annotations

from dataclasses import replace

from kakoi.guard.happening import Happening

_Key = tuple[str, ...]


class _Held:
    """The first of a window, which was told, and how many came after it."""

    __slots__ = ("count", "first", "last")

    def __init__(self, first: Happening) -> None:
        self.first, self.count, self.last = first, 0, first.at


def _key(happening: Happening) -> _Key:
    named = (happening.code, happening.address, happening.operation, happening.actor, happening.about)
    return (happening.what, happening.outcome, *(part or "" for part in named))


class Coalescer:
    """Give it what happens; write what it gives back. ``flush`` regularly."""

    def __init__(self, *, seconds: int = 10, most: int = 256) -> None:
        self._seconds, self._most = seconds, most
        self._open: dict[_Key, _Held] = {}

    def hear(self, happening: Happening) -> list[Happening]:
        """What to write now."""
        due = self.flush(happening.at)
        key = _key(happening)
        if key not in self._open and len(self._open) >= self._most:
            bare = Happening(
                what=happening.what, at=happening.at, component=happening.component, outcome=happening.outcome
            )
            happening = replace(bare, code="event.many-addresses", count=happening.count)
            key = _key(happening)
        held = self._open.get(key)
        if held is None:
            self._open[key] = _Held(happening)
            return [*due, happening]
        held.count += happening.count
        held.last = happening.at
        return due

    def flush(self, now: int, *, everything: bool = False) -> list[Happening]:
        """What was counted in windows that have ended by ``now``."""
        over = [key for key, held in self._open.items() if everything or now - held.first.at >= self._seconds]
        done = [self._open.pop(key) for key in over]
        return [
            replace(held.first, at=held.first.at, count=held.count, until=held.last) for held in done if held.count > 0
        ]
