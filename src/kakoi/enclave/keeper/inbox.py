"""What arrives during a run, in one queue: the hub's messages, and what the run's own threads have to say."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Sequence
from typing import Final, Generic, TypeVar

from kakoi.core.dsse import Envelope
from kakoi.core.errors import KakoiError
from kakoi.core.ids import ObjectId
from kakoi.net.client import HubClient

_WAIT_SECONDS: Final = 5
_PAUSE_SECONDS: Final = 1.0
E = TypeVar("E")


class Inbox(Generic[E]):
    """Follows a run's feed from a thread of its own. A hub that is away or lies is asked again: it can only delay.

    ``event`` makes an event of a message's kind and envelope.
    """

    def __init__(
        self, hub: HubClient, run: ObjectId, kinds: Sequence[str], event: Callable[[str, Envelope], E]
    ) -> None:
        self._hub, self._run, self._kinds, self._event = hub, run, tuple(kinds), event
        self._queue: queue.SimpleQueue[E] = queue.SimpleQueue()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="kakoi-inbox", daemon=True)
        self._thread.start()

    def put(self, event: E) -> None:
        """Something that one of the run's own threads says."""
        self._queue.put(event)

    def next(self, seconds: float) -> E | None:
        """The next event; None if there is none within ``seconds``."""
        try:
            return self._queue.get(timeout=max(0.001, seconds))
        except queue.Empty:
            return None

    def close(self) -> None:
        """Follow no longer. The thread ends with its present question to the hub; what it still brings is not read."""
        self._stop.set()

    def _follow(self) -> None:
        after = 0
        while not self._stop.is_set():
            try:
                page = self._hub.feed(after=after, kinds=self._kinds, refs={"run": self._run}, wait=_WAIT_SECONDS)
                found = [(item.kind, self._hub.get_object(item.id)) for item in page.items]
            except KakoiError:
                self._stop.wait(_PAUSE_SECONDS)
                continue
            for kind, envelope in found:
                self._queue.put(self._event(kind, envelope))
            after = page.next
