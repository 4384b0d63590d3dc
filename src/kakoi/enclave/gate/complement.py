"""Complementary suppression: what is held back must not be computable from the margins of the same table, nor from other tables of the run.

Tables with margins (GROUPING SETS, ROLLUP, CUBE), and tables of one run that share classification columns, are a system of equations: a margin is
the sum of the finer rows below it, and two groupings that nobody added up to a common margin still have the same sums there. Held-back
cells are its unknowns. More cells are held back until
  1. no equation has exactly one unknown;
  2. on no side of an equation whose other side is shown the unknowns together are fewer people than a cell may have;
  3. nobody who solves linear programs narrows a cell that the rules hold back to less than it needs (``intervals``).
Cells are taken one after another in several orders, then given back one after another while all of this still holds: near the optimum
(``tests/unit/gate/test_optimal.py`` measures how near) without a solver.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Final

from kakoi.enclave.gate.intervals import TOLERANCE, Moves, Span

MAX_UNKNOWNS: Final = 400
"""Beyond this all margins are held back instead: searches take too long."""
_MOST_EXCHANGES: Final = 2000
"""Cells nearby times cells held back, beyond which no exchange is tried."""
Labels = tuple[str | None, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One row of a table with margins: its labels, which of them are summed over, and the people behind it."""

    labels: Labels
    mask: int
    people: int
    table: int = 0
    """Of several tables: which."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Equation:
    """Places of rows whose sums are equal."""

    left: tuple[int, ...]
    right: tuple[int, ...]

    @property
    def members(self) -> tuple[int, ...]:
        """All places."""
        return (*self.left, *self.right)


def equations(rows: Sequence[Row]) -> list[Equation]:
    """Every margin with the rows of each finer grouping below it, and what groupings without a common margin tell of each other.

    Rows of different tables are tied where their people add up: else the tables are not about the same people.
    """
    groupings: dict[tuple[int, int], list[int]] = {}
    for place, row in enumerate(rows):
        groupings.setdefault((row.table, row.mask), []).append(place)
    found: list[Equation] = []
    for (one, first), (other, second) in combinations(sorted(groupings), 2):
        common = first | second
        if common not in (first, second) and {(one, common), (other, common)} & groupings.keys():
            continue
        tied = _tied(rows, groupings[one, first], groupings[other, second], common)
        found += (equation for equation in tied if one == other or _adds_up(rows, equation))
    return found


def _tied(rows: Sequence[Row], one: Sequence[int], other: Sequence[int], mask: int) -> Iterator[Equation]:
    sides: dict[Labels, tuple[list[int], list[int]]] = {}
    for side, places in enumerate((one, other)):
        for place in places:
            sides.setdefault(visible(rows[place].labels, mask), ([], []))[side].append(place)
    for left, right in sides.values():
        if left and right:
            yield Equation(left=tuple(left), right=tuple(right))


def _adds_up(rows: Sequence[Row], equation: Equation) -> bool:
    return sum(rows[p].people for p in equation.left) == sum(rows[p].people for p in equation.right)


def visible(labels: Labels, mask: int) -> Labels:
    """Labels without those that are summed over."""
    return tuple(None if mask >> i & 1 else label for i, label in enumerate(labels))


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """When cells are hidden well: the fewest people of a cell, and how far each must be able to move."""

    least: int
    bounds: Sequence[Span]
    """Of each cell: how much less and more a reader must think possible for what it counts alone (no count is below zero)."""
    needs: Mapping[int, Span]
    """Of each cell that the rules hold back: how much less and more must be possible beside all that is shown."""
    amounts: Sequence[int] = ()
    """Where the numbers are counts themselves: what they are."""

    def too_few(self, rows: Sequence[Row], places: Sequence[int]) -> bool:
        """Whether cells together are as little as one that may not leave."""
        counted = sum(self.amounts[p] for p in places) if self.amounts else 0
        return sum(rows[p].people for p in places) < self.least or 0 < counted < self.least


def of_counts(rows: Sequence[Row], held: frozenset[int], least: int) -> Rules:
    """Counts of people: a reader knows that nobody counts less than one, and must not know more of a small cell than that it may be any count
    from one to one that may leave. One that is held back for another reason can be ``least`` more or less.
    """
    bounds = [(float(max(0, row.people - 1)), float("inf")) for row in rows]
    needs = {
        p: (float(rows[p].people), float(max(1, least - rows[p].people)))
        if rows[p].people < least
        else (float(least), float(least))
        for p in held
    }
    return Rules(least=least, bounds=bounds, needs=needs)


def _possible(rules: Rules, system: Sequence[Equation]) -> Rules:
    """Without needs that no table could meet: a margin goes down no further than all that it is made of."""
    needs = dict(rules.needs)
    for equation in system:
        for whole, parts in ((equation.left, equation.right), (equation.right, equation.left)):
            if len(whole) == 1 and whole[0] in needs:
                down, up = needs[whole[0]]
                needs[whole[0]] = (min(down, sum(rules.bounds[part][0] for part in parts)), up)
    return replace(rules, needs=needs)


def protect(
    rows: Sequence[Row],
    held: frozenset[int],
    least: int,
    rules: Rules | None = None,
    more: Sequence[Equation] = (),
) -> frozenset[int]:
    """All cells to hold back, given those that the rules hold back and the fewest people of a cell.

    ``rules`` are those of counts of people if there are no others; ``more`` are equations besides those of margins. Several orders of taking cells are tried; the fewest cells in all win.
    """
    system = [*equations(rows), *more] if held else []
    if not system:
        return held
    wanted = _possible(rules or of_counts(rows, held, least), system)
    covers = [_Cover(rows, system, held, wanted, order) for order in _ORDERS]
    found = [(cover.hidden(), cover) for cover in covers]
    best, cover = min(found, key=lambda one: (len(one[0]), sum(rows[p].people for p in one[0]), sorted(one[0])))
    if len(best) > MAX_UNKNOWNS:
        return frozenset(best)
    return cover.without_known(cover.exchanged(best))


Order = Callable[[Row], tuple[int, int]]
_ORDERS: Final[tuple[Order, ...]] = (
    lambda row: (0, row.people),
    lambda row: (row.mask.bit_count(), row.people),
    lambda row: (row.mask.bit_count(), -row.people),
    lambda row: (-row.mask.bit_count(), row.people),
)
"""Which visible cell is taken first: the smallest; the smallest of the finest; the largest of the finest; the smallest margin."""


class _Cover:
    """The search for cells to hold back in one order."""

    def __init__(
        self,
        rows: Sequence[Row],
        system: Sequence[Equation],
        held: frozenset[int],
        rules: Rules,
        order: Order,
    ) -> None:
        self._rows, self._system, self._held, self._rules, self._order = rows, system, held, rules, order
        self._moves = Moves({}, (), rules.bounds)
        self._signs: dict[int, list[tuple[int, int]]] = {}
        """For each cell: the equations it is in, and on which side."""
        for number, equation in enumerate(system):
            for side, sign in ((equation.left, 1), (equation.right, -1)):
                for place in side:
                    self._signs.setdefault(place, []).append((number, sign))
        self._ways: dict[tuple[int, int], frozenset[int]] = {}
        """For each need that is met: the cells of a move that meets it."""

    def hidden(self) -> set[int]:
        """All cells to hold back."""
        hidden: set[int] = set()
        new = set(self._held)
        while new:
            hidden |= new
            self._close(hidden)
            if len(hidden) > MAX_UNKNOWNS:
                return hidden | {place for place, row in enumerate(self._rows) if row.mask}
            self._moves = Moves(_solved(self._rows, self._system, hidden), hidden, self._rules.bounds)
            new = self._neighbour(hidden, self._exposed())
        return self._without_excess(hidden)

    def _equations(self, place: int) -> list[Equation]:
        return [self._system[number] for number, _ in self._signs.get(place, ())]

    def _exposed(self) -> list[int]:
        """The first cell that cannot move as far as it needs; none if all can."""
        for place, (down, up) in sorted(self._rules.needs.items()):
            for sign, need in ((1, up), (-1, down)):
                if (place, sign) not in self._ways:
                    way = self._moves.reach(place, sign, need)
                    if way is None or not self._leaves_sums(way):
                        return [place]
                    self._ways[place, sign] = frozenset(way)
        return []

    def _leaves_sums(self, way: Mapping[int, float]) -> bool:
        """Whether a move changes no published number. It should not; floats are not trusted with that."""
        changes: dict[int, float] = {}
        for place, value in way.items():
            for number, sign in self._signs.get(place, ()):
                changes[number] = changes.get(number, 0.0) + sign * value
        slack = TOLERANCE * (1 + sum(map(abs, way.values())))
        return all(abs(change) <= slack for change in changes.values())

    def _without_excess(self, hidden: set[int]) -> set[int]:
        """Give back what need not be held back, the largest cell first: the closure takes one step at a time and overshoots."""
        for place in sorted(hidden - self._held, key=lambda place: (-self._rows[place].people, place)):
            if self._can_show(place, hidden):
                hidden = hidden - {place}
        return hidden

    def exchanged(self, hidden: set[int]) -> set[int]:
        """Fewer cells, where holding one more back lets two others be shown."""
        near = {p for place in hidden for e in self._equations(place) for p in e.members} - hidden
        if len(near) * len(hidden) > _MOST_EXCHANGES:
            return hidden
        for extra in sorted(near, key=lambda place: (self._order(self._rows[place]), place)):
            if extra not in hidden:
                grown = hidden | {extra}
                self._ways = {need: way for need, way in self._ways.items() if way <= grown}
                self._moves = Moves(_solved(self._rows, self._system, grown), grown, self._rules.bounds)
                fewer = self._without_excess(grown)
                hidden = fewer if len(fewer) < len(hidden) else hidden
        return hidden

    def without_known(self, hidden: set[int]) -> frozenset[int]:
        """Without cells that everybody can compute anyway."""
        self._moves = Moves(_solved(self._rows, self._system, hidden), hidden, self._rules.bounds)
        known = {p for p in hidden - self._held if not any(self._moves.reach(p, sign, 0.5) for sign in (1, -1))}
        return frozenset(hidden - known)

    def _can_show(self, place: int, hidden: set[int]) -> bool:
        fewer = hidden - {place}
        if any(self._missing(equation, fewer) is not None for equation in self._equations(place)):
            return False
        before = dict(self._ways)
        self._ways = {need: way for need, way in before.items() if place not in way}
        self._moves.show(place)
        if not self._exposed():
            return True
        self._moves.hide(place)
        self._ways = before
        return False

    def _missing(self, equation: Equation, hidden: set[int]) -> list[int] | None:
        """The shown cells of an equation of which one must be held back by steps 1 and 2; None if none must."""
        left = [place for place in equation.left if place in hidden]
        right = [place for place in equation.right if place in hidden]
        alone = len(left) + len(right) == 1
        few = (left or right) and not (left and right) and self._rules.too_few(self._rows, left or right)
        return [place for place in equation.members if place not in hidden] if alone or few else None

    def _close(self, hidden: set[int]) -> None:
        """Steps 1 and 2, until nothing changes."""
        changed = True
        while changed:
            changed = False
            for equation in self._system:
                extra = self._first(self._missing(equation, hidden) or ())
                if extra is not None:
                    hidden.add(extra)
                    changed = True

    def _first(self, places: Sequence[int]) -> int | None:
        return min(places, key=lambda place: (self._order(self._rows[place]), place), default=None)

    def _neighbour(self, hidden: set[int], known: Sequence[int]) -> set[int]:
        """The first visible cell that shares an equation with one that is known too well, or with cells tied to it; empty if there is none."""
        near = set(known)
        while near:
            wider = {p for place in near for e in self._equations(place) for p in e.members}
            visible = wider - hidden
            if visible:
                return {min(visible, key=lambda place: (self._order(self._rows[place]), place))}
            if wider <= near:
                break
            near = wider
        return set()


def _solved(rows: Sequence[Row], system: Sequence[Equation], unknowns: set[int]) -> Mapping[int, Mapping[int, float]]:
    """The equations of the unknowns in reduced row echelon form, by their leading unknown: margins lead, so that little is left to eliminate."""
    order = sorted(unknowns, key=lambda place: (-rows[place].mask.bit_count(), place))
    rank = {place: i for i, place in enumerate(order)}
    matrix = [
        {rank[p]: 1.0 for p in equation.left if p in rank} | {rank[p]: -1.0 for p in equation.right if p in rank}
        for equation in system
    ]
    return {
        order[lead]: {order[i]: value for i, value in row.items()}
        for lead, row in _reduced([row for row in matrix if row]).items()
    }


def _reduced(matrix: Sequence[dict[int, float]]) -> dict[int, dict[int, float]]:
    """Reduced row echelon form of sparse rows."""
    pivots: dict[int, dict[int, float]] = {}
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
    return pivots


def _subtract(row: dict[int, float], other: dict[int, float], times: float) -> None:
    for column, value in other.items():
        left = row.get(column, 0.0) - times * value
        if abs(left) > TOLERANCE:
            row[column] = left
        else:
            row.pop(column, None)
