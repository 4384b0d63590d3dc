"""Azure's metadata service: answers like the real one's, and slow, huge, cut and wrong ones."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from kakoi.core.errors import Unavailable
from kakoi.core.x509_fields import to_pem
from kakoi.evidence.azure_metadata import Metadata
from kakoi.testing import amd_vendor


class Answers(BaseHTTPRequestHandler):
    body = b""
    status = 200
    seen: list[tuple[str, str, bytes]] = []  # noqa: RUF012 - one server for each test

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def _answer(self) -> None:
        data = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.seen.append((self.path, self.headers.get("Metadata", ""), data))
        self.send_response(self.status)
        self.end_headers()
        self.wfile.write(self.body)

    def log_message(self, *args: object) -> None:
        return


@pytest.fixture
def service() -> Iterator[tuple[Metadata, type[Answers]]]:
    handler = type("OneTest", (Answers,), {"seen": []})
    server = HTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield Metadata(host="127.0.0.1", port=server.server_port), handler
    server.shutdown()
    server.server_close()


def test_the_hosts_certificates(service: tuple[Metadata, type[Answers]]) -> None:
    metadata, handler = service
    vendor = amd_vendor.vendor("Milan")
    parts = vendor.collateral(vendor.chip())
    chain = {
        "vcekCert": to_pem(parts["vcek"]).decode(),
        "certificateChain": to_pem(parts["intermediate"], parts["root"]).decode(),
        "tcbm": "00",
    }
    handler.body = json.dumps(chain).encode()
    found = {part.name: part.data for part in metadata.certificates()}
    assert found == {name: parts[name] for name in ("vcek", "intermediate", "root")}
    assert handler.seen == [("/metadata/THIM/amd/certification", "true", b"")]


def test_a_td_quote(service: tuple[Metadata, type[Answers]]) -> None:
    metadata, handler = service
    handler.body = json.dumps({"quote": base64.urlsafe_b64encode(b"\xfb\xff quote").rstrip(b"=").decode()}).encode()
    assert metadata.td_quote(bytes(1024)) == b"\xfb\xff quote"
    sent = json.loads(handler.seen[0][2])["report"]
    assert base64.urlsafe_b64decode(sent + "=" * (-len(sent) % 4)) == bytes(1024)


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (500, b"{}"),
        (302, b"{}"),
        (200, b""),
        (200, b"[]"),
        (200, b"{}"),
        (200, b'{"vcekCert": 1, "certificateChain": 2, "quote": 3}'),
        (200, b'{"vcekCert": "", "certificateChain": "", "quote": "?"}'),
        (200, b'{"vcekCert": "-----BEGIN CERTIFICATE-----", "certificateChain": "", "quote": "a"}'),
        (200, b" " * 300_000),
    ],
)
def test_wrong_answers(service: tuple[Metadata, type[Answers]], status: int, body: bytes) -> None:
    metadata, handler = service
    handler.status, handler.body = status, body
    for call in (metadata.certificates, lambda: metadata.td_quote(bytes(1024))):
        with pytest.raises(Unavailable) as caught:
            call()
        assert caught.value.code == "evidence.metadata"


def test_nobody_there() -> None:
    with pytest.raises(Unavailable):
        Metadata(host="127.0.0.1", port=1).certificates()
