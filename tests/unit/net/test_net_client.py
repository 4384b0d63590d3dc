"""The client against servers that lie, drip, cut, flood and refuse."""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kakoi.core import dsse
from kakoi.core.encoding import dumps
from kakoi.core.errors import KakoiError, Malformed, Refused, Unavailable
from kakoi.net.answers import Claim
from kakoi.net.caller import Patience
from kakoi.net.client import HubClient
from unit.net.clientkit import (
    ENVELOPE,
    MADE,
    QUICK,
    SIGNER,
    Pauses,
    Serve,
    always,
    client,
    closed_afterwards,
    raises,
)

__all__ = ["closed_afterwards"]


# -- objects and feeds


def test_an_object_is_put_and_got(serve: Serve) -> None:
    stored: dict[str, bytes] = {}

    def script(peer: Any) -> None:
        line, sent = peer.request()
        identity = line.split()[1].rpartition("/")[2]
        stored[identity] = peer.body(int(sent["content-length"]))
        stored["claim"] = sent["kakoi-claim"].encode()
        peer.answer(dumps({"seq": 7, "id": identity, "kind": "kakoi/x/v1"}), status=201)
        line, _ = peer.request()
        peer.answer(stored[line.split()[1].rpartition("/")[2]])

    server = serve(script)
    hub = client(server)
    assert hub.put_object(ENVELOPE, claim="t0").seq == 7
    assert hub.get_object(ENVELOPE.payload_id) == ENVELOPE
    assert stored["claim"] == b"t0"
    assert server.connections == 1  # kept alive


def test_an_altered_object_is_refused(serve: Serve) -> None:
    other = dsse.sign(b'{"kind":"kakoi/y/v1"}', SIGNER)
    hub = client(serve(always(other.encode())))
    assert raises(lambda: hub.get_object(ENVELOPE.payload_id)).code == "hub.object-altered"
    assert raises(lambda: client(serve(always(b"{}"))).get_object(ENVELOPE.payload_id)).code == "record.missing-field"
    assert raises(lambda: hub.get_object(ENVELOPE.payload_id.upper())).code == "encoding.id"  # type: ignore[arg-type]


def test_a_put_that_confirms_another_object_is_malformed(serve: Serve) -> None:
    hub = client(serve(always(dumps({"seq": 7, "id": "0" * 64, "kind": "kakoi/x/v1"}))))
    assert isinstance(raises(lambda: hub.put_object(ENVELOPE)), Malformed)


def page(*numbers: int, following: int | None = None, kind: str = "kakoi/x/v1") -> bytes:
    items = [{"seq": n, "id": f"{n:064x}", "kind": kind} for n in numbers]
    return dumps({"items": items, "next": following if following is not None else max(numbers, default=0)})


def test_feed_sends_its_filter_and_reads_the_page(serve: Serve) -> None:
    asked: list[str] = []

    def script(peer: Any) -> None:
        asked.append(peer.request()[0])
        peer.answer(page(4, 9, following=12))

    got = client(serve(script)).feed(after=3, kinds=["kakoi/x/v1"], refs={"run": "ab"}, wait=1, limit=5)
    assert ([item.seq for item in got.items], got.next) == ([4, 9], 12)
    assert asked == ["GET /v1/feed?after=3&limit=5&wait=1&kind=kakoi%2Fx%2Fv1&ref=run%3Aab HTTP/1.1"]


@pytest.mark.parametrize(
    "body",
    [
        page(3, following=9),
        page(9, 4),
        page(4, 4),
        page(4, 9, following=8),
        page(following=2),
        page(*range(4, 10)),
        page(5, kind="kakoi/y/v1"),
        page(5)[:-1],
        b"[]",
        b"",
    ],
)
def test_pages_out_of_order_or_shape_are_malformed(serve: Serve, body: bytes) -> None:
    hub = client(serve(always(body)))
    assert isinstance(raises(lambda: hub.feed(after=3, kinds=["kakoi/x/v1"], limit=5)), Malformed)


def test_follow_goes_on_behind_each_page_and_ends_on_close(serve: Serve) -> None:
    asked: list[str] = []

    def script(peer: Any) -> None:
        while line := peer.request()[0]:
            after = int(line.split("after=")[1].split("&")[0])
            asked.append(str(after))
            peer.answer(page(after + 1, after + 2) if after < 4 else page(following=after))

    pauses = Pauses()
    hub = client(serve(script), pauses=pauses)
    found = []
    for item in hub.follow():
        found.append(item.seq)
        if len(found) == 4:
            hub.close()
    assert found == [1, 2, 3, 4]
    assert asked == ["0", "2"]


def test_follow_does_not_spin_on_a_hub_that_does_not_wait(serve: Serve) -> None:
    pauses = Pauses()
    hub = client(serve(always(page(following=0))), pauses=pauses)
    original = hub._caller.pause

    def stop_after_three(tries: int, *, least: float = 0) -> None:
        original(tries, least=least)
        if len(pauses) == 3:
            hub.close()

    hub._caller.pause = stop_after_three  # type: ignore[method-assign]
    assert list(hub.follow()) == []
    assert len(pauses) == 3
    assert all(seconds > 0 for seconds in pauses)


# -- retries


def test_an_idempotent_call_is_tried_again_as_the_hub_asks(serve: Serve) -> None:
    def script(peer: Any) -> None:
        peer.request()
        if peer.number < 3:
            body = dumps({"code": "hub.busy", "message": "busy", "hint": ""})
            peer.answer(body, status=503, headers="Retry-After: 7\r\nConnection: close\r\n")
        else:
            peer.answer(dumps({"status": "ok"}))

    pauses, server = Pauses(), serve(script)
    client(server, pauses=pauses).health()
    assert server.connections == 3
    assert [7 <= seconds <= 7 * 1.5 + 1 for seconds in pauses] == [True, True]


def test_it_gives_up_with_the_hubs_own_error(serve: Serve) -> None:
    body = dumps({"code": "hub.busy", "message": "too many requests\x1b[2J\u202e", "hint": "come back"})
    pauses = Pauses()
    error = raises(client(serve(always(body, status=429, headers="Retry-After: 999999\r\n")), pauses=pauses).health)
    assert isinstance(error, Unavailable)
    assert (error.code, error.message, error.hint) == ("hub.busy", "too many requests [2J ", "come back")
    assert [60 <= seconds <= 60 * 1.5 + 1 for seconds in pauses] == [True, True]


@pytest.mark.parametrize(
    ("status", "family"),
    [
        (400, Malformed),
        (413, Malformed),
        (401, Refused),
        (404, Refused),
        (409, Refused),
        (301, Malformed),
        (500, Unavailable),
    ],
)
def test_statuses_are_families(serve: Serve, status: int, family: type[KakoiError]) -> None:
    said = dumps({"code": "hub.said", "message": "m", "hint": "h"})
    assert type(raises(client(serve(always(said, status=status))).health)) is family
    error = raises(client(serve(always(b"<html>", status=status))).health)
    assert isinstance(error, family)
    assert error.code == f"hub.status-{status}"


def test_a_claim_is_not_asked_for_twice_if_its_answer_is_lost(serve: Serve) -> None:
    server = serve(lambda peer: peer.request())
    error = raises(lambda: client(server).claim(enclave="e", seconds=10))
    assert error.code == "hub.cut"
    assert server.connections == 1


def test_a_claim_that_was_turned_away_is_asked_for_again(serve: Serve) -> None:
    token = "ab" * 32

    def script(peer: Any) -> None:
        _, sent = peer.request()
        peer.body(int(sent["content-length"]))
        if peer.number == 1:
            peer.answer(status=503, headers="Connection: close\r\n")
        else:
            peer.answer(dumps({"run": "c" * 64, "attempt": 1, "token": token}))

    claim = client(serve(script)).claim(enclave="e", seconds=10)
    assert claim is not None
    assert claim.token == token
    assert token not in repr(claim)


def test_no_run_is_none(serve: Serve) -> None:
    assert client(serve(always(status=204))).claim(enclave="e", seconds=10) is None


def test_a_connection_that_died_unnoticed_is_replaced(serve: Serve) -> None:
    def script(peer: Any) -> None:
        peer.request()
        peer.answer(dumps({"status": "ok"}))  # then hangs up without a word

    server, pauses = serve(script), Pauses()
    hub = client(server, pauses=pauses, patience=Patience(attempts=1))
    for _ in range(3):
        hub.health()
        time.sleep(0.02)
    assert server.connections == 3
    assert pauses == []  # at once, and it does not count as a try


# -- hostile answers


def test_nobody_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    hub = HubClient(f"http://127.0.0.1:{port}", patience=QUICK, pause=Pauses())
    assert raises(hub.health).code == "hub.unreachable"


@pytest.mark.parametrize("where", ["head", "body"])
def test_dripping_bytes_do_not_hold_the_client(serve: Serve, where: str) -> None:
    """Each byte comes within the idle limit, and the answer never ends."""

    def script(peer: Any) -> None:
        peer.request()
        peer.say(
            b"HTTP/1.1 200 OK\r\nX-Header: " if where == "head" else b"HTTP/1.1 200 OK\r\nContent-Length: 999\r\n\r\n"
        )
        for _ in range(100):
            peer.say(b"x")
            time.sleep(0.1)

    started = time.monotonic()
    hub = client(serve(script), patience=Patience(connect=1, idle=0.5, total=0.6, attempts=1))
    assert raises(hub.health).code == "hub.timeout"
    assert time.monotonic() - started < 2


def test_silence_is_a_timeout(serve: Serve) -> None:
    hub = client(serve(lambda peer: time.sleep(3)), patience=Patience(idle=0.2, attempts=1))
    assert raises(hub.health).code == "hub.timeout"


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (b"", "hub.cut"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{}", "hub.cut"),
        (b"HTTP/1.1 200 OK\r\n\r\n{}", "hub.answer"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n", "hub.answer"),
        (
            b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
            "hub.answer",
        ),
        (b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", "hub.answer"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\n\r\n", "hub.answer-size"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"a" * 70000 + b"\r\n\r\n", "hub.answer"),
        (b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 200 + b"\r\n", "hub.answer"),
        (b"SSH-2.0-OpenSSH\r\n\r\n", "hub.answer"),
    ],
)
def test_odd_answers(serve: Serve, answer: bytes, code: str) -> None:
    def script(peer: Any) -> None:
        peer.request()
        peer.say(answer)

    assert raises(client(serve(script)).health).code == code


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60)
@given(data=st.binary(max_size=200), framed=st.booleans())
def test_any_bytes_raise_only_our_errors(serve: Serve, data: bytes, framed: bool) -> None:
    def script(peer: Any) -> None:
        peer.request()
        peer.answer(data) if framed else peer.say(b"HTTP/1.1 " + data)

    hub = client(serve(script), patience=Patience(idle=0.3, attempts=1))
    assert raises(lambda: hub.feed(limit=5)).code


# -- addresses and TLS


@pytest.mark.parametrize(
    "url",
    [
        "ftp://x",
        "http://",
        "hub",
        "https://u:p@h",
        "http://h?q",
        "http://h#f",
        "http://h:99999",
        "http://h:x",
        "http://[h",
        "http://h/ä",
        "http://h/\r\nx",
    ],
)
def test_bad_addresses_are_misuse(url: str) -> None:
    assert raises(lambda: HubClient(url)).code == "net.url"


def test_plain_http_beyond_loopback_must_be_allowed_by_name() -> None:
    assert raises(lambda: HubClient("http://hub.example")).code == "net.plain-http"
    HubClient("http://hub.example", insecure_plain_http=True).close()


def certificate(folder: Path) -> Path:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    secret = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    path = folder / "server.pem"
    path.write_bytes(secret + made.public_bytes(pem))
    return path


def test_tls_needs_a_certificate_that_is_trusted(serve: Serve, tmp_path: Path) -> None:
    pem = certificate(tmp_path)
    server_tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server_tls.load_cert_chain(pem)

    def script(peer: Any) -> None:
        with server_tls.wrap_socket(peer.sock, server_side=True) as sock:
            file = sock.makefile("rb")
            while file.readline().strip():
                pass
            sock.sendall(b'HTTP/1.1 200 X\r\nContent-Length: 15\r\n\r\n{"status":"ok"}')
            file.close()

    url = serve(script).url.replace("http://127.0.0.1", "https://localhost")
    assert raises(HubClient(url, patience=QUICK).health).code == "hub.certificate"
    with HubClient(url, patience=QUICK, tls=ssl.create_default_context(cafile=pem)) as hub:
        hub.health()


def test_claims_are_renewed_with_their_token(serve: Serve) -> None:
    said: list[bytes] = []

    def script(peer: Any) -> None:
        while (got := peer.request())[0]:
            said.append(peer.body(int(got[1]["content-length"])))
            peer.answer(dumps({"state": "claimed", "attempt": 2}))

    hub = client(serve(script))
    claim = Claim(run=ENVELOPE.payload_id, attempt=2, token="ab" * 32)
    assert hub.renew(claim).attempt == 2
    hub.finish(claim)
    hub.fail(claim)
    assert said == [dumps({"token": claim.token, "action": action}) for action in ("renew", "done", "failed")]


def test_headers_cannot_smuggle() -> None:
    hub = HubClient("http://127.0.0.1:9")
    for token in ("a\r\nX: y", "a\nb", "ü", "\x00"):
        assert raises(partial(hub.put_object, ENVELOPE, claim=token)).code == "net.header"


def test_waiting_longer_than_a_minute_is_misuse() -> None:
    assert raises(lambda: HubClient("http://127.0.0.1:9").feed(wait=61)).code == "net.wait"


# -- several addresses


def both(*servers: Any, pauses: Pauses, patience: Patience = QUICK) -> HubClient:
    urls = ",".join(server.url for server in servers)
    MADE.append(HubClient(urls, patience=patience, pause=pauses, chance=lambda: 0.5))
    return MADE[-1]


def test_the_next_address_is_used_at_once_and_from_then_on(serve: Serve) -> None:
    """Whatever makes a hub unavailable: it cuts, it is not there, or it says so itself."""
    body = dumps({"status": "ok"})
    busy = dumps({"code": "hub.database", "message": "expected the database to answer", "hint": ""})
    failing: dict[str, Callable[[Any], None]] = {
        "cuts": lambda peer: peer.request() and None,
        "says so": always(busy, status=503, headers="Retry-After: 1\r\n"),
    }
    for what, script in failing.items():
        bad, good, pauses = serve(script), serve(always(body)), Pauses()
        hub = both(bad, good, pauses=pauses)
        for _ in range(3):
            hub.health()
        assert (bad.connections, good.connections, list(pauses)) == (1, 1, []), what
    with socket.create_server(("127.0.0.1", 0)) as gone:
        nowhere = f"http://127.0.0.1:{gone.getsockname()[1]}"
    good, pauses = serve(always(body)), Pauses()
    MADE.append(HubClient(f"{nowhere},{good.url}", patience=QUICK, pause=pauses, chance=lambda: 0.5))
    MADE[-1].health()
    assert list(pauses) == []


def test_a_round_of_addresses_that_all_fail_is_followed_by_a_pause(serve: Serve) -> None:
    first, second, pauses = (
        serve(lambda peer: peer.request() and None),
        serve(lambda peer: peer.request() and None),
        Pauses(),
    )
    hub = both(first, second, pauses=pauses, patience=Patience(connect=1, idle=0.5, total=1, attempts=4, backoff=0.01))
    assert raises(hub.health).code == "hub.cut"
    assert (first.connections, second.connections, len(pauses)) == (2, 2, 1)


def test_a_spent_budget_is_waited_for_and_not_taken_to_another_hub(serve: Serve) -> None:
    said = dumps({"code": "hub.rate", "message": "expected fewer requests", "hint": ""})
    first, second, pauses = serve(always(said, status=429, headers="Retry-After: 2\r\n")), serve(always()), Pauses()
    assert raises(both(first, second, pauses=pauses).health).code == "hub.rate"
    assert second.connections == 0
    assert all(pause >= 2 for pause in pauses)
    assert len(pauses) == QUICK.attempts - 1


def test_a_claim_is_not_repeated_but_the_next_goes_elsewhere(serve: Serve) -> None:
    """What must not be sent twice is an error for its caller, who asks again."""
    bad, good = serve(lambda peer: peer.request() and None), serve(always(status=204))
    hub = both(bad, good, pauses=Pauses())
    assert raises(lambda: hub.claim(enclave="e", seconds=9)).code == "hub.cut"
    assert hub.claim(enclave="e", seconds=9) is None
