"""What strangers and the network try at a hub: no key, no token, only its address."""

from __future__ import annotations

import secrets
import socket
import ssl
from collections.abc import Callable, Mapping
from contextlib import closing, suppress
from dataclasses import replace
from typing import Final
from urllib.parse import urlsplit

import httpx

from kakoi.cli.redteam.attack import Attack, NotTried, Through, repelled_by
from kakoi.cli.redteam.ground import Ground
from kakoi.cli.ui import SystemClock
from kakoi.contract.model import Approval
from kakoi.contract.sign import seal
from kakoi.core.crypto import SIGNING_SECRET, RequestKey, SigningKey, ed25519_keyid
from kakoi.core.dsse import Envelope
from kakoi.core.encoding import b64, dumps, sha256
from kakoi.core.ids import PartyId, object_id
from kakoi.net.answers import ClaimRequest
from kakoi.net.caller import Call, Patience
from kakoi.net.client import HubClient
from kakoi.net.identity import Identity, enclave_identity, party_identity
from kakoi.wire.messages import RunRequest

_SECONDS: Final = 20.0
_JSON: Final = {"Content-Type": "application/json"}
LOOPBACK: Final = frozenset({"127.0.0.1", "::1", "localhost"})


def _asked(
    ground: Ground, method: str, path: str, *, body: bytes | None = None, who: Identity | None = None
) -> Callable[[], bytes]:
    """A request signed as the protocol wants it, by the red team's stranger or ``who``, but with any target and body."""
    home = ground.stranger
    identity = who or party_identity(home.keys.request_signer(), home.card.envelope)

    def work() -> bytes:
        call = Call(method=method, target=path, headers=_JSON if body else {}, body=body or b"", once=True)
        with HubClient(ground.means.hub, identity=identity, patience=Patience(attempts=1)) as client:
            return client._caller.read(call, 1024 * 1024)

    return work


def _bare(ground: Ground, method: str, path: str, headers: Mapping[str, str] | None = None) -> httpx.Response:
    """A request without a signature."""
    verify = ground.means.hub.startswith("https:")
    with httpx.Client(base_url=ground.means.hub, timeout=_SECONDS, trust_env=False, verify=verify) as client:
        try:
            return client.request(method, path, headers=dict(headers or {}))
        except httpx.HTTPError as error:
            raise NotTried(f"the hub did not answer: {type(error).__name__}") from None


def _refused(answer: httpx.Response, *statuses: int) -> str:
    """What an answer says, if it is a refusal. Raises ``Through`` for success, ``NotTried`` for a fault of the hub."""
    if answer.status_code < 400:
        raise Through(f"answered {answer.status_code}")
    if answer.status_code >= 500:
        raise NotTried(f"answered {answer.status_code}")
    if statuses and answer.status_code not in statuses:
        raise Through(f"answered {answer.status_code}")
    try:
        return f"{answer.status_code} {answer.json()['code']}"
    except (ValueError, KeyError, TypeError):
        return str(answer.status_code)


def _request_of(ground: Ground) -> Envelope:
    record = RunRequest(
        contract=ground.contract,
        analysis=ground.analysis,
        parameters=(),
        party=PartyId(ground.analyst.card.id),
        nonce=secrets.token_bytes(32),
        requested_at=SystemClock().now(),
    )
    return seal(record, ground.analyst.keys.signer())


def unsigned(ground: Ground) -> str:
    """Bytes that nobody signed."""
    data = dumps({"payload": b64(b"{}"), "payloadType": "application/vnd.kakoi+json", "signatures": []})
    return repelled_by(_asked(ground, "PUT", f"/v1/objects/{object_id(b'{}')}", body=data))


def altered(ground: Ground) -> str:
    """A genuine object with one byte changed, under its new id."""
    envelope = _request_of(ground)
    payload = envelope.payload[:-2] + bytes([envelope.payload[-2] ^ 1]) + envelope.payload[-1:]
    return repelled_by(lambda: ground.client.put_object(replace(envelope, payload=payload)))


def swapped_id(ground: Ground) -> str:
    """A genuine object under the id of another."""
    body = _request_of(ground).encode()
    return repelled_by(_asked(ground, "PUT", f"/v1/objects/{object_id(secrets.token_bytes(8))}", body=body))


def one_signature(ground: Ground) -> str:
    """Only the classical half of the hybrid signature, twice."""
    envelope = _request_of(ground)
    first, second = envelope.signatures
    forged = replace(second, sig=first.sig)
    return repelled_by(lambda: ground.client.put_object(replace(envelope, signatures=(first, forged))))


def unknown_signer(ground: Ground) -> str:
    """An object signed by keys whose card the hub has never seen."""
    record = RunRequest.decode(_request_of(ground).payload)
    stranger = SigningKey(secrets.token_bytes(SIGNING_SECRET))
    return repelled_by(lambda: ground.client.put_object(seal(record, stranger)), "hub.signer-unknown")


def in_an_owners_name(ground: Ground) -> str:
    """A stranger with a card of its own approves in an owner's name."""
    record = Approval(
        contract=ground.contract, party=PartyId(ground.owner.card.id), assertions=(), approved_at=SystemClock().now()
    )
    envelope = seal(record, ground.stranger.keys.signer())
    return repelled_by(lambda: ground.client.put_object(envelope), "hub.signer")


def not_a_party(ground: Ground) -> str:
    """A stranger approves a contract that does not name it."""
    record = Approval(
        contract=ground.contract, party=PartyId(ground.stranger.card.id), assertions=(), approved_at=SystemClock().now()
    )
    envelope = seal(record, ground.stranger.keys.signer())
    return repelled_by(lambda: ground.client.put_object(envelope), "hub.not-a-party")


def guessed_token(ground: Ground) -> str:
    """Take runs as an enclave whose operator's token was guessed."""
    body = ClaimRequest(enclave="red-team", wait=0, seconds=5).encode()
    who = enclave_identity("red-team", secrets.token_hex(32))
    return repelled_by(_asked(ground, "POST", "/v1/claims", body=body, who=who), "signature.request")


def party_takes_runs(ground: Ground) -> str:
    """Take runs as a party that is no enclave."""
    body = ClaimRequest(enclave="red-team", wait=0, seconds=5).encode()
    return repelled_by(_asked(ground, "POST", "/v1/claims", body=body), "hub.enclaves-only", "hub.denied")


def no_signature(ground: Ground) -> str:
    """Read what is there without saying who asks."""
    for path in ("/v1/feed", "/v1/runs", f"/v1/objects/{ground.contract}", "/v1/log/checkpoint"):
        found = _refused(_bare(ground, "GET", path), 401, 403)
    return found


def unknown_key(ground: Ground) -> str:
    """Read with a signature of a key that the hub has never seen."""
    key = RequestKey(secrets.token_bytes(32))
    who = Identity(keyid=ed25519_keyid(key.public), public=key.public, sign=key.sign_request)
    return repelled_by(_asked(ground, "GET", "/v1/feed", who=who), "hub.key-unknown")


def false_blob(ground: Ground) -> str:
    """Bytes under the digest of others."""
    data = secrets.token_bytes(64)
    return repelled_by(_asked(ground, "PUT", f"/v1/blobs/{sha256(data, b'x').hex()}", body=data))


def traversal(ground: Ground) -> str:
    """Paths that lead out of the store."""
    for path in (
        "/v1/blobs/..%2f..%2f..%2fetc%2fpasswd",
        "/v1/objects/%2e%2e%2foperator.token",
        "/v1/../operator.token",
    ):
        found = repelled_by(_asked(ground, "GET", path))
    return found


def injection(ground: Ground) -> str:
    """Database words where numbers and ids belong."""
    for query in ("after=1%20or%201=1", "ref=run:%27;drop", "after=1&after=2", "limit=-1"):
        found = repelled_by(_asked(ground, "GET", f"/v1/feed?{query}"), "hub.query", "encoding.id")
    return found


def oversize(ground: Ground) -> str:
    """An object that announces a gigabyte."""
    head = (
        f"PUT /v1/objects/{'0' * 64} HTTP/1.1\r\nHost: hub\r\nContent-Length: 1000000000\r\nConnection: close\r\n\r\n"
    )
    return _status(_raw(ground, head.encode()), b"413", b"401")


def huge_head(ground: Ground) -> str:
    """A request line that does not end."""
    return _status(
        _raw(ground, b"GET /v1/feed?after=" + b"1" * 200_000 + b" HTTP/1.1\r\nHost: hub\r\n\r\n"),
        b"431",
        b"400",
        b"414",
        b"",
    )


def smuggling(ground: Ground) -> str:
    """Two lengths for one body, so that a proxy and the hub would disagree where it ends (RFC 9112 §6.3)."""
    for lengths in ("Content-Length: 5\r\nTransfer-Encoding: chunked", "Content-Length: 5\r\nContent-Length: 6"):
        head = f"POST /v1/claims HTTP/1.1\r\nHost: hub\r\n{lengths}\r\n\r\n0\r\n\r\nGET /v1/runs HTTP/1.1\r\nHost: hub\r\n\r\n"
        answer = _raw(ground, head.encode())
        if answer.count(b"HTTP/1.1 2") or b"HTTP/1.1 200" in answer:
            raise Through("a second request was answered")
        found = _status(answer, b"400", b"401", b"411", b"501")
    return found


def other_methods(ground: Ground) -> str:
    """Methods that no address takes."""
    for method in ("TRACE", "DELETE", "PATCH", "OPTIONS"):
        found = repelled_by(_asked(ground, method, f"/v1/objects/{ground.contract}"), "hub.method")
    return found


def inner_pages(ground: Ground) -> str:
    """Pages that describe or measure a hub, from outside."""
    for path in ("/docs", "/openapi.json", "/metrics", "/debug", "/readyz", "/sign-in", "/people"):
        found = _refused(_bare(ground, "GET", path), 404, 401, 403)
    return found


def other_sites(ground: Ground) -> str:
    """Another web site's script reads answers in a person's browser."""
    answer = _bare(ground, "GET", "/v1/health", headers={"origin": "https://evil.example"})
    if "access-control-allow-origin" in answer.headers:
        raise Through("other sites may read answers")
    return "no Access-Control-Allow-Origin"


def old_tls(ground: Ground) -> str:
    """Speak an old version of TLS, or none."""
    parts = urlsplit(ground.means.hub)
    if parts.scheme != "https":
        if parts.hostname in LOOPBACK:
            raise NotTried("the hub is on this machine and speaks plain HTTP")
        raise Through("the hub speaks plain HTTP to other machines")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with socket.create_connection((parts.hostname or "", parts.port or 443), timeout=_SECONDS) as plain:
        try:
            context.wrap_socket(plain, server_hostname=parts.hostname).close()
        except (ssl.SSLError, ConnectionError):
            return "TLS 1.2 is refused"
    raise Through("TLS 1.2 is spoken")


def _raw(ground: Ground, data: bytes) -> bytes:
    """Bytes to the hub and what comes back, without a library that would mend them."""
    parts = urlsplit(ground.means.hub)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    connection: socket.socket = socket.create_connection((parts.hostname or "", port), timeout=_SECONDS)
    if parts.scheme == "https":
        connection = ssl.create_default_context().wrap_socket(connection, server_hostname=parts.hostname)
    answer = b""
    with closing(connection), suppress(OSError):
        connection.sendall(data)
        connection.settimeout(5)
        while len(answer) < 65536 and (chunk := connection.recv(65536)):
            answer += chunk
    return answer


def _status(answer: bytes, *wanted: bytes) -> str:
    if not answer:
        if b"" in wanted:
            return "connection closed"
        raise NotTried("the hub did not answer")
    status = answer.split(b" ", 2)[1]
    if status not in wanted:
        raise Through(f"answered {status.decode('ascii', 'replace')}")
    return status.decode("ascii")


ATTACKS: Final = (
    Attack(name="unsigned", role="outsider", threat="T07", carry_out=unsigned),
    Attack(name="altered", role="network", threat="T07", carry_out=altered),
    Attack(name="swapped-id", role="network", threat="T07", carry_out=swapped_id),
    Attack(name="one-signature", role="outsider", threat="T07", carry_out=one_signature),
    Attack(name="unknown-signer", role="outsider", threat="T13", carry_out=unknown_signer),
    Attack(name="in-an-owners-name", role="outsider", threat="T13", also=("T131",), carry_out=in_an_owners_name),
    Attack(name="not-a-party", role="outsider", threat="T08", carry_out=not_a_party),
    Attack(name="guessed-token", role="outsider", threat="T154", carry_out=guessed_token),
    Attack(name="party-takes-runs", role="outsider", threat="T02", also=("T132",), carry_out=party_takes_runs),
    Attack(name="no-signature", role="outsider", threat="T157", also=("T120",), carry_out=no_signature),
    Attack(name="unknown-key", role="outsider", threat="T157", carry_out=unknown_key),
    Attack(name="false-blob", role="outsider", threat="T05", carry_out=false_blob),
    Attack(name="traversal", role="outsider", threat="T157", carry_out=traversal),
    Attack(name="injection", role="outsider", threat="T157", carry_out=injection),
    Attack(name="oversize", role="network", threat="T157", carry_out=oversize),
    Attack(name="huge-head", role="network", threat="T157", carry_out=huge_head),
    Attack(name="smuggling", role="network", threat="T158", carry_out=smuggling),
    Attack(name="other-methods", role="outsider", threat="T157", carry_out=other_methods),
    Attack(name="inner-pages", role="outsider", threat="T157", also=("T181",), carry_out=inner_pages),
    Attack(name="other-sites", role="network", threat="T53", carry_out=other_sites),
    Attack(name="old-tls", role="network", threat="T56", carry_out=old_tls),
)
