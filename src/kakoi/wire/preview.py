"""A rehearsal of a contract on invented data, as an object: what would leave, and which rules would bite.

It is a claim of the party that signed it and proves nothing about any data. Whoever has an engine can rehearse the same contract
again and compare: the invented data depend on the contract alone. ``docs/formats/preview.md`` is the human description.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from kakoi.core.records import Digest, Limit, Name, PartyRef, Record, Seconds, Slug, Title
from kakoi.wire.messages import Binding, Note
from kakoi.wire.released import ReleasedStatistics, ReleasedTable


@dataclass(frozen=True, slots=True, kw_only=True)
class Bite(Record):
    """One rule that acted on one output of a rehearsal."""

    output: Name
    rule: Annotated[str, Limit(least=1, most=80)]
    """As in a passport's gate decisions, or the code of a denial."""
    action: Literal["suppressed-cells", "refused"]
    cells: Annotated[int, Limit(most=10**8)]
    """Numbers of the invented output that were held back. Invented data give invented numbers: it tells nothing about anybody."""
    owners: Annotated[tuple[Title, ...], Limit(most=64)]
    """Whose rule it is; empty where it is nobody's alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NoOutput(Record):
    """Why nothing left: a denial of the gate, or a failure of the analysis."""

    code: Slug
    message: Note
    hint: Note


@dataclass(frozen=True, slots=True, kw_only=True)
class Rehearsal(Record):
    """One analysis on invented data of one size."""

    people: Annotated[int, Limit(least=1, most=10**6)]
    """Invented people at each owner."""
    outputs: Annotated[tuple[ReleasedTable | ReleasedStatistics, ...], Limit(most=64)]
    """What left, cut to ``MOST_ROWS`` rows; empty if nothing did."""
    rows: Annotated[tuple[Annotated[int, Limit(most=100000)], ...], Limit(most=64)]
    """How many rows each output had before it was cut."""
    refused: NoOutput | None
    bites: Annotated[tuple[Bite, ...], Limit(most=256)]


@dataclass(frozen=True, slots=True, kw_only=True)
class AnalysisPreview(Record):
    """One analysis, rehearsed in several sizes, smallest first."""

    analysis: Digest
    name: Name
    title: Title
    parameters: Annotated[tuple[Binding, ...], Limit(most=64)]
    rehearsals: Annotated[tuple[Rehearsal, ...], Limit(least=1, most=8)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Preview(Record):
    """A contract rehearsed on data that were invented from its manifests alone. Signed by the party that did so."""

    KIND: ClassVar[str] = "kakoi/preview/v1"
    MAX_BYTES: ClassVar[int] = 4 * 1024 * 1024

    contract: Digest
    party: PartyRef
    analyses: Annotated[tuple[AnalysisPreview, ...], Limit(least=1, most=256)]
    not_rehearsed: Annotated[tuple[Digest, ...], Limit(most=256, unique=True)]
    """Analyses that could not be: their code is sealed."""
    made_at: Seconds


MOST_ROWS = 40
"""Rows of an output that a preview keeps."""
