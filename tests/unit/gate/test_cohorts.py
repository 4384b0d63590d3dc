"""Cohorts held against each other by their power sums: exact where it matters, and what is held back because of it."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kakoi.core.ids import object_id
from kakoi.enclave.gate.cohorts import Cohorts, Earlier, Population, different_people, populations, told
from kakoi.enclave.gate.release import Judged
from kakoi.enclave.gate.rules import Bench, strictest
from kakoi.enclave.job import COHORT_PRIME, ResultCohorts, ResultTable
from kakoi.wire.released import ReleasedTable
from unit.gate.gate_setting import RULES, analysis, column, declared, rules

PEOPLE = st.frozensets(st.integers(1, COHORT_PRIME - 1), max_size=40)


def sums(people: frozenset[int] | set[int], terms: int = 6) -> tuple[int, ...]:
    return tuple(sum(pow(x, j, COHORT_PRIME) for x in people) % COHORT_PRIME for j in range(terms))


@given(PEOPLE, PEOPLE, st.integers(2, 16))
def test_the_difference_is_counted_exactly(one: frozenset[int], other: frozenset[int], least: int) -> None:
    found = different_people(sums(one, 2 * least), sums(other, 2 * least), most=least)
    assert found == min(len(one ^ other), least)


@given(PEOPLE, st.frozensets(st.integers(1, COHORT_PRIME - 1), min_size=1, max_size=2))
def test_one_or_two_people_are_never_missed(cohort: frozenset[int], few: frozenset[int]) -> None:
    earlier = Earlier(least=3)
    earlier.add(Population(table="t", terms=6, sums=sums(cohort)))
    assert earlier.conflicts("t", sums(cohort ^ few)) == (len(few) > 0)
    assert not earlier.conflicts("t", sums(cohort))
    assert not earlier.conflicts("other table", sums(cohort ^ few))


def test_people_in_a_row_are_no_special_case() -> None:
    """Rows are numbered by their place, so cohorts are often ranges: sets with equal sums of low powers exist there."""
    chance = random.Random(5)
    earlier = Earlier(least=3)
    whole = set(range(1000, 1400))
    earlier.add(Population(table="t", terms=6, sums=sums(whole)))
    for _ in range(300):
        out = set(chance.sample(sorted(whole), chance.randint(1, 8)))
        into = set(chance.sample(range(1400, 1440), chance.randint(0, 4)))
        changed = (whole - out) | into
        assert earlier.conflicts("t", sums(changed)) == (len(out) + len(into) < 3)


def test_one_sum_less_would_take_mirror_images_for_few_people() -> None:
    """Why there are 2k sums: of the difference of two neighbouring ranges every second moment about their middle is zero."""
    one, other = set(range(1, 21)), set(range(21, 41))
    assert different_people(sums(one, 5), sums(other, 5), most=3) < 3
    assert different_people(sums(one, 6), sums(other, 6), most=3) == 3


OUT = declared("o", "group:g", "group:h", "count:n", "value:v")


def crossed(cells: Sequence[tuple[str, str, set[int]]]) -> ResultTable:
    """A table by two columns over these people."""
    counts = tuple(len(people) for _, _, people in cells)
    flat = tuple(s for _, _, people in cells for s in sums(people))
    return ResultTable(
        name="o",
        columns=(
            column("g", [g for g, _, _ in cells], domain=("a", "b")),
            column("h", [h for _, h, _ in cells], domain=("x", "y")),
            column("n", [str(count) for count in counts]),
            column("v", ["1.5"] * len(cells)),
        ),
        rows=counts,
        people=counts,
        margins=(),
        cohorts=(ResultCohorts(table="t", sums=flat),),
    )


def judged(table: ResultTable) -> Judged:
    bench = Bench(rules=strictest([RULES]), each=(RULES,), owners=())
    return Judged(
        outputs=(table,),
        analysis=analysis(OUT),
        bench=bench,
        domains=({"g": frozenset("ab"), "h": frozenset("xy")},),
        terms=6,
    )


def shown(made: Judged, earlier: Earlier) -> list[tuple[str | None, str | None, str | None]]:
    (table,) = made.against(earlier).outputs
    g, h, n, _ = table.columns  # type: ignore[union-attr]
    return list(zip(g.cells, h.cells, n.cells, strict=True))


BASE = [
    ("a", "x", set(range(1, 21))),
    ("a", "y", set(range(21, 41))),
    ("b", "x", set(range(41, 61))),
    ("b", "y", set(range(61, 81))),
]


def after(table: ResultTable, *, least: int = 3) -> Earlier:
    earlier = Earlier(least=least)
    for population in judged(table).populations():
        earlier.add(population)
    return earlier


def test_the_same_table_again_is_no_news() -> None:
    assert all(n is not None for _, _, n in shown(judged(crossed(BASE)), after(crossed(BASE))))


def test_a_table_without_one_person_loses_the_cells_that_tell_about_them() -> None:
    changed = [("a", "x", set(range(2, 21))), *BASE[1:]]
    cells = shown(judged(crossed(changed)), after(crossed(BASE)))
    assert cells[0] == ("a", "x", None)
    assert [n for _, _, n in cells[1:]] == ["20", "20", "20"]
    action = {(d.rule, d.action) for d in judged(crossed(changed)).against(after(crossed(BASE))).decisions}
    assert ("cohort-difference", "suppressed-cells") in action


def test_a_small_cell_cannot_be_had_from_an_earlier_total() -> None:
    """Earlier: the row a as a whole. Now: a by h, where a/y is too small and held back. a - a/x would be its two people."""
    earlier = after(crossed([("a", "x", set(range(1, 23))), ("b", "x", set(range(41, 81)))]))
    small = [
        ("a", "x", set(range(1, 21))),
        ("a", "y", {21, 22}),
        ("b", "x", set(range(41, 61))),
        ("b", "y", set(range(61, 81))),
    ]
    cells = shown(judged(crossed(small)), earlier)
    assert [n for _, _, n in cells] == [None, "20", "20"], "and the row of two people is not there"


def test_a_small_cell_cannot_be_had_from_a_later_total() -> None:
    """The other way round: the sum of what was shown earlier, and a total that comes later."""
    small = [
        ("a", "x", set(range(1, 21))),
        ("a", "y", {21, 22}),
        ("b", "x", set(range(41, 61))),
        ("b", "y", set(range(61, 81))),
    ]
    total = crossed([("a", "x", set(range(1, 23))), ("b", "x", set(range(41, 81)))])
    assert [n for _, _, n in shown(judged(total), after(crossed(small)))] == [None, "40"]


@pytest.mark.parametrize(("least", "held"), [(1, False), (2, False), (3, True), (4, True)])
def test_the_rule_decides_how_many_are_few(least: int, held: bool) -> None:
    bench = Bench(rules=strictest([rules(cohort_difference=least)]), each=(), owners=())
    assert bench.rules.cohort_difference == least
    changed = [("a", "x", set(range(3, 21))), *BASE[1:]]
    earlier = Earlier(least=least)
    for population in judged(crossed(BASE)).populations():
        earlier.add(population)
    assert (shown(judged(crossed(changed)), earlier)[0][2] is None) == held


def test_what_is_left_for_later_runs_has_each_cohort_once_and_no_order() -> None:
    table = crossed(BASE)
    one = populations(told(table, [(g, h) for g, h, _ in BASE], range(4), 6), 6)
    other = populations(told(table, [(g, h) for g, h, _ in BASE], reversed(range(4)), 6), 6)
    assert one == other
    (population,) = one
    # four cells, two sums by g, two by h, one total
    assert len(list(population.cohorts())) == len(set(population.cohorts())) == 9
    record = Cohorts(run=object_id(b"run"), populations=one)
    assert Cohorts.decode(record.encode()) == record


def with_margin(cells: Sequence[tuple[str, str, set[int]]]) -> ResultTable:
    """The cells and the total of all of them."""
    whole = set[int]().union(*(people for _, _, people in cells))
    found = crossed([*cells, ("", "", whole)])
    groups = [column(c.name, [*c.cells[:-1], None], domain=c.domain) for c in found.columns[:2]]
    return replace(found, columns=(*groups, *found.columns[2:]), margins=(0,) * len(cells) + (3,))


def test_what_protects_a_held_back_cell_is_not_had_later() -> None:
    """Two people are held back and five more with them, so that the total does not tell. A later run asks for the five alone."""
    cells = [("a", "x", {1, 2}), ("a", "y", {3, 4, 5, 6, 7}), *BASE[2:]]
    table = with_margin(cells)
    first = judged(table).released.outputs[0]
    assert isinstance(first, ReleasedTable)
    assert first.columns[2].held_back == (0,), "the five; the two are not there at all"
    (now,) = shown(judged(crossed(cells[1:2])), after(table))
    assert now[2] is None
    (others,) = shown(judged(crossed([("a", "y", set(range(100, 105)))])), after(table))
    assert others[2] == "5", "five other people are no news about the two"
