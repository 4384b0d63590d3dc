"""A feed of advisories over HTTP: what it gives, and how it lies, dawdles or is not there."""

from __future__ import annotations

import http.server
import io
import json
import threading
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from kakoi.core.errors import KakoiError
from kakoi.guard.weakness.fetch import download
from support.command_line import runner
from unit.weakness.test_advisories import osv


def packed() -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("PYSEC-1.json", json.dumps(osv({"introduced": "0"}, {"fixed": "1.2"})))
    return out.getvalue()


class Feed(http.server.BaseHTTPRequestHandler):
    """Answers by path."""

    def do_GET(self) -> None:
        if self.path == "/slow":
            self.send_response(200)
            self.end_headers()
            for _ in range(100):
                try:
                    self.wfile.write(b"x")
                    self.wfile.flush()
                except OSError:
                    return
                time.sleep(0.1)
            return
        status = {"/gone": 404, "/elsewhere": 302}.get(self.path, 200)
        body = {"/good": packed(), "/huge": bytes(200_000), "/no-zip": b"hello"}.get(self.path, b"")
        self.send_response(status)
        if status == 302:
            self.send_header("Location", "/good")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        """Says nothing."""


@pytest.fixture(scope="module")
def feed() -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Feed)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_snapshot_of_a_feed(feed: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, file = runner(capsys), tmp_path / "advisories.json"
    assert run("advisories", "fetch", "--url", f"{feed}/good", "--out", file).code == 0
    assert json.loads(file.read_text())["advisories"][0]["id"] == "PYSEC-1"
    assert run("advisories", "check", "owner", "--advisories", file).code == 0
    other = tmp_path / "other.json"
    assert run("advisories", "fetch", "--url", f"{feed}/no-zip", "--out", other).error == "advisory.zip"
    assert not other.exists()


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("/gone", "advisory.feed"),
        ("/elsewhere", "advisory.feed"),
        ("/huge", "advisory.size"),
        ("/slow", "advisory.feed"),
    ],
)
def test_feeds_that_give_nothing_good(feed: str, path: str, code: str) -> None:
    with pytest.raises(KakoiError) as caught:
        download(feed + path, most=100_000, seconds=1)
    assert caught.value.code == code


@pytest.mark.parametrize(
    ("url", "code"),
    [
        ("http://example.org/all.zip", "advisory.url"),
        ("ftp://127.0.0.1/all.zip", "advisory.url"),
        ("file:///all.zip", "advisory.url"),
        ("http://127.0.0.1:1/all.zip", "advisory.feed"),
    ],
)
def test_addresses(url: str, code: str) -> None:
    with pytest.raises(KakoiError) as caught:
        download(url, seconds=1)
    assert caught.value.code == code
