"""Every attack of the library: it succeeds on real patients with the gate off, and learns nothing, or what is written down, with it on."""

from __future__ import annotations

import re

import pytest

from attacks.disclosure.library import ATTACKS, Attack, _labels, _pain_by_diagnosis, pinned_down
from support.clinic import needs_shared
from support.tree import ROOT

pytestmark = needs_shared


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)
def test_the_gate_stops_it(attack: Attack) -> None:
    assert attack.learned(False) >= attack.at_least, "with the gate off it must succeed"
    assert attack.learned(True) <= attack.at_most


def test_without_complementary_suppression_a_program_finds_small_counts() -> None:
    truth = {_labels(row): int(row["people"] or 0) for row in _pain_by_diagnosis(False).rows()}
    assert pinned_down(truth, {key: count for key, count in truth.items() if count >= 3}) > 0


def test_the_table_of_attacks_is_of_these_attacks() -> None:
    page = (ROOT / "docs/disclosure-attacks.md").read_text("utf-8")
    assert re.findall(r"^\| `([a-z-]+)` \|", page, re.MULTILINE) == [attack.name for attack in ATTACKS]
