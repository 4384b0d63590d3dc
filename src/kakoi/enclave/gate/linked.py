"""Tables of one run held against one another: what one of them holds back must not be computable from its margins, nor from another table.

The SQL engine says which rows of its table are margins. A Python analysis says nothing of the kind, so its tables are tied by what they show: columns
of the same name are the same classification, and rows are margins of rows of another table where their people add up to the same number. A label
whose rows always have as many people as all other labels together ("total", a row without a label) is a margin too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal

from kakoi.core.errors import Malformed
from kakoi.enclave import decimals
from kakoi.enclave.gate.complement import Equation, Labels, Row, Rules, equations, protect
from kakoi.enclave.gate.dominance import Contributions, contributions, protection
from kakoi.enclave.gate.rounding import counts
from kakoi.enclave.gate.rules import Bench
from kakoi.enclave.gate.table import Table


@dataclass(frozen=True, slots=True, kw_only=True)
class _Column:
    """One column of numbers of one table."""

    table: Table
    place: int

    @property
    def height(self) -> int:
        return len(self.table.labels)

    @property
    def support(self) -> Sequence[int]:
        return self.table.found.columns[self.place].support_people or self.table.found.people


def complete(tables: Sequence[Table], bench: Bench) -> None:
    """Hold back what could be computed, and round counts, in all tables of a run."""
    columns: dict[str, list[_Column]] = {}
    for table in tables:
        for place, column in enumerate(table.declared.columns):
            if column.role != "group":
                key = "count" if column.role == "count" else f"value {column.name}"
                columns.setdefault(key, []).append(_Column(table=table, place=place))
    for kin in columns.values():
        if bench.rules.rounding_base > 1 or any(column.table.hidden[column.place] for column in kin):
            _Kin(kin, bench).settle()


class _Kin:
    """Columns of the same meaning in all tables of a run."""

    def __init__(self, columns: Sequence[_Column], bench: Bench) -> None:
        self._columns, self._bench = columns, bench
        self._rows = [row for number, column in enumerate(columns) for row in rows_of(column.table, number, columns)]
        self._held = frozenset(first + i for first, column in self._firsts() for i in column.table.hidden[column.place])
        self._amounts = self._counted()

    def _firsts(self) -> list[tuple[int, _Column]]:
        first, found = 0, []
        for column in self._columns:
            found.append((first, column))
            first += column.height
        return found

    def settle(self) -> None:
        """Hold back and round."""
        rules = self._bench.rules
        least = max(rules.minimum_cell, rules.minimum_contributors)
        hidden = (
            protect(self._rows, self._held, least, self._rules(least), self._totals()) if self._held else self._held
        )
        base = rules.rounding_base
        rounded = counts(self._rows, self._amounts, base) if base > 1 and self._amounts else []
        for first, column in self._firsts():
            mine = range(first, first + column.height)
            column.table.also_hide(column.place, frozenset(i - first for i in hidden if i in mine))
            if rounded:
                column.table.round(column.place, rounded[first : first + column.height])

    def _totals(self) -> list[Equation]:
        """What a Python table's rows of totals say. They stay cells of their own too: adding up may be chance."""
        return [
            Equation(left=tuple(first + p for p in one.left), right=tuple(first + p for p in one.right))
            for first, column in self._firsts()
            if column.table.analysis.engine == "python"
            for one in totals(column.table.labels, column.table.found.people)
        ]

    def _counted(self) -> list[int]:
        """The numbers, if they are counts: of people, or whole numbers no larger than those that add up as counts do. Else nothing."""
        if all(c.table.declared.columns[c.place].role == "count" for c in self._columns):
            return [row.people for row in self._rows]
        cells = [
            decimals.parse(cell) if cell else None
            for c in self._columns
            for cell in c.table.found.columns[c.place].cells
        ]
        numbers = [int(cell) for cell in cells if cell is not None and cell == cell.to_integral_value()]
        if len(numbers) < len(self._rows) or any(
            not 0 <= number <= row.people for number, row in zip(numbers, self._rows, strict=True)
        ):
            return []
        sums = [(sum(numbers[p] for p in e.left), sum(numbers[p] for p in e.right)) for e in equations(self._rows)]
        return numbers if all(left == right for left, right in sums) else []

    def _rules(self, least: int) -> Rules | None:
        """How much cells must be able to move; None: as counts of people do."""
        if all(c.table.declared.columns[c.place].role == "count" for c in self._columns):
            return None
        if self._amounts:
            return self._rules_of_parts(least)
        added = self._contributions()
        return self._rules_of_magnitudes(added, least) if added else None

    def _rules_of_parts(self, least: int) -> Rules:
        """Counts of some of the people of each cell: none is below zero, nor above all of them."""
        support = [people for column in self._columns for people in column.support]
        bounds = [(float(n), float(row.people - n)) for n, row in zip(self._amounts, self._rows, strict=True)]
        needs = {p: (float(max(1, least - support[p])),) * 2 for p in self._held}
        return Rules(least=least, bounds=bounds, needs=needs, amounts=self._amounts)

    def _contributions(self) -> list[Contributions]:
        found: list[Contributions] = []
        nothing = Contributions(total=Decimal(0), largest=())
        for column in self._columns:
            magnitudes = column.table.found.columns[column.place].magnitudes
            if len(magnitudes) != 1:
                return []
            found += [one or nothing for one in contributions(magnitudes[0], column.height)]
        return found

    def _rules_of_magnitudes(self, added: Sequence[Contributions], least: int) -> Rules:
        """Sums and means: a reader must not come closer to a held-back one than the owners' rules on dominance say."""
        bounds = [(float(one.total), float("inf")) for one in added]
        needs = {p: (protection(added[p], self._bench.each),) * 2 for p in self._held}
        return Rules(least=least, bounds=bounds, needs=needs)


def rows_of(table: Table, number: int, columns: Sequence[_Column]) -> list[Row]:
    """The rows of one table by the classifications of all."""
    names = list(dict.fromkeys(name for column in columns for name in column.table.classifications))
    mine = table.classifications
    absent = sum(1 << i for i, name in enumerate(names) if name not in mine)
    masks = table.found.margins or (0,) * len(table.labels)
    rows = []
    for labels, mask, people in zip(table.labels, masks, table.found.people, strict=True):
        given = {name: None if mask >> at & 1 else labels[at] for at, name in enumerate(mine)}
        summed = absent | sum(1 << i for i, name in enumerate(names) if name in mine and mask >> mine.index(name) & 1)
        rows.append(Row(labels=tuple(given.get(name) for name in names), mask=summed, people=people, table=number))
    return rows


def totals(labels: Sequence[Labels], people: Sequence[int]) -> list[Equation]:
    """Rows of labels that are totals of the other labels of their classification, with the rows that they are totals of."""
    found: list[Equation] = []
    for at in range(len(labels[0]) if labels else 0):
        groups: dict[Labels, list[int]] = {}
        for place, label in enumerate(labels):
            groups.setdefault((*label[:at], *label[at + 1 :]), []).append(place)
        sums = [(places, sum(people[p] for p in places)) for places in groups.values()]
        others = {labels[p][at] for places, whole in sums for p in places if 2 * people[p] != whole}
        for places, whole in sums:
            for place in places:
                if 2 * people[place] == whole and len(places) > 2 and labels[place][at] not in others:
                    found.append(Equation(left=(place,), right=tuple(p for p in places if p != place)))
    return found


def _number(cell: str | None) -> Decimal | None:
    """None for what is no number: the release is refused for it later."""
    try:
        return None if cell is None else decimals.parse(cell)
    except Malformed:
        return None
