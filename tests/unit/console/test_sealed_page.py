"""The review of a contract with sealed code: which code, what its owner says, and what each reviewer signed, as their words."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from kakoi.contract.code import CodeReview
from kakoi.contract.sign import seal
from support.console_desk import Desk, open_desk
from support.vendor import VendorWorld, make_vendor

STATEMENT = "I have read every line.\nIt <b>counts</b> people and keeps nothing."


@pytest.fixture
def world(tmp_path: Path) -> VendorWorld:
    return VendorWorld(vendor=make_vendor(tmp_path / "vendor"))


@pytest.fixture
def desk(tmp_path: Path, world: VendorWorld) -> Iterator[Desk]:
    with open_desk(tmp_path, world) as made:
        yield made


def test_what_a_reviewer_signed_stands_in_the_review_as_its_words(desk: Desk, world: VendorWorld) -> None:
    aoki = desk.enrol("Dr. Aoki")
    bundle = desk.publish()
    path = f"/contracts/{bundle.contract.payload_id}"
    assert "Auditor must read it and sign first" in aoki.page(path)

    forged = CodeReview.decode(world.review(statement="Nothing to see.").payload)
    desk.hub.put_object(seal(forged, world.vendor.party.signing))
    other = replace(forged, reviewer=world.vendor.party.id)
    desk.hub.put_object(seal(other, world.vendor.party.signing))
    desk.console.library.look_again()
    page = aoki.page(path)
    assert "Nothing to see." not in page
    assert "Auditor must read it and sign first" in page

    desk.hub.put_object(world.review(statement=STATEMENT))
    desk.console.library.look_again()
    page = aoki.page(path)
    assert f"<blockquote>{STATEMENT}</blockquote>" in page
    assert "<b>counts</b>" not in aoki.get(path).text
    assert "Auditor has read it and signed on 15 Jan 2027 08:00 UTC:" in page
    assert "Auditor must read it" not in page
    assert "<blockquote>Counts people at high risk.</blockquote>" in page
    assert f'<p class="id">{world.vendor.sealed.payload_id}</p>' in page


def test_code_that_nobody_reads_is_warned_of(desk: Desk, world: VendorWorld) -> None:
    world.reviewed = False
    aoki = desk.enrol("Dr. Aoki")
    page = aoki.page(f"/contracts/{desk.publish().contract.payload_id}")
    assert "Nobody but Vendor has read the code of" in page
    assert "must read it and sign first" not in page
