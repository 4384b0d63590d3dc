"""What the SQL engine answers where owners demand noise: exact whole numbers, and how far one person can move them. For the gate alone.

Every number is a count, or a sum of whole steps to which each row was clamped, so that what one person can change is known from declarations
and never from data: the *reach* of a sum is the most that all rows of one person change it by, over all cells together.
``docs/formats/engine.md`` is the human description, docs/privacy.md the mathematics.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Final, Literal

from kakoi.core.errors import Malformed
from kakoi.core.limits import Decimal, Limit, Name
from kakoi.core.records import Record

MAX_CANDIDATES: Final = 1001
"""Values that a quantile can take, spread evenly over the declared range."""
MAX_CELLS: Final = 100_000
MAX_FILLED: Final = 250_000
"""Cells times candidates, of all quantiles of a table: what one answer can hold."""
_HINT: Final = "this is an error in Kakoi: report it with the query"
Whole = Annotated[str, Limit(least=1, most=40, pattern=r"0|-?[1-9][0-9]*", form="a whole number")]
"""Text: sums of many rows pass what JSON's readers hold exactly."""
Label = Annotated[str, Limit(most=120)] | None
Place = Annotated[int, Limit(most=MAX_CELLS)]


@dataclass(frozen=True, slots=True, kw_only=True)
class ExactSum(Record):
    """A count or a sum of steps for each cell."""

    KIND: ClassVar[str] = "sum"

    reach: Whole
    """The most that one person changes all cells by, added up; at least 1."""
    cells: Annotated[tuple[Whole, ...], Limit(most=MAX_CELLS)]

    def check(self) -> None:
        """Somebody can change something."""
        if int(self.reach) < 1:
            raise Malformed("exact.reach", "expected a reach of at least 1, got less", hint=_HINT)


@dataclass(frozen=True, slots=True, kw_only=True)
class ExactRanks(Record):
    """For each cell, how many rows lie at each candidate of a quantile."""

    KIND: ClassVar[str] = "ranks"

    reach: Annotated[int, Limit(least=1, most=10**4)]
    """Rows of one person, over all cells."""
    share: tuple[Annotated[int, Limit(least=1, most=10**6)], ...]
    """The quantile as numerator and denominator."""
    candidates: Annotated[int, Limit(least=2, most=MAX_CANDIDATES)]
    height: Place
    """Number of cells."""
    filled: Annotated[tuple[Annotated[int, Limit(most=2**48)], ...], Limit(most=3 * MAX_FILLED)]
    """Cell, candidate, rows; again and again, wherever there are rows."""

    def check(self) -> None:
        """The share lies between 0 and 1, and every place exists."""
        whole = len(self.share) == 2 and self.share[0] < self.share[1] and len(self.filled) % 3 == 0
        cells, places = self.filled[::3], self.filled[1::3]
        if not whole or max(cells, default=-1) >= self.height or max(places, default=0) >= self.candidates:
            raise Malformed("exact.ranks", "expected ranks of declared candidates and cells, got others", hint=_HINT)


@dataclass(frozen=True, slots=True, kw_only=True)
class ExactColumn(Record):
    """A column, and which measures it is made of. Numbers are in steps from 0; a step is ``step`` of the column's unit."""

    name: Name
    role: Literal["group", "count", "value"]
    made: Literal["label", "count", "sum", "mean", "quantile"]
    labels: Annotated[tuple[Label, ...], Limit(most=MAX_CELLS)]
    """Of a group column, one for each cell."""
    measures: Annotated[tuple[Annotated[int, Limit(most=511)], ...], Limit(most=2)]
    """Places among the table's. A mean has two: the sum of what lies above ``centre``, and the number of rows."""
    step: Decimal
    centre: Annotated[int, Limit(least=-(2**52), most=2**52)]
    low: Annotated[int, Limit(least=-(2**52), most=2**52)]
    high: Annotated[int, Limit(least=-(2**52), most=2**52)]
    """The declared range of a mean or a quantile, in steps."""
    stride: Annotated[int, Limit(least=1, most=2**52)]
    """Steps from one candidate of a quantile to the next."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExactTable(Record):
    """A table whose every declared cell is there, also where nobody is in it."""

    KIND: ClassVar[str] = "exact-table"

    name: Name
    columns: Annotated[tuple[ExactColumn, ...], Limit(least=1, most=256)]
    measures: Annotated[tuple[ExactSum | ExactRanks, ...], Limit(least=1, most=512)]

    def check(self) -> None:
        """All columns and measures are equally long, and every column has the measures it needs."""
        heights = {len(column.labels) for column in self.columns if column.made == "label"}
        heights |= {len(m.cells) if isinstance(m, ExactSum) else m.height for m in self.measures}
        needed = {"label": (), "count": (ExactSum,), "sum": (ExactSum,), "mean": (ExactSum, ExactSum)}
        for column in self.columns:
            kinds = tuple(type(m) for i in column.measures for m in self.measures[i : i + 1])
            if kinds != needed.get(column.made, (ExactRanks,)):
                raise Malformed(
                    "exact.columns", "expected the measures that a column is made of, got others", hint=_HINT
                )
        if len(heights) != 1:
            raise Malformed("exact.cells", "expected columns of one length, got others", hint=_HINT)
