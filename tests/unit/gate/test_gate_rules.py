"""The strictest rule wins, and a denial names whose it was."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kakoi.contract.rules import DisclosureRules
from kakoi.core.errors import Misuse
from kakoi.enclave.gate.rules import Bench, strictest
from unit.gate.gate_setting import RULES, rules

ANY = st.builds(
    DisclosureRules,
    minimum_cell=st.integers(1, 100),
    minimum_contributors=st.integers(1, 100),
    parameters_per_person=st.sampled_from(["0", "0.1", "0.33", "0.330", "0.5", "1", "0.05"]),
    max_digits=st.integers(1, 15),
    max_output_bytes=st.integers(1, 1000),
    dominance_contributors=st.integers(1, 10),
    dominance_percent=st.integers(1, 100),
    p_percent=st.integers(0, 100),
    rounding_base=st.integers(1, 100),
    cohort_difference=st.integers(1, 16),
    python_settings=st.integers(1, 10),
    budget_runs=st.integers(1, 100),
    budget_kilobytes=st.integers(1, 100),
    epsilon_per_run=st.just("none"),
    epsilon_budget=st.just("none"),
    rows_per_person=st.integers(1, 100),
)
NOISY = st.builds(
    replace,
    ANY,
    epsilon_per_run=st.sampled_from(["0.1", "0.10", "1", "2.5"]),
    epsilon_budget=st.sampled_from(["3", "10"]),
)

STRICTER_IS_LARGER = {
    "minimum_cell",
    "minimum_contributors",
    "dominance_contributors",
    "p_percent",
    "rounding_base",
    "cohort_difference",
}


def number(value: int | str) -> float:
    """``none`` demands less than any number."""
    return float("inf") if value == "none" else float(value)


def test_no_rules_is_no_release() -> None:
    with pytest.raises(Misuse, match=r"gate\.rules"):
        strictest([])


@given(st.lists(ANY | NOISY, min_size=1, max_size=5))
def test_nobody_s_rule_is_loosened(each: list[DisclosureRules]) -> None:
    merged = strictest(each)
    for field in fields(DisclosureRules):
        values = [number(getattr(one, field.name)) for one in each]
        expected = max(values) if field.name in STRICTER_IS_LARGER else min(values)
        assert number(getattr(merged, field.name)) == expected
    again = strictest([merged, *each])
    assert all(number(getattr(again, f.name)) == number(getattr(merged, f.name)) for f in fields(DisclosureRules))


@given(st.lists(ANY | NOISY, min_size=1, max_size=4), ANY | NOISY)
def test_another_owner_can_only_tighten(each: list[DisclosureRules], more: DisclosureRules) -> None:
    before, after = strictest(each), strictest([*each, more])
    for field in fields(DisclosureRules):
        old, new = number(getattr(before, field.name)), number(getattr(after, field.name))
        assert new >= old if field.name in STRICTER_IS_LARGER else new <= old


def test_a_denial_names_the_owner_of_the_rule() -> None:
    each = (RULES, rules(minimum_cell=10), rules(minimum_cell=10))
    bench = Bench(rules=strictest(each), each=each, owners=("North", "Coast", "Lake"))
    denial = bench.deny("gate.x", "minimum_cell", "too few", "ask for more")
    assert "Coast and Lake" in denial.message
    assert "North" not in denial.message
    assert "10" not in denial.message
    assert "Coast and Lake" in denial.hint
    nameless = Bench(rules=RULES, each=(RULES,), owners=())
    assert "the owners" in nameless.deny("gate.x", "max_digits", "what", "hint").message
