"""Bringing a stream to its sinks: each has a cursor of its own, gets everything in order, and again what it did not confirm."""

from __future__ import annotations

import logging
import threading
from typing import Final

from kakoi.core.encoding import sha256
from kakoi.core.errors import KakoiError
from kakoi.guard.sinks import Sink, close_quietly, open_sink
from kakoi.guard.stream import Stream

logger = logging.getLogger("kakoi.guard")
PAGE: Final = 500
_LONGEST_PAUSE: Final = 60.0


def cursor_of(address: str) -> str:
    """The name of a sink's cursor. The address may hold names of files, so it is not written down itself."""
    return f"export:{sha256(address.encode()).hex()[:32]}"


def export_new(stream: Stream, sink: Sink, address: str) -> int:
    """Send what the sink has not got yet; how many events that were. Raises Unavailable."""
    name, sent = cursor_of(address), 0
    while True:
        place, head = stream.cursor(name), stream.cursor(f"{name}:head")
        events = stream.lines(after=place, limit=PAGE)
        reached = events[-1][0] if events else place
        heads = [(size, data) for size, data in stream.head_lines(after=head) if size <= reached]
        if not events and not heads:
            return sent
        sink.send(events, heads)
        if heads:
            stream.move(f"{name}:head", heads[-1][0])
        stream.move(name, reached)
        sent += len(events)


class Exporter:
    """One sink's thread. It is woken when there is something new, and tries again with longer and longer pauses."""

    def __init__(self, stream: Stream, address: str) -> None:
        self._stream, self._address = stream, address
        self._sink = open_sink(address)
        self._news, self._stop = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="export", daemon=True)
        self._thread.start()

    def wake(self) -> None:
        """There may be something new."""
        self._news.set()

    def _run(self) -> None:
        pause = 0.0
        while not self._stop.is_set():
            if pause:
                self._stop.wait(pause)
            else:
                self._news.wait(5)
            self._news.clear()
            try:
                export_new(self._stream, self._sink, self._address)
                pause = 0.0
            except KakoiError as error:
                pause = min(_LONGEST_PAUSE, max(1.0, pause * 2))
                logger.warning("%s", error)

    def close(self) -> None:
        """Stop, after one last attempt to send everything."""
        self._stop.set()
        self._news.set()
        self._thread.join(15)
        try:
            export_new(self._stream, self._sink, self._address)
        except KakoiError as error:
            logger.warning("%s", error)
        close_quietly(self._sink)
