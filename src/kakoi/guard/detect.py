"""Rules at work over a party's stream: reads what is new, and writes an alert for each finding, once, whichever program looks first."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Final

from kakoi.core import encoding
from kakoi.guard.happening import Component, Finding, Happening
from kakoi.guard.sigma.engine import Engine
from kakoi.guard.sigma.rules import RuleSet
from kakoi.guard.stream import Stream

CURSOR: Final = "detect"
_PAGE: Final = 1000


class Detector:
    """Looks at a stream. After a restart it reads again what may still count, and stays silent about what was told."""

    def __init__(
        self,
        stream: Stream,
        rules: RuleSet,
        *,
        component: Component = "guard",
        tell: Callable[[Finding], object] = lambda _: None,
    ) -> None:
        self._stream, self._rules, self._component, self._tell = stream, rules, component, tell
        self._engine = Engine(rules)
        self._lock = threading.Lock()
        self._read = 0
        """How far the engine has read. What it read before the stream's cursor was judged by somebody before."""

    def look(self) -> list[Finding]:
        """Judge what is new. Returns the findings whose alerts were written by this call."""
        with self._lock:
            if self._read == 0:
                self._read = self._start()
            written: list[Finding] = []
            while page := self._stream.lines(after=self._read, limit=_PAGE):
                for number, line in page:
                    written += self._judge(number, line)
                    self._read = number
            if self._stream.cursor(CURSOR) < self._read:
                self._stream.move(CURSOR, self._read)
        for finding in written:
            self._tell(finding)
        return written

    def _start(self) -> int:
        """The last event that cannot count any more: older than the longest window before the first unjudged one."""
        done = self._stream.cursor(CURSOR)
        if done == 0:
            return 0
        return self._stream.before(done, seconds=self._rules.longest)

    def _judge(self, number: int, line: bytes) -> list[Finding]:
        event = encoding.loads(line)
        if event["metadata"]["event_code"] == "guard.alert":
            return []
        found = self._engine.hear(event)
        if number <= self._stream.cursor(CURSOR):
            return []
        at = int(event.get("end_time", event["time"])) // 1000
        return [finding for finding in found if self._write(finding, at)]

    def _write(self, finding: Finding, at: int) -> bool:
        alert = Happening(what="guard.alert", at=at, component=self._component, outcome="other", finding=finding)
        return self._stream.append(alert, once=f"alert:{finding.rule}:{finding.last}")
