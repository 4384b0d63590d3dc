"""A session whose endorsements nobody gives now is put off, not refused; and evaluation numbers never go back."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from kakoi.attest.report import Collateral, Evidence
from kakoi.broker.ledger import Ledger
from kakoi.broker.service import COLLATERAL_SECONDS
from kakoi.contract.sign import open_signed
from kakoi.core.dsse import Envelope
from kakoi.core.errors import Unavailable
from kakoi.wire.messages import Denial, KeyGrant
from support.broker_setting import Setting


@dataclass
class Vendor:
    """Silent until told to speak."""

    silent: bool = True
    asked: int = 0
    hub_fails: list[str] = field(default_factory=list)

    def collateral(self, evidence: Evidence, now: int) -> Collateral:
        self.asked += 1
        if self.silent:
            raise Unavailable("collateral.timeout", "expected an answer in time, got none", hint="try again")
        return Collateral(parts=())


@dataclass
class Case:
    setting: Setting
    vendor: Vendor
    request: Envelope
    session: Envelope

    def codes(self) -> list[str]:
        return [str(line["code"]) for line in Ledger(self.setting.path / "ledger.sqlite").decisions()]


@pytest.fixture
def case(setting: Setting) -> Case:
    """A session that the vendor's silence keeps from being judged."""
    vendor = Vendor()
    setting.collateral = vendor
    agreement = setting.publish()
    request = setting.world.request(agreement)
    setting.hub.put_object(request)
    setting.broker().step(wait=0)
    session = setting.session(request.payload_id, agreement)
    setting.hub.put_object(session)
    setting.broker().step(wait=0)
    return Case(setting, vendor, request, session)


def test_the_session_waits_and_the_log_says_why_once(case: Case) -> None:
    assert not case.setting.hub.of_kind(KeyGrant.KIND)
    assert not case.setting.hub.of_kind(Denial.KIND)
    broker = case.setting.broker()
    for _ in range(3):
        broker.step(wait=0)
    assert case.vendor.asked >= 4
    assert case.codes() == ["", "collateral.timeout"]


def test_the_grant_comes_when_the_vendor_answers_after_a_crash_too(case: Case) -> None:
    case.vendor.silent = False
    case.setting.broker().step(wait=0)
    (grant,) = case.setting.hub.of_kind(KeyGrant.KIND)
    assert open_signed(KeyGrant, grant, case.setting.home.card).record.session == case.session.payload_id
    assert Ledger(case.setting.path / "ledger.sqlite").waiting() == []
    case.setting.broker().step(wait=0)
    assert len(case.setting.hub.of_kind(KeyGrant.KIND)) == 1


def test_the_analyst_learns_why_in_the_end(case: Case) -> None:
    case.setting.clock.time += COLLATERAL_SECONDS
    case.setting.broker().step(wait=0)
    assert not case.setting.hub.of_kind(Denial.KIND)
    case.setting.clock.time += 1
    case.setting.broker().step(wait=0)
    (denial,) = case.setting.hub.of_kind(Denial.KIND)
    said = open_signed(Denial, denial, case.setting.home.card).record
    assert said.code == "collateral.timeout"
    assert said.hint
    assert case.codes() == ["", "collateral.timeout", "collateral.timeout"]
    assert Ledger(case.setting.path / "ledger.sqlite").waiting() == []


def test_a_run_that_has_ended_is_waited_for_no_more(case: Case) -> None:
    ledger = Ledger(case.setting.path / "ledger.sqlite")
    ledger.close_run(case.request.payload_id)
    asked = case.vendor.asked
    case.setting.broker().step(wait=0)
    assert case.vendor.asked == asked
    assert ledger.waiting() == []


def test_nobody_is_asked_for_a_session_that_is_refused_anyway(setting: Setting) -> None:
    """A withdrawn contract, another platform: a broker does not call its vendors for whoever sends it evidence."""
    vendor = Vendor(silent=False)
    setting.collateral = vendor
    agreement = setting.publish()
    request = setting.world.request(agreement)
    setting.hub.put_object(request)
    setting.broker().step(wait=0)
    setting.hub.put_object(setting.session(request.payload_id, agreement))
    Ledger(setting.path / "ledger.sqlite").withdraw(agreement.id, setting.clock.time)
    setting.broker().step(wait=0)
    assert vendor.asked == 0
    (denial,) = setting.hub.of_kind(Denial.KIND)
    assert open_signed(Denial, denial, setting.home.card).record.code == "decision.withdrawn"


def test_evaluation_numbers_are_remembered_and_given_to_the_judge(setting: Setting) -> None:
    agreement = setting.publish()
    for number, nonce in ((17, "a"), (18, "b")):
        setting.evaluation_number = number
        request = setting.world.request(agreement, nonce=nonce)
        setting.hub.put_object(request)
        broker = setting.broker()
        broker.step(wait=0)
        setting.hub.put_object(setting.session(request.payload_id, agreement, keys=nonce))
        broker.step(wait=0)
    fmspc = "00906ed50000"
    assert setting.floors == [{}, {fmspc: 17}]
    ledger = Ledger(setting.path / "ledger.sqlite")
    ledger.raise_floor("software", fmspc, 16)
    assert ledger.floors("software") == {fmspc: 18}
    assert ledger.floors("sgx") == {}


def test_a_refused_session_raises_no_floor(setting: Setting) -> None:
    setting.evaluation_number, setting.refuse = 99, True
    agreement = setting.publish()
    request = setting.world.request(agreement)
    setting.hub.put_object(request)
    setting.broker().step(wait=0)
    setting.hub.put_object(setting.session(request.payload_id, agreement))
    setting.broker().step(wait=0)
    assert len(setting.hub.of_kind(Denial.KIND)) == 1
    assert Ledger(setting.path / "ledger.sqlite").floors("software") == {}
