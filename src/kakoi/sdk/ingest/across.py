"""Checks that look at values rather than at single cells' text: unmapped concepts, days in their order, and what a row's concept allows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Self

import pyarrow as pa
import pyarrow.compute as pc

from kakoi.contract.model import Column
from kakoi.sdk.ingest.convert import ARROW, highest, lowest
from kakoi.sdk.ingest.distinct import Distinct
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


class Whole:
    """Checks that need every row at once: keys that repeat, and source values without a standard concept."""

    def __init__(self, schema: Schema) -> None:
        self._key = schema.primary_key
        self._mapped = [(c.column.name, c.mapped_to) for c in schema.columns if c.mapped_to is not None]
        self._keys = Distinct()
        self._sources = {name: Distinct() for name, _ in self._mapped}
        self._names = [c.column.name for c in schema.columns]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for held in (self._keys, *self._sources.values()):
            held.close()

    def add(self, arrays: Sequence[Any], first_row: int) -> None:
        """Take one portion, whose first row is ``first_row`` as people count."""
        values = dict(zip(self._names, arrays, strict=True))
        if self._key:
            rows = zip(*(_plain(values[name]) for name in self._key), strict=True)
            self._keys.add((key, row) for row, key in enumerate(rows, first_row) if None not in key)
        for name, concept in self._mapped:
            unmapped = pc.fill_null(pc.equal(values[concept], 0), False)
            pairs = (
                pa.table({"source": values[name], "unmapped": unmapped}).group_by(["source", "unmapped"]).aggregate([])
            )
            self._sources[name].add(
                zip(pairs["source"].to_pylist(), map(int, pairs["unmapped"].to_pylist()), strict=True)
            )

    def settle(self, tally: Tally) -> None:
        """Say what was found, once all rows went by."""
        if self._key:
            repeated, first = self._keys.repeated()
            tally.settle(self._key[0], "repeated-key", repeated, of=tally.rows, first_row=first)
        for name, held in self._sources.items():
            different, unmapped = held.marked()
            tally.settle(name, "unmapped-value", unmapped, of=different)


def _plain(values: Any) -> Iterable[object]:
    """Values as ``repr`` tells them apart; days and instants as their numbers, which are made faster."""
    number = {pa.date32(): pa.int32(), pa.timestamp("us"): pa.int64()}.get(values.type)
    plain: list[object] = (values if number is None else pc.cast(values, number)).to_pylist()
    return plain


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
