"""Numbers of a stream in OpenMetrics, and whether a program is well. Kinds of events, levels of alerts, ages: no number depends on data."""

from __future__ import annotations

import logging
import socket
import ssl
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.openmetrics.exposition import generate_latest
from prometheus_client.registry import Collector, CollectorRegistry

from kakoi.core.errors import KakoiError, Misuse
from kakoi.guard.export import cursor_of
from kakoi.guard.happening import SEVERITY
from kakoi.guard.stream import Stream

logger = logging.getLogger("kakoi.guard")
CONTENT_TYPE: Final = "application/openmetrics-text; version=1.0.0; charset=utf-8"
_STATUS: Final = {1: "success", 2: "failure", 99: "other"}
_MOST_CONNECTIONS: Final = 16
_LEVELS: Final = {number: name for name, number in SEVERITY.items()}


class StreamCollector(Collector):
    """What prometheus-client asks when somebody scrapes."""

    def __init__(self, stream: Stream, clock: Callable[[], int], sinks: Iterable[str] = ()) -> None:
        self._stream, self._clock, self._sinks = stream, clock, tuple(sinks)

    def collect(self) -> Iterator[Metric]:
        """One family after the other."""
        events = CounterMetricFamily("kakoi_events", "Events in the stream.", labels=("code", "outcome"))
        for (what, status), count in sorted(self._stream.counts().items()):
            events.add_metric((what, _STATUS.get(status, "other")), count)
        yield events
        alerts = CounterMetricFamily("kakoi_alerts", "Alerts that detection rules raised.", labels=("rule", "level"))
        for (rule, severity), count in sorted(self._stream.alert_counts().items()):
            alerts.add_metric((rule, _LEVELS.get(severity, "informational")), count)
        yield alerts
        size, at = self._stream.last_head()
        yield GaugeMetricFamily("kakoi_stream_size", "Number of the newest event.", value=self._stream.size)
        yield GaugeMetricFamily("kakoi_stream_signed", "Events that stand under a signed head.", value=size)
        age = max(0, self._clock() - at) if at else 0
        yield GaugeMetricFamily("kakoi_stream_head_age_seconds", "Age of the newest head.", value=age)
        lag = GaugeMetricFamily("kakoi_export_lag", "Events that a sink has not got yet.", labels=("sink",))
        for address in self._sinks:
            behind = self._stream.size - self._stream.cursor(cursor_of(address))
            lag.add_metric((address.partition(":")[0],), max(0, behind))
        yield lag


def openmetrics(stream: Stream, clock: Callable[[], int], sinks: Iterable[str] = ()) -> bytes:
    """The text that a scraper reads."""
    registry = CollectorRegistry()
    registry.register(StreamCollector(stream, clock, sinks))
    return bytes(generate_latest(registry))  # type: ignore[no-untyped-call]


Check = Callable[[], object]
"""Raises KakoiError if something is not well."""


class _Handler(BaseHTTPRequestHandler):
    """GET /metrics, /livez and /readyz, and nothing else."""

    timeout = 10
    server_version = "kakoi"
    sys_version = ""
    server: Listener

    def do_GET(self) -> None:
        """Answer."""
        try:
            status, kind, body = self.server.answer(self.path)
        except KakoiError as error:
            status, kind, body = 503, "text/plain; charset=utf-8", f"{error.code}\n".encode()
        self.send_response(status)
        for name, value in (("Content-Type", kind), ("Content-Length", str(len(body))), ("Cache-Control", "no-store")):
            self.send_header(name, value)
        if isinstance(self.connection, ssl.SSLSocket):
            self.send_header("Strict-Transport-Security", "max-age=31536000")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the library's own name
        """Scrapes are not news."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Door:
    """Where metrics are read, by whom, and under which certificate."""

    host: str = "127.0.0.1"
    port: int = 0
    """0: any free one."""
    admits: Callable[[str], bool] = lambda address: True
    """Whether an address is answered; asked before anything is read."""
    tls: ssl.SSLContext | None = None


class Listener(ThreadingHTTPServer):
    """Metrics and health of one program."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, door: Door, metrics: Callable[[], bytes], ready: Mapping[str, Check]) -> None:
        self._metrics, self._ready, self._door = metrics, ready, door
        self._places = threading.BoundedSemaphore(_MOST_CONNECTIONS)
        if ":" in door.host:
            self.address_family = socket.AF_INET6
        super().__init__((door.host, door.port), _Handler)

    def get_request(self) -> tuple[socket.socket, Any]:
        """A connection. The handshake is made in its own thread, so that nobody holds up the others."""
        connection, address = super().get_request()
        if self._door.tls is None:
            return connection, address
        return self._door.tls.wrap_socket(connection, server_side=True, do_handshake_on_connect=False), address

    def process_request(self, request: Any, client_address: Any) -> None:
        """In a thread, if it comes from a network that is answered and there is a place."""
        if not self._door.admits(str(client_address[0])) or not self._places.acquire(blocking=False):
            self.shutdown_request(request)
            return
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """The place is free again afterwards."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._places.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Whoever speaks no TLS, or hangs up, is not news; an error of our own is."""
        if not isinstance(sys.exception(), OSError):
            logger.exception("unexpected error")

    def answer(self, path: str) -> tuple[int, str, bytes]:
        """Status, content type and body. Raises what a check raises."""
        if path == "/metrics":
            return 200, CONTENT_TYPE, self._metrics()
        if path == "/livez":
            return 200, "text/plain; charset=utf-8", b"ok\n"
        if path == "/readyz":
            for check in self._ready.values():
                check()
            return 200, "text/plain; charset=utf-8", b"ok\n"
        return 404, "text/plain; charset=utf-8", b"expected /metrics, /livez or /readyz\n"


@contextmanager
def listening(door: Door, metrics: Callable[[], bytes], ready: Mapping[str, Check]) -> Iterator[Listener]:
    """A listener in a thread; it has stopped when the block ends. Raises Misuse."""
    try:
        server = Listener(door, metrics, ready)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or "not a port"
        raise Misuse(
            "guard.listen", f"expected {door.host} port {door.port} to be free, got: {reason}", hint="choose another"
        ) from None
    thread = threading.Thread(target=server.serve_forever, name="metrics", daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)
