"""Where events go: a file of JSON lines, a syslog server over TLS, an OpenTelemetry collector. What leaves is what the stream holds, byte for byte.

    jsonl:PATH                                      one event or signed head a line; appended, flushed to disk
    syslog+tls://HOST[:6514][?ca=PEM&cert=PEM&key=PEM]   RFC 5424 messages, RFC 5425 framing
    otlp+https://HOST[:4318][/v1/logs][?ca=PEM]     OTLP/HTTP, protobuf; ``otlp+http`` on this machine only

A sink takes a batch whole or raises Unavailable; then the same batch is sent again later. A syslog server confirms nothing, so what was written
to a connection that then breaks may be lost there: the numbers and the chain show it.
"""

from __future__ import annotations

import os
import socket
import ssl
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Protocol
from urllib.parse import SplitResult, parse_qsl, urlsplit

from kakoi.core import encoding
from kakoi.core.errors import KakoiError, Misuse, Unavailable

SECONDS: Final = 10.0
LOOPBACK: Final = frozenset({"127.0.0.1", "::1", "localhost"})
_FACILITY: Final = 13
"""Log audit (RFC 5424 §6.2.1)."""
_SYSLOG_SEVERITY: Final = {1: 6, 2: 5, 3: 4, 4: 3, 5: 2}
_OTLP_SEVERITY: Final = {1: 9, 2: 10, 3: 13, 4: 17, 5: 21}
Batch = Sequence[tuple[int, bytes]]
"""Sequence number and line of events, or size and envelope of heads."""


class Sink(Protocol):
    """Somewhere that events go."""

    def send(self, events: Batch, heads: Batch) -> None:
        """Take all of them. Raises Unavailable."""
        ...

    def close(self) -> None:
        """Let go of connections and files."""
        ...


def open_sink(address: str) -> Sink:
    """The sink at an address. Raises Misuse for an address that is none."""
    if address.startswith("jsonl:") and len(address) > len("jsonl:"):
        return JsonLines(Path(address.removeprefix("jsonl:")))
    try:
        parts = urlsplit(address)
        port = parts.port
        options = dict(parse_qsl(parts.query, strict_parsing=True)) if parts.query else {}
    except ValueError:
        raise _no_sink() from None
    if not parts.hostname or set(options) - {"ca", "cert", "key"}:
        raise _no_sink()
    if parts.scheme == "syslog+tls":
        return SyslogTls(parts.hostname, port or 6514, tls_context(options))
    if parts.scheme == "otlp+https" or (parts.scheme == "otlp+http" and parts.hostname in LOOPBACK):
        return Otlp(_otlp_url(parts, port or 4318), options)
    raise _no_sink()


def _no_sink() -> Misuse:
    return Misuse(
        "event.sink",
        "expected jsonl:PATH, syslog+tls://HOST:PORT or otlp+https://HOST:PORT, got another address",
        hint="docs/monitoring.md lists what an address can hold",
    )


def tls_context(options: Mapping[str, str]) -> ssl.SSLContext:
    """TLS 1.3 towards a server that the given authority (or the system's) vouches for. Raises Misuse."""
    try:
        context = ssl.create_default_context(cafile=options.get("ca"))
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        if "cert" in options:
            context.load_cert_chain(options["cert"], options.get("key"))
    except (OSError, ssl.SSLError) as error:
        reason = getattr(error, "strerror", None) or type(error).__name__
        raise Misuse("event.sink-tls", f"expected certificates as PEM for a sink, got: {reason}") from None
    return context


class JsonLines:
    """Appends to a file of mode 600, and tells only when it is on disk."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def send(self, events: Batch, heads: Batch) -> None:
        """Append events, then heads."""
        data = b"".join(line + b"\n" for _, line in (*events, *heads))
        try:
            descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
            with os.fdopen(descriptor, "ab") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise _unreachable(error) from None

    def close(self) -> None:
        """Nothing is kept open."""


def _unreachable(error: Exception) -> Unavailable:
    reason = getattr(error, "strerror", None) or type(error).__name__
    return Unavailable("event.sink-down", f"expected a sink that takes events, got: {reason}", hint="it is tried again")


def syslog_message(line: bytes, *, hostname: str) -> bytes:
    """An event as RFC 5424 says it: facility log audit, MSGID the kind of event, the event itself as the message."""
    event = encoding.loads(line)
    priority = _FACILITY * 8 + _SYSLOG_SEVERITY.get(event["severity_id"], 5)
    at = datetime.fromtimestamp(event["time"] // 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    number = (event["metadata"]["sequence"] - 1) % 2147483647 + 1
    app = f"kakoi-{event['metadata']['log_provider']}"
    head = f'<{priority}>1 {at} {hostname[:255] or "-"} {app} - {event["metadata"]["event_code"][:32]} [meta sequenceId="{number}"] '
    return head.encode("ascii", "replace") + b"\xef\xbb\xbf" + line


def syslog_head(envelope: bytes, *, hostname: str) -> bytes:
    """A signed head as a syslog message."""
    return (
        f"<{_FACILITY * 8 + 6}>1 - {hostname[:255] or '-'} kakoi-guard - stream.head - ".encode("ascii", "replace")
        + envelope
    )


class SyslogTls:
    """RFC 5424 over TLS with octet counting (RFC 5425)."""

    def __init__(self, host: str, port: int, context: ssl.SSLContext) -> None:
        self._host, self._port, self._context = host, port, context
        self._hostname = socket.gethostname()
        self._socket: ssl.SSLSocket | None = None

    def send(self, events: Batch, heads: Batch) -> None:
        """Write all messages to one connection, opened if need be."""
        messages = [syslog_message(line, hostname=self._hostname) for _, line in events]
        messages += [syslog_head(envelope, hostname=self._hostname) for _, envelope in heads]
        try:
            self._connection().sendall(b"".join(b"%d %s" % (len(message), message) for message in messages))
        except OSError as error:  # ssl.SSLError is one
            self.close()
            raise _unreachable(error) from None

    def _connection(self) -> ssl.SSLSocket:
        if self._socket is not None and self._gone(self._socket):
            self.close()
        if self._socket is None:
            plain = socket.create_connection((self._host, self._port), timeout=SECONDS)
            try:
                self._socket = self._context.wrap_socket(plain, server_hostname=self._host)
            except OSError:
                plain.close()
                raise
        return self._socket

    @staticmethod
    def _gone(connection: ssl.SSLSocket) -> bool:
        """Whether the server has hung up: a syslog server never says anything."""
        connection.settimeout(0)
        try:
            return connection.recv(1) == b""
        except (BlockingIOError, ssl.SSLWantReadError):
            return False
        except OSError:
            return True
        finally:
            connection.settimeout(SECONDS)

    def close(self) -> None:
        """Close the connection."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None


def _otlp_url(parts: SplitResult, port: int) -> str:
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    return f"{parts.scheme.removeprefix('otlp+')}://{host}:{port}{parts.path if parts.path not in ('', '/') else '/v1/logs'}"


def otlp_request(events: Batch, heads: Batch) -> bytes:
    """Events as log records of OTLP: the body is the event's own line, so that the chain can be checked behind a collector."""
    from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest

    request = ExportLogsServiceRequest()
    resource = request.resource_logs.add()
    name = resource.resource.attributes.add(key="service.name")
    name.value.string_value = "kakoi"
    scope = resource.scope_logs.add()
    scope.scope.name = "kakoi.guard"
    for number, line in events:
        event: Any = encoding.loads(line)
        record = scope.log_records.add(
            time_unix_nano=event["time"] * 1_000_000,
            observed_time_unix_nano=event["time"] * 1_000_000,
            severity_number=_OTLP_SEVERITY.get(event["severity_id"], 9),
            event_name=event["metadata"]["event_code"],
        )
        record.body.string_value = line.decode()
        record.attributes.add(key="kakoi.sequence").value.int_value = number
        record.attributes.add(key="ocsf.class_uid").value.int_value = event["class_uid"]
    for _, envelope in heads:
        record = scope.log_records.add(severity_number=9, event_name="stream.head")
        record.body.string_value = envelope.decode()
    return bytes(request.SerializeToString())


class Otlp:
    """OTLP/HTTP with protobuf bodies (OpenTelemetry protocol 1.x, logs)."""

    def __init__(self, url: str, options: Mapping[str, str]) -> None:
        import httpx

        self._url = url
        self._client = httpx.Client(
            timeout=SECONDS, verify=tls_context(options) if url.startswith("https:") else False, trust_env=False
        )

    def send(self, events: Batch, heads: Batch) -> None:
        """One request with all of them."""
        import httpx

        headers = {"content-type": "application/x-protobuf"}
        try:
            answer = self._client.post(self._url, content=otlp_request(events, heads), headers=headers)
        except httpx.HTTPError as error:
            raise _unreachable(error) from None
        if answer.status_code != 200:
            raise Unavailable("event.sink-down", f"expected a collector to answer 200, got {answer.status_code}")

    def close(self) -> None:
        """Close connections."""
        self._client.close()


def close_quietly(sink: Sink) -> None:
    """Let go of a sink whatever state it is in."""
    try:
        sink.close()
    except (OSError, KakoiError):
        return
