"""Warnings for weak choices, and what changed between two versions."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from kakoi.console import review
from kakoi.console.library import Whole
from kakoi.contract.model import Contract
from support.console_desk import Desk, open_desk


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    with open_desk(tmp_path) as made:
        yield made


def whole(desk: Desk, change: object = None) -> Whole:
    desk.setting.world.change_contract = change or (lambda contract: contract)  # type: ignore[assignment]
    return desk.console.library.whole(desk.publish().contract.payload_id)


def weak(contract: Contract) -> Contract:
    entry = contract.data[0]
    rules = replace(entry.rules, minimum_cell=1, minimum_contributors=2, max_digits=12, parameters_per_person="0.9")
    return replace(
        contract,
        accepted_weaknesses=("cgroup",),
        data=(replace(entry, rules=rules), *contract.data[1:]),
        analyses=(replace(contract.analyses[0], max_runs=5000),),
        expires=contract.not_before + 400 * 86400,
    )


def keys(found: Iterator[object] | tuple[object, ...]) -> list[str]:
    return [item.key if hasattr(item, "key") else item.said.key for item in found]  # type: ignore[attr-defined]


def test_each_weak_choice_is_named(desk: Desk) -> None:
    plain = set(keys(review.warnings(whole(desk))))
    assert plain == {"warning.software", "warning.no-people"}
    added = set(keys(review.warnings(whole(desk, weak)))) - plain
    names = {"layer", "cell", "contributors", "digits", "share", "runs", "long"}
    assert added == {f"warning.{name}" for name in names}


def test_people_make_a_party_stronger(desk: Desk) -> None:
    desk.enrol("Dr. Aoki")
    desk.card_with(1)
    name = desk.setting.home.card.record.name
    mine = [item for item in review.warnings(whole(desk)) if item.parameters.get("party") == name]
    assert keys(tuple(mine)) == ["warning.one-person", "warning.localhost"]


def test_nothing_changed_is_said_so(desk: Desk) -> None:
    first = whole(desk)
    second = whole(desk, lambda c: replace(c, version=2, supersedes=first.id))
    assert review.changes(first, second) == ()


def test_every_difference_is_said(desk: Desk) -> None:
    first = whole(desk)
    desk.enrol("Dr. Aoki")
    desk.card_with(1)
    second = whole(desk, lambda c: weak(replace(c, version=2, supersedes=first.id, title="Another", purpose="New.")))
    found = review.changes(first, second)
    assert set(keys(found)) == {
        "change.title",
        "change.purpose",
        "change.card",
        "change.rule.minimum_cell",
        "change.rule.minimum_contributors",
        "change.rule.parameters_per_person",
        "change.rule.max_digits",
        "change.runs",
        "change.weaknesses",
        "change.expires",
    }
    purpose = next(item for item in found if item.said.key == "change.purpose")
    assert purpose.diff == (("-", "To show that it works."), ("+", "New."))


def test_recipients_and_limits_are_compared(desk: Desk) -> None:
    first = whole(desk)

    def change(contract: Contract) -> Contract:
        limits = replace(contract.limits, memory_megabytes=4096)
        recipients = (*contract.recipients, contract.parties[0].party)
        return replace(contract, version=2, supersedes=first.id, limits=limits, recipients=recipients)

    assert keys(review.changes(first, whole(desk, change))) == ["change.recipients", "change.limit.memory_megabytes"]


def test_the_page_says_all_of_it_in_both_languages(desk: Desk) -> None:
    aoki = desk.enrol("Dr. Aoki")
    first = whole(desk)
    second = whole(desk, lambda c: weak(replace(c, version=2, supersedes=first.id)))
    text = aoki.page(f"/contracts/{second.id}")
    assert "North lets numbers out" not in text
    name = desk.setting.home.card.record.name
    assert f"{name} lets numbers out that rest on only 1 rows." in text
    assert "What changed since version 1" in text
    aoki.client.post("/language", data={"language": "ja", "back": "/"})
    japanese = aoki.page(f"/contracts/{second.id}")
    assert "第 1 版からの変更" in japanese
    assert f"{name} は 1 行だけに基づく数値を外に出します。" in japanese
