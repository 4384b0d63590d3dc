"""Rounded counts: multiples of the base, totals that are sums of what is shown, and nothing from which a cell could be told more closely."""

from __future__ import annotations

import itertools
from decimal import Decimal

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from kakoi.enclave.gate.complement import equations
from kakoi.enclave.gate.release import apply
from kakoi.enclave.gate.rounding import counts, nearest, precise
from kakoi.wire.released import ReleasedStatistics, ReleasedTable
from unit.gate.gate_setting import NUMBERS, TABLE, analysis, encoded, rules, statistics, table
from unit.gate.test_complement import TABLES, cube


def rounded(grid: list[list[int]], base: int) -> tuple[list[tuple[tuple[str | None, ...], int]], list[int]]:
    rows = cube(np.array(grid))
    return [(row.labels, row.mask) for row in rows], counts(rows, [row.people for row in rows], base)


@settings(max_examples=80)
@given(TABLES, st.integers(2, 10))
def test_totals_are_the_sums_of_the_cells(grid: list[list[int]], base: int) -> None:
    rows = cube(np.array(grid))
    made = counts(rows, [row.people for row in rows], base)
    assert all(count % base == 0 for count in made)
    for equation in equations(rows):
        assert sum(made[p] for p in equation.left) == sum(made[p] for p in equation.right)
    for row, count in zip(rows, made, strict=True):
        assert row.mask or abs(row.people - count) * 2 <= base


@settings(max_examples=40)
@given(st.lists(st.integers(1, 9), min_size=4, max_size=4), st.integers(2, 5))
def test_margins_do_not_undo_it(cells: list[int], base: int) -> None:
    """Whatever a cell is rounded from stays possible beside all margins: each cell by itself, whatever the others are."""
    labels, made = rounded([cells[:2], cells[2:]], base)
    finest = [count for (_, mask), count in zip(labels, made, strict=True) if mask == 0]
    from_which = [[n for n in range(1, 16) if nearest(n, base) == count] for count in finest]
    for guess in itertools.product(*from_which):
        assert rounded([list(guess[:2]), list(guess[2:])], base) == (labels, made)


def test_a_bad_twin_margins_rounded_by_themselves_would_undo_it() -> None:
    """Why margins are sums: 7 + 7 = 14 to base 5 would be 5 + 5 = 15, and then each of the cells is 6 or 7, not 3 to 7."""
    assert (nearest(7, 5), nearest(14, 5)) == (5, 15)
    possible = {
        a for a in range(3, 8) for b in range(3, 8) if nearest(a, 5) == nearest(b, 5) == 5 and nearest(a + b, 5) == 15
    }
    assert possible == {6, 7}
    _, made = rounded([[7, 7]], 5)
    assert sorted(made) == [5, 5, 5, 5, 10, 10]


def test_groupings_that_do_not_add_up_are_rounded_by_themselves() -> None:
    """People with visits in several wards are counted in each: their total is no sum."""
    rows = cube(np.array([[6, 6]]))
    wrong = [row if row.mask != 3 else type(row)(labels=row.labels, mask=3, people=8) for row in rows]
    made = counts(wrong, [row.people for row in wrong], 5)
    assert made[[row.mask for row in wrong].index(3)] == 10


@given(st.decimals("-1e6", "1e6", places=3), st.integers(3, 500), st.integers(2, 10))
def test_other_numbers_are_no_more_precise_than_the_count(number: Decimal, people: int, base: int) -> None:
    made = precise(number, people, base)
    if made != number:
        assert abs(made - number) <= abs(number) * 10 * base / max(base, nearest(people, base))
    if number:
        step = Decimal(1).scaleb(made.as_tuple().exponent)  # type: ignore[arg-type]
        assert step >= abs(number) * base / max(base, nearest(people, base)) or made == 0


@given(st.integers(40, 60), st.integers(40, 60))
def test_a_sum_and_a_mean_do_not_give_the_count_back(people: int, other: int) -> None:
    """The sum and the mean of a constant 7.3, of counts that round alike, are the same."""
    found = [(precise(Decimal("7.3") * n, n, 10), precise(Decimal("7.3"), n, 10)) for n in (people, other)]
    if nearest(people, 10) == nearest(other, 10):
        assert abs(found[0][0] - found[1][0]) <= 100
        assert found[0][1] == found[1][1]


def test_the_gate_rounds_counts_values_and_statistics() -> None:
    rule = rules(rounding_base=5)
    made = apply(encoded(table([("a", 53, "61.2345"), ("b", 4, "2")])), analysis(TABLE), [rules(), rule])
    (one,) = made.outputs
    assert isinstance(one, ReleasedTable)
    assert one.columns[1].cells == ("55", "5")
    assert one.columns[2].cells[0] == "60"
    assert ("rounding-base", "rounded") in {(d.rule, d.action) for d in made.decisions}
    again = apply(encoded(table([("a", 54, "61.1")])), analysis(TABLE), [rule]).outputs[0]
    assert isinstance(again, ReleasedTable)
    assert (again.columns[1].cells[0], again.columns[2].cells[0]) == ("55", "60")
    (numbers,) = apply(encoded(statistics("1.23456", 100)), analysis(NUMBERS, engine="python"), [rule]).outputs
    assert isinstance(numbers, ReleasedStatistics)
    assert numbers.values[0].number == "1.2"
