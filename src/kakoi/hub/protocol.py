"""Connections that do not let themselves be held: uvicorn's HTTP/1.1 protocol with the limits that it lacks.

uvicorn bounds the size of a request's head and the idle time between requests. It waits without limit for a head to
arrive, for an answer to be taken away, and for a closed connection to drain. One sweep a second over all
connections ends what has taken too long.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final, Literal

import h11
import uvicorn
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.h11_impl import H11Protocol

from kakoi.core.errors import Unavailable
from kakoi.hub.budgets import prefix_of
from kakoi.hub.crowd import Crowd
from kakoi.hub.http import error_answer
from kakoi.hub.settings import Limits

CertificateFits = Callable[[bytes | None, str], bool]
"""Whether a client may connect that shows this certificate (DER), from this address."""
_LINGER_SECONDS: Final = 2
CERTIFICATE_NAMES: Final = "kakoi.certificate-names"
"""Key of a request's state: URIs in the certificate that the client showed and the hub's CA vouches for."""
_HURRY: Final = 5
"""So many times sooner are strangers let go of when connections get short."""
_LINGER_BYTES: Final = 1024 * 1024
_SWEEP_TICKS: Final = 10
"""uvicorn ticks ten times a second."""
_BACKLOG: Final = 4096
"""Connections that the kernel keeps for the hub; beyond it a client's first packet is lost, and it tries again after a second."""


def limited(limits: Limits, crowd: Crowd, certificate_fits: CertificateFits) -> type[H11Protocol]:
    """The protocol class for a server with these limits."""

    class LimitedProtocol(_LimitedProtocol):
        hub_limits = limits
        hub_crowd = crowd
        hub_certificate_fits = staticmethod(certificate_fits)

    return LimitedProtocol


class _OneAtATime(FlowControl):
    """Reads nothing more while a whole request is under way and another lies behind it.

    uvicorn reads on whenever an answer is out and whenever the application asks for a body, and what it reads is kept: a client that
    sends on and on without waiting made it keep a quarter of a megabyte for each request answered.
    """

    def __init__(self, transport: asyncio.Transport, connection: h11.Connection, most: int) -> None:
        super().__init__(transport)
        self._connection, self._ahead_most = connection, most

    def resume_reading(self) -> None:
        """Go on, unless there is enough to do."""
        ahead = len(self._connection._receive_buffer)  # h11 would copy it to tell its length
        if self._connection.their_state is not h11.DONE or ahead <= self._ahead_most:
            super().resume_reading()


class _LimitedProtocol(H11Protocol):
    """One connection. ``since`` holds when each thing that must end began."""

    hub_limits: Limits
    hub_crowd: Crowd
    hub_certificate_fits: CertificateFits

    def __init__(self, *args: Any, **named: Any) -> None:
        super().__init__(*args, **named)
        self._head_since: float | None = None
        self._stall_since: float | None = None
        self._closing_since: float | None = None
        self._idle_since: float | None = None
        self._unwanted = 0
        self._prefix = ""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client connects. One too many of its network, or with a certificate that others warn of, is cut without a word; one too
        many of all is told so.
        """
        peer = transport.get_extra_info("peername")
        address, tls = str(peer[0]) if peer else "", transport.get_extra_info("ssl_object")
        self._prefix = prefix_of(address)
        certificate = tls.getpeercert(binary_form=True) if tls is not None else None
        fits = self.hub_crowd.enter(self._prefix) and self.hub_certificate_fits(certificate, address)
        super().connection_made(transport)
        self.flow = _OneAtATime(transport, self.conn, self.hub_limits.head_bytes)
        self.app_state = {**self.app_state, CERTIFICATE_NAMES: _names(transport)}  # requests begin with a copy of it
        self._head_since = self.loop.time()
        if not fits:
            transport.abort()
            return
        if len(self.connections) > self.hub_limits.connections:
            full = error_answer(Unavailable("hub.busy", "expected a free connection, got none", hint="try again later"))
            lines = b"".join(b"%s: %s\r\n" % pair for pair in full.raw_headers)
            transport.write(
                b"HTTP/1.1 503 Service Unavailable\r\nconnection: close\r\n" + lines + b"\r\n" + bytes(full.body)
            )
            transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """It is gone."""
        if self._prefix:
            self.hub_crowd.leave(self._prefix)
            self._prefix = ""
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Bytes arrive: part of a head, of a body, or of a body that nobody wants any more."""
        if self.transport.is_closing():
            return
        super().data_received(data)
        self._idle_since = None
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
        self._idle_since = self.loop.time()
        super().on_response_complete()
        self.flow.resume_reading()  # what was read ahead may be only the beginning of a request

    def pause_writing(self) -> None:
        """The client does not take away what it asked for."""
        self._stall_since = self.loop.time()
        super().pause_writing()

    def resume_writing(self) -> None:
        """It goes on."""
        self._stall_since = None
        super().resume_writing()

    @property
    def _vital(self) -> bool:
        """True if its last request came with a ticket."""
        who = self.scope.get("state", {}).get("who") if self.scope else None
        return who is not None and who.vital

    def sweep(self, now: float) -> None:
        """End the connection if it holds something for too long; sooner, when there is hardly room for others."""
        if self.transport.is_closing():
            self._closing_since = self._closing_since or now
        limits = self.hub_limits
        hurry = _HURRY if self.hub_crowd.pressed and not self._vital else 1
        for since, seconds in (
            (self._head_since, limits.head_seconds / hurry),
            (self._stall_since, limits.stall_seconds / hurry),
            (self._idle_since if hurry > 1 else None, limits.keep_alive_seconds / hurry),
            (self._closing_since, _LINGER_SECONDS),
        ):
            if since is not None and now - since > seconds:
                self.transport.abort()
                return


def _names(transport: asyncio.Transport) -> tuple[str, ...]:
    tls = transport.get_extra_info("ssl_object")
    shown = (tls.getpeercert() or {}).get("subjectAltName", ()) if tls is not None else ()
    return tuple(str(value) for kind, value in shown if kind == "URI")


class SweptServer(uvicorn.Server):
    """uvicorn that ends connections which hold something for too long, and whose signals are the main thread's."""

    async def on_tick(self, counter: int) -> bool:
        """Once a second, sweep."""
        if counter % _SWEEP_TICKS == 0:
            now = asyncio.get_running_loop().time()
            for connection in list(self.server_state.connections):
                connection.sweep(now)  # type: ignore[union-attr]
        return await super().on_tick(counter)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """None of its own."""
        yield


def server_config(
    app: Any, limits: Limits, crowd: Crowd, certificate_fits: CertificateFits, *, lifespan: Literal["on", "off"]
) -> uvicorn.Config:
    """uvicorn with the hub's limits on heads, bodies, silences and connections."""
    return uvicorn.Config(
        app,
        loop="asyncio",
        http=limited(limits, crowd, certificate_fits),
        ws="none",
        lifespan=lifespan,
        log_config=None,
        access_log=False,
        server_header=False,
        h11_max_incomplete_event_size=limits.head_bytes,
        timeout_keep_alive=limits.keep_alive_seconds,
        timeout_graceful_shutdown=10,
        backlog=_BACKLOG,
    )
