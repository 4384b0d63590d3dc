"""Connections that do not let themselves be held: uvicorn's HTTP/1.1 protocol with the limits that it lacks.

uvicorn bounds the size of a request's head and the idle time between requests. It waits without limit for a head to
arrive, for an answer to be taken away, and for a closed connection to drain. One sweep a second over all
connections ends what has taken too long.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from kakoi.core.errors import Unavailable
from kakoi.hub.http import error_answer
from kakoi.hub.settings import Limits

_LINGER_SECONDS: Final = 2
_LINGER_BYTES: Final = 1024 * 1024


def limited(limits: Limits) -> type[H11Protocol]:
    """The protocol class for a server with these limits."""

    class LimitedProtocol(_LimitedProtocol):
        hub_limits = limits

    return LimitedProtocol


class _LimitedProtocol(H11Protocol):
    """One connection. ``since`` holds when each thing that must end began."""

    hub_limits: Limits

    def __init__(self, *args: Any, **named: Any) -> None:
        super().__init__(*args, **named)
        self._head_since: float | None = None
        self._stall_since: float | None = None
        self._closing_since: float | None = None
        self._unwanted = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client connects; one too many is told so and let go."""
        super().connection_made(transport)
        self._head_since = self.loop.time()
        if len(self.connections) > self.hub_limits.connections:
            full = error_answer(Unavailable("hub.busy", "expected a free connection, got none", hint="try again later"))
            lines = b"".join(b"%s: %s\r\n" % pair for pair in full.raw_headers)
            transport.write(
                b"HTTP/1.1 503 Service Unavailable\r\nconnection: close\r\n" + lines + b"\r\n" + bytes(full.body)
            )
            transport.close()

    def data_received(self, data: bytes) -> None:
        """Bytes arrive: part of a head, of a body, or of a body that nobody wants any more."""
        if self.transport.is_closing():
            return
        super().data_received(data)
        if self.cycle is not None and not self.cycle.response_complete:
            self._head_since = None
        elif self._head_since is None:
            self._head_since = self.loop.time()
        if self.cycle is not None and self.cycle.response_complete and self.conn.their_state is h11.SEND_BODY:
            self._unwanted += len(data)
            if self._unwanted > _LINGER_BYTES:
                self.transport.abort()

    def on_response_complete(self) -> None:
        """An answer is out: the next head may take its time from its first byte on."""
        self._head_since, self._unwanted = None, 0
        super().on_response_complete()

    def pause_writing(self) -> None:
        """The client does not take away what it asked for."""
        self._stall_since = self.loop.time()
        super().pause_writing()

    def resume_writing(self) -> None:
        """It goes on."""
        self._stall_since = None
        super().resume_writing()

    def sweep(self, now: float) -> None:
        """End the connection if it holds something for too long."""
        if self.transport.is_closing():
            self._closing_since = self._closing_since or now
        limits = self.hub_limits
        for since, seconds in (
            (self._head_since, limits.head_seconds),
            (self._stall_since, limits.stall_seconds),
            (self._closing_since, _LINGER_SECONDS),
        ):
            if since is not None and now - since > seconds:
                self.transport.abort()
                return
