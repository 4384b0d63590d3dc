"""Pages that tell a party what others did and what it knows of its own data."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from kakoi.broker import consent, decisions
from kakoi.broker.consent import WithdrawalReceipt
from kakoi.broker.ledger import Decision, Ledger
from kakoi.contract.model import DatasetManifest, Withdrawal
from kakoi.contract.sign import open_signed, seal
from kakoi.sdk.ingest.report import Check, Report
from kakoi.sdk.opt_out import seal_list
from kakoi.testing.software_authenticator import assertion_json
from kakoi.testing.world import NOW, column
from support.console_desk import Desk, Visitor, open_desk


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    with open_desk(tmp_path) as made:
        yield made


@pytest.fixture
def aoki(desk: Desk) -> Visitor:
    made = desk.enrol("Dr. Aoki")
    desk.card_with(1)
    return made


def test_others_withdrawals_are_told_on_the_home_page_for_a_week(desk: Desk, aoki: Visitor) -> None:
    bundle = desk.publish()
    contract = bundle.contract.payload_id
    aoki.approve(contract)
    assert "withdrew at" not in aoki.page("/")
    east = desk.setting.world.owners[1]
    record = Withdrawal(party=east.id, contract=contract, dataset=None, reason="A pause <b>.", withdrawn_at=NOW)
    desk.hub.put_object(seal(record, east.signing))
    desk.console.library.look_again()
    page = aoki.page("/")
    assert "East withdrew at" in page
    assert "A pause <b>." in page
    assert "A pause <b>" not in aoki.get("/").text
    assert "withdrawn" in aoki.page(f"/contracts/{contract}")
    desk.setting.clock.time += 8 * 86400
    aoki.sign_in()
    assert "withdrew at" not in aoki.page("/")


def test_a_data_sets_page_shows_its_validation_report_to_its_owner(desk: Desk, aoki: Visitor) -> None:
    home = desk.setting.home
    first = next(iter(home.datasets().values()))
    assert "No report was kept" in aoki.page(f"/data/{first.id}")
    checks = (
        Check(name="isForeignKey", rule="code", column="sex", rows=500, violated=3, first_row=17, accepted=True),
        Check(name="measureValueCompleteness", rule="missing", column="age", rows=500, violated=12, first_row=None, accepted=False),
        Check(name="cdmDatatype", rule="type", column="age", rows=500, violated=0, first_row=None, accepted=False),
    )  # fmt: skip
    report = Report(file="north.csv", table="trial", rows=500, checks=checks)
    version = replace(first.record, version=2)
    made = home.store_dataset(
        version, desk.setting.world.data_key(desk.setting.world.owners[0]), report=report.encode()
    )
    page = aoki.page(f"/data/{made.payload_id}")
    for text in ("north.csv: 500 rows", "cells are none of the codes", "3 / 500", "accepted by name", "12 / 500"):
        assert text in page
    assert "1 checks found nothing" in page
    aoki.client.cookies.set("kakoi-language", "ja")
    assert "コードのどれでもないセル" in aoki.page(f"/data/{made.payload_id}")
    aoki.client.cookies.set("kakoi-language", "en")
    bundle = desk.publish()
    other = DatasetManifest.decode(bundle.manifests[1].payload)
    assert other.owner not in home.ids
    assert "Validation report" not in aoki.page(f"/data/{other.id}")


def test_each_decision_has_a_proof_to_take_away(desk: Desk, aoki: Visitor) -> None:
    assert "Proofs for others" not in aoki.page("/decisions")
    with closing(Ledger(desk.setting.home.path / "ledger.sqlite")) as ledger:
        for number in range(3):
            ledger.note(
                Decision(at=NOW, run="", attempt=0, step="read", outcome="no", code="a.b", message=f"{number}", hint="")
            )
    page = aoki.page("/decisions")
    assert "Proofs for others" in page
    assert 'href="/decisions/2/proof"' in page
    data = aoki.get("/decisions/2/proof").content
    assert decisions.verify(data, desk.setting.home.card).body["message"] == "1"
    assert aoki.get("/decisions/4/proof").status_code == 403
    for odd in ("0", "-1", "x", "²", "9" * 30):
        assert aoki.get(f"/decisions/{odd}/proof").status_code in (403, 404)


def test_a_data_set_is_withdrawn_from_every_contract_with_one_passkey(desk: Desk, aoki: Visitor) -> None:
    home = desk.setting.home
    contract = desk.publish().contract.payload_id
    aoki.approve(contract)
    mine = next(identity for identity, signed in home.datasets().items() if signed.record.owner == home.ids[0])
    assert "Withdraw this data set" in aoki.page(f"/data/{mine}")
    prepared = aoki.post(f"/data/{mine}/withdraw", reason="Patients asked for it.")
    where = prepared.headers["location"]
    assert "Withdraw this data set from every contract?" in aoki.page(where)
    assertion = aoki.device.assertion(bytes.fromhex(where.rpartition("/")[2]))
    done = aoki.post(where, answer=json.dumps(assertion_json(assertion)))
    assert done.headers["location"] == f"/data/{mine}"
    told = [Withdrawal.decode(envelope.payload) for envelope in desk.hub.of_kind(Withdrawal.KIND)]
    versions = {i for i, s in home.datasets().items() if s.record.dataset == home.datasets()[mine].record.dataset}
    assert {item.dataset for item in told} == versions
    assert all((item.contract, item.reason) == (None, "Patients asked for it.") for item in told)
    with closing(Ledger(home.path / "ledger.sqlite")) as ledger:
        assert ledger.withdrawn() == versions
        receipt = consent.receipt(home=home, ledger=ledger, hub=desk.hub, contract=contract, now=NOW)
        record = open_signed(WithdrawalReceipt, receipt, home.card).record
        assert (record.contract, len(record.people), record.asked) == (contract, 1, 0)
        assert record.withdrawal == next(item.id for item in told if item.dataset == mine)
    assert "Withdrawn from every contract" in aoki.page(f"/data/{mine}")
    assert "withdrawn" in aoki.page(f"/contracts/{contract}")
    assert "Receipt of your withdrawal" in aoki.page(f"/contracts/{contract}/receipt")


def test_nobody_withdraws_somebody_elses_data(desk: Desk, aoki: Visitor) -> None:
    other = desk.publish().manifests[1].payload_id
    assert "Withdraw this data set" not in aoki.page(f"/data/{other}")
    assert "dataset.not-own" in aoki.post(f"/data/{other}/withdraw", reason="Because.").text


def test_withdrawn_data_come_not_back_under_a_later_card(desk: Desk, aoki: Visitor) -> None:
    """The same version signed anew has another id, and is as withdrawn as before."""
    home = desk.setting.home
    mine = next(signed.record for signed in home.datasets().values())
    (_, first), *others = consent.withdrawals_of_data(home, mine, reason="Because.", now=NOW)
    with closing(Ledger(home.path / "ledger.sqlite")) as ledger:
        consent.withdraw(home=home, ledger=ledger, hub=desk.hub, withdrawal=first, besides=[w for _, w in others])
    desk.enrol("Ms. Baba")
    desk.card_with(2)
    bundle = desk.publish()
    assert bundle.manifests[0].payload_id in home.datasets()
    with closing(Ledger(home.path / "ledger.sqlite")) as ledger:
        assert bundle.manifests[0].payload_id not in ledger.withdrawn()
    contract = bundle.contract.payload_id
    aoki.approve(contract)
    refused = desk.people["Ms. Baba"].approve(contract)
    assert "approval.withdrawn" in refused.text


def test_a_data_sets_page_says_who_can_be_left_out_and_how_many_are(desk: Desk, aoki: Visitor) -> None:
    home = desk.setting.home
    first = next(iter(home.datasets().values()))
    assert "People who opted out" not in aoki.page(f"/data/{first.id}"), "no column names people"
    columns = (*first.record.columns, column("mrn", "string", "opt-out"))
    version = replace(first.record, version=2, columns=columns)
    made = home.store_dataset(version, desk.setting.world.data_key(desk.setting.world.owners[0]))
    page = aoki.page(f"/data/{made.payload_id}")
    assert "for opt-outs only" in page
    assert "Nobody is on a list" in page
    seal_list(home, version, columns[-1], ["p1", "p2"], now=NOW)
    page = aoki.page(f"/data/{made.payload_id}")
    assert "2 on the present list, found by the column mrn" in page
    aoki.client.cookies.set("kakoi-language", "ja")
    assert "現在の一覧に 2 人" in aoki.page(f"/data/{made.payload_id}")
