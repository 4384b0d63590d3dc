"""One request to a vendor: whatever the other side does, it ends in time, in bounds, and in one of our errors."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from kakoi.broker.collateral_http import HttpGet, service_url
from kakoi.core.errors import Misuse, Unavailable
from kakoi.testing.collateral_servers import Canned, VendorServer
from support.collateral import GET

GOOD = Canned(body=b"words" * 100, media="application/octet-stream")
TYPES = ("application/octet-stream",)
BAD: dict[str, tuple[dict[str, Any], str]] = {
    "redirect": ({"status": 302, "headers": {"Location": "http://127.0.0.1:1/"}}, "collateral.answer"),
    "permanent redirect": ({"status": 308, "headers": {"Location": "/x"}}, "collateral.answer"),
    "not found": ({"status": 404}, "collateral.answer"),
    "too often": ({"status": 429}, "collateral.answer"),
    "overloaded": ({"status": 503}, "collateral.answer"),
    "no content": ({"status": 204, "body": b""}, "collateral.answer"),
    "partial": ({"status": 206}, "collateral.answer"),
    "another type": ({"media": "text/html"}, "collateral.answer"),
    "compressed": ({"headers": {"Content-Encoding": "gzip"}}, "collateral.answer"),
    "too long": ({"body": b"x" * 1001}, "collateral.answer"),
    "too long in chunks": ({"body": b"x" * 1001, "chunked": True}, "collateral.answer"),
    "announced too long": ({"length": "99999999999999"}, "collateral.answer"),
    "no end": ({"length": ""}, "collateral.answer"),
    "cut": ({"drop": 1}, "collateral.answer"),
    "cut chunks": ({"drop": 12, "chunked": True}, "collateral.answer"),
    "silent": ({"silent": True}, "collateral.timeout"),
    "dripping": ({"drip": 0.05}, "collateral.timeout"),
}


@pytest.fixture(scope="module")
def server() -> Iterator[VendorServer]:
    with VendorServer() as running:
        yield running


@pytest.mark.parametrize("chunked", [False, True])
def test_a_good_answer(server: VendorServer, chunked: bool) -> None:
    server.routes["/good"] = Canned(body=GOOD.body, headers={"X-Chain": "abc"}, chunked=chunked)
    reply = GET(f"{server.url}/good", most=len(GOOD.body), types=TYPES)
    assert reply.body == GOOD.body
    assert reply.headers["x-chain"] == "abc"


@pytest.mark.parametrize("name", BAD)
def test_a_bad_answer(server: VendorServer, name: str) -> None:
    changes, code = BAD[name]
    server.routes["/bad"] = Canned(**{"body": GOOD.body, **changes})
    started = time.monotonic()
    with pytest.raises(Unavailable) as caught:
        GET(f"{server.url}/bad", most=1000, types=TYPES)
    assert time.monotonic() - started < 5
    assert caught.value.code == code
    assert caught.value.hint


def test_redirects_are_never_followed(server: VendorServer) -> None:
    server.routes["/from"] = Canned(body=b"", status=301, headers={"Location": f"{server.url}/to"})
    server.routes["/to"] = GOOD
    with pytest.raises(Unavailable, match="never followed"):
        GET(f"{server.url}/from", most=1000, types=TYPES)
    assert "/to" not in server.asked


def test_proxies_of_the_environment_are_not_used(server: VendorServer, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    server.routes["/good"] = GOOD
    assert GET(f"{server.url}/good", most=1000, types=TYPES).body == GOOD.body


def test_nobody_there() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    with pytest.raises(Unavailable) as caught:
        GET(f"http://127.0.0.1:{port}/", most=10, types=TYPES)
    assert caught.value.code == "collateral.unreachable"


def test_plain_http_where_tls_is_expected(server: VendorServer) -> None:
    with pytest.raises(Unavailable) as caught:
        HttpGet(connect=0.5, idle=0.5, total=1, tls=ssl.create_default_context())(
            server.url.replace("http:", "https:"), most=10, types=TYPES
        )
    assert caught.value.code == "collateral.tls"


def _certificate(folder: Path) -> Path:
    """Key and self-signed certificate of ``localhost``, as a cache in an owner's network has one."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), 1, now - timedelta(days=1), now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    secret = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    path = folder / "server.pem"
    path.write_bytes(secret + made.public_bytes(pem))
    return path


def test_tls_with_the_owners_own_authority_and_no_other(tmp_path: Path) -> None:
    pem = _certificate(tmp_path)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(pem)
    own = HttpGet(connect=2, idle=2, total=4, tls=ssl.create_default_context(cafile=str(pem)))
    with VendorServer({"/good": GOOD, "/drip": Canned(body=b"x" * 900, drip=0.05)}, tls=tls) as server:
        url = server.url.replace("http://127.0.0.1", "https://localhost")
        assert own(f"{url}/good", most=1000, types=TYPES).body == GOOD.body
        with pytest.raises(Unavailable) as caught:
            GET(f"{url}/good", most=1000, types=TYPES)
        assert caught.value.code == "collateral.tls"
        hasty = HttpGet(connect=2, idle=2, total=0.5, tls=ssl.create_default_context(cafile=str(pem)))
        with pytest.raises(Unavailable) as caught:
            hasty(f"{url}/drip", most=1000, types=TYPES)
        assert caught.value.code == "collateral.timeout"


def test_what_is_no_http(server: VendorServer) -> None:
    with socket.create_server(("127.0.0.1", 0)) as odd:
        odd.settimeout(2)
        url = f"http://127.0.0.1:{odd.getsockname()[1]}/"

        def talk() -> None:
            connection, _ = odd.accept()
            connection.sendall(b"SSH-2.0-OpenSSH_9.9\r\n\r\n")
            connection.close()

        thread = threading.Thread(target=talk)
        thread.start()
        with pytest.raises(Unavailable) as caught:
            GET(url, most=10, types=TYPES)
        thread.join()
    assert caught.value.code == "collateral.answer"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("https://kds.example.org/", "https://kds.example.org"),
        ("https://cache.example.org:8081/pccs", "https://cache.example.org:8081/pccs"),
        ("http://127.0.0.1:8081", "http://127.0.0.1:8081"),
        ("http://[::1]:8081", "http://[::1]:8081"),
    ],
)
def test_addresses_of_services(text: str, expected: str) -> None:
    assert service_url(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "kds.example.org",
        "http://kds.example.org",
        "http://127.0.0.1.example.org",
        "ftp://kds.example.org",
        "file:///etc/passwd",
        "https://",
        "https://user:word@kds.example.org",
        "https://kds.example.org/?a=b",
        "https://kds.example.org/#a",
        "https://kds.example.org:99999",
        "https://[::1",
        "https://kds.example.org/a b",
        "https://kds.example.org/\n",
    ],
)
def test_addresses_that_are_no_services(text: str) -> None:
    with pytest.raises(Misuse) as caught:
        service_url(text)
    assert caught.value.code == "collateral.url"
