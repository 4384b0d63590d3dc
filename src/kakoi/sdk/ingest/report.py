"""The validation report: counts and row numbers, never a cell.

Checks carry the names and categories of OHDSI's DataQualityDashboard (Kahn et al. 2016: conformance, completeness,
plausibility), so that people who know those read ours at once. ``isForeignKey`` there asks whether a value exists in the table
it refers to; here the table is the column's declared code list.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Literal

from kakoi.core.errors import Refused
from kakoi.sdk.ingest.convert import Fault, Rule
from kakoi.sdk.ingest.schema import Schema, SourceColumn

Category = Literal["Conformance", "Completeness", "Plausibility"]
CheckName = Literal[
    "cdmTable",
    "cdmField",
    "cdmDatatype",
    "isRequired",
    "isForeignKey",
    "measureValueCompleteness",
    "plausibleValueLow",
    "plausibleValueHigh",
]
CATEGORIES: Final[dict[CheckName, tuple[Category, str]]] = {
    "cdmTable": ("Conformance", "Relational"),
    "cdmField": ("Conformance", "Relational"),
    "cdmDatatype": ("Conformance", "Value"),
    "isRequired": ("Conformance", "Relational"),
    "isForeignKey": ("Conformance", "Relational"),
    "measureValueCompleteness": ("Completeness", ""),
    "plausibleValueLow": ("Plausibility", "Atemporal"),
    "plausibleValueHigh": ("Plausibility", "Atemporal"),
}
_RULES: Final[dict[Rule, CheckName]] = {
    "type": "cdmDatatype",
    "line-break": "cdmDatatype",
    "code": "isForeignKey",
    "required": "isRequired",
    "low": "plausibleValueLow",
    "high": "plausibleValueHigh",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One check of a table (``column`` is None) or of a column, and how many of ``rows`` break it."""

    name: CheckName
    column: str | None
    meaning: str
    rows: int
    violated: int
    first_row: int | None
    """Where the first violation is, counted as a person counts; None if there is none."""

    @property
    def category(self) -> Category:
        """Kahn's category."""
        return CATEGORIES[self.name][0]

    @property
    def subcategory(self) -> str:
        """Kahn's subcategory; empty for completeness."""
        return CATEGORIES[self.name][1]

    @property
    def failed(self) -> bool:
        """Whether the check forbids sealing. Missing cells only describe the data."""
        return self.violated > 0 and self.name != "measureValueCompleteness"


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What a pass over the whole file found. For the owner's eyes: counts depend on the data."""

    file: str
    table: str
    rows: int
    checks: tuple[Check, ...]

    @property
    def failed(self) -> tuple[Check, ...]:
        """The checks that forbid sealing."""
        return tuple(check for check in self.checks if check.failed)

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
        hint="correct the file, or the schema: a text that means missing is listed under missing",
    )


class Tally:
    """Counts faults while portions go by."""

    def __init__(self, schema: Schema, file: str) -> None:
        self._schema = schema
        self._file = file
        self.first_row = 1
        self._faults: dict[tuple[str, Rule], tuple[int, int]] = {}
        self._missing = {c.column.name: 0 for c in schema.columns}
        self.rows = 0

    @property
    def sound(self) -> bool:
        """Whether no cell broke a rule so far."""
        return not self._faults

    def add(self, column: str, missing: int, faults: Iterable[Fault]) -> None:
        """Count what one portion of ``column`` holds, before ``advance``."""
        self._missing[column] += missing
        for fault in faults:
            cells, first = self._faults.get((column, fault.rule), (0, self.rows + fault.first + self.first_row))
            self._faults[column, fault.rule] = cells + fault.cells, first

    def advance(self, rows: int) -> None:
        """The portion had ``rows`` rows."""
        self.rows += rows

    def report(self) -> Report:
        """Everything that was checked."""
        checks = [self._check("cdmTable", None, "the file is a table with rows", 0, None)]
        for source in self._schema.columns:
            column = source.column
            checks.append(self._check("cdmField", column.name, "the file has the column", 0, None))
            checks += [self._ruled(column.name, rule, meaning) for rule, meaning in _applying(self._schema, source)]
            checks.append(
                self._check(
                    "measureValueCompleteness", column.name, "cells are missing", self._missing[column.name], None
                )
            )
        return Report(file=self._file, table=self._schema.table, rows=self.rows, checks=tuple(checks))

    def _ruled(self, column: str, rule: Rule, meaning: str) -> Check:
        cells, first = self._faults.get((column, rule), (0, None))
        return self._check(_RULES[rule], column, meaning, cells, first)

    def _check(self, name: CheckName, column: str | None, meaning: str, violated: int, first: int | None) -> Check:
        return Check(name=name, column=column, meaning=meaning, rows=self.rows, violated=violated, first_row=first)


def _applying(schema: Schema, source: SourceColumn) -> Iterable[tuple[Rule, str]]:
    """The rules that hold for a column, with what breaking them means."""
    column = source.column
    if column.type == "string" and not column.codes and not schema.file.line_breaks:
        yield "line-break", "cells hold a line break"
    if column.codes:
        yield "code", "cells are none of the codes"
    yield "type", f"cells are not of type {column.type}"
    if column.minimum is not None:
        yield "low", "cells are below the minimum"
    if column.maximum is not None:
        yield "high", "cells are above the maximum"
    if schema.required(source):
        yield (
            "required",
            "cells name no person" if schema.person_column == column.name else "required cells are missing",
        )
