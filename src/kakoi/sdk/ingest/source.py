"""What every kind of source file gives: headers, and portions of cells as text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol, Self

from kakoi.sdk.ingest.schema import SourceColumn

PORTION_ROWS: Final = 20_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Portion:
    """Some rows of the file: for each header a pyarrow string array, null where a typed source has no value."""

    cells: Mapping[str, Any]
    rows: int
    unfit: Mapping[str, Any] = field(default_factory=dict)
    """Masks of cells that the source holds as another type, where that cannot be told from the text."""
    done: int
    """How much of the file is read, in the source's ``total`` units."""


class Source(Protocol):
    """An open source file."""

    @property
    def headers(self) -> tuple[str, ...]:
        """Column headers in the file's order, byte for byte."""
        ...

    @property
    def total(self) -> int:
        """What ``Portion.done`` reaches at the end."""
        ...

    @property
    def first_row(self) -> int:
        """The number that a person gives to the first row of data: 2 below a header, else 1."""
        ...

    def portions(self, columns: Sequence[SourceColumn]) -> Iterator[Portion]:
        """The cells of these columns, in order. Raises Malformed for a broken file, at the latest at its end."""
        ...

    def close(self) -> None:
        """Let go of the file."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(self, *error: object) -> None: ...
