"""Somebody between clients and hub, or with a key of their own: every request that was not signed for this moment, hub and body is refused."""

from __future__ import annotations

import asyncio
import re
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from kakoi.contract.model import PartyCard
from kakoi.core import dsse
from kakoi.core.encoding import b64, loads
from kakoi.core.errors import KakoiError, Misuse
from kakoi.guard.stream import FILE, Stream
from kakoi.hub.replay import FileNonces, SteadyClock
from kakoi.hub.serve import HubServer, running
from kakoi.hub.settings import Limits, Settings
from kakoi.net.client import HubClient
from kakoi.net.identity import Identity, enclave_identity, party_identity
from support.hub_client import client_of, identity_at, signed
from unit.hub.hubkit import Party, World, put_all

LIMITS = Limits(free_bytes=0)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(directory=tmp_path / "hub", port=0, limits=LIMITS)


@pytest.fixture
def server(settings: Settings) -> Iterator[HubServer]:
    with running(settings) as one:
        yield one


def send(server: HubServer, data: bytes) -> tuple[int, str]:
    """Status and error code of the answer to exactly these bytes."""
    host, port = server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=20) as sock:
        sock.sendall(data)
        answer = b""
        while b"\r\n\r\n" not in answer and (more := sock.recv(65536)):
            answer += more
        head, _, body = answer.partition(b"\r\n\r\n")
        length = re.search(rb"(?i)content-length: (\d+)", head)
        while length and len(body) < int(length[1]):
            body += sock.recv(65536)
    status = int(head.split()[1])
    return status, loads(body).get("code", "") if status >= 400 else ""


def party(one: Party) -> Identity:
    return party_identity(one.key, one.card)


def get(target: str = "/v1/log/checkpoint") -> bytes:
    return f"GET {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode()


def put(one: Party) -> bytes:
    body = one.card.encode()
    head = f"PUT /v1/objects/{one.id} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    return head.encode() + b"Connection: close\r\n\r\n" + body


def test_unsigned_request(server: HubServer) -> None:
    for target in ("/", "/v1/feed", "/v1/log/checkpoint", "/v1/runs", "/openapi.json", "/v1/health/", "//v1/health"):
        assert send(server, get(target))[1] == "hub.unsigned", target
    assert send(server, get("/v1/health")) == (200, "")
    assert send(server, get("/v1/health").replace(b"GET", b"POST"))[1] == "hub.unsigned"


def test_replayed_request(server: HubServer) -> None:
    request = signed(server, get())
    assert send(server, request) == (200, "")
    for _ in range(3):
        assert send(server, request) == (401, "hub.replay")
    assert send(server, signed(server, get())) == (200, "")


def test_replayed_request_after_a_restart_and_a_clock_turned_back(settings: Settings) -> None:
    with running(settings) as one:
        port = int(one.url.rpartition(":")[2])
        request = signed(one, get())
        assert send(one, request) == (200, "")
    with running(Settings(directory=settings.directory, port=port, limits=LIMITS)) as again:
        assert send(again, request) == (401, "hub.replay")


def test_the_clock_of_signatures_does_not_go_back(tmp_path: Path) -> None:
    path = tmp_path / "nonces"
    nonces = FileNonces(path)
    asyncio.run(nonces.use("k", "n", expires=1060, now=1000))
    asyncio.run(nonces.use("k", "m", expires=1070, now=1030))
    asyncio.run(nonces.use("k", "late", expires=2060, now=2000))  # prunes the others
    nonces.close()
    again = FileNonces(path)
    assert again.latest() == 2000
    ticks = iter((5.0, 5.0, 4.0 + 3600))
    clock = SteadyClock(max(1000, again.latest()), monotonic=lambda: next(ticks))
    assert (clock(), clock()) == (2000, 2000 + 3599)
    again.close()


def test_a_full_memory_refuses_instead_of_forgetting(tmp_path: Path) -> None:
    nonces = FileNonces(tmp_path / "nonces", most=3)
    for number in range(3):
        asyncio.run(nonces.use("k", str(number), expires=1060, now=1000))
    with pytest.raises(KakoiError) as caught:
        asyncio.run(nonces.use("k", "4", expires=1060, now=1000))
    assert caught.value.code == "hub.busy"
    with pytest.raises(KakoiError):
        asyncio.run(nonces.use("k", "0", expires=1060, now=1000))
    asyncio.run(nonces.use("k", "5", expires=1960, now=1100))  # room again once they have expired
    nonces.close()


def test_altered_body(server: HubServer) -> None:
    request = signed(server, put(Party("Mallory")))
    altered = request[:-1] + bytes([request[-1] ^ 1])
    assert send(server, altered) == (403, "hub.digest")
    digest = re.search(rb"Content-Digest: [^\r]+", request)
    assert digest is not None
    other = re.sub(rb"sha-256=:.", b"sha-256=:" + (b"B" if digest[0][25:26] == b"A" else b"A"), request, count=1)
    assert send(server, other)[1] == "signature.request"


def test_altered_method_path_and_query(server: HubServer) -> None:
    request = signed(server, get("/v1/feed?after=0"))
    for old, new in (
        (b"GET", b"PUT"),
        (b"/v1/feed", b"/v1/runs"),
        (b"/v1/feed", b"/v1/%66eed"),
        (b"after=0", b"after=1"),
        (b"?after=0", b""),
        (b"?after=0", b"?after=0&"),
    ):
        assert send(server, request.replace(old, new, 1)) == (401, "signature.request"), new


def test_stripped_or_added_component(server: HubServer) -> None:
    request = signed(server, get("/v1/feed?after=0"))
    stripped = re.sub(
        rb'kakoi=\("@method" "@authority" "@path" "@query"', b'kakoi=("@method" "@authority" "@path"', request
    )
    assert stripped != request
    assert send(server, stripped)[1] == "hub.signature-form"
    # a header that changes the meaning, added on the way, is not covered
    assert (
        send(server, request.replace(b"Connection:", b"Range: bytes=0-1\r\nConnection:"))[1] == "hub.signature-covers"
    )
    put_request = signed(server, put(Party("Mallory")))
    without = re.sub(rb"Content-Digest: [^\r]+\r\n", b"", put_request)
    assert send(server, without)[1] == "hub.signature-covers"
    both = without.replace(b'"content-digest" ', b"")
    assert send(server, both)[1] in ("signature.request", "hub.digest-missing")
    twice = request.replace(b"Connection:", b"Signature: kakoi=:AA==:\r\nConnection:")
    assert send(server, twice)[1] == "hub.signature-field"


def test_body_without_digest_although_it_is_signed(server: HubServer) -> None:
    """A client that signs a body's length but no digest is refused: no body is taken on trust."""
    request = signed(server, get().replace(b"Connection", b"X-Length: 0\r\nConnection"))
    assert send(server, request) == (200, "")
    request = signed(server, get("/v1/claims")).replace(b"GET", b"POST", 1)
    assert send(server, request)[1] == "signature.request"


def test_expired_and_future(server: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    real = time.time
    for seconds in (-61, -3600, 31, 3600, -(10**9)):
        with monkeypatch.context() as patch:
            patch.setattr(time, "time", lambda seconds=seconds: real() + seconds)
            request = signed(server, get())
        assert send(server, request) == (401, "hub.signature-time"), seconds
    request = signed(server, get())
    longer = re.sub(rb"expires=(\d+)", lambda m: b"expires=%d" % (int(m[1]) + 3600), request)
    assert send(server, longer)[1] == "hub.signature-lifetime"


def test_unknown_and_wrong_keys(server: HubServer) -> None:
    world = World()
    with client_of(server) as hub:
        put_all(hub, world.setup)
    stranger = party(Party("Nobody knows me"))
    owner, analyst = party(world.owner), party(world.analyst)
    assert send(server, signed(server, get(), identity=owner)) == (200, "")
    assert send(server, signed(server, get(), identity=stranger)) == (401, "hub.key-unknown")
    for mine, other in (
        (analyst, owner),
        (stranger, owner),
        (enclave_identity("e", "guessed"), identity_at(server.hub.settings.directory)),
    ):
        posing = Identity(keyid=other.keyid, public=other.public, sign=mine.sign)
        assert send(server, signed(server, get(), identity=posing)) == (401, "signature.request")
    session = world.session("1" * 64)[0]  # a session's key signs no requests
    assert (
        send(server, signed(server, get(), identity=party_identity(session, world.owner.card)))[1] == "hub.key-unknown"
    )


def test_signature_of_another_request(server: HubServer) -> None:
    one, other = signed(server, get("/v1/feed?after=0")), signed(server, get("/v1/runs?after=0"))
    for field in (rb"\r\nSignature: [^\r]+", rb"\r\nSignature-Input: [^\r]+"):
        found = re.search(field, other)
        assert found is not None
        assert send(server, re.sub(field, found[0].replace(b"\\", b""), one)) == (401, "signature.request")


def test_signature_for_another_hub(server: HubServer, tmp_path: Path) -> None:
    """A hub that got a signed request cannot use it at another hub, not even under the same token."""
    token = (server.hub.settings.directory / "operator.token").read_text()
    other_directory = tmp_path / "other"
    other_directory.mkdir()
    (other_directory / "operator.token").write_text(token)
    (other_directory / "operator.token").chmod(0o600)
    with running(Settings(directory=other_directory, port=0, limits=LIMITS)) as other:
        request = signed(server, get())
        assert send(other, request) == (421, "hub.authority")
        host = other.url.partition("//")[2].encode()
        assert send(other, re.sub(rb"Host: [^\r]+", b"Host: " + host, request)) == (401, "signature.request")


def test_newcomer(server: HubServer) -> None:
    """Whoever introduces themselves with a key can give their own card, and nothing else."""
    one, other = Party("New"), Party("Other new")

    def introduced(data: bytes, shown: bytes, who: Party) -> tuple[int, str]:
        head = data.replace(b"Connection:", b"Kakoi-Key: :" + b64(shown).encode() + b":\r\nConnection:")
        return send(server, signed(server, head, identity=party(who)))

    public, foreign = one.key.verifying_key.ed25519, other.key.verifying_key.ed25519
    assert introduced(put(one), foreign, one) == (401, "hub.key-unknown")
    assert introduced(put(one), bytes(32), one) == (401, "hub.key-unknown")
    assert introduced(put(other), public, one) == (403, "hub.denied")
    for target in ("/v1/feed", "/v1/log/checkpoint", f"/v1/objects/{one.id}"):
        assert introduced(get(target), public, one)[0] in (401, 403), target
    assert introduced(put(one), public, one) == (201, "")
    assert send(server, signed(server, get(), identity=party(one))) == (200, "")


def test_a_client_introduces_itself_and_follows_the_hubs_clock(
    server: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What an honest client does about the two refusals that it can mend."""
    one = Party("Newcomer")
    real = time.time
    monkeypatch.setattr("kakoi.net.caller.time.time", lambda: real() - 7200)
    server.hub.authenticator.clock = lambda: int(real())
    with HubClient(server.url, identity=party(one)) as hub:
        assert hub.feed().items[0].id == one.id
        assert hub.get_object(one.card.payload_id) == one.card


def test_a_party_takes_no_runs(server: HubServer) -> None:
    with HubClient(server.url, identity=party(Party("Curious"))) as hub:
        ask: Callable[[], object] = lambda: hub.claim(enclave="e", seconds=10)  # noqa: E731
        with pytest.raises(KakoiError) as caught:
            ask()
        assert caught.value.code == "hub.denied"


def code(call: Callable[[], object]) -> str:
    """The code of the error, or empty."""
    try:
        call()
    except KakoiError as error:
        return error.code
    return ""


def test_a_party_reads_nothing_of_other_peoples_contracts(server: HubServer) -> None:
    world = World()
    with client_of(server) as hub:
        put_all(hub, world.setup)
        hub.put_object(world.approval(world.owner))
        run = hub.put_object(world.request()).id
        challenge = hub.put_object(world.answer("challenge", run)).id
    for who, may in ((world.owner, True), (world.analyst, True), (world.stranger, False)):
        with HubClient(server.url, identity=party(who)) as hub:
            expected = "" if may else "hub.denied"
            assert code(partial(hub.get_object, run)) == expected
            assert code(partial(hub.get_object, challenge)) == expected
            kinds = {item.kind for item in hub.feed().items}
            assert (
                ("kakoi/run-request/v1" in kinds)
                == ("kakoi/approval/v1" in kinds)
                == ("kakoi/contract/v1" in kinds)
                == may
            )
            assert bool(hub.feed(refs={"run": run}).items) == may
            of_contract = {item.kind for item in hub.feed(refs={"contract": world.contract.payload_id}).items}
            # whoever was told a contract's id can see who approved it, and nothing else
            assert "kakoi/approval/v1" in of_contract
            assert (len(of_contract) > 1) == may
            assert bool(hub.runs().items) == bool(hub.runs(contract=world.contract.payload_id).items) == may
            # what a drafter needs before there is a contract is read by its id
            assert code(partial(hub.get_object, world.manifest.payload_id)) == ""


def test_a_party_with_a_new_card_goes_on_reading(server: HubServer) -> None:
    world = World()
    with client_of(server) as hub:
        put_all(hub, world.setup)
        run = hub.put_object(world.request()).id
    card = PartyCard.decode(world.owner.card.payload)
    renewed = dsse.sign(replace(card, created=2).encode(), world.owner.key)
    with HubClient(server.url, identity=party_identity(world.owner.key, renewed)) as hub:
        hub.put_object(renewed)
        assert code(partial(hub.get_object, run)) == ""
        assert [item.run for item in hub.runs().items] == [run]


def test_a_party_sends_nothing_in_anothers_name(server: HubServer) -> None:
    """A signed object that somebody got hold of is not theirs to send, though it would verify."""
    world = World()
    with client_of(server) as hub:
        put_all(hub, world.setup)
    with HubClient(server.url, identity=party(world.analyst)) as hub:
        assert code(partial(hub.put_object, world.approval(world.owner))) == "hub.denied"
        assert code(partial(hub.put_object, world.approval(world.analyst))) == ""


def test_every_denial_is_on_record(settings: Settings) -> None:
    world = World()
    decisions: list[dict[str, str]] = []
    with running(settings) as server:
        server.hub.policies.decided = lambda decision: decisions.append(dict(decision))
        with HubClient(server.url, identity=party(world.analyst)) as hub:
            assert code(partial(hub.claim, enclave="e", seconds=10)) == "hub.denied"
    denied = [item for item in decisions if item["decision"] == "deny"]
    assert [(item["action"], item["address"]) for item in denied] == [("claim", "127.0.0.1")]
    with closing(Stream(settings.directory / FILE, name="hub", component="hub", now=0)) as stream:
        assert [line["status_code"] for line in stream.newest(what="hub.access")] == ["hub.denied"]


def test_networks_that_are_not_on_the_list(tmp_path: Path) -> None:
    for number, (allow, answered) in enumerate(
        [((), True), (("127.0.0.0/8",), True), (("192.0.2.0/24", "2001:db8::/32"), False), (("::1/128",), False)]
    ):
        settings = Settings(directory=tmp_path / str(number), port=0, limits=LIMITS, allow=allow)
        with running(settings) as one:
            expected = (200, "") if answered else (403, "hub.network")
            assert send(one, get("/v1/health")) == expected
            assert send(one, signed(one, get())) == expected
    with pytest.raises(Misuse), running(Settings(directory=tmp_path / "bad", port=0, allow=("127.0.0.1/8",))):
        pass
