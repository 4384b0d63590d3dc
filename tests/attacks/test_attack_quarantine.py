"""A contract that a known weakness touches goes into quarantine by itself once its grace is over; only a signature takes it out. T163."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from typing import Any

import pytest

from attacks.test_attack_known_weaknesses import ask, denied, granted, warn
from attacks.test_attack_monitoring import alerts
from kakoi.attest.report import Component as TcbComponent
from kakoi.attest.report import Measurement, Verdict
from kakoi.broker import known
from kakoi.broker.feed import ledger_feed
from kakoi.broker.ledger import Ledger
from kakoi.broker.quarantine import Entry, QuarantineLift
from kakoi.contract.sign import open_self_signed, seal
from kakoi.core.crypto import SIGNING_SECRET, SigningKey
from kakoi.core.ids import PartyId, parse_id
from kakoi.guard.intel import store
from kakoi.guard.registers import code_accepted
from kakoi.guard.stream import Stream
from kakoi.guard.weakness.bill import MEASUREMENT
from kakoi.guard.weakness.snapshot import KIND
from kakoi.testing.world import NOW, seeded
from support.broker_setting import Setting
from support.command_line import runner

DAY = 86400
GRACE = 14
OSV = {
    "id": "PYSEC-2099-1",
    "aliases": ["CVE-2099-1"],
    "published": "2026-01-01",
    "affected": [
        {
            "package": {"ecosystem": "PyPI", "name": "duckdb"},
            "ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "2.0.2"}]}],
        }
    ],
}


@pytest.fixture
def owner(setting: Setting) -> Setting:
    """An owner whose contract lasts long enough for a grace to end."""
    agree_on(setting, grace_days=GRACE)
    return setting


def agree_on(setting: Setting, **changes: Any) -> None:
    setting.world.change_contract = lambda contract: replace(contract, expires=NOW + 90 * DAY, **changes)


def ask_again(setting: Setting) -> list[str]:
    """Another run, asked for now; the codes of what the broker denies in all."""
    request = setting.world.request(setting.world.agreement(), at=setting.clock.time, nonce=str(setting.clock.time))
    setting.hub.put_object(request)
    step(setting)
    return denied(setting)


def image_of(setting: Setting) -> str:
    (policy,) = setting.world.agreement().contract.platforms.accepted
    return next(iter(code_accepted(policy)))


def advisory(setting: Setting, *, version: str = "2.0.1", image: str = "") -> None:
    """The owner has an advisory about a package, and the bill of the image that the contract accepts."""
    bill = {
        "bomFormat": "CycloneDX",
        "metadata": {
            "component": {"name": "kakoi-enclave"},
            "properties": [{"name": MEASUREMENT, "value": image or image_of(setting)}],
        },
        "components": [{"name": "duckdb", "version": version, "purl": f"pkg:pypi/duckdb@{version}"}],
    }
    (setting.path / known.BILLS).mkdir(exist_ok=True)
    (setting.path / known.BILLS / "enclave.json").write_text(json.dumps(bill))
    snapshot = {"kind": KIND, "source": "test", "revision": "", "date": "2026-01-01", "advisories": [OSV]}
    (setting.path / known.ADVISORIES).write_text(json.dumps(snapshot))


def entries(setting: Setting) -> list[Entry]:
    with closing(Ledger(setting.path / "ledger.sqlite")) as ledger:
        return ledger.quarantine.entries()


def happened(setting: Setting) -> list[str]:
    """What the party's stream of events says of quarantines, and that the rules raise an alert of it."""
    key = SigningKey(seeded("events", SIGNING_SECRET))
    path = setting.path / "happened.sqlite"
    with closing(Stream(path, name="x", component="broker", signer=key, now=setting.clock.time)) as stream:
        ledger_feed(setting.path / "ledger.sqlite", None)(stream)
        codes = [e["status_code"] for e in reversed(stream.newest(what="contract.quarantine", limit=50))]
        raised = alerts(stream)
        assert ("A known weakness touches a contract" in raised) is ("quarantine.begun" in codes)
        assert ("The grace of a contract is over" in raised) is ("quarantine.over" in codes)
        return codes


def step(setting: Setting, *, after: int = 0) -> None:
    setting.clock.time += after
    setting.broker().step(wait=0)


def test_an_advisory_stops_a_contract_after_its_grace_and_not_before(owner: Setting) -> None:
    advisory(owner)
    assert ask(owner) == []
    assert granted(owner) == 1
    (entry,) = entries(owner)
    assert entry.since == NOW + GRACE * DAY
    assert "PYSEC-2099-1" in entry.reason
    assert "duckdb 2.0.1" in entry.reason
    assert any(decision.code == "quarantine.begun" for decision in owner.told)
    step(owner, after=GRACE * DAY - 1)
    assert "quarantine.over" not in [decision.code for decision in owner.told]
    step(owner, after=1)
    assert ask_again(owner) == ["decision.quarantined"]
    assert happened(owner) == ["quarantine.begun", "quarantine.over"]
    # A broker that starts anew knows it too, and tells nothing twice.
    step(owner)
    assert happened(owner) == ["quarantine.begun", "quarantine.over"]


def test_a_contract_without_grace_is_stopped_at_once(owner: Setting) -> None:
    agree_on(owner, grace_days=0)
    advisory(owner)
    assert ask(owner) == ["decision.quarantined"]
    assert granted(owner) == 0


@pytest.mark.parametrize(
    "spoil",
    [
        lambda s: advisory(s, version="2.0.2"),
        lambda s: advisory(s, image="ee" * 32),
        lambda s: (s.path / known.ADVISORIES).unlink(missing_ok=True),
    ],
)
def test_what_does_not_touch_the_contract_stops_nothing(owner: Setting, spoil: Callable[[Setting], Any]) -> None:
    advisory(owner)
    spoil(owner)
    assert ask(owner) == []
    assert entries(owner) == []
    step(owner, after=GRACE * DAY)
    assert ask_again(owner) == []


def test_what_was_mended_within_the_grace_is_forgotten(owner: Setting) -> None:
    advisory(owner)
    ask(owner)
    advisory(owner, version="2.0.2")
    step(owner, after=DAY)
    assert entries(owner) == []
    assert happened(owner) == ["quarantine.begun", "quarantine.cleared"]


def test_what_was_mended_too_late_stays_until_somebody_signs(owner: Setting) -> None:
    advisory(owner)
    ask(owner)
    step(owner, after=GRACE * DAY)
    advisory(owner, version="2.0.2")
    step(owner, after=DAY)
    assert len(entries(owner)) == 1


def lift(setting: Setting, *, signer: Any = None) -> None:
    (entry,) = entries(setting)
    record = QuarantineLift(
        party=PartyId(setting.home.card.id),
        contract=parse_id(entry.contract),
        causes=(entry.cause,),
        reason="the code path is not used",
        lifted_at=setting.clock.time,
    )
    key = signer or setting.home.keys.signer()
    signed = open_self_signed(QuarantineLift, seal(record, key), lambda _: key.verifying_key)
    with closing(Ledger(setting.path / "ledger.sqlite")) as ledger:
        ledger.quarantine.lift(signed)


def test_a_signed_lift_holds_for_what_was_known_and_not_for_the_next_weakness(owner: Setting) -> None:
    advisory(owner)
    ask(owner)
    step(owner, after=GRACE * DAY)
    lift(owner)
    step(owner, after=DAY)
    assert entries(owner) == []
    assert ask_again(owner) == []
    snapshot = json.loads((owner.path / known.ADVISORIES).read_text())
    snapshot["advisories"].append({**OSV, "id": "PYSEC-2099-2", "aliases": []})
    (owner.path / known.ADVISORIES).write_text(json.dumps(snapshot))
    step(owner)
    assert [entry.reason.partition(":")[0] for entry in entries(owner)] == ["PYSEC-2099-2"]


def test_a_lift_that_somebody_else_signed_lifts_nothing(owner: Setting) -> None:
    advisory(owner)
    ask(owner)
    lift(owner, signer=SigningKey(seeded("thief", SIGNING_SECRET)))
    step(owner, after=1)
    assert len(entries(owner)) == 1


def test_an_indicator_that_names_accepted_code_begins_the_grace_and_its_revocation_ends_it(owner: Setting) -> None:
    warn(owner, value=image_of(owner))
    ask(owner)
    (entry,) = entries(owner)
    assert "indicator--" in entry.reason
    (owner.path / store.FILE).unlink()
    step(owner, after=DAY)
    assert entries(owner) == []


def test_a_tcb_that_a_question_is_about_touches_the_machines_that_got_keys(
    owner: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, microcode = owner.judge, [212]

    def judge(*arguments: Any) -> Verdict:
        good = original(*arguments)
        component = TcbComponent(name="microcode", version=microcode[0])
        claims = replace(
            good.claims, platform="snp", product="Milan", platform_identity="00" * 7 + "01", tcb=(component,)
        )
        return replace(good, claims=replace(claims, measurements=(Measurement(name="measurement", value="ab" * 48),)))

    monkeypatch.setattr(owner, "judge", judge)
    known.watch(owner.path, ["snp/Milan:microcode<213"])
    assert ask(owner) == []
    step(owner, after=1)
    (entry,) = entries(owner)
    assert "microcode 212 is below 213" in entry.reason


@pytest.mark.parametrize("name", [known.ADVISORIES, known.WATCHED, "bills/enclave.json"])
@pytest.mark.parametrize("text", ["", "{}", "[]"])
def test_who_cannot_see_gives_no_keys(owner: Setting, name: str, text: str) -> None:
    advisory(owner)
    known.watch(owner.path, ["INTEL-SA-00615"])
    (owner.path / name).write_text(text)
    assert len(ask(owner)) == 1
    assert granted(owner) == 0


def test_the_owners_command_and_its_lift(owner: Setting, capsys: pytest.CaptureFixture[str]) -> None:
    cli, contract = runner(capsys), owner.publish().id
    assert cli("quarantine", "add", "--party", owner.path, contract, "--reason", "why", "--grace-days", 0).code == 0
    assert "why" in cli("quarantine", "list", "--party", owner.path).out
    key = owner.path.parent / "key"
    done = cli("quarantine", "lift", "--party", owner.path, contract, "--reason", "mended", "--key-file", key)
    assert done.code == 0, done.err
    assert entries(owner) == []
    assert cli("quarantine", "lift", "--party", owner.path, contract, "--reason", "x", "--key-file", key).code == 2


def test_questions_that_are_none_are_not_watched(owner: Setting, capsys: pytest.CaptureFixture[str]) -> None:
    cli = runner(capsys)
    assert cli("quarantine", "watch", "--party", owner.path, "what?").code == 2
    assert cli("quarantine", "watch", "--party", owner.path, "snp/Milan:microcode<213").code == 0
    assert "snp/Milan" in cli("quarantine", "watch", "--party", owner.path).out
    assert cli("quarantine", "watch", "--party", owner.path, "--forget", "snp/Milan:microcode<213").code == 0
    assert known.watched(owner.path) == ()
