"""Running a hub: listen, say where, serve, stop cleanly."""

from __future__ import annotations

import asyncio
import errno
import signal
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import Any, Final

import uvicorn

from kakoi.core.errors import Fatal, KakoiError, Misuse, Unavailable
from kakoi.hub.app import app_of
from kakoi.hub.door import Door
from kakoi.hub.files import write_whole
from kakoi.hub.http import networks
from kakoi.hub.hub import Hub, open_hub, wall_clock
from kakoi.hub.protocol import limited
from kakoi.hub.settings import LOOPBACK, Settings
from kakoi.hub.watch import event_of, fatal_on_record, hub_watch
from kakoi.net.signature import authority

ADDRESS_FILE: Final = "address"
_EVERYWHERE: Final = frozenset({"", "0.0.0.0", "::"})  # noqa: S104 - named in order to be refused
_BACKLOG: Final = 4096
"""Connections that the kernel keeps for the hub; beyond it a client's first packet is lost, and it tries again after a second."""
_SWEEP_TICKS: Final = 10
"""uvicorn ticks ten times a second."""


def serve(settings: Settings, *, ready: Callable[[str], object] = lambda _: None) -> None:
    """Serve until SIGINT or SIGTERM. ``ready`` is called with the hub's address once it listens.

    Raises Misuse (settings, port, directory), Unavailable (disk) or Fatal (what is on disk contradicts itself).
    """
    open_server(settings, ready=ready).run()


def open_server(
    settings: Settings, *, now: Callable[[], int] = wall_clock, ready: Callable[[str], object] = lambda _: None
) -> HubServer:
    """A server that has its port and has opened its hub; ``run`` it next. Raises what ``serve`` raises."""
    _check(settings)
    with ExitStack() as stack:
        listener = stack.enter_context(closing(_listen(settings)))
        with fatal_on_record(settings.directory, now):
            hub = open_hub(settings, now=now)
        stack.callback(hub.release)
        server = HubServer(settings, hub, listener, ready)
        stack.pop_all()
        return server


@contextmanager
def running(settings: Settings, *, now: Callable[[], int] = wall_clock) -> Iterator[HubServer]:
    """A hub in a thread of this process, for notebooks and tests; it has stopped when the block ends."""
    listening, ended = threading.Event(), threading.Event()
    server = open_server(settings, now=now, ready=lambda _: listening.set())
    server.ended = ended

    def run() -> None:
        with suppress(Fatal):  # raised again below, where somebody hears it
            server.run()
        ended.set()

    thread = threading.Thread(target=run, name="hub-serve", daemon=True)
    thread.start()
    try:
        while not listening.wait(0.05) and not ended.is_set():
            pass
        yield server
    finally:
        server.should_exit = True
        thread.join()
    if server.fatal is not None:
        raise server.fatal


def _check(settings: Settings) -> None:
    if (settings.tls_certificate is None) != (settings.tls_key is None):
        raise Misuse("hub.tls", "expected a TLS certificate and its key, got one of them")
    networks(settings.allow)
    if settings.tls_client_ca is not None and settings.tls_certificate is None:
        raise Misuse("hub.tls", "expected a TLS certificate of the hub's own before clients show theirs, got none")
    if settings.host not in LOOPBACK and settings.tls_certificate is None and not settings.insecure_plain_http:
        raise Misuse(
            "hub.plain-http",
            "expected TLS for a hub that listens beyond this machine, got none",
            hint="give a certificate and key; behind a proxy that adds TLS, allow plain http by name",
        )
    if settings.host in _EVERYWHERE and not settings.names:
        raise Misuse(
            "hub.names",
            "expected the names by which clients call a hub that listens on all interfaces, got none",
            hint="--name hub.example.org:8440; requests are signed for a name, and others are refused",
        )


def _listen(settings: Settings) -> Door:
    where = f"{settings.host} port {settings.port}"
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    # asyncio turns Nagle's algorithm off only for sockets that name their protocol; with it every answer takes 40 ms.
    listener = Door(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((settings.host, settings.port))
        listener.listen(512)
    except (OSError, OverflowError) as error:
        listener.close()
        number = error.errno if isinstance(error, OSError) else None
        if number == errno.EADDRINUSE:
            raise Misuse(
                "hub.port-in-use",
                f"expected {where} to be free, got a program that listens there",
                hint="is another hub running? Choose another port, or 0 for any",
            ) from None
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise Misuse(
            "hub.listen", f"expected to listen on {where}, got: {reason}", hint="check host and port"
        ) from None
    return listener


class HubServer(uvicorn.Server):
    """uvicorn, with what a hub needs around it. Made by ``open_server``."""

    def __init__(self, settings: Settings, hub: Hub, listener: Door, ready: Callable[[str], object]) -> None:
        limits = settings.limits
        config = uvicorn.Config(
            app_of(hub, self._stop, self._refused),
            loop="asyncio",
            http=limited(limits, hub.crowd),
            ws="none",
            lifespan="on",
            log_config=None,
            access_log=False,
            server_header=False,
            h11_max_incomplete_event_size=limits.head_bytes,
            timeout_keep_alive=limits.keep_alive_seconds,
            timeout_graceful_shutdown=10,
            backlog=_BACKLOG,
        )
        self._watch = hub_watch(settings.directory, hub.now)
        super().__init__(config)
        self.fatal: Fatal | None = None
        self.ended = threading.Event()
        """Set when a server that runs in a thread has stopped by itself."""
        self.hub, self._listener, self._ready = hub, listener, ready
        listener.admits = hub.crowd.admits
        self._address = settings.directory / ADDRESS_FILE
        config.load()
        scheme = "http"
        if settings.tls_certificate is not None and settings.tls_key is not None:
            config.ssl = _tls(settings.tls_certificate, settings.tls_key, settings.tls_client_ca)
            scheme = "https"
        port, tls = int(listener.getsockname()[1]), scheme == "https"
        host = f"[{settings.host}]" if ":" in settings.host else settings.host
        self.url = f"{scheme}://{host}:{port}"
        hosts = LOOPBACK if settings.host in LOOPBACK else (settings.host,)
        own = {authority(name, port, tls=tls) for name in hosts}
        hub.authenticator.names = frozenset(name.lower() for name in settings.names) | own

    def run(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve until stopped (a signal in the main thread, or ``should_exit``). Raises the Fatal that ended it."""
        try:
            with self._metrics():
                asyncio.run(self.serve(sockets=sockets or [self._listener]))
        finally:
            self._listener.close()
            self._watch.close()
        if self.fatal is not None:
            raise self.fatal

    @contextmanager
    def _metrics(self) -> Iterator[None]:
        port, watch = self.hub.settings.metrics_port, self._watch
        if port is None:
            yield
            return
        from kakoi.guard.metrics import listening, openmetrics

        def metrics() -> bytes:
            return openmetrics(watch.stream, watch.clock, watch.exports)

        with listening(port, metrics, {"events": watch.ready, "server": self._require_running}):
            yield

    def _require_running(self) -> None:
        if self.should_exit or self.fatal is not None or not self.started:
            raise Unavailable("hub.stopping", "expected a hub that runs, got one that starts or stops")

    def _refused(self, error: KakoiError, address: str) -> None:
        happening = event_of(error, address, self.hub.now())
        if happening is not None:
            self._watch.hear(happening)

    def _stop(self, error: Fatal) -> None:
        self.fatal, self.should_exit = error, True

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, then say where."""
        await super().startup(sockets)
        write_whole(self._address, self.url.encode() + b"\n")
        self._ready(self.url)

    async def on_tick(self, counter: int) -> bool:
        """Once a second, end connections that hold something for too long."""
        if counter % _SWEEP_TICKS == 0:
            now = asyncio.get_running_loop().time()
            for connection in list(self.server_state.connections):
                connection.sweep(now)  # type: ignore[union-attr]
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop; whoever waits for news is answered first."""
        with suppress(OSError):
            self._address.unlink()
        self.hub.notifier.close()
        await super().shutdown(sockets)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """SIGINT and SIGTERM end the server, and ``serve`` returns."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before: dict[int, Any] = {s: signal.signal(s, self.handle_exit) for s in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def _tls(certificate: Path, key: Path, client_ca: Path | None) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    try:
        context.load_cert_chain(certificate, key)
    except (OSError, ssl.SSLError) as error:
        reason = error.strerror or type(error).__name__
        raise Misuse("hub.tls", f"expected a TLS certificate and its key, got: {reason}", hint="both as PEM") from None
    if client_ca is not None:
        context.verify_mode = ssl.CERT_REQUIRED
        try:
            context.load_verify_locations(cafile=client_ca)
        except (OSError, ssl.SSLError) as error:
            reason = error.strerror or type(error).__name__
            raise Misuse("hub.tls", f"expected CA certificates for clients, got: {reason}", hint="as PEM") from None
    return context
