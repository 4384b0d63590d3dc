"""Cells of typed files (Parquet, SAS transport, Excel) as the text that a person would write, for the one converter.

A value goes over only where its type fits the declared one without loss; what does not fit is refused by type, for the whole
column, before any cell is read. A whole number that a file keeps as a float is written without a fraction.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt

from kakoi.core.errors import Malformed
from kakoi.sdk.ingest.schema import ZONED, SourceColumn


def _number(kind: Any) -> bool:
    return bool(pt.is_integer(kind) or pt.is_floating(kind) or pt.is_decimal(kind))


def _instant(kind: Any) -> bool:
    return bool(pt.is_timestamp(kind) and kind.tz is not None)


def _wall_time(kind: Any) -> bool:
    return bool(pt.is_timestamp(kind) and kind.tz is None)


_FITS: Final[dict[str, Callable[[Any], bool]]] = {
    "integer": _number,
    "number": _number,
    "boolean": lambda kind: bool(pt.is_boolean(kind) or pt.is_integer(kind)),
    "date": lambda kind: bool(pt.is_date(kind)) or _wall_time(kind),
    "datetime": _wall_time,
    "datetime-utc": _instant,
    "string": lambda kind: False,
}


def _text(kind: Any) -> bool:
    return bool(pt.is_string(kind) or pt.is_large_string(kind) or pt.is_string_view(kind))


def require_fit(name: str, source: SourceColumn, kind: Any) -> None:
    """Raise Malformed unless values of the arrow type ``kind`` can become the declared type without a guess."""
    declared = source.column.type
    plain = kind.value_type if pt.is_dictionary(kind) else kind
    zoned = declared == "datetime" and source.column.unit == ZONED
    if _text(plain) or pt.is_null(plain) or _FITS["datetime-utc" if zoned else declared](plain):
        return
    hint = "declare the type that the file has; what the study needs is computed in the analysis"
    if declared == "string":
        hint = "numbers lose leading zeros; export the column as text, or declare it a number"
    if _instant(plain) and not zoned:
        hint = f'the file has instants: declare unit = "{ZONED}", or export local times without a zone'
    raise Malformed(
        "ingest.column-type",
        f"{name}: column {source.column.name}: expected {declared}{f' in {ZONED}' if zoned else ''}, got {plain}",
        hint=hint,
    )


def own_type(kind: Any) -> tuple[str, str]:
    """The declared type and unit that the arrow type ``kind`` fits without a guess; text where there is none."""
    plain = kind.value_type if pt.is_dictionary(kind) else kind
    if _instant(plain):
        return "datetime", ZONED
    named = {
        pt.is_integer: "integer",
        _number: "number",
        pt.is_boolean: "boolean",
        pt.is_date: "date",
        _wall_time: "datetime",
    }
    return next((name for fits, name in named.items() if fits(plain)), "string"), ""


def as_text(source: SourceColumn, cells: Any) -> Any:
    """A pyarrow string array of ``cells``; null stays null."""
    if pt.is_dictionary(cells.type):
        cells = cells.dictionary_decode()
    if pt.is_floating(cells.type):
        return _floats(cells)
    if pt.is_decimal(cells.type) and source.column.type == "integer":
        return _floats(pc.cast(cells, pa.float64(), safe=False)) if cells.type.scale else pc.cast(cells, pa.string())
    if pt.is_timestamp(cells.type):
        return _instants(source, cells)
    return pc.cast(cells, pa.string())


def _floats(cells: Any) -> Any:
    text = pc.cast(cells, pa.string())
    wide = pc.cast(cells, pa.float64())
    whole = pc.and_(pc.equal(pc.floor(wide), wide), pc.less(pc.abs(wide), 1e15))
    integers = pc.cast(pc.if_else(pc.fill_null(whole, False), wide, pa.scalar(None, pa.float64())), pa.int64())
    return pc.if_else(pc.is_valid(integers), pc.cast(integers, pa.string()), text)


def _instants(source: SourceColumn, cells: Any) -> Any:
    if source.column.type == "date":
        midnight = pc.equal(pc.floor_temporal(cells, unit="day"), cells)
        day = pc.strftime(cells, format="%Y-%m-%d")
        # What is not midnight keeps its time and is counted as no date.
        return pc.if_else(midnight, day, pc.strftime(cells, format="%Y-%m-%dT%H:%M:%S"))
    micro = pc.cast(cells, pa.timestamp("us", cells.type.tz), safe=False)
    text = pc.strftime(pc.cast(micro, pa.timestamp("us")), format="%Y-%m-%dT%H:%M:%S")
    return pc.binary_join_element_wise(text, "Z", "") if cells.type.tz else text
