"""The validation report: counts and row numbers, never a cell.

Checks carry the names and categories of OHDSI's DataQualityDashboard (Kahn et al. 2016: conformance, completeness,
plausibility), so that people who know those read ours at once. ``isForeignKey`` there asks whether a value exists in the table
it refers to; here the table is the column's declared code list.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar, Final, Literal

from kakoi.core.errors import Misuse, Refused
from kakoi.core.limits import Limit, Name
from kakoi.core.records import Record
from kakoi.core.text import LINE, LINE_FORM

if TYPE_CHECKING:  # a console reads reports, and needs none of the libraries that convert cells
    from kakoi.sdk.ingest.convert import Fault, Rule
    from kakoi.sdk.ingest.schema import Schema, SourceColumn

Category = Literal["Conformance", "Completeness", "Plausibility"]
CheckName = Literal[
    "cdmTable",
    "cdmField",
    "cdmDatatype",
    "isRequired",
    "isPrimaryKey",
    "isForeignKey",
    "measureValueCompleteness",
    "standardConceptRecordCompleteness",
    "sourceConceptRecordCompleteness",
    "sourceValueCompleteness",
    "plausibleValueLow",
    "plausibleValueHigh",
    "plausibleStartBeforeEnd",
    "plausibleTemporalAfter",
    "plausibleUnitConceptIds",
    "plausibleGender",
]
CheckRule = Literal[
    "table",
    "field",
    "type",
    "line-break",
    "code",
    "required",
    "person",
    "low",
    "high",
    "missing",
    "unmapped",
    "unmapped-source",
    "unmapped-value",
    "repeated-key",
    "start-after-end",
    "too-early",
    "unit-of-concept",
    "gender-of-concept",
    "low-of-concept",
    "high-of-concept",
]
CATEGORIES: Final[dict[CheckName, tuple[Category, str]]] = {
    "cdmTable": ("Conformance", "Relational"),
    "cdmField": ("Conformance", "Relational"),
    "cdmDatatype": ("Conformance", "Value"),
    "isRequired": ("Conformance", "Relational"),
    "isPrimaryKey": ("Conformance", "Relational"),
    "isForeignKey": ("Conformance", "Relational"),
    "measureValueCompleteness": ("Completeness", ""),
    "standardConceptRecordCompleteness": ("Completeness", ""),
    "sourceConceptRecordCompleteness": ("Completeness", ""),
    "sourceValueCompleteness": ("Completeness", ""),
    "plausibleValueLow": ("Plausibility", "Atemporal"),
    "plausibleValueHigh": ("Plausibility", "Atemporal"),
    "plausibleStartBeforeEnd": ("Plausibility", "Temporal"),
    "plausibleTemporalAfter": ("Plausibility", "Temporal"),
    "plausibleUnitConceptIds": ("Plausibility", "Atemporal"),
    "plausibleGender": ("Plausibility", "Atemporal"),
}
RULES: Final[dict[CheckRule, tuple[CheckName, str]]] = {
    "table": ("cdmTable", "the file is a table with rows"),
    "field": ("cdmField", "the file has the column"),
    "type": ("cdmDatatype", "cells are not of the declared type"),
    "line-break": ("cdmDatatype", "cells hold a line break"),
    "code": ("isForeignKey", "cells are none of the codes"),
    "required": ("isRequired", "required cells are missing"),
    "person": ("isRequired", "cells name no person"),
    "low": ("plausibleValueLow", "cells are below the minimum"),
    "high": ("plausibleValueHigh", "cells are above the maximum"),
    "missing": ("measureValueCompleteness", "cells are missing"),
    "unmapped": ("standardConceptRecordCompleteness", "cells are 0: no standard concept"),
    "unmapped-source": ("sourceConceptRecordCompleteness", "cells are 0: no source concept"),
    "unmapped-value": ("sourceValueCompleteness", "different source values have no standard concept"),
    "repeated-key": ("isPrimaryKey", "rows have the primary key of an earlier row"),
    "start-after-end": ("plausibleStartBeforeEnd", "rows start after they end"),
    "too-early": ("plausibleTemporalAfter", "rows lie before what they must follow"),
    "unit-of-concept": ("plausibleUnitConceptIds", "rows have a unit that their concept does not have"),
    "gender-of-concept": ("plausibleGender", "rows have a concept that their sex does not have"),
    "low-of-concept": ("plausibleValueLow", "rows are below the minimum of their concept"),
    "high-of-concept": ("plausibleValueHigh", "rows are above the maximum of their concept"),
}
"""The check that a rule belongs to, and what breaking it means."""
OF_CONCEPT: Final[dict[str, CheckRule]] = {
    "plausibleUnitConceptIds": "unit-of-concept",
    "plausibleGender": "gender-of-concept",
    "plausibleValueLow": "low-of-concept",
    "plausibleValueHigh": "high-of-concept",
}
"""The rules that a schema declares for rows of a concept, by check."""
_DESCRIBES: Final[frozenset[CheckName]] = frozenset(
    {
        "measureValueCompleteness",
        "standardConceptRecordCompleteness",
        "sourceConceptRecordCompleteness",
        "sourceValueCompleteness",
    }
)
"""Checks that describe the data and never forbid sealing."""
Count = Annotated[int, Limit(most=2**48)]
_ALLOWED: Final = re.compile(LINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Check(Record):
    """One check of a table (``column`` is None) or of a column, and how many of ``rows`` break it."""

    name: CheckName
    rule: CheckRule
    column: Name | None
    rows: Count
    violated: Count
    first_row: Count | None
    """Where the first violation is, counted as a person counts; None if there is none, or if it only describes."""
    accepted: bool
    """Somebody accepted by name that this check fails. Cells that are not as declared are sealed as missing; rows whose cells contradict one another stay as they are."""

    @property
    def category(self) -> Category:
        """Kahn's category."""
        return CATEGORIES[self.name][0]

    @property
    def subcategory(self) -> str:
        """Kahn's subcategory; empty for completeness."""
        return CATEGORIES[self.name][1]

    @property
    def meaning(self) -> str:
        """What breaking it means, in English."""
        return RULES[self.rule][1]

    @property
    def describes(self) -> bool:
        """Whether it only describes the data."""
        return self.name in _DESCRIBES

    @property
    def title(self) -> str:
        """How it is named to accept it: ``check:column``."""
        return f"{self.name}:{self.column or ''}"

    @property
    def failed(self) -> bool:
        """Whether the check forbids sealing."""
        return self.violated > 0 and not self.describes and not self.accepted


@dataclass(frozen=True, slots=True, kw_only=True)
class Report(Record):
    """What a pass over the whole file found. For the owner's eyes: counts depend on the data."""

    KIND: ClassVar[str] = "kakoi/validation-report/v1"
    MAX_BYTES: ClassVar[int] = 8 * 1024 * 1024

    file: Annotated[str, Limit(most=255, pattern=LINE, form=LINE_FORM)]
    table: Name
    rows: Count
    checks: Annotated[tuple[Check, ...], Limit(most=20000)]

    @property
    def failed(self) -> tuple[Check, ...]:
        """The checks that forbid sealing."""
        return tuple(check for check in self.checks if check.failed)

    @property
    def accepted(self) -> tuple[Check, ...]:
        """The checks that fail and were accepted by name."""
        return tuple(check for check in self.checks if check.accepted and check.violated)

    def require_sound(self) -> None:
        """Raise InvalidCells if any check forbids sealing."""
        if self.failed:
            raise InvalidCells(self)


class InvalidCells(Refused):
    """Cells that the schema refuses. ``report`` holds every check."""

    def __init__(self, report: Report) -> None:
        said = _refusal(report)
        super().__init__(said.code, said.message, hint=said.hint)
        self.report = report

    def __reduce__(self) -> tuple[object, ...]:
        """Errors cross process borders whole; this one with its report."""
        return InvalidCells, (self.report,)


def _refusal(report: Report) -> Refused:
    failed = report.failed
    shown = [f"{c.column}: {c.violated} of {c.rows} {c.meaning}, first in row {c.first_row}" for c in failed[:5]]
    more = f"; and {len(failed) - 5} more" if len(failed) > 5 else ""
    return Refused(
        "ingest.invalid-cells",
        f"{report.file}: expected every cell to follow the schema, got {'; '.join(shown)}{more}",
        hint="correct the file, or the schema: a text that means missing is listed under missing; or accept a check by name,"
        f" and its cells are sealed as missing: --accept {failed[0].title}",
    )


def one_line(name: str) -> str:
    """A file's name as a report shows it: what could steer a terminal becomes a question mark."""
    return "".join(c if _ALLOWED.fullmatch(c) else "?" for c in name)[:255]


class Tally:
    """Counts faults while portions go by. ``accept`` names checks, as ``check:column``, that may fail."""

    def __init__(self, schema: Schema, file: str, accept: Iterable[str] = ()) -> None:
        self._schema = schema
        self._file = one_line(file)
        self.first_row = 1
        self._faults: dict[tuple[str, CheckRule], tuple[int, int]] = {}
        self._described: dict[tuple[str, CheckRule], int] = {}
        self._judged: dict[tuple[str, CheckRule], int] = {}
        self.spans = spans(schema)
        self.rules = {c.column.name: applying(schema, c, dict(self.spans)) for c in schema.columns}
        """The rules that hold for each column, besides that it is there and may have gaps."""
        self._accepted_rules = _acceptable(self.rules, frozenset(accept))
        self.rows = 0

    @property
    def sound(self) -> bool:
        """Whether no cell broke a rule so far that nobody accepted."""
        return not (self._faults.keys() - self._accepted_rules)

    def add(self, column: str, missing: int, faults: Iterable[Fault]) -> None:
        """Count what one portion of ``column`` holds, before ``advance``."""
        self.describe(column, "missing", missing)
        for fault in faults:
            rule = _rule(self._schema, column, fault.rule)
            cells, first = self._faults.get((column, rule), (0, self.rows + fault.first + self.first_row))
            self._faults[column, rule] = cells + fault.cells, first

    def describe(self, column: str, rule: CheckRule, count: int) -> None:
        """Count cells that only describe the data."""
        self._described[column, rule] = self._described.get((column, rule), 0) + count

    def note(self, column: str, rule: CheckRule, rows: int, first: int, *, of: int | None = None) -> None:
        """Count rows of this portion that break a rule between columns; ``first`` is the first one's index in it.

        ``of``: how many rows the rule speaks of, if it does not speak of all.
        """
        if of is not None:
            self._judged[column, rule] = self._judged.get((column, rule), 0) + of
        if rows:
            known, place = self._faults.get((column, rule), (0, self.rows + first + self.first_row))
            self._faults[column, rule] = known + rows, min(place, self.rows + first + self.first_row)

    def settle(self, column: str, rule: CheckRule, violated: int, *, of: int, first_row: int | None = None) -> None:
        """State what only the whole file shows: ``violated`` of ``of``, the first in the row that ``first_row`` names."""
        self._judged[column, rule] = of
        if first_row is None:
            self._described[column, rule] = violated
        else:
            self._faults[column, rule] = violated, first_row

    def advance(self, rows: int) -> None:
        """The portion had ``rows`` rows."""
        self.rows += rows

    def report(self) -> Report:
        """Everything that was checked."""
        checks = [self._check("table", None)]
        for source in self._schema.columns:
            column = source.column.name
            checks += [self._check(rule, column) for rule in ("field", *self.rules[column], "missing")]
        return Report(file=self._file, table=self._schema.table, rows=self.rows, checks=tuple(checks))

    def _check(self, rule: CheckRule, column: str | None) -> Check:
        cells, first = self._faults.get((column or "", rule), (self._described.get((column or "", rule), 0), None))
        return Check(
            name=RULES[rule][0],
            rule=rule,
            column=column,
            rows=self._judged.get((column or "", rule), self.rows),
            violated=cells,
            first_row=first,
            accepted=(column or "", rule) in self._accepted_rules,
        )


def _rule(schema: Schema, column: str, rule: Rule) -> CheckRule:
    return "person" if rule == "required" and column == schema.person_column else rule


def applying(schema: Schema, source: SourceColumn, ends: Mapping[str, str]) -> tuple[CheckRule, ...]:
    """The rules that hold for a column. ``ends``: of columns that begin something, the column that ends it."""
    column = source.column
    unmapped = column.type == "integer" and column.name.lower().endswith("_concept_id")
    held: list[tuple[CheckRule, bool]] = [
        ("line-break", column.type == "string" and not column.codes and not schema.file.line_breaks),
        ("code", bool(column.codes)),
        ("type", True),
        ("low", column.minimum is not None),
        ("high", column.maximum is not None),
        ("start-after-end", column.name in ends),
        ("unmapped-value", source.mapped_to is not None),
        ("repeated-key", column.name in schema.primary_key[:1]),
        ("too-early", source.after is not None),
        *(
            (rule, any((p.check, p.column) == (check, column.name) for p in schema.plausible))
            for check, rule in OF_CONCEPT.items()
        ),
        ("person", column.name == schema.person_column),
        ("required", schema.required(source) and column.name != schema.person_column),
        ("unmapped", unmapped and not column.name.lower().endswith("_source_concept_id")),
        ("unmapped-source", unmapped and column.name.lower().endswith("_source_concept_id")),
    ]
    return tuple(rule for rule, holds in held if holds)


def spans(schema: Schema) -> tuple[tuple[str, str], ...]:
    """Columns that begin and end something, by OMOP's habit of naming: ``…_start_date`` with ``…_end_date``, also of datetimes."""
    kinds = {c.column.name: c.column.type for c in schema.columns}
    pairs = []
    for name, kind in kinds.items():
        end = name.replace("_start_date", "_end_date")
        if end != name and kind in ("date", "datetime") and kinds.get(end) == kind:
            pairs.append((name, end))
    return tuple(pairs)


def _acceptable(rules: Mapping[str, Sequence[CheckRule]], accept: frozenset[str]) -> frozenset[tuple[str, CheckRule]]:
    """Columns and rules behind accepted names. Raises Misuse for a name that stands for no check of this schema."""
    found: dict[str, list[tuple[str, CheckRule]]] = {}
    for column, held in rules.items():
        for rule in held:
            name = RULES[rule][0]
            if name not in _DESCRIBES and rule != "person":
                found.setdefault(f"{name}:{column}", []).append((column, rule))
    for title in sorted(accept):
        if title not in found:
            raise Misuse(
                "ingest.acceptance",
                f"expected the name of a check of this schema that may be accepted, got {title!r}",
                hint="kakoi dataset validate names them, for example plausibleValueHigh:age; that a row names no person cannot be accepted",
            )
    return frozenset(pair for title in accept for pair in found[title])
