"""One SELECT where owners demand noise: written anew so that what one person can change is bounded before any row is read.

 1. one table: a join would let one person reach as many rows as the other side has;
 2. every cell that declarations allow is in the answer, also where nobody is: codes of group columns, sites, whole numbers of a short
    declared range, constants of the query, and for each column the missing label;
 3. of a person with several rows at most so many count: those that come first in the file among the rows that the query selects;
 4. every summed value is clamped to its declared range and counted in whole steps, so that sums are exact whole numbers;
 5. each number is a count, a sum, an average, or a quantile over a declared range; whatever else could be computed from these can be computed
    from what leaves;
 6. an expression that fails for some row is missing for that row (``sql_total``), so that no row can stop the query.

What is written here comes from pieces that ``sql_plan`` has recognised and compared with their meaning.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal
from fractions import Fraction
from itertools import product
from math import prod
from typing import Any, Final, Literal

from kakoi.enclave.decimals import of_number
from kakoi.enclave.engines.sql_bounds import range_of
from kakoi.enclave.engines.sql_count import PERSON_COLUMN, ROW_COLUMN
from kakoi.enclave.engines.sql_from import Source
from kakoi.enclave.engines.sql_read import Aggregate, Piece, Scope, whole
from kakoi.enclave.engines.sql_words import quoted
from kakoi.enclave.exact import (
    MAX_CANDIDATES,
    MAX_CELLS,
    MAX_FILLED,
    ExactColumn,
    ExactRanks,
    ExactSum,
    ExactTable,
)
from kakoi.enclave.failures import Stopped
from kakoi.enclave.job import SITE_COLUMN, JobOutput, JobOutputColumn, code_labels

DATA_COLUMN: Final = "kakoi data"
"""Which data set a row is from: a person is protected in each."""
_MOST_WHOLE: Final = 400
"""Values of a whole-number column that can be groups without being codes."""
_FINE: Final = 10**6
"""Least number of steps of a range that is not of whole numbers."""
_MOST_STEP_DIGITS: Final = 12
_MOST_STEPS: Final = 2**52
_LEAST_CANDIDATES: Final = 50
Labels = tuple[str | None, ...]
Run = Callable[[str], Sequence[Sequence[Any]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Steps:
    """A declared range in whole steps."""

    step: str
    low: int
    high: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Ranks:
    """The place of a quantile among the measures: which value, and how finely."""

    value: str
    share: Fraction
    steps: _Steps
    stride: int
    candidates: int


@dataclass(slots=True, kw_only=True)
class PrivatePlan:
    """What to ask of the data, and what the answers are."""

    output: JobOutput
    domains: list[Labels]
    """Of each group column, in the result's order."""
    group_places: list[int]
    columns: list[ExactColumn]
    reach: int
    """Rows of one person that count."""
    rows: str
    """SQL of the rows that count: groups g0 …, values v0 …"""
    sums: list[tuple[str, int]] = field(default_factory=list)
    """SQL of each sum, and its reach."""
    ranks: list[_Ranks] = field(default_factory=list)

    def answer(self, run: Run) -> ExactTable:
        """Ask, and put every declared cell in its place. What has no declared label is not counted."""
        cells = list(product(*self.domains))
        places = {cell: place for place, cell in enumerate(cells)}
        names = [f"g{i}" for i in range(len(self.domains))]
        by = f" GROUP BY {', '.join(names)}" if names else ""
        shown = ", ".join([*names, *(sql for sql, _ in self.sums)]) or "count(*)"
        exact = [[0] * len(cells) for _ in self.sums]
        for record in run(f"SELECT {shown} FROM ({self.rows}){by}"):  # noqa: S608 - our own text
            place = places.get(self._cell(record))
            if place is not None:
                for numbers, value in zip(exact, record[len(names) :], strict=False):
                    numbers[place] = int(value or 0)
        measures: list[ExactSum | ExactRanks] = [
            ExactSum(reach=str(reach), cells=tuple(map(str, numbers)))
            for numbers, (_, reach) in zip(exact, self.sums, strict=True)
        ]
        measures += [self._ranked(ranks, names, places, run) for ranks in self.ranks]
        return ExactTable(name=self.output.name, columns=self._columns(cells), measures=tuple(measures))

    def _ranked(self, ranks: _Ranks, names: list[str], places: Mapping[Labels, int], run: Run) -> ExactRanks:
        place = f"({ranks.value} - ({ranks.steps.low}) + {ranks.stride // 2}) // {ranks.stride}"
        by = ", ".join([*names, "place"])
        filled: list[int] = []
        for record in run(
            f"SELECT {', '.join([*names, f'{place} AS place'])}, count(*) FROM ({self.rows}) "  # noqa: S608 - our own text
            f"WHERE {ranks.value} IS NOT NULL GROUP BY {by} ORDER BY {by}"
        ):
            cell = places.get(self._cell(record))
            if cell is not None:
                filled += (cell, int(record[-2]), int(record[-1]))
        return ExactRanks(
            reach=self.reach,
            share=(ranks.share.numerator, ranks.share.denominator),
            candidates=ranks.candidates,
            height=len(places),
            filled=tuple(filled),
        )

    def _cell(self, record: Sequence[Any]) -> Labels:
        """The declared labels of a record. A number may be written otherwise in the query."""
        found: list[str | None] = []
        for domain, value in zip(self.domains, record, strict=False):
            text = label_of(value)
            found.append(text if text in domain else _same_number(text, domain))
        return tuple(found)

    def _columns(self, cells: Sequence[Labels]) -> tuple[ExactColumn, ...]:
        columns = list(self.columns)
        for at, place in enumerate(self.group_places):
            columns[place] = _column(self.output.columns[place], "label", labels=tuple(cell[at] for cell in cells))
        return tuple(columns)


def label_of(value: Any) -> str | None:
    """The text of a group's value."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    return of_number(value) if isinstance(value, (int, float, Decimal)) else str(value)


def _same_number(text: str | None, domain: Labels) -> str:
    """A label of the domain that is this number in another spelling; else one that no domain has."""
    for label in domain:
        if text is not None and label is not None and _spelled(label) == text:
            return label
    return "\x00"


def _spelled(label: str) -> str | None:
    try:
        return of_number(Decimal(label))
    except ArithmeticError:
        return None


def _column(declared: JobOutputColumn, made: str, **more: Any) -> ExactColumn:
    usual: dict[str, Any] = {"labels": (), "measures": (), "step": "1", "centre": 0, "low": 0, "high": 0, "stride": 1}
    return ExactColumn(name=declared.name, role=declared.role, made=made, **{**usual, **more})  # type: ignore[arg-type]


class PrivateWriter:
    """Judges the query's numbers and groups, and writes the plan."""

    def __init__(self, output: JobOutput, source: Source, scope: Scope, condition: Piece | None, rows: int) -> None:
        if len(source.tables) != 1:
            raise Stopped("sql.noise-join")
        self._output, self._source, self._scope, self._condition = output, source, scope, condition
        self._alias, self._table = next(iter(source.tables.items()))
        self._reach = rows if self._table.person_column is not None else 1
        self._values: list[str] = []
        self._sums: list[tuple[str, int]] = []
        self._ranks: list[_Ranks] = []
        self._quantiles = 0

    def write(self, pieces: Sequence[Piece], groups: Sequence[Piece], places: Sequence[int]) -> PrivatePlan:
        """``pieces``: the result's columns; ``groups`` and ``places``: those that are groups, in order."""
        domains = [self._domain(group, self._output.columns[at].name) for group, at in zip(groups, places, strict=True)]
        cells = prod(len(domain) for domain in domains)
        self._quantiles = sum(1 for piece in pieces if piece.aggregates and _is_quantile(piece.aggregates[0]))
        if cells > min(self._output.max_rows, MAX_CELLS) or cells * len(pieces) > MAX_FILLED:
            raise Stopped("sql.noise-cells")
        columns = [
            self._number(piece, declared, cells) if at not in places else _column(declared, "label")
            for at, (piece, declared) in enumerate(zip(pieces, self._output.columns, strict=True))
        ]
        # Ranks stand behind the sums: their places are known now.
        columns = [self._placed(column) for column in columns]
        return PrivatePlan(
            output=self._output,
            domains=domains,
            group_places=list(places),
            columns=columns,
            reach=self._reach,
            rows=self._rows(groups),
            sums=self._sums,
            ranks=self._ranks,
        )

    def _placed(self, column: ExactColumn) -> ExactColumn:
        if column.made != "quantile":
            return column
        values = {name: getattr(column, name) for name in ExactColumn.__slots__}
        return ExactColumn(**{**values, "measures": (column.measures[0] + len(self._sums),)})

    def _domain(self, piece: Piece, name: str) -> Labels:
        """Every label that declarations allow, in the order of the labels, the missing one last."""
        if piece.reference is not None and piece.reference.name == SITE_COLUMN:
            return tuple(sorted(self._table.sites))
        labels = self._labels(piece)
        if not labels:
            raise Stopped("sql.noise-group", name)
        column = piece.reference.column if piece.reference is not None else None
        missing = column is None or column.may_be_missing
        return (*sorted(labels, key=_order), *([None] if missing else []))

    def _labels(self, piece: Piece) -> set[str]:
        column = piece.reference.column if piece.reference is not None else None
        if column is not None and (codes := code_labels(column)):
            return set(codes)
        if piece.boolean:
            return {"true", "false"}
        if piece.constants is not None:
            return {text for text in piece.constants if text is not None}
        if column is not None and column.type == "integer":
            found = range_of(piece.tree, self._scope)
            if found.low is not None and found.high is not None and found.high - found.low < _MOST_WHOLE:
                return {str(n) for n in range(_up(found.low), _down(found.high) + 1)}
        return set()

    def _rows(self, groups: Sequence[Piece]) -> str:
        shown = [f"{whole(group).sql} AS g{i}" for i, group in enumerate(groups)]
        shown += [f"{value} AS v{i}" for i, value in enumerate(self._values)]
        person = f"{quoted(self._alias)}.{quoted(PERSON_COLUMN)}"
        conditions = [whole(self._condition).sql] if self._condition is not None else []
        if self._table.person_column is not None:
            same = f"{quoted(self._alias)}.{quoted(DATA_COLUMN)}, {person}"
            order = f"{quoted(self._alias)}.{quoted(ROW_COLUMN)}"
            shown += [f"{person} AS p", f"row_number() OVER (PARTITION BY {same} ORDER BY {order}) AS n"]
            conditions.append(f"{person} IS NOT NULL")
        where = f" WHERE {' AND '.join(conditions)}" if conditions else ""
        text = f"SELECT {', '.join([*shown, '1 AS one'])} FROM {self._source.sql}{where}"  # noqa: S608 - our own text
        return f"SELECT * FROM ({text}) WHERE n <= {self._reach}" if self._table.person_column is not None else text  # noqa: S608

    def _value(self, sql: str) -> str:
        if sql not in self._values:
            self._values.append(sql)
        return f"v{self._values.index(sql)}"

    def _sum(self, sql: str, reach: int) -> int:
        if (sql, reach) not in self._sums:
            self._sums.append((sql, reach))
        return self._sums.index((sql, reach))

    def _people(self) -> int:
        return self._sum("count(*)" if self._table.person_column is None else "count(DISTINCT p)", self._reach)

    def _number(self, piece: Piece, declared: JobOutputColumn, cells: int) -> ExactColumn:
        if declared.role == "count":
            return _column(declared, "count", measures=(self._people(),))
        aggregate = piece.aggregates[0]
        alone = piece.tree.get("class") == "FUNCTION" and piece.tree.get("name") == aggregate.name
        if not alone or len(piece.aggregates) != 1:
            raise Stopped("sql.noise-number", declared.name)
        if aggregate.name in ("count", "count_star"):
            return self._count(aggregate, declared)
        if aggregate.name == "sum":
            steps = self._steps(aggregate.arguments[0], declared.name)
            clamped = self._clamped(aggregate.arguments[0], steps)
            reach = self._reach * max(abs(steps.low), abs(steps.high), 1)
            return _column(declared, "sum", step=steps.step, measures=(self._sum(f"sum({clamped})", reach),))
        if aggregate.name in ("avg", "mean"):
            return self._mean(aggregate, declared)
        if _is_quantile(aggregate):
            return self._quantile(aggregate, declared, cells)
        raise Stopped("sql.noise-number", declared.name)

    def _count(self, aggregate: Aggregate, declared: JobOutputColumn) -> ExactColumn:
        if not aggregate.arguments:
            return _column(declared, "count", measures=(self._sum("count(*)", self._reach),))
        if not aggregate.distinct:
            value = self._value(whole(aggregate.arguments[0]).sql)
            return _column(declared, "count", measures=(self._sum(f"count({value})", self._reach),))
        reference = aggregate.arguments[0].reference
        if reference is None or reference.name != self._table.person_column:
            raise Stopped("sql.noise-number", declared.name)
        return _column(declared, "count", measures=(self._people(),))

    def _mean(self, aggregate: Aggregate, declared: JobOutputColumn) -> ExactColumn:
        steps = self._steps(aggregate.arguments[0], declared.name)
        clamped, centre = self._clamped(aggregate.arguments[0], steps), (steps.low + steps.high) // 2
        reach = self._reach * max(steps.high - centre, centre - steps.low, 1)
        above = self._sum(f"sum({clamped} - ({centre}))", reach)
        return _column(
            declared,
            "mean",
            measures=(above, self._sum(f"count({clamped})", self._reach)),
            step=steps.step,
            centre=centre,
            low=steps.low,
            high=steps.high,
        )

    def _quantile(self, aggregate: Aggregate, declared: JobOutputColumn, cells: int) -> ExactColumn:
        steps = self._steps(aggregate.arguments[0], declared.name)
        most = min(MAX_CANDIDATES, MAX_FILLED // (cells * self._quantiles))
        if most < _LEAST_CANDIDATES:
            raise Stopped("sql.noise-cells")
        stride = max(1, -(-(steps.high - steps.low) // (most - 1)))
        self._ranks.append(
            _Ranks(
                value=self._clamped(aggregate.arguments[0], steps),
                share=Fraction(str(aggregate.fraction)),
                steps=steps,
                stride=stride,
                candidates=max(2, -(-(steps.high - steps.low) // stride) + 1),
            )
        )
        return _column(
            declared,
            "quantile",
            measures=(len(self._ranks) - 1,),
            step=steps.step,
            low=steps.low,
            high=steps.high,
            stride=stride,
        )

    def _steps(self, piece: Piece, name: str) -> _Steps:
        found = range_of(piece.tree, self._scope)
        low, high = found.low, found.high
        if low is None or high is None or not (low.is_finite() and high.is_finite() and low <= high):
            raise Stopped("sql.noise-range", name)
        digits = 0 if found.whole else max(0, *(-int(end.normalize().as_tuple().exponent) for end in (low, high)))
        while not found.whole and (high - low).scaleb(digits) < _FINE and digits < _MOST_STEP_DIGITS:
            digits += 1
        steps = _Steps(
            step=f"{Decimal(1).scaleb(-digits):f}", low=_down(low.scaleb(digits)), high=_up(high.scaleb(digits))
        )
        if digits > _MOST_STEP_DIGITS or max(abs(steps.low), abs(steps.high)) > _MOST_STEPS:
            raise Stopped("sql.noise-range", name)
        return steps

    def _clamped(self, piece: Piece, steps: _Steps) -> str:
        """A value in whole steps, within the declared range; missing where it is missing or is not a number."""
        if steps.step == "1" and range_of(piece.tree, self._scope).whole:
            value = self._value(f"TRY_CAST({whole(piece).sql} AS BIGINT)")
            return f"(CASE WHEN {value} IS NOT NULL THEN least(greatest({value}, {steps.low}), {steps.high}) END)"
        value = self._value(f"TRY_CAST({whole(piece).sql} AS DOUBLE)")
        unit = Decimal(steps.step)
        ends = [f"({end * unit:f})::DOUBLE" for end in (steps.low, steps.high)]
        scaled = f"round(least(greatest({value}, {ends[0]}), {ends[1]}) * ({1 / unit:f})::DOUBLE)"
        steps_of = f"least(greatest(CAST({scaled} AS BIGINT), {steps.low}), {steps.high})"
        return f"(CASE WHEN {value} IS NOT NULL AND NOT isnan({value}) THEN {steps_of} END)"


def _is_quantile(aggregate: Aggregate) -> bool:
    return aggregate.name in ("median", "quantile_cont")


def _order(label: str) -> tuple[Literal[0, 1], Decimal, str]:
    """Numbers by value, then text by code point."""
    try:
        number = Decimal(label)
    except ArithmeticError:
        return (1, Decimal(0), label)
    return (0, number, label) if number.is_finite() else (1, Decimal(0), label)


def _down(number: Decimal) -> int:
    return int(number.to_integral_value(rounding=ROUND_FLOOR))


def _up(number: Decimal) -> int:
    return int(number.to_integral_value(rounding=ROUND_CEILING))
