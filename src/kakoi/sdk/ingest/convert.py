"""Cells of one column, read as text, to values of the declared type. Nothing else converts a cell.

Rules, in this order; each counts the cells that break it and never shows one:
 1. A cell that is null in a typed source, or whose text is listed as missing, is missing.
 2. A free text holds a line break only where the schema allows it (a forgotten quote otherwise swallows rows unseen).
 3. Where codes are declared, the text is one of them.
 4. The text is written as the type demands (``FORMS``) and names a value of it; a typed source holds no other type.
 5. The value lies within the declared limits.
"""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final, Literal

import pyarrow as pa
import pyarrow.compute as pc

from kakoi.contract.model import Column
from kakoi.sdk.ingest.schema import ZONED

Rule = Literal["line-break", "code", "type", "low", "high", "required"]
_DATE: Final = r"[1-9][0-9]{3}-(?:0[1-9]|1[0-2])-(?:0[1-9]|[12][0-9]|3[01])"
_TIME: Final = r"[T ](?:[01][0-9]|2[0-3]):[0-5][0-9](?::[0-5][0-9](?:\.[0-9]{1,6})?)?"
_OFFSET: Final = r"(?:Z|[+-](?:0[0-9]|1[0-4]):?[0-5][0-9])"
FORMS: Final = {
    "integer": r"\A(?:0|-?[1-9][0-9]{0,17})\z",
    "number": r"\A-?(?:(?:0|[1-9][0-9]*)(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]{1,3})?\z",
    "boolean": r"\A(?:true|True|TRUE|1|false|False|FALSE|0)\z",
    "date": rf"\A{_DATE}\z",
    "datetime": rf"\A{_DATE}{_TIME}\z",
    "datetime-utc": rf"\A{_DATE}{_TIME}{_OFFSET}\z",
}
"""RE2 patterns. No leading zeros: a text such as 007 is an id or a code and stays text."""
_TRUE: Final = pa.array(["true", "True", "TRUE", "1"])
ARROW: Final[dict[str, Any]] = {
    "integer": pa.int64(),
    "number": pa.float64(),
    "string": pa.string(),
    "boolean": pa.bool_(),
    "date": pa.date32(),
    "datetime": pa.timestamp("us"),
}
"""Physical types of the sealed Parquet. Datetimes have no zone there; those of a column in UTC are UTC."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """How many cells of a portion break one rule, and the index of the first."""

    rule: Rule
    cells: int
    first: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Converted:
    """Values of one portion of a column. Null where the cell is missing or faulty."""

    values: Any
    """A pyarrow array of the column's type."""
    missing: int
    faults: tuple[Fault, ...]


def convert(
    column: Column, cells: Any, *, line_breaks: bool = False, required: bool = False, unfit: Any = None
) -> Converted:
    """Convert ``cells``, a pyarrow string array.

    ``required`` counts missing cells as faults; ``unfit`` masks cells that the source holds as another type.
    """
    faults: list[Fault] = []
    present = cells
    if column.missing:
        listed = pc.is_in(cells, value_set=pa.array(column.missing, pa.string()))
        present = pc.if_else(listed, pa.scalar(None, pa.string()), cells)
    missing = present.null_count
    if required and missing:
        faults.append(Fault(rule="required", cells=missing, first=_first(pc.is_null(present))))
    if unfit is not None:
        present = _drop(present, pc.and_(pc.is_valid(present), unfit), "type", faults)
    if column.type == "string" and not column.codes and not line_breaks:
        present = _drop(present, pc.match_substring_regex(present, "[\r\n]"), "line-break", faults)
    if column.codes:
        known = pc.is_in(present, value_set=pa.array([c.value for c in column.codes], pa.string()), skip_nulls=True)
        present = _drop(present, pc.and_(pc.is_valid(present), pc.invert(known)), "code", faults)
    values = _typed(column, present, faults)
    values = _within(column, values, faults)
    return Converted(values=values, missing=missing, faults=tuple(faults))


def _first(mask: Any) -> int:
    return int(pc.index(pc.fill_null(mask, False), True).as_py())


def _drop(values: Any, bad: Any, rule: Rule, faults: list[Fault]) -> Any:
    """``values`` with null where ``bad``; the cells are counted under ``rule``."""
    count = pc.sum(bad).as_py() or 0
    if not count:
        return values
    faults.append(Fault(rule=rule, cells=count, first=_first(bad)))
    return pc.if_else(pc.fill_null(bad, False), pa.scalar(None, values.type), values)


def _typed(column: Column, present: Any, faults: list[Fault]) -> Any:
    if column.type == "string":
        return present
    zoned = column.type == "datetime" and column.unit == ZONED
    form = FORMS["datetime-utc" if zoned else column.type]
    bad = pc.invert(pc.match_substring_regex(present, form))
    if column.type == "boolean":
        present = _drop(present, bad, "type", faults)
        return pc.if_else(pc.is_valid(present), pc.is_in(present, value_set=_TRUE), pa.scalar(None, pa.bool_()))
    target = pa.timestamp("us", "UTC") if zoned else ARROW[column.type]
    # The form lets 30 February and 1e999 through: the cells that do not name a value are found by the second look.
    present = pc.if_else(bad, pa.scalar(None, pa.string()), present)
    values = _cast(present, target)
    if column.type == "number":
        values = pc.if_else(pc.is_finite(values), values, pa.scalar(None, pa.float64()))
    no_value = pc.and_(pc.is_valid(present), pc.is_null(values))
    _drop(present, pc.or_(pc.fill_null(bad, False), no_value), "type", faults)
    return pc.cast(values, ARROW[column.type]) if zoned else values


def _cast(present: Any, target: Any) -> Any:
    try:
        return pc.cast(present, target)
    except pa.ArrowInvalid:
        parse: Callable[[str], object] = dt.date.fromisoformat if target == pa.date32() else dt.datetime.fromisoformat
        return pc.cast(pa.array([_parsed(parse, text) for text in present.to_pylist()], pa.string()), target)


def _parsed(parse: Callable[[str], object], text: str | None) -> str | None:
    """``text`` if it names a day or an instant."""
    if text is None:
        return None
    try:
        parse(text)
    except (ValueError, OverflowError):
        return None
    return text


def _within(column: Column, values: Any, faults: list[Fault]) -> Any:
    if column.minimum is not None:
        values = _drop(values, pc.less(values, lowest(column, column.minimum)), "low", faults)
    if column.maximum is not None:
        values = _drop(values, pc.greater(values, highest(column, column.maximum)), "high", faults)
    return values


def lowest(column: Column, text: str) -> Any:
    """A minimum as a value that cells of ``column`` are compared with."""
    return _limit(column, text, math.ceil)


def highest(column: Column, text: str) -> Any:
    """A maximum as a value that cells of ``column`` are compared with."""
    return _limit(column, text, math.floor)


def _limit(column: Column, text: str, whole: Callable[[Decimal], int]) -> Any:
    if column.type == "number":
        return pa.scalar(float(text), pa.float64())
    # Integers have at most 18 digits, so a limit beyond that says the same as one at the edge.
    return pa.scalar(max(-(10**18), min(10**18, whole(Decimal(text)))), pa.int64())
