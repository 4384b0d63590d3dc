"""One HTTP/1.1 exchange with a server that nobody trusts: every size and every wait has a limit.

``http.client`` does the talking; this module adds what it lacks. Its time-outs are per ``recv``, so that a server
could drip one byte a minute for ever: here each answer has a deadline. It reads short bodies without a word: here a
body that ends before its Content-Length is an error. No redirects, no cookies, no proxies, no compression.
"""

from __future__ import annotations

import http.client
import io
import re
import socket
import ssl
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, BinaryIO, Final
from urllib.parse import urlsplit

from kakoi.core.errors import KakoiError, Malformed, Misuse, Refused, Unavailable
from kakoi.net.signature import authority

BLOCK: Final = 256 * 1024
_IDLE_CONNECTIONS: Final = 4
_LOOPBACK: Final = frozenset({"127.0.0.1", "::1", "localhost"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Body:
    """What a request sends: ``length`` bytes from ``source``, starting where ``source`` stands."""

    source: BinaryIO
    length: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One request. ``idle`` bounds each silence, ``total`` the whole exchange, both in seconds."""

    method: str
    target: str
    headers: Mapping[str, str]
    body: Body
    idle: float
    total: float
    fresh: bool
    """True for a request that must not be sent twice: it never uses a connection that may have died unnoticed."""


class Stale(Unavailable):
    """A kept connection had died before the request reached the server: send it again at once, on a new one."""


class Answer:
    """Status, headers and the not yet read body of an answer."""

    def __init__(self, response: http.client.HTTPResponse, method: str, *, reusable: bool) -> None:
        self.status = response.status
        self._response, self._reusable = response, reusable
        self._left = 0 if method == "HEAD" or self.status in (204, 304) else self._length(response)
        self.length = self._left

    @staticmethod
    def _length(response: http.client.HTTPResponse) -> int:
        text = response.getheader("Content-Length", "")
        if not (text.isascii() and text.isdigit() and len(text) <= 16) or response.chunked:
            raise Malformed("hub.answer", "expected an answer with a Content-Length, got one without")
        return int(text)

    def header(self, name: str) -> str:
        """A header's value, or empty text."""
        return self._response.getheader(name, "") or ""

    def blocks(self) -> Iterator[bytes]:
        """The body in blocks of at most ``BLOCK`` bytes. Raises Unavailable if it ends early."""
        while self._left:
            with _translated():
                block = self._response.read(min(BLOCK, self._left))
            if not block:
                raise Unavailable("hub.cut", "expected the whole answer, got only its beginning")
            self._left -= len(block)
            yield block

    def read(self, limit: int) -> bytes:
        """The whole body, at most ``limit`` bytes. Raises Malformed if it is longer."""
        if self.length > limit:
            raise Malformed("hub.answer-size", f"expected an answer of at most {limit} bytes, got a longer one")
        return b"".join(self.blocks())

    def finish(self) -> bool:
        """Let go of the connection. True if the body was read to its end, so that another request can follow."""
        self._response.close()
        return self._reusable and self._left == 0 and not self._response.will_close


class TimedReader(io.RawIOBase):
    """Reads from a socket, each read within the idle limit and all of them before the deadline."""

    def __init__(self, sock: socket.socket, idle: float, deadline: float) -> None:
        self._sock, self._raw = sock, sock.makefile("rb", buffering=0)
        self._idle, self._deadline = idle, deadline

    def readable(self) -> bool:
        """Always."""
        return True

    def readinto(self, buffer: Any) -> int | None:
        """One read, in time. Raises TimeoutError."""
        left = min(self._idle, self._deadline - time.monotonic())
        if left <= 0:
            raise TimeoutError("the answer took too long")
        self._sock.settimeout(left)
        return self._raw.readinto(buffer)

    def close(self) -> None:
        """Let go of the socket."""
        self._raw.close()
        super().close()


class TimedSocket:
    """What ``HTTPResponse`` needs of a socket: a file to read from."""

    def __init__(self, reader: TimedReader) -> None:
        self._reader = reader

    def makefile(self, _mode: str) -> io.BufferedReader:
        """The one file."""
        return io.BufferedReader(self._reader, BLOCK)


class Transport:
    """Connections to one server. Safe to use from several threads."""

    def __init__(self, base_url: str, *, connect_seconds: float, tls: ssl.SSLContext | None, plain_http: bool) -> None:
        try:
            parts = urlsplit(base_url)
            self._port = parts.port
        except ValueError:
            raise _bad_url() from None
        odd = parts.query or parts.fragment or parts.username or not re.fullmatch(r"[!-~]*", base_url)
        if parts.scheme not in ("http", "https") or not parts.hostname or odd:
            raise _bad_url()
        if parts.scheme == "http" and parts.hostname not in _LOOPBACK and not plain_http:
            raise Misuse(
                "net.plain-http",
                "expected https for a hub on another machine, got http",
                hint="use https; for a network that is protected otherwise, allow it by name (insecure_plain_http)",
            )
        self._host, self.path = parts.hostname, parts.path.rstrip("/")
        self.authority = authority(parts.hostname, self._port, tls=parts.scheme == "https")
        self._tls = (tls or ssl.create_default_context()) if parts.scheme == "https" else None
        self._connect_seconds = connect_seconds
        self._idle: list[http.client.HTTPConnection] = []
        self._lock = threading.Lock()

    def close(self) -> None:
        """Close the connections that are not in use."""
        with self._lock:
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    def _take(self, fresh: bool) -> http.client.HTTPConnection:
        if not fresh:
            with self._lock:
                if self._idle:
                    return self._idle.pop()
        if self._tls is None:
            return http.client.HTTPConnection(self._host, self._port, timeout=self._connect_seconds)
        return http.client.HTTPSConnection(self._host, self._port, timeout=self._connect_seconds, context=self._tls)

    def _give_back(self, connection: http.client.HTTPConnection) -> None:
        with self._lock:
            if len(self._idle) < _IDLE_CONNECTIONS:
                self._idle.append(connection)
                return
        connection.close()

    @contextmanager
    def exchange(self, request: Request) -> Iterator[Answer]:
        """Send ``request`` and give its answer. Raises Unavailable, Malformed, or Refused for a bad certificate."""
        connection = self._take(request.fresh)
        used, keep = connection.sock is not None, False
        try:
            try:
                with _translated():
                    answer = _converse(connection, request)
            except Unavailable as error:
                if used and error.code == "hub.cut":
                    raise Stale(error.code, error.message, hint=error.hint) from None
                raise
            try:
                yield answer
            finally:
                keep = answer.finish()
        finally:
            if keep:
                self._give_back(connection)
            else:
                connection.close()


def _bad_url() -> Misuse:
    return Misuse("net.url", "expected the hub's address as http(s)://host[:port][/path], got something else")


def _converse(connection: http.client.HTTPConnection, request: Request) -> Answer:
    deadline = time.monotonic() + request.total
    if connection.sock is None:
        connection.connect()
    sock: socket.socket = connection.sock
    sock.settimeout(request.idle)
    connection.putrequest(request.method, request.target, skip_accept_encoding=True)
    for name, value in request.headers.items():
        connection.putheader(name, value)
    connection.endheaders()
    broken = None
    try:
        _send(connection, sock, request.body, request.idle, deadline)
    except (BrokenPipeError, ConnectionResetError) as error:
        broken = error  # a server that refuses an upload answers and hangs up: the answer may still be there
    reader = TimedReader(sock, request.idle, deadline)
    connection.response_class = lambda _sock, **named: http.client.HTTPResponse(TimedSocket(reader), **named)  # type: ignore[assignment,arg-type]
    try:
        response = connection.getresponse()
    except (OSError, http.client.HTTPException):
        if broken is not None:
            raise broken from None
        raise
    try:
        return Answer(response, request.method, reusable=broken is None)
    except Malformed:
        response.close()
        raise


def _send(
    connection: http.client.HTTPConnection, sock: socket.socket, body: Body, idle: float, deadline: float
) -> None:
    left = body.length
    while left:
        try:
            block = body.source.read(min(BLOCK, left))
        except OSError as error:
            raise Misuse("net.source", f"expected to read what is to be sent, got: {error.strerror}") from None
        if not block:
            raise Misuse("net.source", "expected as many bytes to send as announced, got fewer")
        left -= len(block)
        remaining = min(idle, deadline - time.monotonic())
        if remaining <= 0:
            raise TimeoutError("the request took too long")
        sock.settimeout(remaining)
        connection.send(block)


@contextmanager
def _translated() -> Iterator[None]:
    """Network errors as ours. Whatever the caller raises on purpose passes."""
    try:
        yield
    except KakoiError:
        raise
    except ssl.SSLCertVerificationError:
        raise Refused(
            "hub.certificate",
            "expected a certificate that this machine trusts for the hub's name, got another",
            hint="check the hub's address, or give its own CA certificate",
        ) from None
    except TimeoutError:
        raise Unavailable(
            "hub.timeout", "expected an answer in time, got none", hint="the hub is slow or cut off"
        ) from None
    except (http.client.RemoteDisconnected, http.client.IncompleteRead, ConnectionResetError, BrokenPipeError):
        raise Unavailable(
            "hub.cut", "expected an answer, got a closed connection", hint="the hub may be restarting"
        ) from None
    except OSError as error:
        raise Unavailable(
            "hub.unreachable",
            f"expected to reach the hub, got: {error.strerror or type(error).__name__}",
            hint="is the hub running, and is its address right?",
        ) from None
    except http.client.HTTPException as error:
        raise Malformed(
            "hub.answer", f"expected HTTP/1.1, got {type(error).__name__}", hint="is this a Kakoi hub?"
        ) from None
