"""The hub is trusted for availability: here it is attacked as such, and as the one place where runs are told apart."""

from __future__ import annotations

import hashlib
import os
import socket
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from kakoi.core import dsse
from kakoi.core.dsse import Envelope
from kakoi.core.encoding import dumps
from kakoi.core.errors import Refused, Unavailable
from kakoi.core.ids import BlobId
from kakoi.hub import upkeep
from kakoi.hub.budgets import Buckets
from kakoi.hub.kinds import Described, describe
from kakoi.hub.serve import HubServer, running
from kakoi.hub.settings import Limits, Settings
from kakoi.net.caller import Call, Patience
from kakoi.net.client import HubClient
from support import fencing
from support.hub_client import client_of, signed
from unit.hub.conftest import LIMITS, Clock, clock, hub, server, token, world  # noqa: F401 - fixtures
from unit.hub.hubkit import Party, World, put_all
from unit.hub.test_hub_uploads import LOOPBACK, PART, code, hub_with, keeps, put

# ruff: noqa: F811 - fixtures are named as arguments


def test_an_enclave_that_slept_through_its_lease_publishes_nothing(
    hub: HubClient, token: str, world: World, clock: Clock
) -> None:
    put_all(hub, world.setup)
    fencing.check_sleeper(hub, hub, world, token, clock.forward)


def test_one_of_two_enclaves_publishes_whoever_is_faster(
    hub: HubClient, server: HubServer, token: str, world: World, clock: Clock
) -> None:
    put_all(hub, world.setup)
    with client_of(server) as other:
        fencing.check_race(hub, other, world, token, clock.forward, rounds=8)


def test_a_quota_is_kept_whoever_sends_at_once_and_comes_back_with_what_is_collected(tmp_path: Path) -> None:
    limits = Limits(part_bytes=PART, free_bytes=0, stranger_bytes=3 * PART)
    settings = Settings(directory=tmp_path / "hub", port=0, limits=limits)
    with hub_with(tmp_path / "hub", limits) as (server, hub):
        first = put(hub, os.urandom(PART))
        with pytest.raises(Refused) as caught:
            put(hub, os.urandom(2 * PART + 1))
        assert caught.value.code == "hub.quota"
        outcomes: list[str] = []

        def send() -> None:
            with client_of(server) as other:
                try:
                    put(other, os.urandom(PART))
                    outcomes.append("stored")
                except Refused as error:
                    outcomes.append(error.code)

        threads = [threading.Thread(target=send) for _ in range(5)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(timeout=60)
        assert sorted(outcomes) == ["hub.quota"] * 3 + ["stored"] * 2
        assert keeps(tmp_path / "hub") == {LOOPBACK: (3, 3 * PART)}
        assert code(lambda: put(hub, b"x")) == "hub.quota"
        put(hub, b"".join(hub.stream_blob(first, most=PART)))  # what is there costs nothing
        upkeep.collect(settings, now=2**40, delete=True)
        assert keeps(tmp_path / "hub") == {}
        put(hub, os.urandom(3 * PART))


def test_a_flood_of_cards_ends_and_parties_that_are_there_go_on(tmp_path: Path) -> None:
    limits = Limits(free_bytes=0, prefix_cards=0.001)
    world = World()
    with hub_with(tmp_path / "hub", limits) as (server, hub):
        put_all(hub, world.setup)
        server.hub.budgets._cards = Buckets(0.001, 2, server.hub.budgets._cards._clock)
        patient = Patience(attempts=1)
        with client_of(server, patience=patient) as eager:
            codes = [code_or(partial(eager.put_object, Party(f"Sybil {n}").card)) for n in range(4)]
        assert codes == ["", "", "hub.rate", "hub.rate"]
        put_all(hub, world.cards)  # they say hello before everything
        hub.put_object(world.approval(world.owner))


def code_or(call: Callable[[], object]) -> str:
    try:
        call()
    except Unavailable as error:
        return error.code
    return ""


def test_wrong_signatures_cost_their_network_and_nobody_else(tmp_path: Path) -> None:
    world = World()
    with hub_with(tmp_path / "hub") as (server, hub):
        put_all(hub, world.setup)
        server.hub.budgets._bad = Buckets(0.001, 3, server.hub.budgets._bad._clock)
        strangers = [Party(f"Nobody {n}") for n in range(4)]
        with client_of(server, patience=Patience(attempts=1)) as eager:
            bad = [item.sign("analysis", author=item.id) for item in strangers]
            codes = [code(partial(eager.put_object, item)) for item in bad]
            assert codes == ["hub.signer-unknown"] * 3 + ["hub.rate"]
            server.hub.budgets._bad = Buckets(0.001, 3, server.hub.budgets._bad._clock)
            eager.put_object(world.approval(world.owner))


def test_connections_of_a_crowd_leave_room_for_others(tmp_path: Path) -> None:
    """Two hundred heads that never end, from one network: another network's client is served, and soon they are gone."""
    limits = Limits(prefix_connections=64, connections=128, head_seconds=1, free_bytes=0)
    with running(Settings(directory=tmp_path / "hub", port=0, limits=limits)) as one, ExitStack() as stack:
        host, port = one.url.removeprefix("http://").split(":")
        for _ in range(200):
            sock = stack.enter_context(socket.socket())
            sock.bind(("127.66.0.1", 0))
            sock.connect((host, int(port)))
            with suppress(OSError):
                sock.sendall(b"GET /v1/health HTTP/1.1\r\nHost: x\r\n")
        with client_of(one) as hub:
            hub.health()
            deadline = time.monotonic() + 60
            while one.hub.crowd.total > 1 and time.monotonic() < deadline:
                time.sleep(0.1)
            assert one.hub.crowd.total <= 1


def test_large_rubbish_is_not_parsed(hub: HubClient, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    put_all(hub, world.setup)
    read: list[int] = []
    original = describe

    def counted(envelope: Envelope) -> Described:
        read.append(len(envelope.payload))
        return original(envelope)

    monkeypatch.setattr("kakoi.hub.objects.describe", counted)
    many = dumps({f"{number << 61:x}": number for number in range(20_000)})
    rubbish = Call(method="PUT", target=f"/v1/objects/{'0' * 64}", body=many)
    assert code(lambda: hub._caller.read(rubbish, 1000)) == "hub.envelope"
    stranger = Party("Nobody at all")
    assert code(lambda: hub.put_object(dsse.sign(many, stranger.key))) == "hub.signer-unknown"
    real = dsse.sign(many, world.owner.key)
    forged = replace(real, signatures=(real.signatures[0], stranger.sign("x").signatures[1]))
    assert code(lambda: hub.put_object(forged)) in ("signature.signer", "hub.signer-unknown")
    twisted = replace(real.signatures[1], sig=bytes(len(real.signatures[1].sig)))
    assert code(lambda: hub.put_object(replace(real, signatures=(real.signatures[0], twisted)))).startswith(
        "signature."
    )
    assert read == [], "no payload was read for nothing"


def test_a_flood_leaves_room_for_a_key_release(server: HubServer, hub: HubClient, world: World, token: str) -> None:
    """Strangers hold every place they can get; an owner's key still reaches its enclave."""
    put_all(hub, world.setup)
    run = hub.put_object(world.request()).id
    with client_of(server, patience=Patience(attempts=1)) as enclave:
        claim = enclave.claim(enclave="e", seconds=60)
        assert claim is not None
        hub.put_object(world.answer("challenge", run))
        enclave.put_object(world.session(run)[1], claim=claim.token)
        deadline = time.monotonic() + 30
        while server.hub.requests._left < LIMITS.requests and time.monotonic() < deadline:
            time.sleep(0.01)  # an answer is out before its request has given its place back
        with ExitStack() as stack:
            stack.enter_context(server.hub.memory.take(int(0.75 * LIMITS.object_bytes_in_flight), vital=False))
            for budget in (server.hub.requests, server.hub.uploads, server.hub.downloads):
                with suppress(Unavailable):
                    while True:
                        stack.enter_context(budget.take(vital=False))
            with client_of(server, patience=Patience(attempts=1)) as stranger:
                assert code(stranger.health) == "hub.busy"
            hub.put_object(world.answer("key-grant", run))
            page = enclave.feed(kinds=["kakoi/key-grant/v1"], refs={"run": run})
            assert len(page.items) == 1


def test_a_strangers_part_is_not_in_my_upload(tmp_path: Path) -> None:
    data = os.urandom(2 * PART)
    blob = BlobId(hashlib.sha256(data).hexdigest())
    with hub_with(tmp_path / "hub") as (server, hub):
        false = os.urandom(PART)
        digest = hashlib.sha256(false).hexdigest()
        host, port = server.url.removeprefix("http://").split(":")
        with socket.socket() as sock:
            sock.bind(("127.66.0.1", 0))  # another network
            sock.connect((host, int(port)))
            target = f"/v1/blobs/{blob}/parts/0?size={len(data)}&sha256={digest}"
            head = f"PUT {target} HTTP/1.1\r\nHost: x\r\nContent-Length: {PART}\r\n\r\n"
            sock.sendall(signed(server, head.encode() + false))
            assert sock.recv(65536).startswith(b"HTTP/1.1 201")
        put(hub, data)
        assert b"".join(hub.stream_blob(blob, most=len(data))) == data
