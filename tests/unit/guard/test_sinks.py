"""Events leave byte for byte: to a file, to a syslog server over TLS, to an OpenTelemetry collector; and numbers for a scraper."""

from __future__ import annotations

import http.server
import re
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import httpx
import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from kakoi.core.crypto import SigningKey
from kakoi.core.dsse import Envelope
from kakoi.core.errors import Malformed, Misuse, Unavailable
from kakoi.guard.chain import verify_stream
from kakoi.guard.detect import Detector
from kakoi.guard.export import export_new
from kakoi.guard.happening import Happening
from kakoi.guard.hours import read_hours
from kakoi.guard.metrics import Door, listening, openmetrics
from kakoi.guard.recorder import Recorder
from kakoi.guard.settings import read_settings
from kakoi.guard.sigma.rules import shipped
from kakoi.guard.sinks import open_sink
from kakoi.guard.stream import FILE, Stream
from kakoi.guard.watch import Watch
from kakoi.testing.world import seeded
from support.tls import certificate

KEY = SigningKey(seeded("events", 64))


def note(at: int = 1000, **more: str) -> Happening:
    return Happening(what="broker.note", at=at, component="broker", outcome="failure", code="session.replayed", **more)  # type: ignore[arg-type]


@pytest.fixture
def stream(tmp_path: Path) -> Iterator[Stream]:
    with closing(Stream(tmp_path / FILE, name="北病院", component="broker", signer=KEY, now=1000)) as made:
        made.append(*(note(1000 + n, actor="北病院") for n in range(4)))
        made.sign(2000, at_once=True)
        yield made


def wait_for(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_file_of_json_lines_verifies_by_itself(stream: Stream, tmp_path: Path) -> None:
    address = f"jsonl:{tmp_path / 'out.jsonl'}"
    assert export_new(stream, open_sink(address), address) == 5
    stream.append(note())
    stream.sign(3000, at_once=True)
    assert export_new(stream, open_sink(address), address) == 1
    assert export_new(stream, open_sink(address), address) == 0
    found = (tmp_path / "out.jsonl").read_bytes().splitlines()
    heads = [Envelope.decode(line) for line in found if b'"payloadType"' in line]
    lines = [line for line in found if b'"payloadType"' not in line]
    assert lines == [line for _, line in stream.everything()]
    assert verify_stream(lines, heads, KEY.verifying_key).signed == 6
    assert (tmp_path / "out.jsonl").stat().st_mode & 0o777 == 0o600


class SyslogServer:
    """Takes RFC 5425 frames over TLS and keeps the messages."""

    def __init__(self, directory: Path) -> None:
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.ca, cert, key = certificate(directory)
        self.context.load_cert_chain(cert, key)
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.messages: list[bytes] = []
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                plain, _ = self.listener.accept()
                with self.context.wrap_socket(plain, server_side=True) as connection:
                    self._read(connection)
            except OSError:
                if self.listener.fileno() < 0:
                    return

    def _read(self, connection: ssl.SSLSocket) -> None:
        data = b""
        while chunk := connection.recv(65536):
            data += chunk
            while match := re.match(rb"([1-9][0-9]*) ", data):
                end = match.end() + int(match[1])
                if len(data) < end:
                    break
                self.messages.append(data[match.end() : end])
                data = data[end:]


def test_syslog_over_tls_carries_each_event_as_rfc_5424_says(stream: Stream, tmp_path: Path) -> None:
    server = SyslogServer(tmp_path)
    with closing(server.listener):
        address = f"syslog+tls://localhost:{server.port}?ca={server.ca}"
        sink = open_sink(address)
        assert export_new(stream, sink, address) == 5
        wait_for(lambda: len(server.messages) == 6)
        sink.close()
    form = re.compile(
        rb"<(\d{1,3})>1 (\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ|-) \S{1,255} kakoi-[a-z]+ - ([a-z.]{1,32}) (\[meta sequenceId=\"\d+\"\]|-) (.*)\Z",
        re.DOTALL,
    )
    parsed = [form.match(message) for message in server.messages]
    assert all(parsed)
    events = [m for m in parsed if m is not None and m[3] != b"stream.head"]
    assert [m[5].removeprefix(b"\xef\xbb\xbf") for m in events] == [line for _, line in stream.everything()]
    assert {int(m[1]) // 8 for m in events} == {13}
    assert len(server.messages) - len(events) == 1


def test_a_syslog_server_that_nobody_vouches_for_gets_nothing(stream: Stream, tmp_path: Path) -> None:
    server = SyslogServer(tmp_path)
    with closing(server.listener):
        sink = open_sink(f"syslog+tls://localhost:{server.port}")
        with pytest.raises(Unavailable):
            export_new(stream, sink, "x")
        sink.close()
        assert server.messages == []
        assert stream.cursor("export:x") == 0


@contextmanager
def collector(status: int = 200) -> Iterator[tuple[str, list[bytes]]]:
    """An OTLP/HTTP collector on loopback."""
    bodies: list[bytes] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            assert (self.path, self.headers["Content-Type"]) == ("/v1/logs", "application/x-protobuf")
            bodies.append(body)
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"otlp+http://127.0.0.1:{server.server_address[1]}", bodies
    finally:
        server.shutdown()
        server.server_close()


def test_a_collector_gets_log_records_with_the_lines_as_bodies(stream: Stream) -> None:
    with collector() as (address, bodies):
        sink = open_sink(address)
        assert export_new(stream, sink, address) == 5
        sink.close()
    request = ExportLogsServiceRequest.FromString(bodies[0])
    records = request.resource_logs[0].scope_logs[0].log_records
    assert [r.body.string_value.encode() for r in records[:5]] == [line for _, line in stream.everything()]
    assert [r.event_name for r in records] == ["stream.begun", *["broker.note"] * 4, "stream.head"]
    assert records[1].severity_number == 10
    assert records[1].time_unix_nano == 1000 * 10**9


def test_what_a_sink_did_not_take_is_sent_again(stream: Stream) -> None:
    with collector(status=503) as (address, bodies):
        sink = open_sink(address)
        for _ in range(2):
            with pytest.raises(Unavailable):
                export_new(stream, sink, address)
        sink.close()
    assert len(bodies) == 2
    assert bodies[0] == bodies[1]


@pytest.mark.parametrize(
    "address",
    [
        "",
        "jsonl:",
        "syslog://x",
        "syslog+tls://",
        "otlp+http://example.org",
        "ftp://x",
        "otlp+https://x?y=1",
        "syslog+tls://x:y",
    ],
)
def test_addresses_that_are_none(address: str) -> None:
    with pytest.raises(Misuse):
        open_sink(address)


def test_a_missing_authority_is_told(tmp_path: Path) -> None:
    with pytest.raises(Misuse):
        open_sink(f"syslog+tls://x?ca={tmp_path / 'none.pem'}")


def test_metrics_are_openmetrics_and_hold_what_happened(stream: Stream) -> None:
    stream.append(*(note() for _ in range(3)))
    Detector(stream, shipped()).look()
    text = openmetrics(stream, lambda: 2005, ["jsonl:/x"]).decode()
    families = {family.name: family for family in text_string_to_metric_families(text)}  # type: ignore[no-untyped-call]
    events = {tuple(sorted(s.labels.items())): s.value for s in families["kakoi_events"].samples}
    assert events[("code", "broker.note"), ("outcome", "failure")] == 7
    assert [s.labels["level"] for s in families["kakoi_alerts"].samples] == ["high", "high"][
        : len(families["kakoi_alerts"].samples)
    ]
    assert families["kakoi_stream_head_age_seconds"].samples[0].value == 5
    assert families["kakoi_export_lag"].samples[0].value == stream.size


def test_health_says_whether_events_can_be_written(stream: Stream) -> None:
    well = [True]

    def check() -> None:
        if not well[0]:
            raise Unavailable("event.disk", "expected space, got none")

    with listening(Door(), lambda: openmetrics(stream, lambda: 1), {"events": check}) as server:
        url = f"http://127.0.0.1:{server.server_address[1]}"
        with httpx.Client(base_url=url, trust_env=False) as client:
            answer = client.get("/metrics")
            assert answer.headers["content-type"].startswith("application/openmetrics-text; version=1.0.0")
            assert answer.text.endswith("# EOF\n")
            assert (client.get("/livez").text, client.get("/readyz").status_code) == ("ok\n", 200)
            well[0] = False
            assert (client.get("/readyz").status_code, client.get("/readyz").text) == (503, "event.disk\n")
            assert client.get("/livez").status_code == 200
            assert client.get("/events").status_code == 404


def test_what_does_not_fit_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kakoi.guard.recorder.QUEUE", 4)
    stream = Stream(tmp_path / FILE, name="N", component="hub", now=1)
    gate = threading.Event()
    recorder = Recorder(stream, component="hub", clock=lambda: 1000, watch=gate.wait)
    for number in range(50):
        recorder.hear(note(actor=f"n{number}"))
    gate.set()
    recorder.stop()
    events = stream.newest(limit=100)
    dropped = [event for event in events if event["metadata"]["event_code"] == "stream.dropped"]
    assert dropped
    told = sum(e.get("count", 1) for e in events if e["metadata"]["event_code"] in ("broker.note", "stream.dropped"))
    assert told == 50
    stream.close()


def test_a_watch_exports_while_it_runs_and_finishes_what_is_left(tmp_path: Path) -> None:
    address = f"jsonl:{tmp_path / 'out.jsonl'}"
    stream = Stream(tmp_path / FILE, name="N", component="broker", signer=KEY, now=1000)
    watch = Watch(
        stream, component="broker", clock=lambda: 1000, detector=Detector(stream, shipped()), exports=[address]
    )
    for number in range(3):
        watch.hear(note(1000, address=f"192.0.2.{number}"))
    watch.close()
    text = (tmp_path / "out.jsonl").read_text()
    assert "Burst of replays" in text
    assert text.count("program.") == 2
    assert '"payloadType"' in text.splitlines()[-1]


@pytest.mark.parametrize(
    "text",
    [
        "x",
        "other = 1",
        "export = 1",
        "hours = 1",
        "rules = 1",
        '[hours]\ntimezone = "Nowhere/Else"',
        '[hours]\nfrom = "25:00"',
        '[hours]\nfrom = "20:00"\nuntil = "07:00"',
        '[hours]\ndays = ["someday"]',
        "[hours]\nmore = 1",
    ],
)
def test_settings_that_are_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "guard.toml").write_text(text)
    with pytest.raises(Malformed):
        read_settings(tmp_path)


def test_settings_and_hours(tmp_path: Path) -> None:
    assert read_settings(tmp_path).exports == ()
    (tmp_path / "guard.toml").write_text('export = ["jsonl:x"]\nrules = "own"\n[hours]\ntimezone = "Asia/Tokyo"\n')
    settings = read_settings(tmp_path)
    assert (settings.exports, settings.rules) == (("jsonl:x",), tmp_path / "own")
    hours = read_hours({"timezone": "Asia/Tokyo"})
    monday_noon_in_tokyo = 1_700_449_200  # 2023-11-20 03:00 UTC
    assert hours.inside(monday_noon_in_tokyo)
    assert not hours.inside(monday_noon_in_tokyo + 12 * 3600)
    assert not hours.inside(monday_noon_in_tokyo - 86400)
