"""Sandboxes that wait with their libraries loaded. Each serves one job and dies, so jobs share nothing."""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Mapping
from typing import Final, Self

from kakoi.core.errors import KakoiError
from kakoi.enclave.sandbox.box import Box

DEFAULT_SIZES: Final[Mapping[str, int]] = {"sql": 1, "python": 1}


class Pool:
    """Keeps so many sandboxes of each engine waiting. Close it; it is also a context manager. Safe for several threads."""

    def __init__(self, *, without: frozenset[str] = frozenset(), sizes: Mapping[str, int] = DEFAULT_SIZES) -> None:
        self._without, self._sizes = without, dict(sizes)
        self._waiting: dict[str, deque[Box]] = {engine: deque() for engine in sizes}
        self._change = threading.Condition()
        self._closed = False
        self._filler = threading.Thread(target=self._fill, name="kakoi-pool", daemon=True)
        self._filler.start()

    def take(self, engine: str) -> Box:
        """A sandbox for one job, which the caller closes. Made at once if none is waiting. Raises Unavailable."""
        with self._change:
            waiting = self._waiting.get(engine)
            box = waiting.popleft() if waiting else None
            self._change.notify_all()
        return box if box is not None else Box(engine=engine, without=self._without)

    def warm(self, engine: str, seconds: float = 60) -> None:
        """Wait until a sandbox of this engine waits and is ready; returns at once if the pool keeps none."""
        if not self._sizes.get(engine):
            return
        with self._change:
            self._change.wait_for(lambda: bool(self._waiting[engine]), seconds)
            box = self._waiting[engine][0] if self._waiting[engine] else None
        if box is not None:
            box.wait_ready(seconds)

    def _fill(self) -> None:
        while True:
            with self._change:
                self._change.wait_for(lambda: self._closed or self._short() is not None)
                engine = None if self._closed else self._short()
            if engine is None:
                return
            try:
                box = Box(engine=engine, without=self._without)
            except KakoiError:
                # The next job makes its own and learns why; trying again and again would only load the machine.
                with self._change:
                    self._sizes[engine] = 0
                continue
            with self._change:
                keep = not self._closed
                if keep:
                    self._waiting[engine].append(box)
                    self._change.notify_all()
            if not keep:
                box.close()

    def _short(self) -> str | None:
        return next((name for name, boxes in self._waiting.items() if len(boxes) < self._sizes[name]), None)

    def close(self) -> None:
        """Kill all waiting sandboxes and keep no more."""
        with self._change:
            self._closed = True
            boxes = [box for waiting in self._waiting.values() for box in waiting]
            for waiting in self._waiting.values():
                waiting.clear()
            self._change.notify_all()
        self._filler.join()
        for box in boxes:
            with contextlib.suppress(OSError):
                box.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
