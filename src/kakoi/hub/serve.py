"""Running a hub: listen, say where, serve, stop cleanly."""

from __future__ import annotations

import asyncio
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from kakoi.core.errors import Fatal, KakoiError, Misuse, Unavailable
from kakoi.guard import listeners
from kakoi.hub.app import app_of
from kakoi.hub.decisions import Decisions
from kakoi.hub.door import Door
from kakoi.hub.files import write_whole
from kakoi.hub.hub import Hub, open_hub, wall_clock
from kakoi.hub.listen import admits, bind, check, networks, server_tls, tls_of
from kakoi.hub.protocol import SweptServer, server_config
from kakoi.hub.settings import LOOPBACK, Listener, Settings
from kakoi.hub.watch import event_of, fatal_on_record, hub_watch
from kakoi.net.signature import authority

if TYPE_CHECKING:  # a hub without operations pages needs none of what they need
    from kakoi.hub.operators.serve import OperationsServer

ADDRESS_FILE: Final = "address"


def serve(settings: Settings, *, ready: Callable[[str], object] = lambda _: None) -> None:
    """Serve until SIGINT or SIGTERM. ``ready`` is called with the hub's address once it listens.

    Raises Misuse (settings, port, directory), Unavailable (disk) or Fatal (what is on disk contradicts itself).
    """
    open_server(settings, ready=ready).run()


def open_server(
    settings: Settings, *, now: Callable[[], int] = wall_clock, ready: Callable[[str], object] = lambda _: None
) -> HubServer:
    """A server that has its port and has opened its hub; ``run`` it next. Raises what ``serve`` raises."""
    check(settings)
    with ExitStack() as stack:
        listener = stack.enter_context(closing(bind(settings.host, settings.port)))
        with fatal_on_record(settings.directory, now):
            hub = open_hub(settings, now=now)
        stack.callback(hub.release)
        server = HubServer(settings, hub, listener, ready)
        stack.callback(server.let_go)
        server.open_doors()
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


class HubServer(SweptServer):
    """uvicorn, with what a hub needs around it. Made by ``open_server``."""

    def __init__(self, settings: Settings, hub: Hub, listener: Door, ready: Callable[[str], object]) -> None:
        limits = settings.limits
        config = server_config(
            app_of(hub, self._stop, self._refused), limits, hub.crowd, hub.warned.certificate_fits, lifespan="on"
        )
        self._watch = hub_watch(settings.directory, hub.now)
        hub.warned.tell = self._refused
        self.decisions = Decisions(self._watch.hear, hub.now)
        hub.policies.decided = self.decisions.note
        super().__init__(config)
        self.fatal: Fatal | None = None
        self.ended = threading.Event()
        """Set when a server that runs in a thread has stopped by itself."""
        self.hub, self._listener, self._ready = hub, listener, ready
        listener.admits = hub.crowd.admits
        self._doors = ExitStack()
        self._operations: OperationsServer | None = None
        self._task: asyncio.Task[None] | None = None
        self.metrics_port = 0
        self._address = settings.directory / ADDRESS_FILE
        config.load()
        scheme = "http"
        if settings.tls_certificate is not None and settings.tls_key is not None:
            config.ssl = server_tls(
                settings.tls_certificate,
                settings.tls_key,
                required=settings.tls_client_ca,
                accepted=settings.enclave_ca,
            )
            scheme = "https"
        port, tls = int(listener.getsockname()[1]), scheme == "https"
        host = f"[{settings.host}]" if ":" in settings.host else settings.host
        self.url = f"{scheme}://{host}:{port}"
        hosts = LOOPBACK if settings.host in LOOPBACK else (settings.host,)
        own = {authority(name, port, tls=tls) for name in hosts}
        hub.authenticator.names = frozenset(name.lower() for name in settings.names) | own

    def open_doors(self) -> None:
        """Take the ports of operations and metrics. Raises Misuse."""
        settings = self.hub.settings
        if settings.operations is not None:
            from kakoi.hub.operators.serve import open_operations

            self._operations = open_operations(self.hub, self._watch, self.decisions)
        if settings.metrics is not None:
            from kakoi.guard.metrics import Door as MetricsDoor
            from kakoi.guard.metrics import listening, openmetrics

            watch, allowed = self._watch, networks(settings.metrics.allow)
            door = MetricsDoor(
                host=settings.metrics.host,
                port=settings.metrics.port,
                admits=lambda address: not allowed or admits(allowed, address),
                tls=tls_of(settings.metrics),
            )
            checks = {"events": watch.ready, "server": self._require_running}
            server = self._doors.enter_context(
                listening(door, lambda: openmetrics(watch.stream, watch.clock, watch.exports), checks)
            )
            self.metrics_port = int(server.server_address[1])
        self._doors.enter_context(listeners.declared(settings.directory, "hub", self._declared()))

    def _declared(self) -> list[listeners.Door]:
        settings, operations = self.hub.settings, self._operations
        api = listeners.Door(
            name="api",
            host=settings.host,
            port=int(self._listener.getsockname()[1]),
            allow=settings.allow,
            client_certificates=_certificates(settings.tls_client_ca, settings.enclave_ca),
        )
        doors = [api]
        others: list[tuple[listeners.Name, Listener, int]] = []
        if settings.operations is not None and operations is not None:
            others.append(("operations", settings.operations, operations.port))
        if settings.metrics is not None:
            others.append(("metrics", settings.metrics, self.metrics_port))
        for name, place, port in others:
            asked = _certificates(place.tls_client_ca, None)
            doors.append(
                listeners.Door(name=name, host=place.host, port=port, allow=place.allow, client_certificates=asked)
            )
        return doors

    @property
    def operations(self) -> OperationsServer:
        """The operations listener. Raises Misuse if there is none."""
        if self._operations is None:
            raise Misuse("hub.no-operations", "expected a hub with operations pages, got one without")
        return self._operations

    @property
    def operations_url(self) -> str:
        """Address of the operations pages; empty if there are none."""
        return "" if self._operations is None else self._operations.origin

    def let_go(self) -> None:
        """Close every door, and the stream of events."""
        self._doors.close()
        self._listener.close()
        if self._operations is not None:
            self._operations.let_go()
        self.decisions.flush(everything=True)
        self._watch.close()

    def run(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve until stopped (a signal in the main thread, or ``should_exit``). Raises the Fatal that ended it."""
        try:
            asyncio.run(self.serve(sockets=sockets or [self._listener]))
        finally:
            self.let_go()
        if self.fatal is not None:
            raise self.fatal

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
        if self._operations is not None:
            self._task = asyncio.create_task(self._operations.serve([self._operations.listener]))
        write_whole(self._address, self.url.encode() + b"\n")
        self._ready(self.url)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop; whoever waits for news is answered first."""
        with suppress(OSError):
            self._address.unlink()
        self.hub.notifier.close()
        if self._operations is not None and self._task is not None:
            self._operations.should_exit = True
            await self._task
        await super().shutdown(sockets)

    async def on_tick(self, counter: int) -> bool:
        """What was decided becomes events."""
        self.decisions.flush()
        return await super().on_tick(counter)

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


def _certificates(required: Path | None, accepted: Path | None) -> listeners.Certificates:
    return "required" if required is not None else "accepted" if accepted is not None else "none"
