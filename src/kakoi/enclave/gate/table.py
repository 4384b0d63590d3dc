"""One table on its way out: its shape, its labels, and which of its numbers are held back for themselves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from typing import Final, NoReturn

from kakoi.contract.model import Analysis, Output
from kakoi.core.errors import Malformed, Refused
from kakoi.enclave import decimals
from kakoi.enclave.gate.cohorts import Earlier, Told, told
from kakoi.enclave.gate.dominance import dominated
from kakoi.enclave.gate.model import ReleasedColumn, ReleasedTable
from kakoi.enclave.gate.rounding import precise
from kakoi.enclave.gate.rules import Bench
from kakoi.enclave.job import ResultTable

MAX_OPEN_LABELS: Final = 366
"""Different labels of one group column that no declaration foresaw, for instance years or days of a year."""
_STEPS: Final = ("minimum", "dominance", "complement", "difference", "base")
Domains = Mapping[str, frozenset[str]]
Labels = tuple[str | None, ...]


def undeclared(what: str) -> NoReturn:
    """Refuse an answer that is not what was declared."""
    raise Refused(
        "gate.undeclared",
        f"expected exactly the declared {what}, got others",
        hint="declare them in the analysis; all parties approve it again",
    )


def rounded(number: str | None, digits: int) -> str | None:
    """The number in so many digits. Raises Refused for text that is not a number in its one spelling: only group columns carry text."""
    if number is None:
        return None
    try:
        return decimals.canonical(decimals.significant(decimals.parse(number), digits))
    except Malformed:
        raise Refused(
            "gate.value",
            "expected a number in every count and value column, got text",
            hint="text may stand in group columns only",
        ) from None


@dataclass(slots=True)
class Table:
    """One table on its way out."""

    found: ResultTable
    declared: Output
    bench: Bench
    domains: Domains
    analysis: Analysis
    hidden: dict[int, frozenset[int]] = field(default_factory=dict)
    """For each column of numbers: rows whose number is held back."""
    counts: dict[int, Sequence[int]] = field(default_factory=dict)
    """Rounded counts, for columns that hold counts."""
    _did: set[str] = field(default_factory=set)
    _few_rows: frozenset[int] = frozenset()
    _held: list[tuple[str, frozenset[int]]] = field(default_factory=list)
    """Why rows of one column are held back."""
    left_out: int = 0
    """Numbers in rows that are not in the table. Tells about data: for rehearsals on invented ones."""
    shown: frozenset[int] = frozenset()
    """Rows of which at least one number leaves."""
    labels: Sequence[Labels] = ()

    @property
    def name(self) -> str:
        """Of the output."""
        return self.declared.name

    @property
    def classifications(self) -> list[str]:
        """Names of the group columns."""
        return [column.name for column in self.declared.columns if column.role == "group"]

    def told(self, terms: int) -> list[Told]:
        """Whose numbers a reader of the table knows; nothing where the engine could not say."""
        return told(self.found, self.labels, self.shown, terms) if self.found.cohorts else []

    def conflict(self, earlier: Earlier, terms: int) -> int | None:
        """A row to hold back because of what was released earlier; None if there is nothing to hold back."""
        for item in self.told(terms):
            if any(earlier.conflicts(table, sums) for table, sums in item.sums.items()):
                return min(item.rows, key=lambda row: (self.found.people[row], row))
        return None

    @property
    def acted(self) -> list[str]:
        """What was done, for the passport."""
        return ["released", "rounded", *sorted(self._did, key=_STEPS.index)]

    def hold(self, more: frozenset[int]) -> None:
        """What the rules on single numbers hold back; ``more`` are rows to hold back besides."""
        self._shape()
        few = frozenset(i for i in range(len(self.found.rows)) if self._few(self.found.rows[i], self.found.people[i]))
        if len(self.found.rows) - len(few) > self.declared.max_rows:
            undeclared(f"number of rows of {self.declared.name}")
        self._few_rows, self.labels = few, self._labels(few)
        if more:
            self._did.add("difference")
        for place, column in enumerate(self.declared.columns):
            if column.role != "group":
                small, large = few | self._unsupported(place), self._dominated(place)
                # Of a number that is held back anyway, what its people's contributions are like is not told.
                self._held += [("minimum", small), ("dominance", large - small)]
                self.hidden[place] = small | large | more

    def also_hide(self, place: int, rows: frozenset[int]) -> None:
        """Hold back what could be computed from what is shown of a column."""
        self._held.append(("complement", rows - self.hidden[place]))
        self.hidden[place] |= rows

    def round(self, place: int, counts: Sequence[int]) -> None:
        """From now on a column's numbers are these counts."""
        self.counts[place] = counts

    def release(self) -> ReleasedTable:
        """The table without what may not leave."""
        every = range(len(self.labels))
        open_rows = {i for i, label in enumerate(self.labels) if not self._foreseen(label)}
        gone = {i for i in open_rows | self._few_rows if all(i in places for places in self.hidden.values())}
        # A row in the table says that there are such people: so few look like nobody, whatever their label. But there is one total.
        gone = gone if self._groups() else set()
        self.left_out = len(gone) * len(self.hidden)
        # What is told of rules is what the table shows of them.
        self._did |= {why for why, rows in self._held if rows - gone}
        self.shown = frozenset(i for i in every if any(i not in places for places in self.hidden.values()))
        if self.bench.rules.rounding_base > 1:
            self._did.add("base")
        order = [i for i in self._order(self.labels) if i not in gone]
        return ReleasedTable(
            name=self.found.name,
            columns=tuple(
                self._column(place, order, self.hidden.get(place, frozenset())) for place in range(self._width)
            ),
            margins=tuple(self.found.margins[i] for i in order) if self.found.margins else (),
            rows_withheld=bool(self._groups()),
        )

    @property
    def _width(self) -> int:
        return len(self.declared.columns)

    def _shape(self) -> None:
        """Exactly the declared columns, all of one length, at most the declared rows; the count column says what is counted."""
        found, height = self.found, len(self.found.rows)
        if [column.name for column in found.columns] != [column.name for column in self.declared.columns]:
            undeclared(f"columns of {self.declared.name}")
        lengths = {len(column.cells) for column in found.columns} | {len(found.people)}
        optional = {len(column.support_rows) for column in found.columns} | {len(found.margins)}
        optional |= {len(column.support_people) for column in found.columns}
        if lengths != {height} or not optional <= {0, height}:
            undeclared(f"rows of {self.declared.name}")
        for column, declared in zip(found.columns, self.declared.columns, strict=True):
            if declared.role == "count" and list(column.cells) != list(map(str, found.people)):
                undeclared(f"counts of {self.declared.name}")
            if len(column.support_rows) != len(column.support_people):
                undeclared(f"columns of {self.declared.name}")

    def _groups(self) -> list[int]:
        return [place for place, column in enumerate(self.declared.columns) if column.role == "group"]

    def _labels(self, few: frozenset[int]) -> list[Labels]:
        """Each row's labels. Raises Refused if two rows have the same, or a column has too many or made-up ones.

        Rows of ``few`` people count for nothing in this: a refusal would say that there is such a person.
        """
        groups = self._groups()
        columns = [self.found.columns[place].cells for place in groups]
        labels = [tuple(column[i] for column in columns) for i in range(len(self.found.rows))]
        masks = self.found.margins or (0,) * len(labels)
        if any(mask >> len(groups) for mask in masks):
            undeclared(f"margins of {self.declared.name}")
        kept = [i for i in range(len(labels)) if i not in few]
        if len({(labels[i], masks[i]) for i in kept}) != len(kept):
            raise Refused(
                "gate.repeated-row",
                f"expected each combination of labels once in {self.declared.name}, got a repetition",
                hint="add the column that tells the rows apart to the groups",
            )
        for place, cells in zip(groups, columns, strict=True):
            self._bounded(self.declared.columns[place].name, {cell for i in kept if (cell := cells[i]) is not None})
        return labels

    def _bounded(self, name: str, labels: set[str]) -> None:
        unforeseen = labels - self.domains.get(name, frozenset())
        if len(unforeseen) > MAX_OPEN_LABELS:
            raise Refused(
                "gate.labels",
                f"expected at most {MAX_OPEN_LABELS} different labels in {name} that no declaration lists, got more",
                hint="group more coarsely, or by a column with codes",
            )
        if self.analysis.engine == "python" and any(self._made_up(label) for label in unforeseen):
            raise Refused(
                "gate.label",
                f"expected labels of {name} to be declared codes, sites, numbers of at most max_digits digits, dates or text constants of the source, got others",
                hint="declare the column's codes in the data set, round numbers, or write the labels in the source",
            )

    def _made_up(self, label: str) -> bool:
        """Text that is neither a short number nor a date nor a constant of the source: code could carry anything in it."""
        try:
            number = decimals.parse(label)
        except Malformed:
            return not _date(label) and not any(f"{q}{label}{q}" in self.analysis.source for q in "'\"")
        return decimals.significant(number, self.bench.rules.max_digits) != number

    def _foreseen(self, labels: Labels) -> bool:
        names = [self.declared.columns[place].name for place in self._groups()]
        return all(
            label is None or label in self.domains.get(name, frozenset())
            for name, label in zip(names, labels, strict=True)
        )

    def _few(self, rows: int, people: int) -> bool:
        return rows < self.bench.rules.minimum_cell or people < self.bench.rules.minimum_contributors

    def _unsupported(self, place: int) -> frozenset[int]:
        """Rows whose number in this column has too little support of its own, or stands beside as many numbers as there are people."""
        column = self.found.columns[place]
        pairs = zip(column.support_rows, column.support_people, strict=True)
        few = {i for i, (rows, people) in enumerate(pairs) if self._few(rows, people)}
        alone = self.bench.rules.minimum_cell == self.bench.rules.minimum_contributors == 1
        if self.declared.columns[place].role == "value" and not alone:
            # So many equations have the people's own values as their solution, whatever the numbers are.
            values = sum(1 for other in self.declared.columns if other.role == "value")
            few |= {i for i, people in enumerate(self.found.people) if people <= values}
        return frozenset(few)

    def _dominated(self, place: int) -> frozenset[int]:
        try:
            found = [
                dominated(magnitude, len(self.labels), self.bench.each)
                for magnitude in self.found.columns[place].magnitudes
            ]
        except Malformed:
            undeclared(f"contributions of {self.declared.name}")
        return frozenset[int]().union(*found)

    def _order(self, labels: Sequence[Labels]) -> list[int]:
        """The SQL engine orders by labels. Where the analyst's code chose the order, it could tell something: sort anew."""
        places = range(len(labels))
        return list(places) if self.analysis.engine == "sql" else sorted(places, key=lambda i: _sortable(labels[i]))

    def _column(self, place: int, order: Sequence[int], hidden: frozenset[int]) -> ReleasedColumn:
        declared, cells = self.declared.columns[place], self.found.columns[place].cells
        digits = self.bench.rules.max_digits
        if declared.role == "group":
            shown = [cells[i] for i in order]
        else:
            # Every number is parsed, hidden or not: what a refusal says must not depend on which were hidden.
            numbers = [self._number(place, i, cell, digits) for i, cell in enumerate(cells)]
            shown = [None if i in hidden else numbers[i] for i in order]
        held = tuple(at for at, i in enumerate(order) if i in hidden)
        return ReleasedColumn(name=declared.name, role=declared.role, cells=tuple(shown), held_back=held)

    def _number(self, place: int, row: int, cell: str | None, digits: int) -> str | None:
        number = rounded(cell, digits)
        base = self.bench.rules.rounding_base
        if number is None or base == 1:
            return number
        if place in self.counts:
            return rounded(str(self.counts[place][row]), digits)
        support = self.found.columns[place].support_people or self.found.people
        return decimals.canonical(precise(decimals.parse(number), support[row], base))


_DATE_CHARACTERS: Final = frozenset("0123456789-T:.")


def _date(label: str) -> bool:
    return len(label) <= 26 and label[:4].isdecimal() and label[4:5] == "-" and set(label) <= _DATE_CHARACTERS


def _sortable(labels: Labels) -> tuple[tuple[int, Decimal, str], ...]:
    return tuple(_key(label) for label in labels)


def _key(label: str | None) -> tuple[int, Decimal, str]:
    """Numbers by value, then text by code point, then missing."""
    if label is None:
        return (2, Decimal(0), "")
    try:
        number = Decimal(label)
    except InvalidOperation:
        return (1, Decimal(0), label)
    return (0, number, label) if number.is_finite() else (1, Decimal(0), label)
