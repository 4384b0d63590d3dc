"""A person sees that a known weakness touches a contract, and from when on this party gives no keys: on the contract's and the security page."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from kakoi.broker.ledger import Ledger
from kakoi.broker.quarantine import Entry
from kakoi.guard.stream import FILE, Stream
from kakoi.testing.world import NOW
from support.console_desk import Desk, open_desk

DAY = 86400
REASON = "PYSEC-2099-1: image abab holds duckdb 2.0.1 <b>"


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    with open_desk(tmp_path) as made:
        yield made


def pages(desk: Desk, since: int) -> tuple[str, str]:
    """The contract's page and the security page, with a quarantine that begins then."""
    someone = desk.enrol("Aoki Yui")
    contract = desk.publish().contract.payload_id
    home = desk.setting.home
    with closing(Ledger(home.path / "ledger.sqlite")) as ledger:
        ledger.quarantine.begin(Entry(contract=contract, cause="advisory:x", reason=REASON, noticed=NOW, since=since))
    with closing(Stream(home.path / FILE, name="Own", component="console", signer=home.keys.signer(), now=NOW)):
        pass
    someone.sign_in()
    return someone.get(f"/contracts/{contract}").text, someone.get("/security").text


def test_a_grace_and_its_end_are_shown_and_reasons_are_escaped(desk: Desk) -> None:
    contract, security = pages(desk, NOW + DAY)
    assert "A known weakness touches this contract" in contract
    assert "grace until" in security
    assert all("duckdb 2.0.1 &lt;b&gt;" in page for page in (contract, security))


def test_a_contract_in_quarantine_says_so(desk: Desk) -> None:
    contract, security = pages(desk, NOW - DAY)
    assert "In quarantine since" in contract
    assert "no keys since" in security


def test_without_a_weakness_nothing_is_said(desk: Desk) -> None:
    someone = desk.enrol("Aoki Yui")
    contract = desk.publish().contract.payload_id
    someone.sign_in()
    assert "weakness touches" not in someone.page(f"/contracts/{contract}")
