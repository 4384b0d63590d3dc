"""How many rows and people stand behind each number: the hidden columns that the engine adds to a query.

The analyst's own counts are not believed. For each output row, and for each aggregate in it, the engine counts
  - rows: of every joined table the distinct rows, and of these the fewest, so that a join cannot multiply one person;
  - people: of every table the distinct persons (the person column, else rows), and of these the fewest.
An aggregate whose argument is missing, zero or one of two values for nearly everybody tells about the few for whom it is not, so
its support is that of the smallest group that it tells apart:

    kind        argument                                 support
    all         any                                      those with a value; a quantile f: 2·min(f, 1-f) of them
    nonzero     summed (also in means and variances)     those who add something; if nobody does, the whole cell
    categories  one of two constants, or count(x), or    the smallest group that occurs, missing counting as a group, and
                chosen by a condition (CASE, coalesce …)  so each number that a condition gives to everybody else

Beside sums and means of other arguments the engine states how much the largest contributors add (``Magnitude``): people, not rows.
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
_ADDING: Final = frozenset(
    [
        "avg",
        "mean",
        "corr",
        "covar_pop",
        "covar_samp",
        "stddev",
        "stddev_pop",
        "stddev_samp",
        "var_pop",
        "var_samp",
        "variance",
    ]
)
"""Means and what is made of means of powers: who adds nothing to the sum is not behind them either."""

Term = tuple[int, ...]
"""Places of hidden columns: the first, less the others."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Counted:
    """Where the hidden counts of one group of rows are; of several terms the least counts."""

    rows: tuple[Term, ...]
    people: tuple[Term, ...]

    def of(self, record: Sequence[int]) -> tuple[int, int]:
        """Rows and people of one result row, given its hidden columns."""
        return _least(self.rows, record), _least(self.people, record)


def _least(terms: Sequence[Term], record: Sequence[int]) -> int:
    return min(record[first] - sum(record[other] for other in others) for first, *others in terms)


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Magnitude:
    """A sum or mean whose largest contributors the gate judges. Contributions count without their sign (Hundepool et al. 2012, 4.2.1)."""

    argument: str
    """SQL of what each row adds."""
    counts: bool
    """It adds one wherever there is a value."""

    def of_person(self) -> str:
        """SQL of what one person adds, whose rows are a group."""
        whole = f"count({self.argument})" if self.counts else f"sum(TRY_CAST({self.argument} AS DOUBLE))"
        return f"abs({whole})"

    def of_row(self) -> str:
        """SQL of what one row adds."""
        return f"abs(TRY_CAST({self.argument} AS DOUBLE))"


def figures(contribution: str, largest: int) -> list[str]:
    """SQL of the sum of all contributions and the list of the largest."""
    return [f"sum({contribution})", f"max({contribution}, {largest})"]


@dataclass(slots=True)
class Counter:
    """Collects hidden columns for the tables of one query; equal ones are added once.

    Where one table has a row per person, counts add up: a group can be had as the difference of two others, and plain counts
    suffice. Otherwise distinct rows and persons of every table are counted for every group.
    """

    tables: Mapping[str, JobTable]
    columns: list[str] = field(default_factory=list)
    magnitudes: list[Magnitude] = field(default_factory=list)

    @property
    def is_additive(self) -> bool:
        """Whether every row of the one table is one person."""
        return len(self.tables) == 1 and all(table.person_column is None for table in self.tables.values())

    def _place(self, sql: str) -> int:
        if sql not in self.columns:
            self.columns.append(sql)
        return self.columns.index(sql)

    def _plain(self, sql: str) -> Counted:
        term = (self._place(sql),)
        return Counted(rows=(term,), people=(term,))

    def everything(self) -> Counted:
        """Counts of the whole cell."""
        return self._plain("count(*)") if self.is_additive else self._each(None)

    def known(self, arguments: Sequence[Piece]) -> Counted:
        """Counts of the rows in which no argument is missing."""
        if self.is_additive and len(arguments) == 1:
            return self._plain(f"count({arguments[0].sql})")
        return self.where(" AND ".join(f"({argument.sql} IS NOT NULL)" for argument in arguments))

    def where(self, condition: str) -> Counted:
        """Counts of the rows for which a condition (SQL text) holds."""
        return self._plain(f"count_if({condition})") if self.is_additive else self._each(condition)

    def rest(self, whole: Counted, part: Counted, condition: str) -> Counted:
        """Counts of the rows of ``whole`` that are not of ``part``; ``condition`` says the same."""
        if not self.is_additive:
            return self._each(condition)
        term = (*whole.rows[0], *part.rows[0]) if len(whole.rows[0]) == 1 == len(part.rows[0]) else ()
        return Counted(rows=(term,), people=(term,)) if term else self._plain(f"count_if({condition})")

    def _each(self, condition: str | None) -> Counted:
        joined = len(self.tables) > 1
        plain = self._place("count(*)" if condition is None else f"count(CASE WHEN {condition} THEN 1 END)")
        rows, people = [], []
        for alias, table in self.tables.items():
            row = self._distinct(alias, ROW_COLUMN, condition) if joined else plain
            rows.append((row,))
            named = table.person_column is not None
            people.append((self._distinct(alias, PERSON_COLUMN, condition) if named else row,))
        return Counted(rows=tuple(rows), people=tuple(people))

    def _distinct(self, alias: str, column: str, condition: str | None) -> int:
        name = f"{quoted(alias)}.{quoted(column)}"
        return self._place(f"count(DISTINCT {name if condition is None else f'CASE WHEN {condition} THEN {name} END'})")

    def supports(self, aggregate: Aggregate) -> list[Support]:
        """What bounds the support of an aggregate besides the whole cell."""
        if not aggregate.arguments:
            return []
        first = aggregate.arguments[0]
        known = self.known(aggregate.arguments)
        chosen = any(argument.conditional for argument in aggregate.arguments)
        counts = aggregate.name == "count" and not aggregate.distinct
        two = _two_values(first) if aggregate.name in ("sum", "avg", "mean") else []
        if two:
            return [self._categories(*self._split(known, two), self._missing(known, aggregate))]
        if counts:
            return [self._categories(known, self._missing(known, aggregate))]
        if aggregate.name == "sum":
            return [self._added(first, aggregate, known)]
        factor = 2 * min(aggregate.fraction, 1 - aggregate.fraction)
        found = [Support(kind="all", groups=(known,), factor=factor)]
        if aggregate.name in _ADDING:
            return [*found, *(self._added(argument, aggregate, known) for argument in aggregate.arguments)]
        return [*found, self._categories(known, self._missing(known, aggregate))] if chosen else found

    def _added(self, argument: Piece, aggregate: Aggregate, known: Counted) -> Support:
        """Whoever adds nothing, or what a condition gives to everybody else, is not behind the number."""
        others = "".join(f" AND ({other.sql} IS NOT NULL)" for other in aggregate.arguments if other is not argument)
        if not argument.conditional:
            return Support(kind="nonzero", groups=(self.where(f"({argument.sql} <> 0){others}"),))
        levels = sorted({"0", *argument.levels})
        some = self.where(f"({argument.sql} NOT IN ({', '.join(levels)})){others}")
        if len(levels) == 1:
            return self._categories(
                some, self.rest(known, some, f"({argument.sql} = 0){others}"), self._missing(known, aggregate)
            )
        rest = [self.where(f"({argument.sql} = {level}){others}") for level in levels]
        return self._categories(some, *rest, self._missing(known, aggregate))

    def magnitude(self, aggregate: Aggregate) -> int | None:
        """The place among ``magnitudes`` of what the largest contributors to an aggregate are asked of; None if it is of no such kind.

        Where each row is one person, counts and sums of two known values are frequencies: their support says all.
        """
        if aggregate.distinct or not aggregate.arguments or aggregate.name not in ("sum", "avg", "mean", "count"):
            return None
        counts = aggregate.name == "count"
        if self.is_additive and (counts or _two_values(aggregate.arguments[0])):
            return None
        found = Magnitude(argument=aggregate.arguments[0].sql, counts=counts)
        if found not in self.magnitudes:
            self.magnitudes.append(found)
        return self.magnitudes.index(found)

    def _missing(self, known: Counted, aggregate: Aggregate) -> Counted:
        condition = " OR ".join(f"({argument.sql} IS NULL)" for argument in aggregate.arguments)
        return self.rest(self.everything(), known, f"({condition})")

    def _split(self, known: Counted, conditions: Sequence[str]) -> list[Counted]:
        """The rows with a value, by which of at most two values they have."""
        if len(conditions) == 1:
            return [known]
        first = self.where(conditions[0])
        return [first, self.rest(known, first, conditions[1])]

    def _categories(self, *groups: Counted) -> Support:
        return Support(kind="categories", groups=groups)


def _two_values(piece: Piece) -> list[str]:
    """Conditions that split the rows by an argument of at most two known values; empty if it can have others."""
    if piece.boolean:
        return [f"({piece.sql})", f"(NOT {piece.sql})"]
    values = sorted({value for value in piece.constants or () if value is not None})
    if piece.constants is None or len(values) > 2 or not all(_NUMBER.fullmatch(value) for value in values):
        return []
    return [f"({piece.sql} = {value})" for value in values]
