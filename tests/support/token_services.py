"""Attestation services on loopback: they answer as Azure's, Intel's and Google's launcher do, or as they are told to."""

from __future__ import annotations

import base64
import json
import socketserver
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, HTTPServer, ThreadingHTTPServer
from pathlib import Path
from typing import Any

Asked = tuple[str, dict[str, str], dict[str, Any]]
"""Path, headers in lower case, body."""


@dataclass
class Service:
    """What one of them was asked, and what it answers."""

    url: str = ""
    answer: Callable[[dict[str, Any]], bytes] = lambda body: b"{}"
    status: int = 200
    asked: list[Asked] = field(default_factory=list)


def _handler(service: Service) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers.get("Content-Length", 0))))
            service.asked.append((self.path, {k.lower(): v for k, v in self.headers.items()}, body))
            data = service.answer(body)
            self.send_response(service.status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            try:
                self.wfile.write(data)
            except OSError:
                return  # the client had enough

        def address_string(self) -> str:
            return "loopback"

        def log_message(self, *args: object) -> None:
            return

    return Handler


class _UnixServer(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True


@contextmanager
def serving(socket: Path | None = None) -> Iterator[Service]:
    """A service on a free port, or on a unix socket."""
    service = Service(url=str(socket or ""))
    server: socketserver.BaseServer
    if socket is None:
        http: HTTPServer = ThreadingHTTPServer(("127.0.0.1", 0), _handler(service))
        service.url, server = f"http://127.0.0.1:{http.server_port}", http
    else:
        server = _UnixServer(str(socket), _handler(service))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield service
    finally:
        server.shutdown()
        server.server_close()


def report_data_of(body: dict[str, Any]) -> bytes:
    """The report data of the SGX quote that a service was shown."""
    return base64.b64decode(body["quote"])[48 + 320 : 48 + 384]


def mrenclave_of(body: dict[str, Any]) -> str:
    """The measurement in that quote, hex."""
    return base64.b64decode(body["quote"])[48 + 64 : 48 + 96].hex()


def now() -> int:
    """Services read clocks."""
    return int(time.time())
