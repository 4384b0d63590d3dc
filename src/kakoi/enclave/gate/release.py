"""The last judgement before anything leaves: declared outputs only, enough people behind every number, few digits, few bytes.

 1. the answer is one canonical record, with exactly the declared outputs, columns and row limits;
 2. group labels are declared (codes, sites, constants of the source) or few; labels that come from the data are shown only
    where enough people share them;
 3. a row with too few rows or people loses its numbers; so does a single number with too little support of its own;
 4. where a table has margins, more is held back until nothing can be computed back (``complement``);
 5. a statistic with too few people, or too many parameters for them, refuses the whole release;
 6. numbers are rounded; the whole has at most so many bytes;
 7. beside what other runs released, a number over nearly the same people as an earlier one is held back (``cohorts``).

Nothing here depends on a number in any message: a denial says which rule, whose, and how to change it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from fractions import Fraction
from typing import Final, NoReturn

from kakoi.contract.model import Analysis, Output
from kakoi.contract.rules import DisclosureRules, demands_noise
from kakoi.core.errors import Malformed, Refused
from kakoi.enclave import decimals
from kakoi.enclave.exact import ExactTable
from kakoi.enclave.gate.cohorts import Earlier, Population, Told, populations, told
from kakoi.enclave.gate.complement import Row, protect
from kakoi.enclave.gate.model import (
    Released,
    ReleasedColumn,
    ReleasedStatistics,
    ReleasedTable,
    ReleasedValue,
)
from kakoi.enclave.gate.private import Noised
from kakoi.enclave.gate.rules import Bench, strictest
from kakoi.enclave.job import SITE_COLUMN, Job, Result, ResultStatistics, ResultTable, code_labels
from kakoi.wire.messages import GateDecision

MAX_OPEN_LABELS: Final = 366
"""Different labels of one group column that no declaration foresaw, for instance years or days of a year."""
_SHAPES: Final = {"table": "table", "statistics": "statistics", "exact-table": "table"}
Domains = Mapping[str, frozenset[str]]
Labels = tuple[str | None, ...]


def apply(
    result: bytes,
    analysis: Analysis,
    rules: Sequence[DisclosureRules],
    *,
    job: Job | None = None,
    owners: Sequence[str] = (),
) -> Released:
    """What may leave of an engine's answer. ``rules``: every owner's; the strictest wins. Its ``decisions`` go into the passport.

    ``job`` supplies the declared labels of group columns: without it every label counts as one that the data chose.
    ``owners`` are the names to give in a denial, in the order of ``rules``. Raises Refused (``gate.…``).
    What other runs released is not considered: ``judge`` gives an object that does.
    """
    return judge(result, analysis, rules, job=job, owners=owners).released


def judge(
    result: bytes,
    analysis: Analysis,
    rules: Sequence[DisclosureRules],
    *,
    job: Job | None = None,
    owners: Sequence[str] = (),
    noise_key: bytes = b"",
) -> Judged | Noised:
    """An engine's answer, judged by itself; then it can be held against what other runs released. As ``apply`` otherwise.

    ``noise_key`` is needed where an owner demands noise (``private``).
    """
    bench = Bench(rules=strictest(rules), each=tuple(rules), owners=tuple(owners))
    answer = _answer(result)
    if [(o.name, _SHAPES[o.KIND]) for o in answer.outputs] != [(o.name, o.shape) for o in analysis.outputs]:
        _undeclared("outputs")
    if demands_noise([bench.rules]):
        return Noised(_exact(answer, analysis, bench), analysis, bench, noise_key)
    outputs = [found for found in answer.outputs if not isinstance(found, ExactTable)]
    if len(outputs) != len(answer.outputs):
        _undeclared("outputs")
    return Judged(
        outputs=outputs,
        analysis=analysis,
        bench=bench,
        domains=tuple(_domains(found, analysis, job) if isinstance(found, ResultTable) else {} for found in outputs),
        terms=job.cohort_terms if job is not None else 0,
    )


def _exact(answer: Result, analysis: Analysis, bench: Bench) -> ExactTable:
    """The one table that noise can be added to. Raises Refused."""
    found = answer.outputs[0]
    # Analysts' own code could write whatever reach it likes into such an answer.
    if analysis.engine != "sql" or len(answer.outputs) != 1 or not isinstance(found, ExactTable):
        raise bench.deny(
            "gate.noise",
            "epsilon_per_run",
            "no noise can be added to this output",
            "write the analysis in SQL, with counts, sums, averages and quantiles of declared columns",
        )
    if [(c.name, c.role) for c in found.columns] != [(c.name, c.role) for c in analysis.outputs[0].columns]:
        _undeclared(f"columns of {found.name}")
    return found


class Judged:
    """One answer that the gate has judged. ``released`` is what could leave if nothing had left before."""

    def __init__(
        self,
        *,
        outputs: Sequence[ResultTable | ResultStatistics],
        analysis: Analysis,
        bench: Bench,
        domains: Sequence[Domains],
        terms: int,
    ) -> None:
        self._outputs, self._analysis, self._bench = outputs, analysis, bench
        self._domains, self._terms = domains, terms
        self.released, self._tables = self._release({})

    def _release(self, more: Mapping[str, frozenset[int]]) -> tuple[Released, list[_Table]]:
        """``more``: rows of outputs that are held back besides."""
        outputs: list[ReleasedTable | ReleasedStatistics] = []
        decisions: list[GateDecision] = []
        tables: list[_Table] = []
        for found, declared, domains in zip(self._outputs, self._analysis.outputs, self._domains, strict=True):
            if isinstance(found, ResultStatistics):
                outputs.append(_statistics(found, declared, self._bench))
                acted = ["released", "rounded"]
            else:
                table = _Table(found, declared, self._bench, domains, self._analysis)
                outputs.append(table.release(more.get(declared.name, frozenset())))
                tables.append(table)
                acted = table.acted + ["difference"] * bool(more.get(declared.name))
            decisions += [_decision(declared.name, action) for action in acted]
        released = Released(outputs=tuple(outputs), decisions=tuple(decisions))
        if len(released.encode()) > self._bench.rules.max_output_bytes:
            raise self._bench.deny(
                "gate.output-bytes",
                "max_output_bytes",
                "the output is larger than it may be",
                "ask for fewer rows or columns",
            )
        return released, tables

    def populations(self) -> tuple[Population, ...]:
        """Whose numbers ``released`` tells, for the owners' ledgers."""
        return populations((item for table in self._tables for item in table.told(self._terms)), self._terms)

    def against(self, earlier: Earlier) -> Released:
        """What may leave beside everything that left earlier: cells that conflict are held back, the smallest first."""
        more: dict[str, frozenset[int]] = {}
        released, tables = self.released, self._tables
        while True:
            conflicts = {
                table.name: row for table in tables if (row := table.conflict(earlier, self._terms)) is not None
            }
            if not conflicts:
                return released
            for name, row in conflicts.items():
                more[name] = more.get(name, frozenset()) | {row}
            released, tables = self._release(more)


_ACTIONS: Final[dict[str, tuple[str, str]]] = {
    "released": ("declared-output", "released"),
    "rounded": ("max-digits", "rounded"),
    "minimum": ("minimum-cell-and-contributors", "suppressed-cells"),
    "complement": ("complementary-suppression", "suppressed-cells"),
    "difference": ("cohort-difference", "suppressed-cells"),
}


def _decision(output: str, what: str) -> GateDecision:
    rule, action = _ACTIONS[what]
    return GateDecision(output=output, rule=rule, action=action)  # type: ignore[arg-type]


def _answer(result: bytes) -> Result:
    try:
        return Result.decode(result)
    except Malformed:
        # Its message could quote what an analyst's code wrote.
        raise Refused(
            "gate.answer",
            "expected a result in the engine's format, got something else",
            hint="the analysis must return what docs/formats/engine.md describes",
        ) from None


def _undeclared(what: str) -> NoReturn:
    raise Refused(
        "gate.undeclared",
        f"expected exactly the declared {what}, got others",
        hint="declare them in the analysis; all parties approve it again",
    )


def _domains(found: ResultTable, analysis: Analysis, job: Job | None) -> Domains:
    """Labels that each group column may show whatever the data are.

    The SQL engine is ours and read the query, so its own list counts. The Python engine's answer is the analyst's: there a
    column has the codes of the declared column of the same name.
    """
    if analysis.engine == "sql":
        return {column.name: frozenset(column.domain) for column in found.columns}
    if job is None:
        return {}
    domains = {c.name: frozenset(code_labels(c)) for table in job.tables for c in table.columns if c.readable}
    return domains | {SITE_COLUMN: frozenset(site for table in job.tables for site in table.sites)}


def _statistics(found: ResultStatistics, declared: Output, bench: Bench) -> ReleasedStatistics:
    if [value.name for value in found.values] != [column.name for column in declared.columns]:
        _undeclared(f"numbers of {declared.name}")
    for rule in ("minimum_contributors", "minimum_cell"):
        if found.basis < getattr(bench.rules, rule):
            raise bench.deny(
                "gate.statistics-people",
                rule,
                f"{declared.name} rests on too few people",
                "compute it over a larger group",
            )
    if declared.parameters > Fraction(bench.rules.parameters_per_person) * found.basis:
        raise bench.deny(
            "gate.statistics-parameters",
            "parameters_per_person",
            f"{declared.name} has too many parameters for the people behind it",
            "fit fewer parameters, or over a larger group",
        )
    digits = bench.rules.max_digits
    return ReleasedStatistics(
        name=found.name,
        values=tuple(ReleasedValue(name=v.name, number=_rounded(v.number, digits)) for v in found.values),
    )


def _rounded(number: str | None, digits: int) -> str | None:
    """Raises Refused for text that is not a number in its one spelling: only group columns carry text."""
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
class _Table:
    """One table on its way out."""

    found: ResultTable
    declared: Output
    bench: Bench
    domains: Domains
    analysis: Analysis
    people_hidden: bool = False
    complement_hidden: bool = False
    shown: frozenset[int] = frozenset()
    """Rows of which at least one number leaves."""
    labels: Sequence[Labels] = ()

    @property
    def name(self) -> str:
        """Of the output."""
        return self.declared.name

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
        acted = ["released", "rounded"]
        return acted + ["minimum"] * self.people_hidden + ["complement"] * self.complement_hidden

    def release(self, more: frozenset[int] = frozenset()) -> ReleasedTable:
        """The table without what may not leave; ``more`` are rows to hold back besides."""
        self._shape()
        labels = self.labels = self._labels()
        held = more | {i for i in range(len(labels)) if self._few(self.found.rows[i], self.found.people[i])}
        open_rows = {i for i, label in enumerate(labels) if not self._foreseen(label)}
        hidden = {
            place: self._complete(labels, held | self._unsupported(place))
            for place, column in enumerate(self.declared.columns)
            if column.role != "group"
        }
        gone = {i for i in open_rows if all(i in places for places in hidden.values())}
        self.people_hidden |= bool(gone)
        self.shown = frozenset(i for i in range(len(labels)) if any(i not in places for places in hidden.values()))
        order = [i for i in self._order(labels) if i not in gone]
        return ReleasedTable(
            name=self.found.name,
            columns=tuple(self._column(place, order, hidden.get(place, frozenset())) for place in range(self._width)),
            margins=tuple(self.found.margins[i] for i in order) if self.found.margins else (),
            rows_withheld=bool(gone),
        )

    @property
    def _width(self) -> int:
        return len(self.declared.columns)

    def _shape(self) -> None:
        """Exactly the declared columns, all of one length, at most the declared rows; the count column says what is counted."""
        found, height = self.found, len(self.found.rows)
        if [column.name for column in found.columns] != [column.name for column in self.declared.columns]:
            _undeclared(f"columns of {self.declared.name}")
        lengths = {len(column.cells) for column in found.columns} | {len(found.people)}
        optional = {len(column.support_rows) for column in found.columns} | {len(found.margins)}
        optional |= {len(column.support_people) for column in found.columns}
        if lengths != {height} or not optional <= {0, height}:
            _undeclared(f"rows of {self.declared.name}")
        if height > self.declared.max_rows:
            _undeclared(f"number of rows of {self.declared.name}")
        for column, declared in zip(found.columns, self.declared.columns, strict=True):
            if declared.role == "count" and list(column.cells) != list(map(str, found.people)):
                _undeclared(f"counts of {self.declared.name}")
            if len(column.support_rows) != len(column.support_people):
                _undeclared(f"columns of {self.declared.name}")

    def _groups(self) -> list[int]:
        return [place for place, column in enumerate(self.declared.columns) if column.role == "group"]

    def _labels(self) -> list[Labels]:
        """Each row's labels. Raises Refused if two rows have the same, or a column has too many or made-up ones."""
        groups = self._groups()
        columns = [self.found.columns[place].cells for place in groups]
        labels = [tuple(column[i] for column in columns) for i in range(len(self.found.rows))]
        masks = self.found.margins or (0,) * len(labels)
        if any(mask >> len(groups) for mask in masks):
            _undeclared(f"margins of {self.declared.name}")
        if len(set(zip(labels, masks, strict=True))) != len(labels):
            raise Refused(
                "gate.repeated-row",
                f"expected each combination of labels once in {self.declared.name}, got a repetition",
                hint="add the column that tells the rows apart to the groups",
            )
        for place, cells in zip(groups, columns, strict=True):
            self._bounded(self.declared.columns[place].name, {cell for cell in cells if cell is not None})
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
                f"expected labels of {name} to be declared codes, sites, numbers, dates or text constants of the source, got other text",
                hint="declare the column's codes in the data set, or write the labels in the source",
            )

    def _made_up(self, label: str) -> bool:
        """Text that is neither a number nor a date nor a constant of the source: code could carry anything in it."""
        try:
            decimals.parse(label)
        except Malformed:
            return not _date(label) and not any(f"{q}{label}{q}" in self.analysis.source for q in "'\"")
        return False

    def _foreseen(self, labels: Labels) -> bool:
        names = [self.declared.columns[place].name for place in self._groups()]
        return all(
            label is None or label in self.domains.get(name, frozenset())
            for name, label in zip(names, labels, strict=True)
        )

    def _few(self, rows: int, people: int) -> bool:
        return rows < self.bench.rules.minimum_cell or people < self.bench.rules.minimum_contributors

    def _unsupported(self, place: int) -> frozenset[int]:
        column = self.found.columns[place]
        pairs = zip(column.support_rows, column.support_people, strict=True)
        return frozenset(i for i, (rows, people) in enumerate(pairs) if self._few(rows, people))

    def _complete(self, labels: Sequence[Labels], held: frozenset[int]) -> frozenset[int]:
        self.people_hidden |= bool(held)
        if not self.found.margins or not held:
            return held
        rows = [
            Row(labels=label, mask=mask, people=people)
            for label, mask, people in zip(labels, self.found.margins, self.found.people, strict=True)
        ]
        rules = self.bench.rules
        hidden = protect(rows, held, max(rules.minimum_cell, rules.minimum_contributors))
        self.complement_hidden |= hidden != held
        return hidden

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
            rounded = [_rounded(cell, digits) for cell in cells]
            shown = [None if i in hidden else rounded[i] for i in order]
        held = tuple(at for at, i in enumerate(order) if i in hidden)
        return ReleasedColumn(name=declared.name, role=declared.role, cells=tuple(shown), held_back=held)


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
