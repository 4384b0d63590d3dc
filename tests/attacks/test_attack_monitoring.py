"""Crimes against the real components, each seen by a shipped rule over the party's own stream of events."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from kakoi.broker import consent
from kakoi.broker.feed import has_history, ledger_feed
from kakoi.broker.ledger import Ledger
from kakoi.console.app import app_of
from kakoi.console.feed import people_feed
from kakoi.contract.approve import Agreement
from kakoi.contract.model import Contract, LogKey
from kakoi.core import crypto
from kakoi.core.dsse import Envelope
from kakoi.core.errors import Fatal, KakoiError, Refused
from kakoi.core.ids import ObjectId, object_id
from kakoi.guard.chain import verify_stream
from kakoi.guard.detect import Detector
from kakoi.guard.happening import Happening
from kakoi.guard.hours import Hours, read_hours
from kakoi.guard.sigma.rules import shipped
from kakoi.guard.stream import FILE, Stream
from kakoi.guard.watch import Watch
from kakoi.hub.serve import open_server, running
from kakoi.hub.settings import Settings
from kakoi.net.caller import Call, Patience
from kakoi.net.client import HubClient
from kakoi.net.identity import enclave_identity
from kakoi.sdk.alarm import alarmed_by_forks
from kakoi.testing.software_authenticator import assertion_json
from kakoi.testing.world import NOW, with_changes
from kakoi.tlog import checkpoint as checkpoints
from support.broker_setting import Setting
from support.console_desk import AGENT, ORIGIN, Desk, Visitor, open_desk
from support.hub_client import client_of
from unit.hub.hubkit import Party

RULES = shipped()


def alerts(stream: Stream) -> list[str]:
    """Titles of the alerts that stand in a stream after the rules looked at it, oldest first."""
    Detector(stream, RULES).look()
    return [event["finding_info"]["title"] for event in reversed(stream.newest(what="guard.alert", limit=1000))]


@contextmanager
def stream_of(setting: Setting, hours: Hours | None = None) -> Iterator[Stream]:
    """The party's stream with everything that the ledger holds."""
    home = setting.home
    with closing(Stream(home.path / FILE, name="Own", component="broker", signer=home.keys.signer(), now=NOW)) as made:
        ledger_feed(home.path / "ledger.sqlite", hours)(made)
        yield made


def ask(setting: Setting, agreement: Agreement, nonce: str) -> Envelope:
    """A run is asked for and challenged."""
    request = setting.world.request(agreement, nonce=nonce, at=setting.clock.now())
    setting.hub.put_object(request)
    setting.broker().step(wait=0)
    return request


def answer(setting: Setting, agreement: Agreement, nonce: str) -> Envelope:
    """A run is asked for, an enclave answers the challenge, and the broker decides."""
    request = ask(setting, agreement, nonce)
    session = setting.session(request.payload_id, agreement)
    setting.hub.put_object(session)
    setting.broker().step(wait=0)
    return session


# -- at a broker


def test_evidence_refused_in_a_row(setting: Setting) -> None:
    setting.world.change_contract = lambda contract: with_changes(
        contract, analyses=(replace(contract.analyses[0], max_runs=50),)
    )
    agreement = setting.publish()
    setting.refuse = True
    for number in range(2):
        answer(setting, agreement, str(number))
    with stream_of(setting) as stream:
        assert alerts(stream) == []
    answer(setting, agreement, "third")
    with stream_of(setting) as stream:
        assert alerts(stream) == ["Evidence refused three times in a row"]
        assert [e["status_code"] for e in stream.newest(what="broker.denial")] == ["appraisal.refused"] * 3


def test_burst_of_replays(setting: Setting) -> None:
    """Another session for a challenge that was answered is refused each time, whoever sends it."""
    agreement = setting.publish()
    for number in range(3):
        request = ask(setting, agreement, str(number))
        setting.clock.time += 700  # the recorded session is shown when its challenge is stale
        setting.hub.put_object(setting.session(request.payload_id, agreement))
        setting.broker().step(wait=0)
        setting.clock.time -= 700
    with stream_of(setting) as stream:
        assert "Burst of replays" in alerts(stream)
        assert {e["status_code"] for e in stream.newest(what="broker.denial")} == {"session.stale"}


def test_release_outside_hours(setting: Setting) -> None:
    agreement = setting.publish()
    answer(setting, agreement, "1")
    day = {
        "timezone": "Asia/Tokyo",
        "from": "00:00",
        "until": "23:59",
        "days": ["mon", "tue", "wed", "thu", "fri", "sat", "sun"],
    }
    with stream_of(setting, read_hours(day)) as stream:
        assert "Key released outside the party's hours" not in alerts(stream)
    (setting.home.path / FILE).unlink()
    never = {**day, "until": "00:01"}
    with stream_of(setting, read_hours(never)) as stream:
        assert "Key released outside the party's hours" in alerts(stream)


def test_probing_of_disclosure_rules(setting: Setting) -> None:
    agreement = setting.publish()
    for number in range(2):
        answer(setting, agreement, str(number))
    for number in range(2, 7):
        ask(setting, agreement, str(number))
    with stream_of(setting) as stream:
        assert "Probing of an owner's disclosure rules" in alerts(stream)
        assert [e["status_code"] for e in stream.newest(what="broker.denial")] == ["decision.budget"] * 5


def test_mass_withdrawal(setting: Setting) -> None:
    contracts: list[ObjectId] = []
    for number in range(3):
        setting.world.change_contract = lambda contract, n=number: with_changes(contract, title=f"Trial {n}")  # type: ignore[misc]
        contracts.append(setting.publish().id)
    for number, contract in enumerate(contracts):
        ledger = Ledger(setting.home.path / "ledger.sqlite")
        record = Contract.decode(setting.hub.get_object(contract).payload)
        wanted = consent.withdrawal_of(setting.home, record, contract, reason="no", now=NOW + number)
        consent.withdraw(home=setting.home, ledger=ledger, hub=setting.hub, withdrawal=wanted)
        ledger.close()
        with stream_of(setting) as stream:
            assert alerts(stream) == (["Mass withdrawal"] if number == 2 else [])


# -- at a console


@contextmanager
def watched(desk: Desk) -> Iterator[Watch]:
    """A console whose events are written."""
    home, clock = desk.setting.home, desk.setting.clock.now
    stream = Stream(home.path / FILE, name="Own", component="console", signer=home.keys.signer(), now=clock())
    watch = Watch(stream, component="console", clock=clock, feeds=[people_feed(home.path / "people.sqlite")])
    desk.console.watch = watch
    try:
        yield watch
    finally:
        watch.close()


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    with open_desk(tmp_path) as made:
        yield made


def fail_to_sign_in(desk: Desk, address: str) -> int:
    """One failed passkey ceremony: a real assertion over a challenge that nobody gave."""
    device = desk.device("stranger")
    form = json.dumps(assertion_json(device.assertion(b"kakoi/sign-in/v1" + bytes(32))))
    transport = httpx.ASGITransport(app=app_of(desk.console), client=(address, 4000))

    async def send() -> int:
        headers = {"user-agent": AGENT, "origin": ORIGIN}
        async with httpx.AsyncClient(transport=transport, base_url=ORIGIN, headers=headers) as client:
            return (await client.post("/sign-in", data={"answer": form})).status_code

    return asyncio.run(send())


def console_alerts(desk: Desk) -> list[str]:
    home = desk.setting.home
    with closing(Stream(home.path / FILE, name="Own", component="console", now=NOW)) as stream:
        return alerts(stream)


def test_passwordless_brute_force_and_then_somebody_is_in(desk: Desk) -> None:
    with watched(desk):
        assert {fail_to_sign_in(desk, "192.0.2.7") for _ in range(10)} == {403}
    before = console_alerts(desk)
    assert "Password-less brute force against a console" in before
    assert "Sign-in right after a brute force" not in before
    desk.setting.clock.time += 60
    with watched(desk):
        desk.enrol("Dr. Aoki")
    assert "Sign-in right after a brute force" in console_alerts(desk)


def test_failed_sign_ins_from_many_addresses(desk: Desk) -> None:
    with watched(desk):
        for number in range(5):
            fail_to_sign_in(desk, f"2001:db8::{number + 1}")
    found = console_alerts(desk)
    assert "Failed sign-ins at a console from many addresses" in found
    assert "Password-less brute force against a console" not in found


def test_what_is_turned_away_at_the_perimeter_is_an_event(desk: Desk) -> None:
    with watched(desk):
        assert desk.client(origin="https://evil.example").post("/sign-in", data={"answer": "x"}).status_code == 403
        assert desk.client().get("/sign-in", headers={"host": "evil.example"}).status_code == 421
    with closing(Stream(desk.setting.home.path / FILE, name="Own", component="console", now=NOW)) as stream:
        codes = {event["status_code"] for event in stream.newest(what="console.refused")}
    assert codes == {"console.status-403", "console.status-421"}


def test_recovery_followed_by_a_signature(desk: Desk) -> None:
    with watched(desk):
        aoki, _, chiba = desk.enrol("Dr. Aoki"), desk.enrol("Ms. Baba"), desk.enrol("Prof. Chiba", role="member")
        (lost,) = (member.id for member in desk.console.people.members() if member.name == "Ms. Baba")
        aoki.confirmed("/people/recovery", person=lost)
        (waiting,) = desk.console.people.waiting_recoveries()
        page = chiba.confirmed("/people/recovery/second", invitation=waiting.id)
        token = page.text.partition('id="link">')[2].partition("</p>")[0].rpartition("/")[2]
        anew = Visitor(desk=desk, device=desk.device("new laptop"), name="Ms. Baba")
        anew.use_invitation(token)
        anew.sign_in()
        contract = desk.publish().contract.payload_id
        anew.approve(contract)
    assert "Recovery, new passkey and a signature within a day" in console_alerts(desk)


# -- at a hub


def hub_alerts(directory: Path) -> list[str]:
    with closing(Stream(directory / FILE, name="hub", component="hub", now=NOW)) as stream:
        return alerts(stream)


def refused_by(client: HubClient, work: Any) -> str:
    with pytest.raises(KakoiError) as caught:
        work(client)
    return caught.value.code


def test_guessing_of_the_operators_token(tmp_path: Path) -> None:
    settings = Settings(directory=tmp_path / "hub", port=0)
    patience = Patience(attempts=1)
    with running(settings) as server:
        for number in range(5):
            identity = enclave_identity("x", f"{number:064x}")
            with HubClient(server.url, identity=identity, patience=patience) as client:
                assert refused_by(client, lambda c: c.claim(enclave="x", seconds=5)) == "signature.request"
    assert hub_alerts(tmp_path / "hub") == ["Guessing of the operator's token"]


def test_many_refusals_of_one_address(tmp_path: Path) -> None:
    settings = Settings(directory=tmp_path / "hub", port=0)
    with running(settings) as server, client_of(server) as client:
        for number in range(50):
            call = Call(method="GET", target=f"/v1/feed?after=x{number}")
            assert refused_by(client, lambda c, call=call: c._caller.read(call, 1000)) == "hub.query"
    assert hub_alerts(tmp_path / "hub") == ["Many refusals of one address at a hub"]
    with closing(Stream(tmp_path / "hub" / FILE, name="hub", component="hub", now=NOW)) as stream:
        lines = stream.newest(what="hub.refused")
    assert len(lines) < 20, "a flood is a few lines with counts"
    assert sum(line.get("count", 1) for line in lines) == 50


def test_a_hub_whose_database_was_put_back_contradicts_itself(tmp_path: Path) -> None:
    directory = tmp_path / "hub"
    settings = Settings(directory=directory, port=0)
    with running(settings):
        pass
    before = (directory / "hub.sqlite").read_bytes()
    with running(settings) as server, client_of(server) as client:
        north = Party("North")
        client.put_object(north.card)
        client.put_object(north.sign("analysis", author=north.id))
        client.log_checkpoint()
    (directory / "hub.sqlite").write_bytes(before)
    with pytest.raises(Fatal) as caught:
        open_server(settings)
    assert caught.value.code == "log.rolled-back"
    assert hub_alerts(directory) == ["A hub contradicts itself"]


# -- a log that lies, and a stream that was altered


def test_a_forked_log_alarms_whoever_sees_it(setting: Setting) -> None:
    """Two checkpoints of one size that the log's own key signed."""
    secret = bytes(range(32))
    key = LogKey(origin="log.test", ed25519=crypto.ed25519_public(secret))
    one, other = (
        checkpoints.verify(checkpoints.sign(origin="log.test", size=3, root=bytes([n]) * 32, secret=secret), key)
        for n in (1, 2)
    )
    with pytest.raises(Refused) as caught, alarmed_by_forks(setting.home):
        checkpoints.advance(one, other)
    assert caught.value.code == "log.fork"
    with stream_of(setting) as stream:
        assert alerts(stream) == ["The transparency log was forked or rolled back"]


@pytest.mark.parametrize("crime", ["delete", "edit", "cut", "insert"])
def test_a_stream_that_was_altered_alarms_and_does_not_verify(setting: Setting, crime: str) -> None:
    agreement = setting.publish()
    for number in range(2):
        answer(setting, agreement, str(number))
    with stream_of(setting) as stream:
        stream.sign(NOW, at_once=True)
        assert stream.verify(setting.home.card.record.verifying_key).size == stream.size
    statements = {
        "delete": "delete from event where seq = 3",
        "edit": "update event set line = cast(replace(cast(line as text), 'broker.grant', 'broker.lease') as blob) where what = 'broker.grant'",
        "cut": "delete from event where seq > 3",
        "insert": "insert into event select max(seq) + 1, max(at), what, line, hash from event",
    }
    with closing(sqlite3.connect(setting.home.path / FILE)) as database:
        database.execute(statements[crime])
        database.commit()
    with stream_of(setting) as stream:
        assert "Gap or alteration in the chain of events" in alerts(stream)
        with pytest.raises(Refused) as caught:
            stream.verify(setting.home.card.record.verifying_key)
    assert caught.value.code in ("event.gap", "event.altered", "event.cut")


@pytest.mark.parametrize("heads", ["kept", "deleted", "forged"])
def test_another_history_that_is_chained_correctly_alarms(setting: Setting, heads: str) -> None:
    """T151: whoever has the file computes every hash anew; the keys that sign heads are not in it."""
    path, mine = setting.home.path / FILE, setting.home.keys.signer()
    note = Happening(what="broker.note", at=NOW, component="broker", outcome="failure", code="session.replayed")
    with closing(Stream(path, name="Own", component="broker", signer=mine, now=NOW)) as stream:
        stream.append(*([note] * 300))
        stream.sign(NOW, at_once=True)
        kept = stream.head_lines()
    path.unlink()
    thief = setting.world.analyst.signing if heads == "forged" else None
    with closing(Stream(path, name="Own", component="broker", signer=thief, now=NOW)) as forged:
        forged.append(*([replace(note, code="session.stale")] * 300))
        forged.sign(NOW, at_once=True)
    if heads == "kept":
        with closing(sqlite3.connect(path)) as database:
            database.executemany("insert into head values (?, 0, ?)", kept)
            database.commit()
    with closing(Stream(path, name="Own", component="broker", signer=mine, now=NOW)) as stream:
        assert "Gap or alteration in the chain of events" in alerts(stream)


def test_a_stream_that_was_deleted_alarms(setting: Setting) -> None:
    agreement = setting.publish()
    answer(setting, agreement, "1")
    home = setting.home
    assert has_history(home.path / "ledger.sqlite")
    with closing(Stream(home.path / FILE, name="Own", component="broker", now=NOW, late=True)) as stream:
        assert alerts(stream) == ["The stream of events begins anew although there is a history"]


def test_nothing_of_a_message_reaches_the_stream(setting: Setting) -> None:
    """T156: whatever an error says, an event has no place for it."""
    canary = "patient 4711 has 3 siblings"
    setting.publish()
    broker = setting.broker()
    broker._desk.note(object_id(b"run"), 1, "read", Refused("session.replayed", canary, hint=canary))
    with stream_of(setting) as stream:
        text = b"".join(line for _, line in stream.everything())
    assert b"session.replayed" in text
    assert b"4711" not in text
    assert b"siblings" not in text


def test_who_has_the_file_but_not_the_keys_signs_no_head(setting: Setting) -> None:
    """A whole other history in the file, chained correctly, with a head under somebody else's key."""
    agreement = setting.publish()
    answer(setting, agreement, "1")
    thief = setting.world.analyst
    with stream_of(setting) as stream:
        stream.sign(NOW, at_once=True)
        honest = stream.heads()
    (setting.home.path / FILE).unlink()
    with closing(
        Stream(setting.home.path / FILE, name="Own", component="broker", signer=thief.signing, now=NOW)
    ) as forged:
        forged.sign(NOW, at_once=True)
        with pytest.raises(Refused) as caught:
            forged.verify(setting.home.card.record.verifying_key)
        assert caught.value.code == "signature.signer"
        with pytest.raises(Refused) as compared:
            verify_stream([line for _, line in forged.everything()], honest, setting.home.card.record.verifying_key)
        assert compared.value.code == "event.cut"
