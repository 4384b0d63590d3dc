"""Whoever others warn of is turned away by the hub and by brokers before anything costs much; a warning can lock nobody out by mistake. T190-T192."""

from __future__ import annotations

import asyncio
import json
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from attacks.test_attack_known_weaknesses import ask, granted
from attacks.test_attack_requests import LIMITS, get, party, put, send
from attacks.test_attack_tls import PATIENCE, environment
from kakoi.broker.precautions import fingerprints
from kakoi.core import encoding
from kakoi.core.errors import KakoiError, Malformed
from kakoi.guard.intel import store
from kakoi.guard.intel.store import Indicators, read_objects
from kakoi.guard.stream import FILE, Stream
from kakoi.hub.app import app_of
from kakoi.hub.hub import open_hub
from kakoi.hub.serve import running
from kakoi.hub.settings import Settings
from kakoi.party.files import write_private
from kakoi.sdk.connect import connect, tls_of
from support.broker_setting import Setting
from support.hub_client import client_of, signed
from support.tls import Authority
from unit.hub.hubkit import World
from unit.intel.test_indicators import stix

ADDRESS = "198.51.100.7"
ID = "indicator--11111111-1111-4111-8111-111111111111"


def warn(directory: Path, pattern: str, *, trust: int = 100, **changes: Any) -> None:
    """A directory gets an indicator of a source that is believed this far."""
    more = {"valid_from": "2020-01-01T00:00:00Z", "valid_until": "2040-01-01T00:00:00Z", **changes}
    found, aside = read_objects([stix(pattern, **more)], source="cert")
    directory.mkdir(exist_ok=True, mode=0o700)
    write_private(directory / store.FILE, Indicators().merged([*found, *aside], now=0).trusting("cert", trust).encode())


def answer(settings: Settings, address: str) -> tuple[str, list[KakoiError]]:
    """The code of what a client at an address is answered, empty for an answer, and what the hub's stream would hear."""
    heard: list[KakoiError] = []
    app = app_of(open_hub(settings), lambda _: None, lambda error, _: heard.append(error))

    async def ask_it() -> httpx.Response:
        transport = httpx.ASGITransport(app=app, client=(address, 50_000))
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=transport, base_url="http://x") as client,
        ):
            return await client.get("/v1/health")

    got = asyncio.run(ask_it())
    return "" if got.status_code == 200 else str(got.json()["code"]), heard


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(directory=tmp_path / "hub", port=0, limits=LIMITS)


@pytest.mark.parametrize(
    ("pattern", "address"),
    [
        (f"[ipv4-addr:value = '{ADDRESS}']", ADDRESS),
        ("[ipv4-addr:value ISSUBSET '198.51.100.0/24']", "::ffff:198.51.100.200"),
        ("[ipv6-addr:value ISSUBSET '2001:db8::/32']", "2001:db8::9"),
    ],
)
def test_an_address_that_an_indicator_names_is_answered_nothing(settings: Settings, pattern: str, address: str) -> None:
    warn(settings.directory, pattern)
    code, heard = answer(settings, address)
    assert code == "hub.indicated"
    assert [getattr(error, "indicator", None) for error in heard] == [ID]


@pytest.mark.parametrize(
    "changes",
    [
        {"trust": 0},
        {"trust": 60},
        {"confidence": 49},
        {"valid_until": "2021-01-01T00:00:00Z"},
        {"valid_from": "2039-01-01T00:00:00Z"},
        {"revoked": True},
        {"pattern": "[ipv4-addr:value = '198.51.100.8']"},
        {"pattern": "[ipv4-addr:value ISSUBSET '198.51.100.0/8']"},
        {"pattern": "[ipv6-addr:value ISSUBSET '::/0']"},
    ],
)
def test_a_warning_that_does_not_act_turns_nobody_away(settings: Settings, changes: dict[str, Any]) -> None:
    warn(settings.directory, changes.pop("pattern", f"[ipv4-addr:value = '{ADDRESS}']"), **changes)
    assert answer(settings, ADDRESS) == ("", [])


def test_no_indicator_locks_out_loopback_or_the_hubs_own_networks(settings: Settings) -> None:
    warn(settings.directory, "[ipv4-addr:value ISSUBSET '127.0.0.0/16']")
    with running(settings) as server, client_of(server) as client:
        client.log_checkpoint()
    warn(settings.directory, f"[ipv4-addr:value = '{ADDRESS}']")
    assert answer(replace(settings, allow=("198.51.100.0/24",)), ADDRESS) == ("", [])
    # An allow-list of everybody says whom the hub serves, and vouches for nobody.
    assert answer(replace(settings, allow=("0.0.0.0/0",)), ADDRESS)[0] == "hub.indicated"


def test_a_key_that_an_indicator_names_is_refused_at_once_without_a_restart_and_let_in_again(
    settings: Settings,
) -> None:
    world = World()
    one = world.owner
    with running(settings) as server:
        with client_of(server) as client:
            client.put_object(one.card)
        for name in (one.key.verifying_key.ed25519_keyid, one.id):
            warn(settings.directory, f"[x-kakoi-key:fingerprint = '{name}']")
            until(lambda: send(server, signed(server, get(), identity=party(one))) == (403, "hub.indicated"))
            assert send(server, signed(server, get()))[0] == 200, "others are answered"
            (settings.directory / store.FILE).unlink()
            until(lambda: send(server, signed(server, get(), identity=party(one)))[0] == 200)
    with closing(Stream(settings.directory / FILE, name="hub", component="hub", now=0)) as stream:
        events = stream.newest(what="hub.indicator", limit=50)
    assert {event["unmapped"]["kakoi"]["indicator"] for event in events} == {ID}


def test_an_object_that_a_warned_key_signed_is_not_stored_whoever_sends_it(settings: Settings) -> None:
    one = World().owner
    warn(settings.directory, f"[x-kakoi-key:fingerprint = '{one.key.verifying_key.mldsa65_keyid}']")
    with running(settings) as server:
        assert send(server, signed(server, put(one))) == (403, "hub.indicated")


def test_a_list_that_is_damaged_while_the_hub_runs_changes_nothing_and_is_told(settings: Settings) -> None:
    one = World().owner
    warn(settings.directory, f"[x-kakoi-key:fingerprint = '{one.key.verifying_key.ed25519_keyid}']")
    with running(settings) as server:
        (settings.directory / store.FILE).write_text("{}")
        told = Stream(settings.directory / FILE, name="hub", component="hub", now=0, look=False)
        with closing(told):
            until(lambda: bool(told.newest(what="hub.indicator", limit=5)))
            assert told.newest(what="hub.indicator", limit=5)[0]["status_code"] == "intel.file"
        assert send(server, signed(server, put(one), identity=party(one))) == (403, "hub.indicated")
    with pytest.raises(Malformed), running(settings):
        pass


def test_certificates_of_clients_and_of_hubs(tmp_path: Path, setting: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    authority = Authority(tmp_path, "services")
    certificate, key = authority.issue("hub")
    shown = authority.issue("broker")
    settings = Settings(
        directory=tmp_path / "hub", port=0, tls_certificate=certificate, tls_key=key, tls_client_ca=authority.file
    )
    for name, value in environment(authority, shown).items():
        monkeypatch.setenv(name, value)
    with running(settings) as server:
        with connect(server.url, setting.home, patience=PATIENCE) as client:
            client.log_checkpoint()
        warn(setting.path, f"[x509-certificate:hashes.'SHA-256' = '{fingerprint(certificate)}']")
        with connect(server.url, setting.home, patience=PATIENCE) as client, pytest.raises(KakoiError) as caught:
            client.log_checkpoint()
        assert caught.value.code == "net.indicated"
        (setting.path / store.FILE).unlink()
        warn(settings.directory, f"[x509-certificate:hashes.'SHA-256' = '{fingerprint(shown[0])}']")
        until(lambda: cut(server.url, setting))
        others = tls_of(environment(authority, authority.issue("other")))
        with client_of(server, tls=others, patience=PATIENCE) as client:
            client.log_checkpoint()


def cut(url: str, setting: Setting) -> bool:
    with connect(url, setting.home, patience=PATIENCE) as client:
        try:
            client.log_checkpoint()
        except KakoiError:
            return True
    return False


def fingerprint(certificate: Path) -> str:
    import ssl

    return encoding.sha256(ssl.PEM_cert_to_DER_cert(certificate.read_text())).hex()


def until(condition: Any) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "expected it to come true"
        time.sleep(0.05)


def test_a_broker_gives_no_key_under_a_contract_with_a_warned_party_and_none_to_a_warned_session(
    setting: Setting,
) -> None:
    analyst = setting.world.analyst
    warn(setting.path, f"[x-kakoi-key:fingerprint = '{fingerprints(analyst.signing.verifying_key)[0]}']")
    assert ask(setting) == ["decision.indicator"]
    assert granted(setting) == 0


def test_a_broker_gives_no_key_to_a_warned_session(setting: Setting) -> None:
    agreement = setting.publish()
    request = setting.world.request(agreement)
    setting.hub.put_object(request)
    setting.broker().step(wait=0)
    session = setting.session(request.payload_id, agreement)
    keyid = json.loads(session.encode())["signatures"][0]["keyid"]
    warn(setting.path, f"[x-kakoi-key:fingerprint = '{keyid}']")
    setting.hub.put_object(session)
    setting.broker().step(wait=0)
    assert granted(setting) == 0


@pytest.mark.parametrize(
    "pattern", [f"[x-kakoi-measurement:value = '{'0' * 96}']", f"[x-kakoi-measurement:value = '{'f' * 64}']"]
)
def test_nobody_names_every_machine_by_a_register_that_is_empty(tmp_path: Path, pattern: str) -> None:
    warn(tmp_path, pattern)
    assert store.load(tmp_path).items == ()
