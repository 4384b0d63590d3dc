"""The table goes on: other keys, other bodies, targets in other forms, and replays in time and across two hubs on one database."""

from __future__ import annotations

import hashlib
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from attacks.test_attack_requests import LIMITS, get, send
from kakoi.core.encoding import b64
from kakoi.hub.serve import HubServer, running
from kakoi.hub.settings import Settings
from kakoi.net.identity import enclave_identity, party_identity
from kakoi.net.signature import content_digest
from support.hub_client import client_of, identity_at, signed
from support.postgresql import cluster
from support.wire import EASY, Wire, code, everything, refused
from unit.hub.hubkit import Party, World, put_all


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubServer]:
    settings = Settings(directory=tmp_path_factory.mktemp("table") / "hub", port=0, limits=EASY)
    with running(settings) as one:
        now = int(time.time())
        one.hub.authenticator.clock = lambda: now
        yield one


@pytest.fixture
def wire(server: HubServer) -> Wire:
    return everything(server)


# -- keys


def test_other_keys(server: HubServer, wire: Wire) -> None:
    world = World()
    with client_of(server) as hub:
        put_all(hub, world.setup)
    owner = party_identity(world.owner.key, world.owner.card)
    strange = Party("nobody")
    stranger = party_identity(strange.key, strange.card)
    mine = wire.identity
    token = (server.hub.settings.directory / "operator.token").read_text().strip()
    for why, identity in (
        ("a party's key under an enclave's id", replace(owner, keyid=mine.keyid)),
        ("an enclave's key under a party's id", replace(mine, keyid=owner.keyid)),
        ("another enclave's key", replace(enclave_identity("other", token), keyid=mine.keyid)),
        ("key of another token", enclave_identity("test", "y" * 64)),
        ("a stranger's key under a party's id", replace(stranger, keyid=owner.keyid)),
        ("unknown", replace(mine, keyid="f" * 64)),
        ("an id that is none", replace(mine, keyid="enclave/")),
        ("a path as a name", replace(mine, keyid="enclave/../test")),
        ("an id in capitals", replace(owner, keyid=owner.keyid.upper())),
    ):
        refused(server, wire, replace(wire, identity=identity, nonce=secrets.token_urlsafe(16)).bytes(), why)


# -- bodies


def test_bodies_and_digests(server: HubServer, wire: Wire) -> None:
    right = hashlib.sha256(wire.body).digest()
    for why, digest in (
        ("of another body", content_digest(hashlib.sha256(b"x").digest())),
        ("sha-512", f"sha-512=:{b64(hashlib.sha512(wire.body).digest())}:"),
        ("two algorithms", f"{content_digest(right)}, sha-512=:{b64(hashlib.sha512(wire.body).digest())}:"),
        ("the same twice", f"{content_digest(right)}, {content_digest(right)}"),
        ("an old algorithm", f"md5=:{b64(hashlib.md5(wire.body, usedforsecurity=False).digest())}:"),
        ("in capitals", content_digest(right).replace("sha", "SHA")),
        ("as hex", f"sha-256={right.hex()}"),
        ("with a parameter", content_digest(right) + ";x"),
        ("empty", ""),
    ):
        bad = wire.with_field("content-digest", digest)
        bad = replace(bad, nonce=secrets.token_urlsafe(16))
        assert refused(server, wire, bad.bytes(), why) in ("hub.digest", "hub.digest-form", "signature.request")
    for why, body in (
        ("one bit", wire.body[:-1] + bytes([wire.body[-1] ^ 1])),
        ("another of the same length", bytes(len(wire.body))),
        ("two parts swapped", wire.body[len(wire.body) // 2 :] + wire.body[: len(wire.body) // 2]),
    ):
        again = replace(wire, nonce=secrets.token_urlsafe(16))
        assert refused(server, wire, again.bytes(body=body), why) == "hub.digest"
    unsigned = replace(wire, fields=tuple(pair for pair in wire.fields if pair[0] != "Content-Digest"))
    assert refused(server, wire, unsigned.bytes(), "no digest, and none covered") == "hub.digest-missing"


def test_targets_in_other_forms(server: HubServer, wire: Wire) -> None:
    """What a proxy could make of a target: none is the one that was signed."""
    given, made = wire.signature()
    for target in (
        f"http://{wire.host}{wire.target}",
        f"//{wire.host}{wire.target}",
        wire.target + "?",
        wire.target + "#x",
        wire.target.replace("/v1/", "//v1/"),
        wire.target.replace("/v1/", "/./v1/"),
        wire.target.replace("/v1/", "/x/../v1/"),
        wire.target.replace("/v1/", "/V1/"),
        wire.target.replace("objects", "%6fbjects"),
        wire.target + "/",
        wire.target + "%00",
        wire.target.upper(),
    ):
        head = [f"PUT {target} HTTP/1.1", *wire.head()[1:]]
        head[-3:-1] = [f"Signature-Input: {given}", f"Signature: {made}"]
        if target.endswith(
            "?"
        ):  # RFC 9421 §2.2.7: no query and an empty one are one to the signature; the hub reads them alike
            continue
        refused(server, wire, wire.bytes(head), target)
    for method in ("put", "PATCH", "DELETE", "OPTIONS", "GET"):
        head = [f"{method} {wire.target} HTTP/1.1", *wire.head()[1:]]
        refused(server, wire, wire.bytes(head), method)
    for host in ("", "other", wire.host.upper() + ".", f"{wire.host}, other", wire.host.partition(":")[0]):
        head = wire.head()
        head[1] = f"Host: {host}"
        refused(server, wire, wire.bytes(head), f"host {host!r}")
    doubled = wire.head()
    refused(server, wire, wire.bytes([*doubled[:2], "Host: other", *doubled[2:]]), "two hosts")
    refused(server, wire, wire.bytes([doubled[0], *doubled[2:]]), "no host")


# -- replays


def test_replays_inside_and_after_the_window(server: HubServer, wire: Wire) -> None:
    authenticator, now = server.hub.authenticator, server.hub.authenticator.clock()
    data = wire.bytes()
    assert code(server, data) == ""
    try:
        for later, expected in (
            (0, "hub.replay"),
            (1, "hub.replay"),
            (59, "hub.replay"),
            (60, "hub.signature-time"),
            (9999, "hub.signature-time"),
        ):
            authenticator.clock = partial(int, now + later)
            assert code(server, data) == expected, later
        authenticator.clock = lambda: now
        same_nonce = replace(wire, created=now + 1)
        assert code(server, same_nonce.bytes()) == "hub.replay", "another request with a nonce that was used"
    finally:
        authenticator.clock = lambda: now


def test_a_nonce_is_one_keys(server: HubServer, wire: Wire) -> None:
    """Nobody can use up the nonces of others."""
    token = (server.hub.settings.directory / "operator.token").read_text().strip()
    other = replace(
        wire, identity=enclave_identity("other", token), fields=tuple(p for p in wire.fields if p[0] != "Kakoi-Key")
    )
    assert code(server, other.bytes()) == ""
    assert code(server, wire.bytes()) == ""


def test_a_refused_request_does_not_use_its_nonce(server: HubServer, wire: Wire) -> None:
    """Whoever alters a request on the way cannot make the honest one fail."""
    head = wire.head()
    head[-2] = f"Signature: kakoi=:{b64(bytes(64))}:"
    assert code(server, wire.bytes(head)) == "signature.request"
    assert code(server, wire.bytes()) == ""


@pytest.mark.xdist_group("postgresql")
def test_replays_at_another_hub_on_the_same_database(tmp_path: Path) -> None:
    """Two hubs behind one name and one PostgreSQL: what one has taken, the other refuses, also both at once."""
    with ExitStack() as stack:
        (tmp_path / "postgresql").mkdir()
        database = stack.enter_context(cluster(tmp_path / "postgresql")).database()
        first = tmp_path / "first"
        name = "hub.example:8440"
        one = stack.enter_context(
            running(Settings(directory=first, port=0, database_url=database, limits=LIMITS, names=(name,)))
        )
        second = tmp_path / "second"
        second.mkdir()
        for file in ("log-key.json", "operator.token"):
            shutil.copy(first / file, second / file)
        two = stack.enter_context(
            running(Settings(directory=second, port=0, database_url=database, limits=LIMITS, names=(name,)))
        )
        for here, there in ((one, two), (two, one)):
            data = signed_for(here, name)
            assert send(here, data) == (200, "")
            for _ in range(2):
                assert send(there, data) == (401, "hub.replay")
                assert send(here, data) == (401, "hub.replay")


def signed_for(server: HubServer, name: str) -> bytes:
    """A request signed for the name that both hubs have."""
    identity = identity_at(server.hub.settings.directory)
    wire = Wire(
        method="GET",
        target="/v1/log/checkpoint",
        host=name,
        fields=(),
        body=b"",
        identity=identity,
        created=int(time.time()),
    )
    return wire.bytes()


def test_the_unaltered_helper_agrees(server: HubServer) -> None:
    """The table's own signer and the one that other tests use make requests that the same hub takes."""
    now = int(time.time())
    before = server.hub.authenticator.clock
    server.hub.authenticator.clock = lambda: now
    try:
        assert send(server, signed(server, get())) == (200, "")
    finally:
        server.hub.authenticator.clock = before
