"""Checks that look at values rather than at single cells' text: unmapped concepts, days in their order, and what a row's concept allows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from kakoi.contract.model import Column
from kakoi.sdk.ingest.convert import ARROW, highest, lowest
from kakoi.sdk.ingest.report import OF_CONCEPT, CheckRule, Tally
from kakoi.sdk.ingest.schema import Plausible, Schema


def across(schema: Schema, arrays: Sequence[Any], tally: Tally) -> None:
    """Count in one portion. ``arrays`` are its converted columns in the schema's order."""
    values = {source.column.name: array for source, array in zip(schema.columns, arrays, strict=True)}
    columns = {source.column.name: source.column for source in schema.columns}
    for source in schema.columns:
        for rule in tally.rules[source.column.name]:
            if rule in ("unmapped", "unmapped-source"):
                zeros = pc.sum(pc.equal(values[source.column.name], 0)).as_py() or 0
                tally.describe(source.column.name, rule, zeros)
        if source.after is not None:
            _note(tally, source.column.name, "too-early", pc.less(values[source.column.name], values[source.after]))
    for start, end in tally.spans:
        _note(tally, start, "start-after-end", pc.greater(values[start], values[end]))
    for declared in schema.plausible:
        meant = _meant(declared, values, columns)
        wrong = pc.and_(meant, _implausible(declared, columns[declared.column], values[declared.column]))
        _note(tally, declared.column, OF_CONCEPT[declared.check], wrong, of=pc.sum(meant).as_py() or 0)


def _note(tally: Tally, column: str, rule: CheckRule, wrong: Any, *, of: int | None = None) -> None:
    """Count the rows of a mask; where a value is missing, nothing can be said."""
    wrong = pc.fill_null(wrong, False)
    rows = pc.sum(wrong).as_py() or 0
    tally.note(column, rule, rows, int(pc.index(wrong, True).as_py()) if rows else 0, of=of)


def _meant(declared: Plausible, values: Mapping[str, Any], columns: Mapping[str, Column]) -> Any:
    """The rows that a rule speaks of: those of its concepts that have a value to judge."""
    meant = pc.is_valid(values[declared.column])
    for name, held in declared.where:
        meant = pc.and_(meant, _among(values[name], held, columns[name]))
    return meant


def _implausible(declared: Plausible, column: Column, values: Any) -> Any:
    if declared.limit is None:
        return pc.invert(_among(values, declared.values, column))
    if declared.check == "plausibleValueLow":
        return pc.less(values, lowest(column, declared.limit))
    return pc.greater(values, highest(column, declared.limit))


def _among(values: Any, held: Sequence[str | int], column: Column) -> Any:
    return pc.is_in(values, value_set=pa.array(held, ARROW[column.type]))
