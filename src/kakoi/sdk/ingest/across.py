"""Checks that look at values rather than at single cells' text: unmapped concepts, and ends before starts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow.compute as pc

from kakoi.sdk.ingest.report import Tally
from kakoi.sdk.ingest.schema import Schema


def across(schema: Schema, arrays: Sequence[Any], tally: Tally) -> None:
    """Count in one portion. ``arrays`` are its converted columns in the schema's order."""
    values = {source.column.name: array for source, array in zip(schema.columns, arrays, strict=True)}
    for source in schema.columns:
        for rule in tally.rules[source.column.name]:
            if rule in ("unmapped", "unmapped-source"):
                zeros = pc.sum(pc.equal(values[source.column.name], 0)).as_py() or 0
                tally.describe(source.column.name, rule, zeros)
    for start, end in tally.spans:
        late = pc.fill_null(pc.greater(values[start], values[end]), False)
        rows = pc.sum(late).as_py() or 0
        tally.note(start, "start-after-end", rows, int(pc.index(late, True).as_py()) if rows else 0)
