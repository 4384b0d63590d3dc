"""The operations listener: its own socket, its own limits, its own allow-list, in the hub's event loop."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Final

from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from kakoi.guard.browser import BrowserPerimeter, Site
from kakoi.guard.happening import Happening
from kakoi.guard.watch import Watch
from kakoi.hub.budgets import Buckets
from kakoi.hub.crowd import Crowd
from kakoi.hub.decisions import Decisions
from kakoi.hub.door import Door
from kakoi.hub.hub import Hub
from kakoi.hub.listen import Networks, admits, bind, networks, tls_of
from kakoi.hub.operators.pages import Operations, app_of, pages
from kakoi.hub.operators.provider import Provider
from kakoi.hub.operators.sessions import Sessions
from kakoi.hub.operators.settings import FILE, read_operators
from kakoi.hub.protocol import SweptServer, server_config
from kakoi.hub.settings import LOOPBACK, Listener

_CONNECTIONS: Final = 64
_FORM_BYTES: Final = 16 * 1024
_ATTEMPTS_A_SECOND: Final = 0.5
_ATTEMPTS_AT_ONCE: Final = 20


class OperationsServer(SweptServer):
    """Made by ``open_operations``; runs as long as the hub's own server."""

    def __init__(self, listener: Door, place: Listener, operations: Operations, hub: Hub) -> None:
        limits = replace(hub.settings.limits, connections=_CONNECTIONS, prefix_connections=_CONNECTIONS // 2)
        tls = tls_of(place)

        def refused(status: int, address: str) -> None:
            operations.watch.hear(
                Happening(
                    what="operator.refused",
                    at=hub.now(),
                    component="hub",
                    outcome="failure",
                    code="operators.perimeter",
                    operation="perimeter",
                    address=address or None,
                )
            )

        site = Site(origin=operations.origin, body_bytes=_FORM_BYTES)
        app = BrowserPerimeter(app_of(operations), site, refused)
        guarded = Networked(app, networks(place.allow), refused)
        crowd = Crowd(limits, time.monotonic)
        config = server_config(guarded, limits, crowd, hub.warned.certificate_fits, lifespan="off")
        super().__init__(config)
        config.load()
        config.ssl, listener.admits = tls, crowd.admits
        self.listener, self.origin = listener, operations.origin
        self.sessions, self.provider, self.attempts = operations.sessions, operations.provider, operations.attempts
        self.port = int(listener.getsockname()[1])

    def let_go(self) -> None:
        """Close the socket."""
        self.listener.close()


class Networked:
    """ASGI: only networks of the allow-list are answered, if there is one."""

    def __init__(self, app: ASGIApp, allowed: Networks, refused: Callable[[int, str], object]) -> None:
        self._app, self._allowed, self._refused = app, allowed, refused

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        address = str((scope.get("client") or ("",))[0])
        if scope["type"] == "http" and self._allowed and not admits(self._allowed, address):
            self._refused(403, address)
            await PlainTextResponse("expected a request from a network that is answered here", 403)(
                scope, receive, send
            )
            return
        await self._app(scope, receive, send)


def open_operations(hub: Hub, watch: Watch, decisions: Decisions) -> OperationsServer:
    """The listener of ``settings.operations``, which must be there. Raises Misuse: without operators there are no pages."""
    settings = hub.settings
    place = settings.operations or Listener()
    operators = read_operators(settings.operators or settings.directory / FILE)
    listener = bind(place.host, place.port)
    try:
        operations = Operations(
            hub=hub,
            settings=operators,
            origin=_origin(place, settings.operations_name, int(listener.getsockname()[1])),
            watch=watch,
            decisions=decisions,
            provider=Provider(operators, time.monotonic),
            sessions=Sessions(operators, time.monotonic),
            attempts=Buckets(_ATTEMPTS_A_SECOND, _ATTEMPTS_AT_ONCE, time.monotonic),
            pages=pages(),
            started=time.monotonic(),
        )
        return OperationsServer(listener, place, operations, hub)
    except BaseException:
        listener.close()
        raise


def _origin(place: Listener, name: str, port: int) -> str:
    scheme, usual = ("http", 80) if place.tls_certificate is None else ("https", 443)
    host = "localhost" if place.host in LOOPBACK else place.host
    netloc = name or (host if port == usual else f"{host}:{port}")
    return f"{scheme}://{netloc}"
