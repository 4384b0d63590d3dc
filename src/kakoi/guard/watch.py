"""What a program has beside it to be watched: its stream, what feeds it, the rules over it, and where it is exported to."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from kakoi.core.errors import KakoiError
from kakoi.guard.export import Exporter
from kakoi.guard.happening import Component, Finding, Happening
from kakoi.guard.recorder import Recorder
from kakoi.guard.stream import Stream

if TYPE_CHECKING:  # rules are read with a library that not every program has
    from kakoi.guard.detect import Detector

Feed = Callable[[Stream], None]
logger = logging.getLogger("kakoi.guard")


class Watch:
    """One program's. ``hear`` may be called from any thread, and never waits or raises."""

    def __init__(
        self,
        stream: Stream,
        *,
        component: Component,
        clock: Callable[[], int],
        feeds: Iterable[Feed] = (),
        detector: Detector | None = None,
        exports: Sequence[str] = (),
    ) -> None:
        self.stream, self.component, self.clock = stream, component, clock
        self.exports = tuple(exports)
        self._feeds, self._detector = tuple(feeds), detector
        self._looking = threading.Lock()
        self._exporters = [Exporter(stream, address) for address in exports]
        self._recorder = Recorder(stream, component=component, clock=clock, watch=self.look)
        self._say("program.started")

    def _say(self, what: str) -> None:
        self.hear(Happening(what=what, at=self.clock(), component=self.component, outcome="success"))

    def hear(self, happening: Happening) -> None:
        """Something happened."""
        self._recorder.hear(happening)

    def look(self) -> list[Finding]:
        """Bring in what is new elsewhere, and judge everything new. The writer's thread does so about every second."""
        with self._looking:
            before = self.stream.size
            for feed in self._feeds:
                feed(self.stream)
            found = self._detector.look() if self._detector is not None else []
            if self.stream.size != before or found:
                for exporter in self._exporters:
                    exporter.wake()
            return found

    def ready(self) -> None:
        """Raise unless events can be written down."""
        self.stream.sign(self.clock())

    def close(self) -> None:
        """Write, judge and export what is left."""
        self._say("program.stopped")
        self._recorder.stop()
        try:
            self.look()
            self.stream.sign(self.clock(), at_once=True)
        except KakoiError as error:
            logger.warning("%s", error)
        for exporter in self._exporters:
            exporter.close()
        self.stream.close()
