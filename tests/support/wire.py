"""Signed requests as bytes, for tests that do to them what happens on the way, or what a holder of a key could do wrong on purpose."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from attacks.test_attack_requests import send
from kakoi.core.crypto import hkdf_sha256
from kakoi.core.encoding import b64
from kakoi.core.errors import Malformed
from kakoi.hub.serve import HubServer
from kakoi.hub.settings import Limits
from kakoi.net.identity import Identity
from kakoi.net.posture import own
from kakoi.net.signature import DERIVED, FIELDS, content_digest, lines
from support.hub_client import client_of
from unit.hub.hubkit import Party

EASY: Final = Limits(free_bytes=0, bad_signatures=1e6, prefix_requests=1e6, prefix_connections_new=1e6)
"""A hub that does not mind a thousand wrong requests: what it minds is tested elsewhere."""
BAD: Final = frozenset(
    {
        "encoding.base64", "hub.authority", "hub.digest", "hub.digest-form", "hub.digest-missing", "hub.key-unknown", "hub.length-required",
        "hub.replay", "hub.signature-covers", "hub.signature-field", "hub.signature-form", "hub.signature-lifetime",
        "hub.signature-time", "hub.transfer-encoding", "hub.unsigned", "net.posture", "signature.request",
    }
)  # fmt: skip
"""Codes by which the gate refuses. ``http`` stands for a request that is none, refused before anybody reads it."""


@dataclass(frozen=True, kw_only=True)
class Wire:
    """A request as it is sent: what is signed is computed from it, then anything can be changed."""

    method: str
    target: str
    host: str
    fields: tuple[tuple[str, str], ...]
    body: bytes
    identity: Identity
    created: int
    seconds: int = 60
    nonce: str = field(default_factory=lambda: secrets.token_urlsafe(16))
    components: tuple[str, ...] | None = None
    """Names that are covered; None: all that must be."""
    parameters: Callable[[str], str] = str
    """Changes the parameters before they are signed."""

    @property
    def path(self) -> str:
        return self.target.partition("?")[0]

    def value(self, component: str) -> str:
        derived = {"@method": self.method, "@authority": self.host, "@path": self.path}
        if component == "@query":
            return "?" + self.target.partition("?")[2]
        name = component.partition('"')[0]
        values = {key.lower(): value for key, value in self.fields}
        return derived.get(name) or values.get(name, "")

    def signature(self) -> tuple[str, str]:
        """Values of Signature-Input and Signature."""
        present = {name.lower() for name, _ in self.fields}
        names = self.components or (*DERIVED, *(name for name in FIELDS if name in present))
        listed = " ".join(f'"{name}"' for name in names)
        parameters = self.parameters(
            f';created={self.created};keyid="{self.identity.keyid}";alg="ed25519"'
            f';expires={self.created + self.seconds};nonce="{self.nonce}";tag="kakoi-hub-v1"'
        )
        covered = lines(
            [*((name, self.value(name)) for name in names), ("@signature-params", f"({listed}){parameters}")]
        )
        return f"kakoi=({listed}){parameters}", f"kakoi=:{b64(self.identity.sign(covered))}:"

    def head(self) -> list[str]:
        given, made = self.signature()
        return [
            f"{self.method} {self.target} HTTP/1.1",
            f"Host: {self.host}",
            *(f"{name}: {value}" for name, value in self.fields),
            f"Signature-Input: {given}",
            f"Signature: {made}",
            "Connection: close",
        ]

    def bytes(self, head: list[str] | None = None, body: bytes | None = None) -> bytes:
        return "\r\n".join(head or self.head()).encode("latin-1") + b"\r\n\r\n" + (self.body if body is None else body)

    def with_field(self, name: str, value: str) -> Wire:
        return replace(self, fields=tuple((n, value if n.lower() == name else v) for n, v in self.fields))


def raw_enclave(server: HubServer, name: str = "test") -> Identity:
    """An enclave of the hub's operator whose key signs anything: ours refuses what is no signature base of a request."""
    token = (server.hub.settings.directory / "operator.token").read_bytes().strip()
    key = Ed25519PrivateKey.from_private_bytes(
        hkdf_sha256(token, salt=b"kakoi/enclave-requests/v1", info=name.encode(), length=32)
    )
    return Identity(keyid=f"enclave/{name}", public=key.public_key().public_bytes_raw(), sign=key.sign)


def everything(server: HubServer) -> Wire:
    """A request that has everything: an enclave of the operator brings a new party's card."""
    card = Party(secrets.token_hex(8)).card
    body = card.encode()
    identity = raw_enclave(server)
    return Wire(
        method="PUT",
        target=f"/v1/objects/{card.payload_id}",
        host=server.url.partition("//")[2],
        fields=(
            ("Content-Digest", content_digest(hashlib.sha256(body).digest())),
            ("Content-Length", str(len(body))),
            ("Content-Type", "application/json"),
            ("Kakoi-Claim", "f" * 64),
            ("Kakoi-Key", f":{b64(identity.public)}:"),
            ("Kakoi-Posture", own().text()),
            ("Range", "bytes=0-1"),
        ),
        body=body,
        identity=identity,
        created=server.hub.authenticator.clock(),
    )


def code(server: HubServer, data: bytes) -> str:
    """The code of the refusal; ``http`` if what was sent was no request at all; empty if it was taken."""
    try:
        status, said = send(server, data)
    except (KeyError, ValueError, AttributeError, IndexError):
        return "http"
    except Malformed:  # an answer that is not the hub's own: the HTTP library's
        return "http"
    return "" if status < 400 else said or "http"


def refused(server: HubServer, wire: Wire, data: bytes, why: str) -> str:
    """The code by which it was refused; fails if it was not, or if anything of it was stored."""
    found = code(server, data)
    assert found in BAD or found == "http", f"{why}: {found or 'taken'}"
    with client_of(server) as hub:
        assert wire.path.rpartition("/")[2] not in {
            item.id for item in hub.feed(kinds=["kakoi/party-card/v1"]).items
        }, why
    return found
