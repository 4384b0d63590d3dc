"""A draft held against the header of the file that it is for: what the file lacks goes, what it has besides is left out, and both are said."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from kakoi.sdk.ingest.draft import TOP, Draft

_SHOWN = 10


def fitted(draft: Draft, headers: Sequence[str]) -> Draft:
    """The draft for a file with these headers. Required columns stay even where the file lacks them: sealing then refuses."""
    schema = draft.schema
    known = {c.header for c in schema.columns} | set(schema.leave_out)
    absent = [c.header for c in schema.columns if c.header not in headers and not c.required]
    more = [header for header in headers if header not in known]
    remarks = []
    if absent:
        remarks.append(f"not in the file, taken out: {_listed(absent)}")
    if more:
        remarks.append(f"check: not in the model, left out: {_listed(more)}")
    kept = {c.column.name for c in schema.columns if c.header not in absent}
    gone = [header for header in schema.leave_out if header not in headers]
    return Draft(
        schema=replace(
            schema,
            columns=tuple(
                replace(c, mapped_to=c.mapped_to if c.mapped_to in kept else None)
                for c in schema.columns
                if c.column.name in kept
            ),
            leave_out=(*(header for header in schema.leave_out if header not in gone), *more),
        ),
        notes={**draft.notes, TOP: (*draft.notes.get(TOP, ()), *remarks)},
    )


def _listed(names: Iterable[str]) -> str:
    found = list(names)
    return ", ".join(found[:_SHOWN]) + (f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else "")
