"""Clients for tests of a hub: signed by an enclave of its operator, whose token lies in the hub's directory."""

from __future__ import annotations

import hashlib
import secrets
import time
from pathlib import Path
from typing import Any, Final

from kakoi.hub.serve import HubServer
from kakoi.net.client import HubClient
from kakoi.net.identity import Identity, enclave_identity
from kakoi.net.signature import Message, Parameters, base, content_digest, fields_of

_DIRECTORIES: Final[dict[str, Path]] = {}


def identity_at(directory: Path, name: str = "test") -> Identity:
    """An enclave of the hub that keeps this directory."""
    return enclave_identity(name, (directory / "operator.token").read_text().strip())


def known(url: str, directory: Path) -> str:
    """Remember which directory the hub at ``url`` keeps; gives ``url``."""
    _DIRECTORIES[url] = directory
    return url


def client_at(url: str, *, name: str = "test", **named: Any) -> HubClient:
    """A client of a hub whose directory is known."""
    return HubClient(url, identity=identity_at(_DIRECTORIES[url], name), **named)


def client_of(server: HubServer, **named: Any) -> HubClient:
    """A client of a hub in this process."""
    settings = server.hub.settings
    token_file = settings.operator_token_file
    return client_at(known(server.url, token_file.parent if token_file else settings.directory), **named)


def signed(server: HubServer, data: bytes, *, identity: Identity | None = None, body: bytes | None = None) -> bytes:
    """The bytes of a request, signed: its Host becomes the hub's, its Content-Digest that of ``body`` or of what follows the head."""
    head, _, rest = data.partition(b"\r\n\r\n")
    line, *lines = head.decode("latin-1").split("\r\n")
    method, target, _ = line.split(" ")
    host = server.url.partition("//")[2]
    fields = [tuple(item.split(": ", 1)) for item in lines if not item.lower().startswith("host:")]
    if any(name.lower() == "content-length" for name, _ in fields):
        digest = hashlib.sha256(rest if body is None else body).digest()
        fields.append(("Content-Digest", content_digest(digest)))
    path, _, query = target.partition("?")
    message = Message(
        method=method,
        authority=host,
        path=path,
        query=query,
        fields={name.lower(): value for name, value in fields},
    )
    who = identity or identity_at(server.hub.settings.directory)
    now = int(time.time())
    parameters = Parameters(created=now, keyid=who.keyid, expires=now + 60, nonce=secrets.token_urlsafe(16))
    fields += fields_of(message, parameters, who.sign(base(message, parameters))).items()
    lines = [line, f"Host: {host}", *(f"{name}: {value}" for name, value in fields)]
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + rest
