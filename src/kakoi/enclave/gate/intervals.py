"""What somebody with a linear program could know of held-back cells: whether each can be as much smaller and larger as it must.

Held-back cells are unknowns between bounds, what was published ties them to each other. Every other table that fits what was published is
the true one plus a move: a change of the unknowns that leaves all published sums as they are and no unknown outside its bounds. A cell
is protected if there is a move that makes it larger by what it needs, and one that makes it smaller.

Moves are looked for by the simplex method for bounded variables (Chvátal, Linear Programming, 1983, chapter 8) from the true table, which
is inside: no first phase. One dictionary serves all searches about the same unknowns; a cell that is given back stays in it as a variable
without room. Numbers are floats; a search that does not end has found nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

TOLERANCE: Final = 1e-7
_MOST_STEPS: Final = 400
"""For one cell in one direction."""
Span = tuple[float, float]
"""How far down and how far up; both from 0."""


class Moves:
    """The moves of some unknowns whose equations are ``solved``: in reduced row echelon form, by their leading unknown.

    ``bounds``: how far each cell could go for itself.
    """

    def __init__(
        self, solved: Mapping[int, Mapping[int, float]], unknowns: Iterable[int], bounds: Sequence[Span]
    ) -> None:
        self._terms: dict[int, dict[int, float]] = {
            lead: {other: -value for other, value in row.items() if other != lead} for lead, row in solved.items()
        }
        self._bounds = bounds
        self._hidden = set(unknowns)
        self._move: dict[int, float] = {}

    def hide(self, place: int) -> None:
        """A cell that was shown is held back again."""
        self._hidden.add(place)

    def show(self, place: int) -> None:
        """From now on one of the unknowns is shown."""
        self._hidden.discard(place)

    def reach(self, place: int, sign: int, need: float) -> Mapping[int, float] | None:
        """A move, by cell, that takes one cell by ``need``, or as far as its own bounds let it, in the direction of ``sign``; None if there is none."""
        self._move = {}
        need = min(need, self._bounds[place][sign > 0])
        steps = 0
        while steps < _MOST_STEPS:
            if sign * self._move.get(place, 0.0) >= need - TOLERANCE * max(1.0, need):
                return {other: value for other, value in self._move.items() if abs(value) > TOLERANCE}
            left = need - sign * self._move.get(place, 0.0)
            blocking = self._go_on(place, sign, left, careful=steps > _MOST_STEPS // 2)
            if blocking is None:
                return None
            steps += blocking in self._hidden  # a shown cell that leaves the basis never comes back
        return None

    def _go_on(self, place: int, sign: int, left: float, *, careful: bool) -> int | None:
        """One step of the simplex method: the cell that ended it; None at the optimum. ``careful``: Bland's rule, under which it ends."""
        slope = self._terms.get(place, {place: 1.0})
        entering = [
            (other, sign if value > 0 else -sign)
            for other, value in slope.items()
            if abs(value) > TOLERANCE and self._room(other, sign if value > 0 else -sign) > TOLERANCE
        ]
        if not entering:
            return None
        chosen, way = min(entering) if careful else max(entering, key=lambda entry: (abs(slope[entry[0]]), -entry[0]))
        length, blocking = min(self._room(chosen, way), left / abs(slope[chosen])), chosen
        rows = [(lead, row[chosen]) for lead, row in self._terms.items() if abs(row.get(chosen, 0.0)) > TOLERANCE]
        for lead, value in sorted(rows, key=lambda row: (row[0] in self._hidden, row[0])):
            most = self._room(lead, way if value > 0 else -way) / abs(value)
            if most < length - TOLERANCE:
                length, blocking = most, lead
        length = max(0.0, length)
        if length:
            for lead, value in rows:
                self._move[lead] = self._move.get(lead, 0.0) + value * way * length
            self._move[chosen] = self._move.get(chosen, 0.0) + way * length
        if blocking != chosen:
            self._pivot(blocking, chosen)
        return blocking

    def _room(self, place: int, way: int) -> float:
        if place not in self._hidden:
            return 0.0
        low, high = self._bounds[place]
        move = self._move.get(place, 0.0)
        return high - move if way > 0 else move + low

    def _pivot(self, leaving: int, entering: int) -> None:
        """``entering`` becomes basic in the place of ``leaving``."""
        row = self._terms.pop(leaving)
        factor = row.pop(entering)
        solved = {other: -value / factor for other, value in row.items()}
        solved[leaving] = 1.0 / factor
        for other_row in self._terms.values():
            times = other_row.pop(entering, 0.0)
            if times:
                for other, value in solved.items():
                    left = other_row.get(other, 0.0) + times * value
                    if abs(left) > TOLERANCE:
                        other_row[other] = left
                    else:
                        other_row.pop(other, None)
        self._terms[entering] = solved
