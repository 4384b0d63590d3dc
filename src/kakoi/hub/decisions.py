"""What policies decided, on record: every denial at once (``hub.watch``), permits counted.

A permit for each request would bury what matters and fill the disk of whoever is asked often. So permits are counted by who and
what, and each minute has one event for each pair, with its count; beyond a number of pairs they are counted together. Nothing
is left out: the counts add up to the number of decisions.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from kakoi.guard.happening import Happening

WINDOW_SECONDS: Final = 60
_MOST_PAIRS: Final = 128
"""Half of what the stream counts apart (``guard.coalesce``)."""
_OTHERS: Final = "others"
_REMEMBERED: Final = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class Denial:
    """What somebody was not permitted to do."""

    at: int
    who: str
    """Kind and key id, or name."""
    action: str
    address: str


class Decisions:
    """The decisions of one hub process. For use from one event loop."""

    def __init__(self, hear: Callable[[Happening], None], clock: Callable[[], int]) -> None:
        self._hear, self._clock = hear, clock
        self._since = clock()
        self._permits: Counter[tuple[str, str]] = Counter()
        self.totals: Counter[tuple[str, str, str]] = Counter()
        """Since the start, by kind of principal, action and decision."""
        self.denials: deque[Denial] = deque(maxlen=_REMEMBERED)
        """The latest."""

    def note(self, decision: Mapping[str, str]) -> None:
        """One decision. Some microseconds: it is in every request's way."""
        who, action, outcome = decision["principal"], decision["action"], decision["decision"]
        self.totals[(who.partition("/")[0], action, outcome)] += 1
        if outcome != "permit":
            self.denials.append(Denial(at=self._clock(), who=who, action=action, address=decision["address"]))
            return
        pair = (who, action)
        if pair not in self._permits and len(self._permits) >= _MOST_PAIRS:
            pair = (_OTHERS, "any")
        self._permits[pair] += 1

    def flush(self, *, everything: bool = False) -> None:
        """Tell the permits of a window that has ended."""
        now = self._clock()
        if not everything and 0 <= now - self._since < WINDOW_SECONDS:
            return
        since, self._since = self._since, now
        for (who, action), count in self._permits.items():
            self._hear(
                Happening(
                    what="hub.access",
                    at=min(since, now),
                    until=now,
                    component="hub",
                    outcome="success",
                    operation=action.lower(),
                    actor=who,
                    count=count,
                )
            )
        self._permits.clear()
