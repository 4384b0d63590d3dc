"""Running a console: listen, say where, serve, notify, stop."""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import uvicorn

from kakoi.console.app import app_of, console_of
from kakoi.console.herald import Herald
from kakoi.console.settings import Settings
from kakoi.console.visit import Console
from kakoi.core.clock import Clock
from kakoi.core.errors import Misuse, Unavailable
from kakoi.guard.listeners import Door, declared
from kakoi.guard.watch import Watch
from kakoi.net.client import HubClient
from kakoi.party.home import PartyHome
from kakoi.sdk.verify import Verifiers

logger = logging.getLogger(__name__)
_LAST_NOTIFICATION_SECONDS = 10


class Server(uvicorn.Server):
    """One console on one port."""

    def __init__(self, console: Console, listener: socket.socket, ready: Callable[[str], object]) -> None:
        settings = console.settings
        config = uvicorn.Config(
            app_of(console),
            loop="asyncio",
            http="h11",
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            h11_max_incomplete_event_size=16 * 1024,
            limit_concurrency=64,
            timeout_keep_alive=15,
            timeout_graceful_shutdown=2,
        )
        super().__init__(config)
        config.load()
        if settings.tls_certificate is not None and settings.tls_key is not None:
            config.ssl = _tls(settings.tls_certificate, settings.tls_key)
        self.console, self._listener, self._ready = console, listener, ready

    def run(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve until stopped (a signal in the main thread, or ``should_exit``)."""
        stop = threading.Event()
        herald = threading.Thread(target=Herald(self.console).run, args=(stop,), name="notifications", daemon=True)
        herald.start()
        settings = self.console.settings
        door = Door(name="console", host=settings.host, port=settings.port)
        try:
            with declared(self.console.home.path, "console", [door]):
                asyncio.run(self.serve(sockets=sockets or [self._listener]))
        finally:
            stop.set()
            self._listener.close()
            herald.join(_LAST_NOTIFICATION_SECONDS)
            self.console.store.close()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, then say where."""
        await super().startup(sockets)
        self._ready(self.console.settings.origin)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals are the main thread's; beside a broker the console runs in another."""
        if threading.current_thread() is threading.main_thread():
            with super().capture_signals():
                yield
        else:
            yield


def open_server(
    settings: Settings,
    *,
    home: PartyHome,
    hub: HubClient,
    clock: Clock,
    verifiers: Verifiers,
    broker: bool,
    watch: Watch | None = None,
    ready: Callable[[str], object] = lambda _: None,
) -> Server:
    """A console that has its port; ``run`` it next. Port 0: any free one. Raises Misuse."""
    listener = _listen(settings)
    settings = replace(settings, port=listener.getsockname()[1])
    console = console_of(
        settings=settings, home=home, hub=hub, clock=clock, verifiers=verifiers, broker=broker, watch=watch
    )
    try:
        console.assent.publish()
    except Unavailable as error:
        logger.warning("%s", error)
    return Server(console, listener, ready)


@contextmanager
def in_thread(server: Server) -> Iterator[Server]:
    """The console in a thread of this process; it has stopped when the block ends."""
    thread = threading.Thread(target=server.run, name="console", daemon=True)
    thread.start()
    try:
        while not server.started and thread.is_alive():
            thread.join(0.02)
        yield server
    finally:
        server.should_exit = True
        thread.join(10)


def _listen(settings: Settings) -> socket.socket:
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    # asyncio turns Nagle's algorithm off only for sockets that name their protocol.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((settings.host, settings.port))
        listener.listen(128)
    except (OSError, OverflowError) as error:
        listener.close()
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise Misuse(
            "console.listen",
            f"expected to listen on {settings.host} port {settings.port}, got: {reason}",
            hint="choose another port with --console-port, or 0 for any",
        ) from None
    return listener


def _tls(certificate: Path, key: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    try:
        context.load_cert_chain(certificate, key)
    except (OSError, ssl.SSLError) as error:
        reason = error.strerror or type(error).__name__
        raise Misuse(
            "console.tls", f"expected a TLS certificate and its key, got: {reason}", hint="both as PEM"
        ) from None
    return context
