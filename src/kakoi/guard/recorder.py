"""Writing events from programs that must not wait for a disk: a queue, a thread behind it, and a count of what did not fit.

The hub calls ``hear`` in its event loop, a console in its threads. Nothing here ever raises at the caller: a full disk must not stop
a hub from answering. What is lost is counted, and the count is an event as soon as one can be written.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from kakoi.core.errors import KakoiError
from kakoi.guard.coalesce import Coalescer
from kakoi.guard.happening import Component, Happening
from kakoi.guard.stream import Stream

logger = logging.getLogger("kakoi.guard")
QUEUE: Final = 4096
_TICK: Final = 1.0


class Recorder:
    """The one writer of a program's events. ``watch`` is called after each write, in the writer's thread."""

    def __init__(
        self,
        stream: Stream,
        *,
        component: Component,
        clock: Callable[[], int],
        watch: Callable[[], object] = lambda: None,
    ) -> None:
        self.stream = stream
        self._component, self._clock, self._watch = component, clock, watch
        self._queue: queue.Queue[Happening | None] = queue.Queue(QUEUE)
        self._coalescer = Coalescer()
        self._lost = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="events", daemon=True)
        self._thread.start()

    def hear(self, happening: Happening) -> None:
        """Write this soon. Never raises, never waits."""
        try:
            self._queue.put_nowait(happening)
        except queue.Full:
            self._lost += happening.count

    def _run(self) -> None:
        while not (self._stop.is_set() and self._queue.empty()):
            try:
                taken = [self._queue.get(timeout=_TICK)]
                while len(taken) < QUEUE and not self._queue.empty():
                    taken.append(self._queue.get_nowait())
            except queue.Empty:
                taken = []
            heard = [item for item in taken if item is not None]
            self._write([due for item in heard for due in self._coalescer.hear(item)] + self._due())
        self._write(self._coalescer.flush(self._clock(), everything=True))

    def _due(self) -> list[Happening]:
        lost, self._lost = self._lost, 0
        made = self._coalescer.flush(self._clock())
        if lost:
            made.append(
                Happening(
                    what="stream.dropped",
                    at=self._clock(),
                    component=self._component,
                    outcome="failure",
                    code="event.queue-full",
                    count=lost,
                )
            )
        return made

    def _write(self, happenings: list[Happening]) -> None:
        try:
            if happenings:
                self.stream.append(*happenings)
            self.stream.sign(self._clock())
            self._watch()
        except KakoiError as error:
            self._lost += sum(happening.count for happening in happenings)
            logger.warning("%s", error)

    def stop(self) -> None:
        """Write what is waiting. The stream stays open."""
        self._stop.set()
        with suppress(queue.Full):
            self._queue.put_nowait(None)  # wakes the writer
        self._thread.join(10)
