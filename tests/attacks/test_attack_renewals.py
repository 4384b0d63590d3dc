"""A broker and a job that goes on: asked again, renewed, taken back, and never more than the owner meant."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from kakoi.attest.report import Collateral, Evidence
from kakoi.broker import consent
from kakoi.broker.consent import WithdrawalReceipt
from kakoi.broker.ledger import Ledger
from kakoi.contract.sign import open_signed
from kakoi.core.dsse import Envelope
from kakoi.core.errors import Unavailable
from kakoi.core.ids import ObjectId
from kakoi.net.answers import RunState
from kakoi.testing.world import NOW, with_changes
from kakoi.wire.messages import Challenge, Denial, KeyGrant, Lease
from support.broker_setting import Setting

LEASE = 300


@dataclass
class Case:
    """A session that holds the owner's key."""

    setting: Setting
    run: ObjectId
    session: Envelope

    def step(self, *, after: int = 0) -> None:
        self.setting.clock.time += after
        self.setting.broker().step(wait=0)

    def renew(self, number: int, **more: str) -> Envelope:
        envelope = self.setting.renewal(self.session, number, **more)
        self.setting.hub.put_object(envelope)
        return envelope

    def asked(self) -> list[int]:
        """Numbers of the renewals that the owner asked for."""
        found = [Challenge.decode(e.payload) for e in self.setting.hub.of_kind(Challenge.KIND)]
        return [challenge.renewal for challenge in found if challenge.renewal]

    def leases(self) -> list[Lease]:
        card = self.setting.home.card
        return [open_signed(Lease, envelope, card).record for envelope in self.setting.hub.of_kind(Lease.KIND)]

    def denied(self) -> list[str]:
        card = self.setting.home.card
        return [open_signed(Denial, e, card).record.code for e in self.setting.hub.of_kind(Denial.KIND)]

    def ledger(self) -> Ledger:
        return Ledger(self.setting.path / "ledger.sqlite")


@pytest.fixture
def case(setting: Setting) -> Case:
    return granted(setting)


def granted(setting: Setting) -> Case:
    agreement = setting.publish()
    request = setting.world.request(agreement)
    setting.hub.put_object(request)
    setting.broker().step(wait=0)
    session = setting.session(request.payload_id, agreement)
    setting.hub.put_object(session)
    setting.broker().step(wait=0)
    assert len(setting.hub.of_kind(KeyGrant.KIND)) == 1
    return Case(setting, request.payload_id, session)


def test_it_asks_when_half_of_the_lease_is_over_and_once(case: Case) -> None:
    case.step(after=LEASE // 2 - 1)
    assert case.asked() == []
    case.step(after=1)
    case.step()
    case.step(after=10)
    assert case.asked() == [1]


def test_fresh_evidence_renews_the_lease_without_a_key(case: Case) -> None:
    for number in (1, 2, 3):
        case.step(after=LEASE // 2)
        evidence = case.renew(number)
        case.step()
        case.step()
        lease = case.leases()[-1]
        assert (lease.renewal, lease.evidence, lease.session) == (number, evidence.payload_id, case.session.payload_id)
        assert lease.lease_until - lease.issued_at == LEASE
        assert (
            lease.verdict.claims.report_data
            != KeyGrant.decode(case.setting.hub.of_kind(KeyGrant.KIND)[0].payload).verdict.claims.report_data
        )
    assert case.asked() == [1, 2, 3]
    assert len(case.setting.hub.of_kind(KeyGrant.KIND)) == 1
    assert [line["step"] for line in case.ledger().decisions()] == [
        "challenge",
        "grant",
        *itertools.chain.from_iterable((f"challenge.{n}", f"lease.{n}") for n in (1, 2, 3)),
    ]


def test_renewals_use_no_budget_and_need_no_young_request(case: Case) -> None:
    """The request was judged when the keys were granted; a job may take a week."""
    for number in range(1, 4):
        case.step(after=LEASE // 2)
        case.renew(number)
        case.step()
    contract = case.leases()[0].contract
    analysis = next(iter(case.setting.world.agreement().analyses))
    assert case.ledger().granted_runs(contract, analysis, besides="") == 1
    case.setting.clock.time += LEASE // 2
    assert case.denied() == []


def withdraw(case: Case) -> None:
    ledger = case.ledger()
    ledger.withdraw(case.setting.world.agreement().id, NOW)
    ledger.close()


def withdraw_data(case: Case) -> None:
    ledger = case.ledger()
    owner = case.setting.world.owners[0].id
    ledger.withdraw(case.setting.world.agreement().data_of(owner)[0].manifest, NOW)
    ledger.close()


@pytest.mark.parametrize("spoil", [withdraw, withdraw_data])
def test_a_withdrawal_stops_the_job_at_once(case: Case, spoil: Callable[[Case], None]) -> None:
    """Not only when the lease is due: the next round says no, and nothing afterwards says yes."""
    spoil(case)
    case.step(after=1)
    assert case.denied() == ["decision.withdrawn"]
    case.step(after=LEASE // 2)
    assert case.asked() == []


def test_a_withdrawal_between_question_and_answer(case: Case) -> None:
    case.step(after=LEASE // 2)
    withdraw(case)
    case.renew(1)
    case.step()
    assert case.denied() == ["decision.withdrawn"]
    assert case.leases() == []


def test_evidence_that_no_longer_pleases_takes_the_lease_back(case: Case) -> None:
    """A TCB that fell behind, an advisory, a revoked certificate: whatever the judge says now."""
    case.step(after=LEASE // 2)
    case.setting.refuse = True
    case.renew(1)
    case.step()
    assert case.denied() == ["appraisal.refused"]
    assert case.leases() == []


def test_the_contract_ends_while_the_job_runs(setting: Setting) -> None:
    setting.world.change_contract = lambda contract: with_changes(contract, expires=NOW + 100)
    case = granted(setting)
    case.step(after=99)
    assert case.denied() == []
    case.step(after=1)
    assert case.denied() == ["contract.expired"]


def test_fresh_evidence_after_the_lease_renews_nothing(case: Case) -> None:
    case.step(after=LEASE // 2)
    case.renew(1)
    case.step(after=LEASE)
    assert case.leases() == []
    assert case.setting.told[-1].code == "session.lease-over"


def test_another_sessions_evidence_renews_nothing(case: Case) -> None:
    """A thief with keys of its own answers this owner's question."""
    case.step(after=LEASE // 2)
    agreement = case.setting.world.agreement()
    foreign = case.setting.session(case.run, agreement, keys="thief")
    case.setting.hub.put_object(foreign)
    case.setting.hub.put_object(case.setting.renewal(foreign, 1, keys="thief"))
    case.setting.hub.put_object(case.setting.renewal(case.session, 1, keys="thief"))
    case.step()
    assert case.leases() == []
    assert {line["code"] for line in case.ledger().decisions() if line["outcome"] == "no"} == {
        "session.second",
        "session.replayed",
        "signature.signer",
    }


def test_old_evidence_answers_no_new_question(case: Case) -> None:
    case.step(after=LEASE // 2)
    old = case.renew(1)
    case.step()
    case.step(after=LEASE // 2)
    case.setting.hub.objects.append(("kakoi/session-renewal/v1", old))
    case.step()
    assert [lease.renewal for lease in case.leases()] == [1]
    assert case.asked() == [1, 2]


def test_a_run_that_ended_is_asked_nothing(case: Case) -> None:
    case.setting.hub.states[case.run] = RunState(state="done", attempt=1)
    case.step(after=LEASE // 2)
    assert case.asked() == []


def test_a_silent_vendor_is_waited_for_within_the_lease(case: Case) -> None:
    class Vendor:
        silent = True

        def collateral(self, evidence: Evidence, now: int) -> Collateral:
            if self.silent:
                raise Unavailable("collateral.timeout", "expected an answer in time, got none")
            return Collateral(parts=())

    vendor = Vendor()
    case.setting.collateral = vendor
    case.step(after=LEASE // 2)
    case.renew(1)
    case.step()
    case.step(after=20)
    assert (case.leases(), case.denied()) == ([], [])
    assert [d.code for d in case.setting.told].count("collateral.timeout") == 1
    vendor.silent = False
    case.step(after=20)
    assert [lease.renewal for lease in case.leases()] == [1]


def test_a_receipt_of_withdrawal_counts_renewed_leases(case: Case) -> None:
    case.step(after=LEASE // 2)
    case.renew(1)
    case.step()
    until = case.leases()[-1].lease_until
    agreement, ledger = case.setting.world.agreement(), case.ledger()
    now = case.setting.clock.time
    record = consent.withdrawal_of(case.setting.home, agreement.contract, agreement.id, reason="r", now=now)
    consent.withdraw(home=case.setting.home, ledger=ledger, hub=case.setting.hub, withdrawal=record)
    made = consent.receipt(home=case.setting.home, ledger=ledger, hub=case.setting.hub, contract=agreement.id, now=now)
    assert WithdrawalReceipt.decode(made.payload).last_lease_until == until


class Crash(BaseException):
    """The process dies."""


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("nth", range(10))
def test_death_at_every_request_of_a_renewal_repeats_nothing(case: Case, when: str, nth: int) -> None:
    hub, counter = case.setting.hub, itertools.count()

    def die(step: str) -> None:
        if next(counter) == nth:
            raise Crash(step)

    case.setting.clock.time += LEASE // 2
    setattr(hub, when, die)
    for _ in range(6):
        try:
            case.setting.broker().step(wait=0)
        except Crash:
            continue
        if case.asked() and not hub.of_kind("kakoi/session-renewal/v1"):
            hub.before = hub.after = lambda step: None
            case.renew(1)
            setattr(hub, when, die)
    assert case.asked() == [1]
    assert [lease.renewal for lease in case.leases()] == [1]
    assert case.denied() == []
