"""Complementary suppression: what is held back must not be computable from the margins of the same table.

A table with margins (GROUPING SETS, ROLLUP, CUBE) is a system of equations: each margin is the sum of the finer rows below it.
Held-back cells are its unknowns. More cells are held back until
  1. no equation has exactly one unknown;
  2. in no equation the unknown finer rows together have fewer people than a cell may have;
  3. no unknown is determined by all equations together (Gaussian elimination over the rationals).
Cells are taken smallest first, which is not optimal but needs no solver. What is not done: bounds. A held-back count is known to be
at least zero, and an attacker with an integer program can narrow the interval of an unknown (LIMITATIONS: intervals).
"""

from __future__ import annotations

from collections.abc import Sequence
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
    """All cells to hold back, given those that the rules hold back and the fewest people of a cell."""
    system = [equation for equation in equations(rows) if equation.parts]
    hidden = set(held)
    while True:
        _close(rows, system, hidden, least)
        if len(hidden) > MAX_UNKNOWNS:
            return frozenset(hidden | {place for place, row in enumerate(rows) if row.mask})
        known = _determined(system, sorted(hidden))
        extra = _neighbour(rows, system, hidden, known)
        if extra is None:
            return frozenset(hidden)
        hidden.add(extra)


def _close(rows: Sequence[Row], system: Sequence[Equation], hidden: set[int], least: int) -> None:
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
                extra = _smallest(rows, [p for p in equation.members if p not in hidden])
                if extra is not None:
                    hidden.add(extra)
                    changed = True


def _smallest(rows: Sequence[Row], places: Sequence[int]) -> int | None:
    return min(places, key=lambda place: (rows[place].people, place), default=None)


def _neighbour(rows: Sequence[Row], system: Sequence[Equation], hidden: set[int], known: Sequence[int]) -> int | None:
    """The smallest visible cell that shares an equation with a determined one."""
    near = {p for e in system for p in e.members if any(k in e.members for k in known)} - hidden
    return _smallest(rows, sorted(near)) if known else None


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
