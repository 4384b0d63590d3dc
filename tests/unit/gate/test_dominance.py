"""Sums and means that few people make up are held back, under each owner's rules, and denials and answers do not say by how much."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kakoi.core.errors import Refused
from kakoi.enclave.gate.dominance import (
    Contributions,
    dominated,
    is_dominated,
    largest_contributors,
    protection,
)
from kakoi.enclave.gate.release import apply
from kakoi.enclave.job import ResultMagnitude, ResultTable
from kakoi.wire.released import ReleasedTable
from unit.gate.gate_setting import RULES, TABLE, analysis, encoded, rules, table

OFF = {"dominance_percent": 100, "p_percent": 0}
PEOPLE = st.lists(st.integers(0, 1000), min_size=1, max_size=12)


def of(people: list[int], most: int = 10) -> Contributions:
    return Contributions(
        total=Decimal(sum(people)), largest=tuple(Decimal(x) for x in sorted(people, reverse=True)[:most])
    )


def stated(cells: list[list[int]], most: int = 2) -> ResultMagnitude:
    largest = [sorted(cell, reverse=True)[:most] for cell in cells]
    return ResultMagnitude(
        totals=tuple(str(sum(cell)) for cell in cells),
        largest=tuple(None if i >= len(found) else str(found[i]) for found in largest for i in range(most)),
    )


def with_magnitudes(found: ResultTable, *magnitudes: ResultMagnitude) -> ResultTable:
    *others, value = found.columns
    return replace(found, columns=(*others, replace(value, magnitudes=magnitudes)))


@given(PEOPLE, st.integers(1, 10), st.integers(1, 99))
def test_the_n_k_rule_is_what_it_says(people: list[int], n: int, k: int) -> None:
    some = sum(sorted(people, reverse=True)[:n])
    rule = rules(dominance_contributors=n, dominance_percent=k, p_percent=0)
    assert is_dominated(of(people), rule) == (some > sum(people) * k / 100)


@given(PEOPLE, st.integers(1, 100))
def test_the_p_rule_is_what_the_second_largest_could_know(people: list[int], p: int) -> None:
    """The second largest takes its own part from the total: what is left is the largest's, and a rest that makes it unsure."""
    first, second = (*sorted(people, reverse=True), 0)[:2]
    guess = sum(people) - second
    rule = rules(dominance_percent=100, p_percent=p)
    assert is_dominated(of(people), rule) == ((guess - first) * 100 < p * first)


@given(PEOPLE, st.integers(1, 10), st.integers(1, 100), st.integers(0, 100))
def test_more_protection_never_releases(people: list[int], n: int, k: int, p: int) -> None:
    loose = rules(dominance_contributors=n, dominance_percent=k, p_percent=p)
    for tight in (replace(loose, dominance_percent=max(1, k - 5)), replace(loose, p_percent=min(100, p + 5))):
        assert is_dominated(of(people), loose) <= is_dominated(of(people), tight)


@given(PEOPLE, st.integers(1, 3), st.integers(50, 99), st.integers(1, 50))
def test_so_much_more_from_others_would_not_be_dominated(people: list[int], n: int, k: int, p: int) -> None:
    rule = rules(dominance_contributors=n, dominance_percent=k, p_percent=p)
    found = of(people)
    more = Contributions(total=found.total + Decimal(str(protection(found, [rule]) + 1e-6)), largest=found.largest)
    assert not is_dominated(more, rule)


def test_each_owner_s_pair_is_judged_by_itself() -> None:
    """(1, 75) and (5, 100 = off) together are not (5, 75), which would hold nearly everything back."""
    people = [30, 20, 20, 15, 15]
    each = [
        rules(dominance_contributors=1, dominance_percent=75, p_percent=0),
        rules(dominance_contributors=5, **OFF),
    ]
    assert not dominated(stated([people], 5), 1, each)
    assert largest_contributors(each) == 1
    assert largest_contributors([rules(**OFF)]) == 0
    assert largest_contributors([rules(dominance_percent=100)]) == 2


@pytest.mark.parametrize(("cell", "held"), [([50, 40, 30], ()), ([5000, 40, 30], (1,)), ([50, 49, 1], (1,))])
def test_the_gate_holds_the_number_back_and_not_the_count(cell: list[int], held: tuple[int, ...]) -> None:
    found = table([("a", 3, "100"), ("b", 3, str(sum(cell)))])
    made = apply(encoded(with_magnitudes(found, stated([[40, 30, 30], cell]))), analysis(TABLE), [RULES])
    (one,) = made.outputs
    assert isinstance(one, ReleasedTable)
    assert one.columns[1].held_back == ()
    assert one.columns[2].held_back == held
    assert ("dominance" in {d.rule for d in made.decisions}) == bool(held)


@given(st.integers(1000, 10**6), st.integers(1000, 10**6))
def test_neighbouring_data_give_the_same_answer(one: int, other: int) -> None:
    """How far a number is dominated does not show."""
    answers = {
        apply(
            encoded(with_magnitudes(table([("a", 4, str(x))]), stated([[x, 5, 5, 5]]))), analysis(TABLE), [RULES]
        ).encode()
        for x in (one, other)
    }
    assert len(answers) == 1


def test_what_is_no_number_is_held_back() -> None:
    strange = ResultMagnitude(totals=(None,), largest=(None, None))
    made = apply(encoded(with_magnitudes(table([("a", 9, "1")]), strange)), analysis(TABLE), [RULES])
    (one,) = made.outputs
    assert isinstance(one, ReleasedTable)
    assert one.columns[2].held_back == (0,)


@pytest.mark.parametrize(
    "wrong",
    [
        ResultMagnitude(totals=(), largest=()),
        ResultMagnitude(totals=("1", "2"), largest=("1", "1")),
        ResultMagnitude(totals=("one",), largest=("1", "1")),
        ResultMagnitude(totals=("1",), largest=("1.0", "1")),
    ],
    ids=["none", "two", "text", "spelling"],
)
def test_contributions_of_another_shape_are_refused(wrong: ResultMagnitude) -> None:
    with pytest.raises(Refused, match=r"gate\.undeclared"):
        apply(encoded(with_magnitudes(table([("a", 9, "1")]), wrong)), analysis(TABLE), [RULES])
