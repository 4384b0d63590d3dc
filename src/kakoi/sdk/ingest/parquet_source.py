"""Parquet files of flat columns."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Self

import pyarrow as pa
import pyarrow.parquet as pq

from kakoi.core.errors import Malformed
from kakoi.sdk.ingest.schema import SourceColumn
from kakoi.sdk.ingest.source import PORTION_ROWS, Portion
from kakoi.sdk.ingest.typed_text import as_text, own_type, require_fit


class ParquetSource:
    """A Parquet file; ``total`` counts rows."""

    first_row = 1

    def __init__(self, path: Path) -> None:
        self._name = path.name
        try:
            self._file = pq.ParquetFile(path, pre_buffer=False, buffer_size=1024 * 1024)
        except (pa.ArrowException, OSError):
            raise self._broken() from None
        self._schema = self._file.schema_arrow
        self.headers = tuple(self._schema.names)
        self.total = self._file.metadata.num_rows
        twice = sorted({h for h in self.headers if self.headers.count(h) > 1})
        if twice:
            raise Malformed(
                "ingest.duplicate-header", f"{self._name}: expected each column name once, got {twice[0]!r} twice"
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()

    def kinds(self) -> dict[str, tuple[str, str]]:
        """The type and unit that each column's own type fits."""
        return {field.name: own_type(field.type) for field in self._schema}

    def portions(self, columns: Sequence[SourceColumn]) -> Iterator[Portion]:
        """The cells of these columns as text, null where the file has null."""
        for source in columns:
            require_fit(self._name, source, self._schema.field(source.header).type)
        done = 0
        try:
            for batch in self._file.iter_batches(PORTION_ROWS, columns=[c.header for c in columns]):
                done += batch.num_rows
                cells = {c.header: as_text(c, batch.column(c.header)) for c in columns}
                yield Portion(cells=cells, rows=batch.num_rows, done=done)
        except (pa.ArrowException, OSError):
            raise self._broken() from None

    def _broken(self) -> Malformed:
        return Malformed(
            "parquet.broken",
            f"{self._name}: expected a Parquet file, got one that cannot be read",
            hint="the file is cut or damaged: write it again",
        )
