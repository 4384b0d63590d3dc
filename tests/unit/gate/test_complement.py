"""What is held back must stay unknown to somebody who adds and subtracts the margins. Checked by an attacker of its own."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kakoi.enclave.gate.complement import MAX_UNKNOWNS, Row, equations, protect
from kakoi.enclave.gate.release import apply
from kakoi.wire.released import ReleasedTable
from unit.gate.gate_setting import RULES, analysis, column, declared, encoded

LEAST = 3


def cube(counts: np.ndarray) -> list[Row]:
    """All margins of a table of counts, cells that are zero left out as SQL leaves them out."""
    rows = []
    axes = range(counts.ndim)
    for mask in range(2**counts.ndim):
        summed = counts.sum(axis=tuple(i for i in axes if mask >> i & 1), keepdims=True)
        for place in itertools.product(*(range(n) for n in summed.shape)):
            if summed[place] > 0:
                labels = tuple(None if mask >> i & 1 else str(place[i]) for i in axes)
                rows.append(Row(labels=labels, mask=mask, people=int(summed[place])))
    return rows


def small(rows: list[Row]) -> frozenset[int]:
    return frozenset(i for i, row in enumerate(rows) if row.people < LEAST)


def determined(rows: list[Row], hidden: frozenset[int]) -> list[int]:
    """Hidden rows whose count linear algebra gives away: an independent attacker (floating point null space)."""
    unknown = sorted(hidden)
    matrix = []
    for equation in equations(rows):
        line = [0.0] * len(unknown)
        for side, sign in ((equation.left, 1), (equation.right, -1)):
            for place in hidden.intersection(side):
                line[unknown.index(place)] += sign
        matrix.append(line)
    if not unknown:
        return []
    _, sizes, directions = np.linalg.svd(np.array(matrix))
    rank = int((sizes > 1e-9).sum())
    free = directions[rank:]
    return [place for i, place in enumerate(unknown) if not free.size or np.abs(free[:, i]).max() < 1e-9]


TABLES = st.integers(2, 4).flatmap(
    lambda width: st.lists(st.lists(st.integers(0, 9), min_size=width, max_size=width), min_size=2, max_size=4)
)


@settings(max_examples=150)
@given(TABLES)
def test_no_hidden_count_is_determined(counts: list[list[int]]) -> None:
    rows = cube(np.array(counts))
    hidden = protect(rows, small(rows), LEAST)
    assert small(rows) <= hidden
    assert not determined(rows, hidden)


@settings(max_examples=60)
@given(st.lists(st.integers(0, 6), min_size=8, max_size=8))
def test_three_dimensions(counts: list[int]) -> None:
    rows = cube(np.array(counts).reshape(2, 2, 2))
    assert not determined(rows, protect(rows, small(rows), LEAST))


GUESSES = np.stack(np.meshgrid(*[np.arange(15)] * 4, indexing="ij"), -1).reshape(-1, 2, 2)
"""Every table of two by two counts below fifteen."""


def _of_guess(row: Row) -> np.ndarray:
    """What each guess would have shown in the place of a row."""
    places = [slice(None) if row.mask >> i & 1 else [int(label or 0)] for i, label in enumerate(row.labels)]
    shown: np.ndarray = GUESSES[:, places[0], :][:, :, places[1]].sum(axis=(1, 2))
    return shown


@settings(max_examples=60)
@given(st.lists(st.integers(1, 7), min_size=4, max_size=4))
def test_integers_do_not_give_it_away_either(counts: list[int]) -> None:
    """Enumerate every table that fits what was released: a hidden small cell could be another number."""
    rows = cube(np.array(counts).reshape(2, 2))
    hidden = protect(rows, small(rows), LEAST)
    fits = np.ones(len(GUESSES), dtype=bool)
    for place, row in enumerate(rows):
        if place not in hidden:
            fits &= _of_guess(row) == row.people
    assert fits.any()
    for place in small(rows):
        assert len(np.unique(_of_guess(rows[place])[fits])) > 1


def test_one_hidden_cell_takes_another_with_it() -> None:
    rows = cube(np.array([[5, 2], [7, 8]]))
    hidden = protect(rows, small(rows), LEAST)
    assert len([place for place in hidden if rows[place].mask == 0]) == 4
    assert len(hidden) == 4, "the margins stay"


def test_nothing_is_hidden_where_nothing_is_small() -> None:
    rows = cube(np.array([[5, 4], [7, 8]]))
    assert protect(rows, frozenset(), LEAST) == frozenset()


def test_two_small_cells_that_are_a_small_cell_together() -> None:
    """1 + 1 hidden in one row of the table: their margin tells that they are two people."""
    rows = cube(np.array([[1, 1, 9], [9, 9, 9]]))
    hidden = protect(rows, small(rows), LEAST)
    first = [place for place in hidden if rows[place].mask == 0 and rows[place].labels[0] == "0"]
    assert sum(rows[place].people for place in first) >= LEAST


def test_a_large_cube_falls_back_to_no_margins() -> None:
    counts = np.ones((30, 30), dtype=int)
    rows = cube(counts)
    hidden = protect(rows, small(rows), LEAST)
    assert len(small(rows)) > MAX_UNKNOWNS
    assert {i for i, row in enumerate(rows) if row.mask} <= hidden


@pytest.mark.parametrize("engine", ["sql"])
def test_the_gate_applies_it_to_every_column(engine: str) -> None:
    """Deaths are a sub-count: where one is held back, the margin's deaths must not give it back."""
    from kakoi.enclave.job import ResultTable

    rows = cube(np.array([[6, 9], [8, 7]]))
    masks = [row.mask for row in rows]
    found = ResultTable(
        name="o",
        columns=(
            column("g", [row.labels[0] for row in rows], domain=["0", "1"]),
            column("h", [row.labels[1] for row in rows], domain=["0", "1"]),
            column("n", [str(row.people) for row in rows]),
            column("v", ["1"] * len(rows), support=[1 if i == 0 else row.people for i, row in enumerate(rows)]),
        ),
        rows=tuple(row.people for row in rows),
        people=tuple(row.people for row in rows),
        margins=tuple(masks),
    )
    made = apply(
        encoded(found), analysis(declared("o", "group:g", "group:h", "count:n", "value:v"), engine=engine), [RULES]
    )
    (one,) = made.outputs
    assert isinstance(one, ReleasedTable)
    assert one.columns[2].held_back == ()
    hidden = frozenset(one.columns[3].held_back)
    assert 0 in hidden
    assert len(hidden) >= 4
    assert not determined(rows, hidden)
    assert "complementary-suppression" in {decision.rule for decision in made.decisions}
