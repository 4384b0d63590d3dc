"""Approval and withdrawal: own ledger first, the receipt says what the keys were used for, and all of it can be repeated."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from kakoi.broker import consent
from kakoi.broker.consent import WithdrawalReceipt
from kakoi.broker.ledger import Ledger
from kakoi.contract.model import Approval, Contract, Withdrawal
from kakoi.contract.sign import open_signed
from kakoi.core.errors import Malformed, Refused, Unavailable
from kakoi.core.ids import ObjectId
from kakoi.testing.memory_hub import unavailable
from kakoi.testing.world import NOW
from support.console_desk import Desk, open_desk


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    with open_desk(tmp_path) as made:
        yield made


@pytest.fixture
def ledger(desk: Desk) -> Iterator[Ledger]:
    made = Ledger(desk.setting.home.path / "ledger.sqlite")
    yield made
    made.close()


def withdrawal(desk: Desk, contract: ObjectId) -> Withdrawal:
    record = Contract.decode(desk.hub.get_object(contract).payload)
    return consent.withdrawal_of(desk.setting.home, record, contract, reason="Because.", now=NOW)


def approve(desk: Desk, ledger: Ledger, contract: ObjectId) -> None:
    consent.approve(home=desk.setting.home, ledger=ledger, hub=desk.hub, contract=contract, assertions=(), now=NOW)


def test_an_approval_is_in_the_own_ledger_before_the_hub_hears_of_it(desk: Desk, ledger: Ledger) -> None:
    contract = desk.publish().contract.payload_id
    desk.hub.before = lambda step: unavailable(step) if step == "put_object" else None
    with pytest.raises(Unavailable):
        approve(desk, ledger, contract)
    assert contract in ledger.approved()
    desk.hub.before = lambda step: None
    approve(desk, ledger, contract)
    mine = [
        a
        for a in (Approval.decode(e.payload) for e in desk.hub.of_kind(Approval.KIND))
        if a.party in desk.setting.home.ids
    ]
    assert len({a.contract for a in mine}) == 1


def test_a_withdrawal_works_without_a_hub_and_is_for_ever(desk: Desk, ledger: Ledger) -> None:
    contract = desk.publish().contract.payload_id
    approve(desk, ledger, contract)
    record = withdrawal(desk, contract)
    desk.hub.before = lambda step: unavailable(step) if step == "put_object" else None
    with pytest.raises(Unavailable):
        consent.withdraw(home=desk.setting.home, ledger=ledger, hub=desk.hub, withdrawal=record)
    assert contract in ledger.withdrawn()
    desk.hub.before = lambda step: None
    consent.withdraw(home=desk.setting.home, ledger=ledger, hub=desk.hub, withdrawal=record)
    assert [e.payload_id for e in desk.hub.of_kind(Withdrawal.KIND)] == [record.id]
    with pytest.raises(Refused) as caught:
        approve(desk, ledger, contract)
    assert caught.value.code == "approval.withdrawn"


def test_a_receipt_of_what_never_ran(desk: Desk, ledger: Ledger) -> None:
    contract = desk.publish().contract.payload_id
    with pytest.raises(Refused) as caught:
        consent.receipt(home=desk.setting.home, ledger=ledger, hub=desk.hub, contract=contract, now=NOW)
    assert caught.value.code == "receipt.not-withdrawn"
    consent.withdraw(home=desk.setting.home, ledger=ledger, hub=desk.hub, withdrawal=withdrawal(desk, contract))
    envelope = consent.receipt(home=desk.setting.home, ledger=ledger, hub=desk.hub, contract=contract, now=NOW + 5)
    record = open_signed(WithdrawalReceipt, envelope, desk.setting.home.card).record
    assert (record.contract, record.asked, record.granted, record.last_lease_until) == (contract, 0, (), None)
    assert record.issued_at == NOW + 5


def test_a_receipt_names_its_last_lease() -> None:
    run = consent.ReceiptRun(run=ObjectId("1" * 64), lease_until=50, results=())
    fields = {
        "party": "2" * 64,
        "withdrawal": ObjectId("3" * 64),
        "contract": ObjectId("4" * 64),
        "withdrawn_at": 1,
        "people": (),
        "asked": 1,
        "granted": (run,),
        "issued_at": 60,
    }
    assert WithdrawalReceipt(**fields, last_lease_until=50).last_lease_until == 50  # type: ignore[arg-type]
    with pytest.raises(Malformed):
        WithdrawalReceipt(**fields, last_lease_until=None)  # type: ignore[arg-type]
