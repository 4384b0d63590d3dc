"""Waking those who wait for news. Everything here runs in the event loop's thread; nothing polls.

A waiter registers under one key per thing it could be woken by (a reference, a kind, the queue), so that a new object
costs as many look-ups as it has references, however many wait.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from kakoi.core.errors import Unavailable

Key = tuple[str, ...]
QUEUE: Key = ("queue",)


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectNews:
    """An object became visible."""

    kind: str
    references: frozenset[tuple[str, str]]

    def wake_keys(self) -> Iterator[Key]:
        """What it can be waited for by."""
        yield ("object",)
        yield ("kind", self.kind)
        for member, value in self.references:
            yield ("ref", member, value)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunNews:
    """A run changed."""

    contract: str
    queued: bool

    def wake_keys(self) -> Iterator[Key]:
        """What it can be waited for by."""
        yield ("run",)
        yield ("run", self.contract)
        if self.queued:
            yield QUEUE


News = ObjectNews | RunNews


class Listener:
    """One waiter: the keys it registered, and for objects what else must be true."""

    def __init__(self, keys: Sequence[Key], kinds: frozenset[str], references: frozenset[tuple[str, str]]) -> None:
        self.keys, self._kinds, self._references = keys, kinds, references
        self._event = asyncio.Event()

    def hear(self, news: News) -> None:
        """Wake up if ``news`` is wanted."""
        if isinstance(news, RunNews) or (
            (not self._kinds or news.kind in self._kinds) and self._references <= news.references
        ):
            self._event.set()

    def wake(self) -> None:
        """Wake up whatever happened."""
        self._event.set()

    async def wait(self, seconds: float) -> None:
        """Until woken, or for ``seconds``."""
        try:
            async with asyncio.timeout(seconds):
                await self._event.wait()
        except TimeoutError:
            return
        self._event.clear()


class Notifier:
    """All waiters of one process."""

    def __init__(self, most: int, *, reserve: float = 0) -> None:
        """At most ``most`` wait; a share of ``reserve`` of the places is for those who are vital."""
        self._most, self._count, self._closed = most, 0, False
        self._strangers_most, self._strangers = most - int(most * reserve), 0
        self._listeners: dict[Key, set[Listener]] = {}

    @property
    def closed(self) -> bool:
        """True once the hub is going down: nobody waits any more."""
        return self._closed

    @property
    def waiting(self) -> int:
        """How many wait."""
        return self._count

    def close(self) -> None:
        """Wake everybody for the last time."""
        self._closed = True
        self.wake_all()

    def wake_all(self) -> None:
        """Wake everybody: something changed that this process has not seen itself."""
        for listener in {item for group in self._listeners.values() for item in group}:
            listener.wake()

    def publish(self, news: Sequence[News]) -> None:
        """Wake those who wait for one of ``news``."""
        for item in news:
            for key in item.wake_keys():
                for listener in self._listeners.get(key, ()):
                    listener.hear(item)

    @contextmanager
    def objects(
        self, kinds: frozenset[str], references: frozenset[tuple[str, str]], *, vital: bool = True
    ) -> Iterator[Listener]:
        """A waiter for objects of any of ``kinds`` (any kind if empty) with all ``references``."""
        keys: list[Key] = [("kind", kind) for kind in kinds] or [("object",)]
        if references:
            keys = [("ref", *min(references))]
        with self._registered(Listener(keys, kinds, references), vital) as listener:
            yield listener

    @contextmanager
    def runs(self, contract: str, *, vital: bool = True) -> Iterator[Listener]:
        """A waiter for changes of runs, of one contract or (empty) of any."""
        keys: list[Key] = [("run", contract) if contract else ("run",)]
        with self._registered(Listener(keys, frozenset(), frozenset()), vital) as one:
            yield one

    @contextmanager
    def queue(self) -> Iterator[Listener]:
        """A waiter for runs that can be claimed."""
        with self._registered(Listener([QUEUE], frozenset(), frozenset()), True) as listener:
            yield listener

    @contextmanager
    def _registered(self, listener: Listener, vital: bool) -> Iterator[Listener]:
        if self._count >= self._most or (not vital and self._strangers >= self._strangers_most):
            raise Unavailable("hub.busy", "expected a free place to wait for news, got none", hint="try again later")
        self._count += 1
        self._strangers += not vital
        for key in listener.keys:
            self._listeners.setdefault(key, set()).add(listener)
        try:
            yield listener
        finally:
            self._count -= 1
            self._strangers -= not vital
            for key in listener.keys:
                group = self._listeners[key]
                group.discard(listener)
                if not group:
                    del self._listeners[key]
