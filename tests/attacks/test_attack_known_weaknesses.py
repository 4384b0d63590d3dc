"""Code, machines and contracts that somebody warned of get no key, and a warning only ever makes a broker refuse more. T162–T164."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from typing import Any

import pytest

from kakoi.attest.report import Measurement, Verdict
from kakoi.broker.ledger import Ledger
from kakoi.broker.quarantine import OWNER, Entry
from kakoi.contract.sign import open_signed
from kakoi.guard.intel import store
from kakoi.guard.intel.indicator import Indicator
from kakoi.guard.intel.store import Indicators, read_objects
from kakoi.party.files import write_private
from kakoi.testing.world import NOW
from kakoi.wire.messages import Challenge, Denial, KeyGrant, Lease
from support.broker_setting import Setting
from unit.intel.test_indicators import CODE, stix

MACHINE = "00112233445566778899"
LEASE = 300


@pytest.fixture
def measured(setting: Setting, monkeypatch: pytest.MonkeyPatch) -> Setting:
    """A broker whose judge accepts evidence of this code on this machine."""
    original = setting.judge

    def judge(*arguments: Any) -> Verdict:
        good = original(*arguments)
        found = (Measurement(name="mrenclave", value=CODE),)
        return replace(good, claims=replace(good.claims, measurements=found, platform_identity=MACHINE))

    monkeypatch.setattr(setting, "judge", judge)
    return setting


def warn(setting: Setting, *, trust: int = 100, kind: str = "measurement", value: str = CODE, **changes: Any) -> None:
    subject = {"measurement": "x-kakoi-measurement:value", "platform": "x-kakoi-platform:identity"}[kind]
    more = {"valid_from": "2020-01-01T00:00:00Z", "valid_until": "2040-01-01T00:00:00Z", **changes}
    found, _ = read_objects([stix(f"[{subject} = '{value}']", **more)], source="cert")
    write_private(setting.path / store.FILE, Indicators().merged(found, now=0).trusting("cert", trust).encode())


def ask(setting: Setting) -> list[str]:
    """Ask for a run and answer the challenge; the codes of what the broker denies."""
    agreement = setting.publish()
    request = setting.world.request(agreement)
    setting.hub.put_object(request)
    setting.broker().step(wait=0)
    if setting.challenges(request.payload_id, 1):
        setting.hub.put_object(setting.session(request.payload_id, agreement))
        setting.broker().step(wait=0)
    return denied(setting)


def denied(setting: Setting) -> list[str]:
    return [open_signed(Denial, e, setting.home.card).record.code for e in setting.hub.of_kind(Denial.KIND)]


def granted(setting: Setting) -> int:
    return len(setting.hub.of_kind(KeyGrant.KIND))


@pytest.mark.parametrize(("kind", "value"), [("measurement", CODE), ("platform", MACHINE)])
def test_code_and_machines_that_an_indicator_names_get_no_key(measured: Setting, kind: str, value: str) -> None:
    warn(measured, kind=kind, value=value)
    assert ask(measured) == ["decision.indicator"]
    assert granted(measured) == 0
    said = open_signed(Denial, measured.hub.of_kind(Denial.KIND)[0], measured.home.card).record
    assert "indicator--11111111-1111-4111-8111-111111111111" in said.message


@pytest.mark.parametrize(
    "changes",
    [
        {"trust": 0},
        {"confidence": 49},
        {"valid_from": "2039-01-01T00:00:00Z"},
        {"value": "cd" * 32},
        {"kind": "platform", "value": "ffeeddcc"},
    ],
)
def test_a_warning_that_does_not_act_stops_nothing(measured: Setting, changes: dict[str, Any]) -> None:
    warn(measured, **changes)
    assert ask(measured) == []
    assert granted(measured) == 1


def test_a_damaged_list_of_warnings_is_no_empty_one(measured: Setting) -> None:
    (measured.path / store.FILE).write_text("{}")
    assert ask(measured) == ["intel.file"]
    assert granted(measured) == 0


def put(setting: Setting, *, since: int) -> None:
    contract = setting.world.agreement().id
    said = "INTEL-SA-00615"
    entry = Entry(contract=contract, cause=OWNER + said, reason=said, noticed=NOW, since=since)
    with closing(Ledger(setting.path / "ledger.sqlite")) as ledger:
        ledger.quarantine.begin(entry)


def test_a_contract_in_quarantine_gets_no_key(measured: Setting) -> None:
    put(measured, since=NOW)
    assert ask(measured) == ["decision.quarantined"]
    assert measured.hub.of_kind(Challenge.KIND) == []
    assert (
        "INTEL-SA-00615" in open_signed(Denial, measured.hub.of_kind(Denial.KIND)[0], measured.home.card).record.message
    )


def test_within_the_grace_it_still_does_and_afterwards_a_running_job_ends(measured: Setting) -> None:
    put(measured, since=NOW + LEASE // 2)
    assert ask(measured) == []
    assert granted(measured) == 1
    measured.clock.time += LEASE // 2
    measured.broker().step(wait=0)
    assert denied(measured) == ["decision.quarantined"]
    assert measured.hub.of_kind(Lease.KIND) == []


def test_nobody_blocks_everybody_with_one_indicator() -> None:
    found, aside = read_objects([stix("[ipv4-addr:value ISSUBSET '0.0.0.0/1']")], source="cert")
    assert found == []
    assert len(aside) == 1


def test_a_stranger_s_indicators_act_on_nothing() -> None:
    found, _ = read_objects([stix(confidence=100)], source="stranger")
    assert all(isinstance(item, Indicator) for item in found)
    assert Indicators().trusting("cert", 100).merged(found, now=0).acting("measurement", found[0].valid_from) == {}
