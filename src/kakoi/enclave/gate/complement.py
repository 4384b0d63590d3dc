"""Complementary suppression: what is held back must not be computable from the margins of the same table.

A table with margins (GROUPING SETS, ROLLUP, CUBE) is a system of equations: each margin is the sum of the finer rows below it.
Held-back cells are its unknowns. More cells are held back until
  1. no equation has exactly one unknown;
  2. in no equation the unknown finer rows together have fewer people than a cell may have;
  3. no unknown is determined by all equations together (Gaussian elimination over the rationals).
Cells are taken one after another in several orders, then given back one after another while all of this still holds: near the optimum
(``tests/unit/gate/test_optimal.py`` measures how near) without a solver. What is not done: bounds. A held-back count is known to be
at least zero, and an attacker with an integer program can narrow the interval of an unknown (LIMITATIONS: intervals).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

MAX_UNKNOWNS: Final = 400
"""Beyond this all margins are held back instead: elimination is cubic."""
Labels = tuple[str | None, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One row of a table with margins: its labels, which of them are summed over, and the people behind it."""

    labels: Labels
    mask: int
    people: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Equation:
    """``whole`` is the sum of ``parts`` (places of rows)."""

    whole: int
    parts: tuple[int, ...]

    @property
    def members(self) -> tuple[int, ...]:
        """All places."""
        return (self.whole, *self.parts)


def equations(rows: Sequence[Row]) -> list[Equation]:
    """Every margin with the rows of each finer grouping below it."""
    masks = sorted({row.mask for row in rows})
    found = []
    for coarse in masks:
        for fine in masks:
            if fine == coarse or fine & ~coarse:
                continue
            below: dict[Labels, list[int]] = {}
            for place, row in enumerate(rows):
                if row.mask == fine:
                    below.setdefault(_visible(row.labels, coarse), []).append(place)
            for place, row in enumerate(rows):
                if row.mask == coarse:
                    found.append(Equation(whole=place, parts=tuple(below.get(_visible(row.labels, coarse), ()))))
    return found


def _visible(labels: Labels, mask: int) -> Labels:
    return tuple(None if mask >> i & 1 else label for i, label in enumerate(labels))


def protect(rows: Sequence[Row], held: frozenset[int], least: int) -> frozenset[int]:
    """All cells to hold back, given those that the rules hold back and the fewest people of a cell.

    Several orders of taking cells are tried; the fewest cells in all win.
    """
    system = [equation for equation in equations(rows) if equation.parts]
    found = [_protected(rows, system, held, least, order) for order in _ORDERS]
    return min(found, key=lambda hidden: (len(hidden), sum(rows[place].people for place in hidden), sorted(hidden)))


Order = Callable[[Row], tuple[int, int]]
_ORDERS: Final[tuple[Order, ...]] = (
    lambda row: (0, row.people),
    lambda row: (row.mask.bit_count(), row.people),
    lambda row: (row.mask.bit_count(), -row.people),
    lambda row: (-row.mask.bit_count(), row.people),
)
"""Which visible cell is taken first: the smallest; the smallest of the finest; the largest of the finest; the smallest margin."""


def _protected(
    rows: Sequence[Row], system: Sequence[Equation], held: frozenset[int], least: int, order: Order
) -> frozenset[int]:
    hidden = set(held)
    while True:
        _close(rows, system, hidden, least, order)
        if len(hidden) > MAX_UNKNOWNS:
            return frozenset(hidden | {place for place, row in enumerate(rows) if row.mask})
        known = _determined(system, sorted(hidden))
        extra = _neighbour(rows, system, hidden, known, order)
        if extra is None:
            return _without_excess(rows, system, hidden, held, least)
        hidden.add(extra)


def _without_excess(
    rows: Sequence[Row], system: Sequence[Equation], hidden: set[int], held: frozenset[int], least: int
) -> frozenset[int]:
    """Give back what need not be held back, the largest cell first: the closure takes one step at a time and overshoots."""
    for place in sorted(hidden - held, key=lambda place: (-rows[place].people, place)):
        fewer = hidden - {place}
        if _is_closed(rows, system, fewer, least) and not _determined(system, sorted(fewer)):
            hidden = fewer
    return frozenset(hidden)


def _is_closed(rows: Sequence[Row], system: Sequence[Equation], hidden: set[int], least: int) -> bool:
    """Whether steps 1 and 2 ask for nothing more."""
    for equation in system:
        unknown = [place for place in equation.members if place in hidden]
        parts = [place for place in equation.parts if place in hidden]
        few = bool(parts) and equation.whole not in hidden and sum(rows[p].people for p in parts) < least
        if len(unknown) == 1 or few:
            return False
    return True


def _close(rows: Sequence[Row], system: Sequence[Equation], hidden: set[int], least: int, order: Order) -> None:
    """Steps 1 and 2, until nothing changes."""
    changed = True
    while changed:
        changed = False
        for equation in system:
            unknown = [place for place in equation.members if place in hidden]
            if not unknown:
                continue
            parts = [place for place in equation.parts if place in hidden]
            few = bool(parts) and equation.whole not in hidden and sum(rows[p].people for p in parts) < least
            if len(unknown) == 1 or few:
                extra = _first(rows, [p for p in equation.members if p not in hidden], order)
                if extra is not None:
                    hidden.add(extra)
                    changed = True


def _first(rows: Sequence[Row], places: Sequence[int], order: Order) -> int | None:
    return min(places, key=lambda place: (order(rows[place]), place), default=None)


def _neighbour(
    rows: Sequence[Row], system: Sequence[Equation], hidden: set[int], known: Sequence[int], order: Order
) -> int | None:
    """The first visible cell that shares an equation with a determined one."""
    near = {p for e in system for p in e.members if any(k in e.members for k in known)} - hidden
    return _first(rows, sorted(near), order) if known else None


def _determined(system: Sequence[Equation], unknowns: Sequence[int]) -> list[int]:
    """Unknowns that the equations fix: a row of the reduced system with one entry."""
    place = {unknown: i for i, unknown in enumerate(unknowns)}
    matrix = []
    for equation in system:
        row: dict[int, Fraction] = {}
        if equation.whole in place:
            row[place[equation.whole]] = Fraction(-1)
        for part in equation.parts:
            if part in place:
                row[place[part]] = Fraction(1)
        if row:
            matrix.append(row)
    return [unknowns[next(iter(row))] for row in _reduced(matrix) if len(row) == 1]


def _reduced(matrix: Sequence[dict[int, Fraction]]) -> list[dict[int, Fraction]]:
    """Reduced row echelon form of sparse rows."""
    pivots: dict[int, dict[int, Fraction]] = {}
    for given in matrix:
        row = dict(given)
        for column in sorted(row):
            if column in pivots and column in row:
                _subtract(row, pivots[column], row[column])
        if not row:
            continue
        lead = min(row)
        scale = row[lead]
        row = {column: value / scale for column, value in row.items()}
        for other in pivots.values():
            if lead in other:
                _subtract(other, row, other[lead])
        pivots[lead] = row
    return list(pivots.values())


def _subtract(row: dict[int, Fraction], other: dict[int, Fraction], times: Fraction) -> None:
    for column, value in other.items():
        left = row.get(column, Fraction(0)) - times * value
        if left:
            row[column] = left
        else:
            row.pop(column, None)
