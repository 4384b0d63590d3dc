"""What the gate let out: the records that are sealed to the recipients, read by them and by verifiers.

``docs/formats/engine.md`` is the human description.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Final, Literal

from kakoi.core.limits import Limit, Name
from kakoi.core.records import Record
from kakoi.wire.messages import GateDecision

MAX_RELEASED_BYTES: Final = 64 * 1024 * 1024
Cell = Annotated[str, Limit(most=120)] | None
"""Text of one cell; numbers are decimal text."""
Place = Annotated[int, Limit(most=100000)]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleasedColumn(Record):
    """A column as text. None is a missing value, unless the row is listed in ``held_back``."""

    name: Name
    role: Literal["group", "count", "value"]
    cells: Annotated[tuple[Cell, ...], Limit(most=100000)]
    held_back: Annotated[tuple[Place, ...], Limit(most=100000, unique=True)]
    """Rows (from 0, ascending) whose number the gate keeps."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleasedNoise(Record):
    """How far the numbers of one column can be off, at least 19 times out of 20. Known from the contract and from the noisy numbers alone."""

    column: Name
    mechanism: Literal["discrete-laplace", "exponential"]
    epsilon: Annotated[str, Limit(least=1, most=40, pattern=r"[1-9][0-9]*(/[1-9][0-9]*)?", form="a fraction")]
    """What the column costs of the run's privacy loss, as a fraction in lowest terms."""
    off_by: Literal["number", "rows"]
    """Off in its own unit; or, of a quantile, in rows: so many more or fewer of them may lie below it."""
    at_most: Cell
    """The same for every row; None where it differs (averages)."""
    low: Annotated[tuple[Cell, ...], Limit(most=100000)]
    high: Annotated[tuple[Cell, ...], Limit(most=100000)]
    """For each row, between which numbers the one without noise lies; empty for a quantile."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleasedTable(Record):
    """A table. Rows of enough people whose every number is held back keep their labels, if those were declared."""

    KIND: ClassVar[str] = "table"

    name: Name
    columns: Annotated[tuple[ReleasedColumn, ...], Limit(least=1, most=256)]
    margins: Annotated[tuple[Annotated[int, Limit(most=2**32)], ...], Limit(most=100000)]
    """For each row, a bit for each group column that was summed over; empty if the table has no margins."""
    rows_withheld: bool
    """Rows may be missing altogether: those of too few people, if there are any. True of every table with groups whose numbers are as
    they are: whether some are missing is not told."""
    noise: Annotated[tuple[ReleasedNoise, ...], Limit(most=256)] = ()
    """One for each column of numbers where owners demand differential privacy; empty where numbers are as they are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleasedValue(Record):
    """One named number; None where it could not be computed."""

    name: Name
    number: Cell


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleasedStatistics(Record):
    """Named numbers of one group of people. How many they are does not leave."""

    KIND: ClassVar[str] = "statistics"

    name: Name
    values: Annotated[tuple[ReleasedValue, ...], Limit(least=1, most=256)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Released(Record):
    """What the gate let out, and what it did. Numbers are decimal text of at most ``max_digits`` significant digits."""

    KIND: ClassVar[str] = "kakoi/released/v1"
    MAX_BYTES: ClassVar[int] = MAX_RELEASED_BYTES

    outputs: Annotated[tuple[ReleasedTable | ReleasedStatistics, ...], Limit(least=1, most=64)]
    decisions: Annotated[tuple[GateDecision, ...], Limit(most=1024)]
