"""SAS transport files (XPORT version 5 and 8), with labels and dates as pyreadstat gives them."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final, Self

import pyarrow as pa
import pyreadstat

from kakoi.core.errors import Malformed
from kakoi.sdk.ingest.schema import FileOptions, SourceColumn
from kakoi.sdk.ingest.source import Portion
from kakoi.sdk.ingest.typed_text import as_text, own_type, require_fit

PORTION_BYTES: Final = 16 * 1024 * 1024
"""The library skips to a row by reading from the start, so portions are larger than elsewhere."""


class XptSource:
    """The first member of a transport file; ``total`` is its size in bytes."""

    first_row = 1

    def __init__(self, path: Path, options: FileOptions) -> None:
        self._path = path
        self._encoding = options.encoding
        _, meta = self._read(metadataonly=True)
        self.headers = tuple(meta.column_names)
        self.labels = {name: label or "" for name, label in meta.column_names_to_labels.items()}
        self.total = path.stat().st_size
        self._record = max(1, sum(meta.variable_storage_width.values()))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Nothing is held open."""

    def kinds(self) -> dict[str, tuple[str, str]]:
        """The type and unit that each column's own type fits, by its first rows."""
        frame, _ = self._read(row_limit=max(100, PORTION_BYTES // self._record), output_format="dict")
        return {header: own_type(self._array(values).type) for header, values in frame.items()}

    def portions(self, columns: Sequence[SourceColumn]) -> Iterator[Portion]:
        """The cells of these columns as text; SAS missing values are null, blank character cells are ""."""
        limit, done = max(100, PORTION_BYTES // self._record), 0
        wanted = [c.header for c in columns]
        while True:
            frame, _ = self._read(row_offset=done, row_limit=limit, usecols=wanted, output_format="dict")
            rows = len(frame[wanted[0]])
            if not rows:
                return
            done += rows
            cells = {c.header: self._cells(c, frame[c.header]) for c in columns}
            yield Portion(cells=cells, rows=rows, done=min(self.total, done * self._record))
            if rows < limit:
                return

    def _cells(self, source: SourceColumn, values: list[Any]) -> Any:
        cells = self._array(values)
        require_fit(self._path.name, source, cells.type)
        return as_text(source, cells)

    @staticmethod
    def _array(values: list[Any]) -> Any:
        first = next((v for v in values if v is not None), None)
        if isinstance(first, dt.time):
            values = [None if v is None else v.isoformat() for v in values]
        return pa.array(values, from_pandas=True)

    def _read(self, **options: Any) -> Any:
        try:
            return pyreadstat.read_xport(str(self._path), encoding=self._encoding, **options)
        except (pyreadstat.ReadstatError, pyreadstat.PyreadstatError, ValueError, OSError):
            raise Malformed(
                "xpt.broken",
                f"{self._path.name}: expected a SAS transport file in {self._encoding}, got one that cannot be read",
                hint='write it again with PROC COPY or %LOC2XPT; or declare its encoding: [file] encoding = "cp932"',
            ) from None
