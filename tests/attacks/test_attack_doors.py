"""Whoever comes through the wrong door, from the wrong place, with half of what it takes, or as what it should not be; and what is kept of who came."""

from __future__ import annotations

import asyncio
import secrets
import socket
import sqlite3
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import create_engine

from attacks.test_attack_requests import LIMITS, code, get, party, send
from kakoi.cli import ui
from kakoi.core.dsse import Envelope
from kakoi.core.errors import KakoiError, Refused, Unavailable
from kakoi.guard.happening import Happening
from kakoi.guard.stream import FILE, Stream
from kakoi.hub import upkeep
from kakoi.hub.decisions import Decisions
from kakoi.hub.listen import networks as in_cidr
from kakoi.hub.networks import PartyNetworks
from kakoi.hub.serve import HubServer, running
from kakoi.hub.settings import Listener, Settings
from kakoi.net import posture
from kakoi.net.caller import Patience
from kakoi.net.client import HubClient
from kakoi.net.tls import client_tls
from support.command_line import Run, runner
from support.hub_client import client_at, client_of, identity_at, known, signed
from support.operators import configure
from support.tls import Authority
from unit.hub.hubkit import Party, World, put_all

ONCE = Patience(attempts=1)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path, "machines")


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setattr(ui.out, "_width", 400)
    return runner(capsys)


# -- certificates of enclaves


def test_an_enclaves_token_is_worth_nothing_without_its_certificate(tmp_path: Path, authority: Authority) -> None:
    """The token makes the request's key, the certificate the connection: it takes both, of the same enclave."""
    certificate, key = authority.issue("hub")
    settings = Settings(
        directory=tmp_path / "hub",
        port=0,
        tls_certificate=certificate,
        tls_key=key,
        enclave_ca=authority.file,
        limits=LIMITS,
    )
    foreign = Authority(tmp_path, "strangers")
    own = authority.issue("e", "urn:kakoi:enclave:test", "urn:kakoi:enclave:test-2")
    with running(settings) as server:
        known(server.url, settings.directory)

        def claims(shown: tuple[Path, Path] | None, name: str = "test") -> str:
            tls = client_tls(authority.file, *(shown or (None, None)))
            with client_at(server.url, name=name, tls=tls, patience=ONCE) as hub:
                return code(partial(hub.claim, enclave=name, seconds=10))

        assert claims(own) == claims(own, "test-2") == ""
        for shown in (
            None,
            authority.issue("urn:kakoi:enclave:test"),
            authority.issue("other", "urn:kakoi:enclave:other"),
            authority.issue("prefix", "urn:kakoi:enclave:tes", "urn:kakoi:enclave:test2", "urn:kakoi:enclave:TEST"),
        ):
            assert claims(shown) == "hub.enclave-certificate"
        assert claims(own, "test-3") == "hub.enclave-certificate"
        for shown in (
            foreign.issue("f", "urn:kakoi:enclave:test"),
            authority.issue("late", "urn:kakoi:enclave:test", expired=True),
        ):
            assert claims(shown) in (
                "hub.cut",
                "hub.unreachable",
                "hub.connection",
                "hub.certificate",
                "hub.unavailable",
            ), shown
        plain = client_tls(authority.file, None, None)
        with HubClient(server.url, identity=party(Party("Owner")), tls=plain, patience=ONCE) as hub:
            assert hub.feed().items, "parties need no certificate here"


# -- networks of parties


@pytest.fixture
def world(tmp_path: Path) -> Iterator[tuple[HubServer, World]]:
    with running(Settings(directory=tmp_path / "hub", port=0, limits=LIMITS)) as server:
        one = World()
        with client_of(server) as hub:
            put_all(hub, one.setup)
        yield server, one


def reads(server: HubServer, who: Party) -> str:
    server.hub.networks.forget()
    return send(server, signed(server, get(), identity=party(who)))[1]


def test_a_party_is_bound_to_its_networks(world: tuple[HubServer, World], run: Run) -> None:
    server, people = world
    directory = server.hub.settings.directory
    assert reads(server, people.owner) == ""
    said = run(
        "hub",
        "networks",
        "--directory",
        directory,
        people.owner.id,
        "--allow",
        "192.0.2.0/24",
        "--allow",
        "2001:db8::/32",
    )
    assert (said.code, people.owner.id in said.out, "2001:db8::/32" in said.out) == (0, True, True)
    assert reads(server, people.owner) == "hub.party-network"
    assert reads(server, people.analyst) == ""
    with client_of(server) as hub:
        hub.feed()  # nor are enclaves bound
    assert run("hub", "networks", "--directory", directory, people.owner.id, "--allow", "127.0.0.0/8").code == 0
    assert reads(server, people.owner) == ""
    upkeep.allow_networks(server.hub.settings, people.owner.id, ["192.0.2.0/24"])
    assert reads(server, people.owner) == "hub.party-network", "a running hub follows"
    assert run("hub", "networks", "--directory", directory, people.owner.id, "--everywhere").code == 0
    assert reads(server, people.owner) == ""


def test_what_an_operator_types_wrongly_binds_nobody(world: tuple[HubServer, World], run: Run) -> None:
    server, people = world
    told = ("hub", "networks", "--directory", server.hub.settings.directory)
    for more, expected in (
        ((people.owner.id, "--allow", "127.0.0.1/8"), "hub.allow"),
        ((people.owner.id, "--allow", "here"), "hub.allow"),
        ((people.owner.id,), "hub.networks-usage"),
        (("--allow", "192.0.2.0/24"), "hub.networks-usage"),
        ((people.owner.id, "--everywhere", "--allow", "192.0.2.0/24"), "hub.networks-usage"),
        (("nobody", "--allow", "192.0.2.0/24"), "id.format"),
    ):
        said = run(*told, *more)
        assert said.code != 0
        assert said.error == expected or expected == "id.format", more
    assert upkeep.networks_of(server.hub.settings) == {}


def test_networks_hold_for_the_next_hub_and_before_a_signature_is_looked_at(tmp_path: Path) -> None:
    settings = Settings(directory=tmp_path / "hub", port=0, limits=LIMITS)
    owner = Party("Owner")
    with running(settings) as server:
        with HubClient(server.url, identity=party(owner)) as hub:
            hub.put_object(owner.card)
        upkeep.allow_networks(settings, owner.id, ["192.0.2.0/24"])
    with running(settings) as again:
        assert send(again, signed(again, get(), identity=party(owner))) == (403, "hub.party-network")
        forged = replace(party(owner), sign=lambda base: bytes(64))
        for _ in range(200):  # twice what a network may get wrong: not one of them was verified
            assert send(again, signed(again, get(), identity=forged))[1] == "hub.party-network"
        renewed = Party("Owner")
        assert renewed.id == owner.id


class _Sometimes:
    """A database that answers only sometimes."""

    def __init__(self, found: dict[str, Any]) -> None:
        self.found, self.well = found, True

    async def read(self, work: Callable[[Any], Any]) -> Any:
        if not self.well:
            raise Unavailable("hub.database", "expected the database to answer, got silence")
        return self.found


def test_a_database_that_is_silent_opens_no_door() -> None:
    now = [0.0]
    database = _Sometimes({"p": in_cidr(("192.0.2.0/24",))})
    kept = PartyNetworks(database, lambda: now[0])  # type: ignore[arg-type]
    database.well = False
    with pytest.raises(Unavailable):
        asyncio.run(kept.require("p", "192.0.2.1"))
    database.well = True
    asyncio.run(kept.require("p", "192.0.2.1"))
    database.well, now[0] = False, 3600
    asyncio.run(kept.require("p", "192.0.2.1"))
    for address in ("192.0.3.1", "", "nowhere", "::ffff:192.0.3.1"):
        with pytest.raises(Refused):
            asyncio.run(kept.require("p", address))
    asyncio.run(kept.require("p", "::ffff:192.0.2.9"))
    asyncio.run(kept.require("another", "203.0.113.7"))


# -- what a client is


def test_old_clients_and_the_software_platform_where_the_operator_will_not_have_them(tmp_path: Path) -> None:
    owner = Party("Owner")
    with running(Settings(directory=tmp_path / "old", port=0, limits=LIMITS, oldest_client="99.0.0")) as server:
        known(server.url, server.hub.settings.directory)
        with client_at(server.url, patience=ONCE) as hub:
            assert code(hub.feed) == code(partial(hub.claim, enclave="test", seconds=9)) == "hub.denied"
            hub.health()
        with HubClient(server.url, identity=party(owner), patience=ONCE) as hub:
            assert code(partial(hub.put_object, owner.card)) == "hub.denied"
    settings = Settings(
        directory=tmp_path / "strict", port=0, limits=LIMITS, oldest_client=posture.VERSION, hardware_only=True
    )
    with running(settings) as server:
        known(server.url, server.hub.settings.directory)
        assert send(server, signed(server, get())) == (403, "hub.denied"), "who does not say its version has none"
        with client_at(server.url, patience=ONCE, software=True) as hub:
            assert code(partial(hub.claim, enclave="test", seconds=9)) == "hub.denied"
        world = World()
        with client_at(server.url, patience=ONCE) as hub:
            put_all(hub, world.setup)
            soft = contract_on(world, "software", "snp")
            assert code(partial(hub.put_object, soft)) == "hub.denied"
            hard = contract_on(world, "tdx", "snp")
            assert code(partial(hub.put_object, hard)) == ""
    with running(Settings(directory=tmp_path / "lenient", port=0, limits=LIMITS)) as server:
        known(server.url, server.hub.settings.directory)
        with client_at(server.url, software=True, patience=ONCE) as hub:
            put_all(hub, [*world.setup, soft])


def contract_on(world: World, *platforms: str) -> Envelope:
    """A contract that accepts these platforms."""
    return world.analyst.sign(
        "contract",
        drafter=world.analyst.id,
        parties=[{"party": world.analyst.id, "roles": ["analyst"]}],
        data=[],
        supersedes=None,
        recipients=[world.analyst.id],
        platforms={"accepted": [{"platform": name} for name in platforms]},
    )


def test_the_version_that_clients_say_is_this_programs() -> None:
    from importlib.metadata import version

    assert version("kakoi") == posture.VERSION
    assert posture.parse(posture.own(software=True).text()).software
    numbers = [
        posture.parse(f'version="{text}", software=?0').number for text in ("0.0.1", "0.1.0", "0.9999.9999", "1.0.0")
    ]
    assert numbers == sorted(set(numbers))
    for text in (
        'version="1.0", software=?0',
        'version="1.0.0"',
        'version="1.0.0",software=?0',
        'software=?0, version="1.0.0"',
        "x",
    ):
        with pytest.raises(KakoiError) as caught:
            posture.parse(text)
        assert caught.value.code == "net.posture"


def test_a_run_that_was_given_up_takes_no_keys(world: tuple[HubServer, World]) -> None:
    server, people = world
    with HubClient(server.url, identity=party(people.analyst)) as hub:
        run = hub.put_object(people.request()).id
    engine = create_engine(f"sqlite:///{server.hub.settings.directory / 'hub.sqlite'}")
    with engine.begin() as connection:
        connection.exec_driver_sql("update runs set state = 'abandoned'")
    engine.dispose()
    with HubClient(server.url, identity=party(people.owner), patience=ONCE) as hub:
        for kind, expected in (
            ("challenge", "hub.denied"),
            ("key-grant", "hub.denied"),
            ("lease", "hub.denied"),
            ("denial", ""),
        ):
            assert code(partial(hub.put_object, people.answer(kind, run))) == expected, kind


# -- what is kept of decisions


def test_permits_are_counted_and_nothing_is_left_out() -> None:
    now, heard = [1000], list[Happening]()
    decisions = Decisions(heard.append, lambda: now[0])

    def decide(who: str, action: str = "list", outcome: str = "permit") -> None:
        decisions.note({"decision": outcome, "principal": who, "action": action, "object": "", "address": "127.0.0.1"})

    for number in range(300):
        for _ in range(3):
            decide(f"party/{number:064x}")
    decide("enclave/e", "listEverything")
    decide("party/x", outcome="deny")
    decisions.flush()
    assert heard == [], "a window has not ended"
    now[0] += 60
    decisions.flush()
    assert len(heard) == 129
    assert sum(one.count for one in heard) == 901
    assert {one.actor for one in heard} >= {"others", f"party/{0:064x}"}
    assert all((one.outcome, one.until) == ("success", 1060) for one in heard)
    assert [(one.who, one.action) for one in decisions.denials] == [("party/x", "list")]
    assert sum(decisions.totals.values()) == 902
    decisions.flush(everything=True)
    assert len(heard) == 129
    for number in range(1000):
        decide(f"party/{number}", outcome="deny")
    assert len(decisions.denials) == 50


def test_permits_are_in_the_stream_when_a_hub_has_stopped(tmp_path: Path) -> None:
    settings = Settings(directory=tmp_path / "hub", port=0, limits=LIMITS)
    with running(settings) as server, client_of(server) as hub:
        for _ in range(5):
            hub.feed()
    with closing(Stream(settings.directory / FILE, name="hub", component="hub", now=0, look=False)) as stream:
        events = stream.newest(what="hub.access")
    told = {(e["api"]["operation"], e["actor"]["user"]["name"], e["count"], e["status_id"]) for e in events}
    assert told == {("list", "enclave/test", 5, 1), ("listeverything", "enclave/test", 5, 1)}


# -- doors


def test_every_door_speaks_tls_1_3_and_nothing_older(tmp_path: Path, authority: Authority) -> None:
    certificate, key = authority.issue("hub")
    door = Listener(tls_certificate=certificate, tls_key=key, allow=("127.0.0.0/8",))
    configure(tmp_path / "hub", "https://sso.example", ("s", "Sakura", "viewer"))
    settings = Settings(
        directory=tmp_path / "hub", port=0, tls_certificate=certificate, tls_key=key, operations=door, metrics=door
    )
    with running(settings) as server:
        ports = {
            server.url: "/v1/health",
            server.operations_url: "/sign-in",
            f"https://localhost:{server.metrics_port}": "/metrics",
        }
        assert all(url.startswith("https://") for url in ports)
        trusting = client_tls(authority.file, None, None)
        assert trusting is not None
        for url, path in ports.items():
            with httpx.Client(verify=trusting, trust_env=False, timeout=30) as client:
                answer = client.get(url + path)
                assert answer.status_code == 200
                assert answer.headers["strict-transport-security"] == "max-age=31536000", url
            with pytest.raises(httpx.HTTPError), httpx.Client(trust_env=False, timeout=30) as client:
                client.get(url.replace("https", "http") + path).raise_for_status()
            for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
                context = ssl.create_default_context(cafile=authority.file)
                context.minimum_version = context.maximum_version = version
                port = int(url.rpartition(":")[2])
                with ExitStack() as stack:
                    sock = stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=30))
                    if version == ssl.TLSVersion.TLSv1_2:
                        stack.enter_context(pytest.raises(ssl.SSLError))
                    stack.enter_context(context.wrap_socket(sock, server_hostname="localhost"))


def test_metrics_only_for_machines_with_a_certificate(tmp_path: Path, authority: Authority) -> None:
    certificate, key = authority.issue("hub")
    door = Listener(tls_certificate=certificate, tls_key=key, tls_client_ca=authority.file)
    with running(Settings(directory=tmp_path / "hub", port=0, metrics=door)) as server:
        url = f"https://localhost:{server.metrics_port}/metrics"
        with httpx.Client(
            verify=_context(client_tls(authority.file, *authority.issue("scraper"))), trust_env=False
        ) as client:
            assert client.get(url).status_code == 200
        with (
            httpx.Client(verify=_context(client_tls(authority.file, None, None)), trust_env=False) as client,
            pytest.raises(httpx.HTTPError),
        ):
            client.get(url)


def _context(made: ssl.SSLContext | None) -> ssl.SSLContext:
    assert made is not None
    return made


def test_who_holds_connections_to_metrics_does_not_hold_the_hub(tmp_path: Path) -> None:
    with running(Settings(directory=tmp_path / "hub", port=0, metrics=Listener())) as server, ExitStack() as stack:
        for _ in range(40):
            stack.enter_context(socket.create_connection(("127.0.0.1", server.metrics_port), timeout=30))
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline and threading.active_count() < 16:
            time.sleep(0.05)
        assert threading.active_count() < 40
        assert send(server, get("/v1/health")) == (200, "")


def test_databases_of_earlier_hubs_are_migrated(tmp_path: Path) -> None:
    """The table of networks is there after ``kakoi hub migrate``, empty: nobody is bound by an upgrade."""
    from kakoi.hub.migrate import migrate

    settings = Settings(directory=tmp_path / "hub", port=0, limits=LIMITS)
    with running(settings):
        pass
    with closing(sqlite3.connect(settings.directory / "hub.sqlite")) as database:
        database.execute("drop table networks")
        database.execute("update alembic_version set version_num = '0003'")
        database.commit()
    assert migrate(settings) == "0004"
    assert upkeep.networks_of(settings) == {}
    with running(settings) as server:
        assert send(server, signed(server, get(), identity=identity_at(settings.directory, secrets.token_hex(4)))) == (
            200,
            "",
        )
