"""How many rows and people stand behind each number: the hidden columns that the engine adds to a query.

The analyst's own counts are not believed. For each output row, and for each aggregate in it, the engine counts
  - rows: of every joined table the distinct rows, and of these the fewest, so that a join cannot multiply one person;
  - people: of every table the distinct persons (the person column, else rows), and of these the fewest.
An aggregate whose argument is missing, zero or one of two values for nearly everybody tells about the few for whom it is not, so
its support is that of the smallest group that it tells apart:

    kind        argument                                 support
    all         any                                      those with a value; a quantile f: 2·min(f, 1-f) of them
    nonzero     summed                                   those who add something; if nobody does, the whole cell
    categories  one of two constants, or count(x), or    the smallest group that occurs, missing counting as a group
                chosen by a condition (CASE, coalesce …)  (and zero, where it is summed)
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

from kakoi.enclave.decimals import PATTERN
from kakoi.enclave.engines.sql_read import Aggregate, Piece
from kakoi.enclave.engines.sql_words import quoted
from kakoi.enclave.job import JobTable

ROW_COLUMN: Final = "kakoi row"
PERSON_COLUMN: Final = "kakoi person"
"""Names with a space: no declared column can have them, and no query can name them."""
_NUMBER: Final = re.compile(PATTERN)

Fewest = tuple[int, ...]
"""Places of hidden columns; the count is the least of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Counted:
    """Where the hidden counts of one group of rows are."""

    rows: Fewest
    people: Fewest

    def of(self, record: Sequence[int]) -> tuple[int, int]:
        """Rows and people of one result row, given its hidden columns."""
        return min(record[i] for i in self.rows), min(record[i] for i in self.people)


@dataclass(frozen=True, slots=True, kw_only=True)
class Support:
    """How to compute the support of one aggregate from hidden counts."""

    kind: Literal["all", "nonzero", "categories"]
    groups: tuple[Counted, ...]
    factor: float = 1.0

    def of(self, record: Sequence[int], cell: tuple[int, int]) -> tuple[int, int]:
        """Rows and people behind the aggregate in one result row; ``cell`` is what is behind the row."""
        found = [group.of(record) for group in self.groups]
        if self.kind == "all":
            rows, people = found[0]
            return int(rows * self.factor), int(people * self.factor)
        present = [counts for counts in found if counts[0] > 0] or [cell]
        return min(rows for rows, _ in present), min(people for _, people in present)


@dataclass(slots=True)
class Counter:
    """Collects hidden columns for the tables of one query; equal ones are added once."""

    tables: Mapping[str, JobTable]
    columns: list[str] = field(default_factory=list)

    def _place(self, sql: str) -> int:
        if sql not in self.columns:
            self.columns.append(sql)
        return self.columns.index(sql)

    def where(self, condition: str | None) -> Counted:
        """Counts of the rows for which ``condition`` holds (SQL text; None: of all)."""
        joined = len(self.tables) > 1
        plain = self._place("count(*)" if condition is None else f"count(CASE WHEN {condition} THEN 1 END)")
        rows, people = [], []
        for alias, table in self.tables.items():
            row = self._distinct(alias, ROW_COLUMN, condition) if joined else plain
            rows.append(row)
            named = table.person_column is not None
            people.append(self._distinct(alias, PERSON_COLUMN, condition) if named else row)
        return Counted(rows=tuple(rows), people=tuple(people))

    def _distinct(self, alias: str, column: str, condition: str | None) -> int:
        name = f"{quoted(alias)}.{quoted(column)}"
        return self._place(f"count(DISTINCT {name if condition is None else f'CASE WHEN {condition} THEN {name} END'})")

    def supports(self, aggregate: Aggregate) -> list[Support]:
        """What bounds the support of an aggregate besides the whole cell."""
        if not aggregate.arguments:
            return []
        first = aggregate.arguments[0]
        known = " AND ".join(f"({argument.sql} IS NOT NULL)" for argument in aggregate.arguments)
        missing = f"(NOT ({known}))"
        adds = aggregate.name in ("sum", "avg", "mean")
        if aggregate.name == "count" and not aggregate.distinct:
            return [self._categories([known, missing])]
        if adds and (two := _two_values(first)):
            return [self._categories([*two, f"({first.sql} IS NULL)"])]
        chosen = any(argument.conditional for argument in aggregate.arguments)
        if aggregate.name == "sum":
            some, none = f"({first.sql} <> 0)", f"({first.sql} = 0)"
            if chosen:
                return [self._categories([some, none, missing])]
            return [Support(kind="nonzero", groups=(self.where(some),))]
        factor = 2 * min(aggregate.fraction, 1 - aggregate.fraction)
        found = [Support(kind="all", groups=(self.where(known),), factor=factor)]
        return [*found, self._categories([known, missing])] if chosen else found

    def _categories(self, conditions: Sequence[str]) -> Support:
        return Support(kind="categories", groups=tuple(map(self.where, conditions)))


def _two_values(piece: Piece) -> list[str]:
    """Conditions that split the rows by an argument of at most two known values; empty if it can have others."""
    if piece.boolean:
        return [f"({piece.sql})", f"(NOT {piece.sql})"]
    values = sorted({value for value in piece.constants or () if value is not None})
    if piece.constants is None or len(values) > 2 or not all(_NUMBER.fullmatch(value) for value in values):
        return []
    return [f"({piece.sql} = {value})" for value in values]
