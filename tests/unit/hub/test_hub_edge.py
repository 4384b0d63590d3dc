"""The HTTP edge: strict requests, limits, slow clients; and a server that starts and stops cleanly."""

from __future__ import annotations

import datetime as dt
import hashlib
import io
import ipaddress
import json
import os
import socket
import sqlite3
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from kakoi.core.encoding import loads
from kakoi.core.errors import KakoiError, Misuse
from kakoi.core.ids import BlobId
from kakoi.hub.serve import HubServer, running
from kakoi.hub.settings import Limits, Settings
from kakoi.net.caller import Patience
from kakoi.net.client import HubClient
from kakoi.net.identity import enclave_identity
from support.hub_client import client_at, client_of, signed
from unit.hub.conftest import LIMITS
from unit.hub.hubkit import ZERO, HubProcess, World, put_all


def connect(server: HubServer) -> socket.socket:
    host, port = server.url.removeprefix("http://").split(":")
    sock = socket.create_connection((host, int(port)))
    sock.settimeout(20)
    return sock


def raw(server: HubServer, data: bytes) -> tuple[int, bytes]:
    """Status and body of the answer to exactly these bytes."""
    with connect(server) as sock:
        sock.sendall(data)
        answer = b""
        while b"\r\n\r\n" not in answer:
            more = sock.recv(65536)
            if not more:
                break
            answer += more
        head, _, body = answer.partition(b"\r\n\r\n")
        length = next(
            (int(x.split(b":")[1]) for x in head.split(b"\r\n") if x.lower().startswith(b"content-length")), 0
        )
        while len(body) < length:
            body += sock.recv(65536)
        return int(head.split()[1]), body


def get(server: HubServer, target: str, *, method: str = "GET", headers: str = "") -> tuple[int, dict[str, str]]:
    head = f"{method} {target} HTTP/1.1\r\nHost: x\r\n{headers}Connection: close\r\n\r\n".encode()
    status, body = raw(server, signed(server, head))
    return status, loads(body)


@pytest.mark.parametrize(
    ("method", "target", "status", "code"),
    [
        ("GET", "/", 404, "hub.not-found"),
        ("GET", "/v1/objects", 404, "hub.not-found"),
        ("GET", "/v1/objects/", 404, "hub.not-found"),
        ("GET", "/v1/objects/abc", 400, "encoding.id"),
        ("GET", f"/v1/objects/{ZERO}/more", 404, "hub.not-found"),
        ("GET", f"/v1/objects/..%2f{ZERO}", 404, "hub.not-found"),
        ("GET", f"/v1/objects/{ZERO}", 404, "hub.not-found"),
        ("DELETE", f"/v1/objects/{ZERO}", 405, "hub.method"),
        ("POST", "/v1/feed", 405, "hub.method"),
        ("PUT", f"/v1/objects/{ZERO}", 411, "hub.length-required"),
        ("GET", "/v1/feed?after=-1", 400, "hub.query"),
        ("GET", "/v1/feed?after=1.0", 400, "hub.query"),
        ("GET", "/v1/feed?after=9007199254740992", 400, "hub.query"),
        ("GET", "/v1/feed?after=1&after=2", 400, "hub.query"),
        ("GET", "/v1/feed?kinds=kakoi/contract/v1", 400, "hub.query"),
        ("GET", "/v1/feed?wait=61", 400, "hub.query"),
        ("GET", "/v1/feed?limit=1001", 400, "hub.query"),
        ("GET", "/v1/feed?ref=run", 400, "hub.query"),
        ("GET", "/v1/feed?ref=run:ABC", 400, "hub.query"),
        ("GET", f"/v1/feed?{'&'.join(f'ref=m{n}:{ZERO}' for n in range(9))}", 400, "hub.query"),
        ("GET", "/v1/runs?contract=x", 400, "encoding.id"),
        ("GET", "/v1/log/inclusion", 400, "hub.query"),
        ("GET", "/v1/log/inclusion?leaf=x&size=1", 400, "encoding.id"),
        ("GET", "/v1/log/consistency?old=1", 400, "hub.query"),
        ("GET", "/v1/log/checkpoint?x=1", 400, "hub.query"),
        ("GET", "/openapi.json", 404, "hub.not-found"),
        ("GET", "/docs", 404, "hub.not-found"),
    ],
)
def test_every_wrong_request_gets_one_clear_error(
    server: HubServer, method: str, target: str, status: int, code: str
) -> None:
    got, body = get(server, target, method=method)
    assert (got, body["code"]) == (status, code)
    assert body["message"]


def test_bodies_of_claims_are_strict(server: HubServer, token: str) -> None:
    def post(body: bytes) -> tuple[int, str]:
        head = f"POST /v1/claims HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        status, answer = raw(server, signed(server, head.encode() + body))
        return status, loads(answer)["code"] if answer else ""

    assert post(b'{"enclave":"e","seconds":10,"wait":0}') == (204, "")
    assert post(b'{"enclave":"e","seconds":10,"wait":0,"x":1}')[1] == "record.unknown-field"
    assert post(b'{"enclave":"e","seconds":10}')[1] == "record.missing-field"
    assert post(b'{"enclave":"e\\u0000","seconds":10,"wait":0}')[1] == "record.field"
    assert post(b'{"enclave":"e","seconds":1,"wait":0}')[1] == "record.field"
    assert post(b'{"enclave":"e","seconds":10,"wait":61}')[1] == "record.field"
    assert post(b'{"enclave": "e","seconds":10,"wait":0}')[1] == "encoding.json"
    assert post(b"x" * 5000)[1] == "hub.too-large"


@pytest.mark.parametrize(
    "data",
    [
        b"\x00\x01\x02\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET /v1/health HTTP/1.1\r\n\r\n",
        b"GET /v1/health HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        b"GET /v1/health HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked, gzip\r\n\r\n",
        b"GET /v1/health HTTP/1.1\r\nHost: x\r\nBad Header: y\r\n\r\n",
        b"GET /v1/health HTTP/1.1\r\nHost: x\r\nX: " + b"y" * 20_000 + b"\r\n\r\n",
        b"GET /" + b"y" * 20_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
    ],
)
def test_bytes_that_are_no_request_end_the_connection(server: HubServer, hub: HubClient, data: bytes) -> None:
    with connect(server) as sock:
        sock.sendall(data)
        answer = sock.recv(65536)
        assert answer.startswith(b"HTTP/1.1 4") or answer == b""
    hub.health()


def test_answers_are_not_kept_or_guessed_at(server: HubServer) -> None:
    with connect(server) as sock:
        sock.sendall(b"GET /v1/health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        answer = sock.recv(65536).lower()
    assert b"cache-control: no-store" in answer
    assert b"x-content-type-options: nosniff" in answer
    assert b"server:" not in answer
    assert b"content-type: application/json\r\n" in answer


# -- slow clients


def ends_within(sock: socket.socket, seconds: float, feed: Callable[[], object] = lambda: None) -> bool:
    """Does the hub end the connection in time, whatever the client goes on to send?"""
    deadline = time.monotonic() + seconds
    sock.settimeout(0.2)
    while time.monotonic() < deadline:
        try:
            feed()
            if sock.recv(65536) == b"":
                return True
        except TimeoutError:
            continue
        except OSError:
            return True
    return False


def test_a_head_that_drips_is_cut_off(server: HubServer, hub: HubClient) -> None:
    with connect(server) as silent, connect(server) as dripping:
        assert ends_within(dripping, 5, lambda: dripping.sendall(b"G"))  # head_seconds is 1 here
        assert ends_within(silent, 5)
    hub.health()


def test_an_answer_that_nobody_takes_away_is_cut_off(server: HubServer, hub: HubClient) -> None:
    data = os.urandom(20_000_000)
    blob = BlobId(hashlib.sha256(data).hexdigest())
    hub.put_blob(blob, io.BytesIO(data), len(data))
    with connect(server) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.sendall(signed(server, f"GET /v1/blobs/{blob} HTTP/1.1\r\nHost: x\r\n\r\n".encode()))
        time.sleep(4)  # stall_seconds is 1 here
        assert not server.server_state.tasks
    assert b"".join(hub.stream_blob(blob, most=len(data))) == data


def test_a_body_that_nobody_wants_is_not_read_for_long(server: HubServer) -> None:
    with connect(server) as sock:
        sock.sendall(
            signed(server, f"PUT /v1/objects/{ZERO} HTTP/1.1\r\nHost: x\r\nContent-Length: {2**40}\r\n\r\n".encode())
        )
        assert sock.recv(65536).startswith(b"HTTP/1.1 413")
        block = bytes(65536)
        assert ends_within(sock, 5, lambda: sock.sendall(block))


def test_connections_beyond_the_limit_are_told_so(tmp_path: Path) -> None:
    limits = Limits(connections=3, head_seconds=1, free_bytes=0)
    with running(Settings(directory=tmp_path / "hub", port=0, limits=limits)) as one:
        socks = [connect(one) for _ in range(3)]
        time.sleep(0.2)
        status, body = raw(one, b"GET /v1/health HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (status, loads(body)["code"]) == (503, "hub.busy")
        for sock in socks:
            sock.close()
        with client_of(one, patience=Patience(attempts=5)) as client:
            client.health()


def test_requests_beyond_the_limit_are_told_to_come_again(tmp_path: Path, world: World) -> None:
    """Those that wait for news do not count; those that send a body do."""
    limits = Limits(requests=2, waiters=2, free_bytes=0)
    with running(Settings(directory=tmp_path / "hub", port=0, limits=limits)) as one:
        with client_of(one, patience=Patience(attempts=1)) as client:
            put_all(client, world.cards)
            waiters = [threading.Thread(target=_wait, args=(one.url,)) for _ in range(2)]
            for thread in waiters:
                thread.start()
            until(lambda: one.hub.notifier.waiting == 2 and healthy(client) == "")
            with pytest.raises(KakoiError) as caught:
                client.feed(after=99, wait=5)  # a third one that would wait
            assert caught.value.code == "hub.busy"
            senders = [connect(one) for _ in range(2)]
            for sock in senders:
                sock.sendall(
                    signed(one, f"PUT /v1/objects/{ZERO} HTTP/1.1\r\nHost: x\r\nContent-Length: 99\r\n\r\n".encode())
                )
            time.sleep(1)  # asking earlier would take the place of a sender
            until(lambda: healthy(client) == "hub.busy")
            for sock in senders:
                sock.close()
            until(lambda: healthy(client) == "")
            client.put_object(world.manifest)
        for thread in waiters:
            thread.join()


def _wait(url: str) -> None:
    """Wait for news. The limit of requests holds for those who only come to wait, too: who is refused comes again."""
    with client_at(url) as client:
        for _ in range(200):
            with suppress(KakoiError):
                client.feed(after=3, kinds=("kakoi/dataset-manifest/v1",), wait=30)
                return
            time.sleep(0.05)


def healthy(client: HubClient) -> str:
    """The code of what a hub says about its health; empty if it is well."""
    try:
        client.health()
    except KakoiError as error:
        return error.code
    return ""


def until(condition: Callable[[], bool], seconds: int = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "expected it sooner"
        time.sleep(0.02)


def test_the_memory_for_arriving_objects_is_one_budget(tmp_path: Path) -> None:
    limits = Limits(object_bytes_in_flight=1000, free_bytes=0)
    with running(Settings(directory=tmp_path / "hub", port=0, limits=limits)) as one, connect(one) as sock:
        sock.sendall(signed(one, f"PUT /v1/objects/{ZERO} HTTP/1.1\r\nHost: x\r\nContent-Length: 700\r\n\r\n".encode()))
        time.sleep(0.2)
        status, body = raw(
            one, signed(one, f"PUT /v1/objects/{ZERO} HTTP/1.1\r\nHost: x\r\nContent-Length: 200\r\n\r\n".encode())
        )
        assert (status, loads(body)["code"]) == (503, "hub.busy")


# -- starting and stopping


def fails(settings: Settings) -> KakoiError:
    with pytest.raises(KakoiError) as caught, running(settings):
        pass
    return caught.value


def test_a_port_in_use(tmp_path: Path, server: HubServer) -> None:
    port = int(server.url.rpartition(":")[2])
    error = fails(Settings(directory=tmp_path / "other", port=port))
    assert error.code == "hub.port-in-use"
    assert str(port) in error.message


@pytest.mark.parametrize(
    ("host", "port"), [("127.0.0.1", 65536), ("127.0.0.1", -1), ("no such host", 0), ("::1", 99999)]
)
def test_addresses_that_cannot_be(tmp_path: Path, host: str, port: int) -> None:
    settings = Settings(directory=tmp_path / "hub", host=host, port=port, insecure_plain_http=True)
    assert fails(settings).code == "hub.listen"


def test_a_second_hub_on_the_same_directory(tmp_path: Path, server: HubServer) -> None:
    assert fails(Settings(directory=tmp_path / "hub", port=0)).code == "hub.already-running"
    with client_of(server) as client:
        client.health()


def test_directories_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    assert fails(Settings(directory=tmp_path / "file", port=0)).code == "hub.directory"
    assert fails(Settings(directory=tmp_path / "file" / "below", port=0)).code == "hub.directory"


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become another user")
def test_a_directory_of_somebody_else(tmp_path: Path) -> None:
    directory = tmp_path / "hub"
    directory.mkdir(mode=0o700)
    code = (
        "import os, sys, pathlib, kakoi.hub.serve as s, kakoi.hub.settings as t, kakoi.core.errors as e\n"
        "sys.path.insert(0, '')\nos.setuid(65534)\n"
        "try: s.serve(t.Settings(directory=pathlib.Path(sys.argv[1]), port=0))\n"
        "except e.KakoiError as error: print(error.code)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(directory)], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "hub.directory"


def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    (tmp_path / "hub.sqlite").write_bytes(b"not a database, but long enough to look at" * 100)
    assert fails(Settings(directory=tmp_path, port=0)).code == "hub.database-damaged"


def test_a_database_of_another_version_or_kind(tmp_path: Path) -> None:
    with running(Settings(directory=tmp_path, port=0)):
        pass
    with closing(sqlite3.connect(tmp_path / "hub.sqlite")) as database:
        database.execute("update alembic_version set version_num = '0000'")
        database.commit()
    assert fails(Settings(directory=tmp_path, port=0)).code == "hub.schema"
    assert fails(Settings(directory=tmp_path, port=0, database_url="mysql://x")).code == "hub.database-url"


def test_the_operators_token(tmp_path: Path) -> None:
    path = tmp_path / "token"
    for text, mode, code in (
        ("short", 0o600, "hub.token-short"),
        ("x" * 64, 0o644, "hub.file-mode"),
        ("x" * 5000, 0o600, "hub.file-size"),
    ):
        path.write_text(text)
        path.chmod(mode)
        assert fails(Settings(directory=tmp_path / "hub", port=0, operator_token_file=path)).code == code
    assert (
        fails(Settings(directory=tmp_path / "hub", port=0, operator_token_file=tmp_path / "none")).code
        == "hub.directory"
    )
    path.write_text("x" * 64 + "\n")
    settings = Settings(directory=tmp_path / "hub", port=0, operator_token_file=path)
    with running(settings) as one, HubClient(one.url, identity=enclave_identity("e", "x" * 64)) as client:
        assert client.claim(enclave="e", seconds=10) is None
        assert not (tmp_path / "hub" / "operator.token").exists()


def test_loopback_of_ip_version_six(tmp_path: Path) -> None:
    if not socket.has_ipv6 or not Path("/proc/net/if_inet6").exists():
        pytest.skip("no IPv6 on this machine")
    with running(Settings(directory=tmp_path / "hub", host="::1", port=0)) as one, client_of(one) as client:
        assert one.url.startswith("http://[::1]:")
        client.health()


def test_beyond_loopback_tls_is_required(tmp_path: Path) -> None:
    assert fails(Settings(directory=tmp_path, host="0.0.0.0", port=0)).code == "hub.plain-http"  # noqa: S104
    with running(
        Settings(directory=tmp_path, host="0.0.0.0", port=0, insecure_plain_http=True, names=("hub.example",))  # noqa: S104
    ):
        pass
    assert fails(Settings(directory=tmp_path, port=0, tls_key=tmp_path / "x")).code == "hub.tls"
    missing = Settings(directory=tmp_path, port=0, tls_certificate=tmp_path / "x", tls_key=tmp_path / "x")
    error = fails(missing)
    assert isinstance(error, Misuse)
    assert error.code == "hub.tls"


def test_tls_one_point_three_only(tmp_path: Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = dt.datetime.now(dt.UTC)
    address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), 1, now, now + dt.timedelta(days=1))
        .add_extension(address, critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    certificate, secret = tmp_path / "cert.pem", tmp_path / "key.pem"
    certificate.write_bytes(made.public_bytes(pem))
    secret.write_bytes(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
    settings = Settings(directory=tmp_path / "hub", port=0, tls_certificate=certificate, tls_key=secret)
    trust = ssl.create_default_context(cafile=certificate)
    with running(settings) as one:
        assert one.url.startswith("https://")
        with client_of(one, tls=trust) as client:
            client.health()
        old = ssl.create_default_context(cafile=certificate)
        old.maximum_version = ssl.TLSVersion.TLSv1_2
        with client_of(one, tls=old, patience=Patience(attempts=1)) as client, pytest.raises(KakoiError):
            client.health()


def test_a_hub_says_where_it_is_and_stops_when_told(tmp_path: Path) -> None:
    hub = HubProcess(tmp_path / "hub")
    url = hub.start()
    with client_at(url) as client:
        client.health()
        done: list[float] = []

        def wait() -> None:
            started = time.monotonic()
            client.feed(after=9, wait=30)
            done.append(time.monotonic() - started)

        thread = threading.Thread(target=wait)
        thread.start()
        time.sleep(0.5)
        assert hub.stop() == 0
        thread.join()
    assert done
    assert done[0] < 10  # whoever waited was answered, not cut off
    assert not (tmp_path / "hub" / "address").exists()


def test_what_a_crash_left_half_written_is_swept(tmp_path: Path) -> None:
    directory = tmp_path / "hub"
    (directory / "blobs").mkdir(parents=True)
    for path in (directory / ".incoming-a", directory / "blobs" / ".incoming-b"):
        path.write_bytes(b"half")
    with running(Settings(directory=directory, port=0, limits=LIMITS)):
        left = [path.name for path in directory.rglob(".incoming-*")]
    assert left == []


def test_errors_are_canonical_json(server: HubServer) -> None:
    _, body = raw(server, b"GET /nowhere HTTP/1.1\r\nHost: x\r\n\r\n")
    assert json.dumps(json.loads(body), sort_keys=True, separators=(",", ":")).encode() == body
    assert set(loads(body)) == {"code", "message", "hint"}
