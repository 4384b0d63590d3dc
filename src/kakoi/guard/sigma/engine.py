"""Rules over a stream, event by event: hits, windows, findings. Pure; the time is that of the events.

A correlation remembers hits for as long as its time span. When it fires its window for that group is emptied, so that an attack that
goes on is told again only when it has happened once more in full. An event with a ``count`` weighs that much.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from kakoi.core.errors import Malformed
from kakoi.guard.happening import Finding
from kakoi.guard.sigma.match import values_at
from kakoi.guard.sigma.rules import AnyRule, Correlation, RuleSet

MOST_GROUPS: Final = 4096
MOST_HITS: Final = 4096
_TESTS: Final[dict[str, Callable[[int, int], bool]]] = {
    "gt": lambda value, bound: value > bound,
    "gte": lambda value, bound: value >= bound,
    "eq": lambda value, bound: value == bound,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Hit:
    """One event that a rule matched, or one finding of a correlation that another one refers to."""

    at: int
    first: int
    last: int
    weight: int
    rule: str
    values: tuple[Any, ...] = ()


class _Windows:
    """Hits of one correlation by group; the groups that were longest silent are forgotten first."""

    __slots__ = ("groups",)

    def __init__(self) -> None:
        self.groups: dict[tuple[str, ...], deque[Hit]] = {}

    def put(self, key: tuple[str, ...], hit: Hit, span: int) -> deque[Hit]:
        window = self.groups.pop(key, None) or deque(maxlen=MOST_HITS)
        window.append(hit)
        while window and window[0].at < hit.at - span:
            window.popleft()
        self.groups[key] = window
        if len(self.groups) > MOST_GROUPS:
            del self.groups[next(iter(self.groups))]
        return window


class Engine:
    """Feed it events in order; it gives back what the rules find."""

    def __init__(self, rules: RuleSet) -> None:
        self._rules = rules
        self._windows = {correlation.id: _Windows() for correlation in rules.correlations}

    def hear(self, event: Any) -> list[Finding]:
        """Findings that this event completes."""
        number, at, weight = _place(event)
        hits: dict[str, Hit] = {}
        found: list[Finding] = []
        for rule in self._rules.rules:
            if rule.matches(event):
                hit = Hit(at=at, first=number, last=number, weight=weight, rule=rule.name)
                hits[rule.name] = hits[rule.id] = hit
                found += self._finding(rule, hit)
        for correlation in self._rules.correlations:
            completed = self._correlate(correlation, event, hits)
            if completed is not None:
                hits[correlation.name] = hits[correlation.id] = completed
                found += self._finding(correlation, completed)
        return found

    def _finding(self, rule: AnyRule, hit: Hit) -> list[Finding]:
        if rule.id not in self._rules.alerting:
            return []
        return [
            Finding(rule=rule.id, title=rule.title, level=rule.level, first=hit.first, last=hit.last, events=hit.weight)
        ]

    def _correlate(self, correlation: Correlation, event: Any, hits: dict[str, Hit]) -> Hit | None:
        windows, completed = self._windows[correlation.id], None
        for name in correlation.rules:
            if name not in hits:
                continue
            key = tuple(_group(event, part, name, correlation) for part in correlation.group_by)
            values = tuple(str(v) for part in correlation.fields for v in values_at(event, part))
            hit = hits[name]
            window = windows.put(
                key,
                Hit(at=hit.at, first=hit.first, last=hit.last, weight=hit.weight, rule=name, values=values),
                correlation.timespan,
            )
            if _fires(correlation, window):
                completed = Hit(
                    at=hit.at,
                    first=min(one.first for one in window),
                    last=hit.last,
                    weight=sum(one.weight for one in window),
                    rule=correlation.name,
                )
                del windows.groups[key]
        return completed


def _place(event: Any) -> tuple[int, int, int]:
    try:
        at = int(event.get("end_time", event["time"])) // 1000
        return int(event["metadata"]["sequence"]), at, int(event.get("count", 1))
    except (KeyError, TypeError, AttributeError, ValueError):
        raise Malformed("event.line", "expected an event with its place in a stream, got something else") from None


def _group(event: Any, part: str, rule: str, correlation: Correlation) -> str:
    path = correlation.aliases.get(part, {}).get(rule, part)
    return "\x1f".join(sorted(map(str, values_at(event, path))))


def _fires(correlation: Correlation, window: deque[Hit]) -> bool:
    if correlation.type == "event_count":
        value = sum(hit.weight for hit in window)
    elif correlation.type == "value_count":
        value = len({hit.values for hit in window if hit.values})
    elif correlation.type == "temporal":
        value = len({hit.rule for hit in window})
    else:
        value = _in_order(correlation.rules, window)
    return all(_TESTS[name](value, bound) for name, bound in correlation.condition)


def _in_order(rules: tuple[str, ...], window: deque[Hit]) -> int:
    """How many of the rules, from the first on, were hit one after the other."""
    done = 0
    for hit in window:
        if done < len(rules) and hit.rule == rules[done]:
            done += 1
    return done
