"""SAS transport files (XPORT versions 5 and 8), with labels and dates as pyreadstat gives them.

The library reads a whole file, or skips to a row by parsing all rows before it. So it gets the file's header followed by a few
megabytes of records at a time, in memory: time is linear and memory bounded.
"""

from __future__ import annotations

import datetime as dt
import io
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final, Self

import pyarrow as pa
import pyreadstat

from kakoi.core.errors import Malformed, Unavailable
from kakoi.sdk.ingest.schema import FileOptions, SourceColumn
from kakoi.sdk.ingest.source import Portion
from kakoi.sdk.ingest.typed_text import as_text, own_type, require_fit

PORTION_BYTES: Final = 4 * 1024 * 1024
_CARD: Final = 80
"""Everything before the records comes in cards of 80 bytes, and the file ends with a full one."""
_MAX_HEADER: Final = 16 * 1024 * 1024
_RECORDS: Final = re.compile(rb"HEADER RECORD\*{7}OBS(?:V8 {3}| {5})HEADER RECORD!{7}([ 0-9]{15}).{17}", re.DOTALL)
_MEMBER: Final = b"HEADER RECORD*******MEMB"


class XptSource:
    """The only member of a transport file; ``total`` is its size in bytes."""

    first_row = 1

    def __init__(self, path: Path, options: FileOptions) -> None:
        self._name = path.name
        self._encoding = options.encoding
        self.total = path.stat().st_size
        self._file = path.open("rb")
        try:
            self._head = self._header()
            _, meta = self._read(b"", 0, metadataonly=True)
        except BaseException:
            self._file.close()
            raise
        self.headers = tuple(meta.column_names)
        self.labels = {name: label or "" for name, label in meta.column_names_to_labels.items()}
        self._record = max(1, sum(meta.variable_storage_width.values()))
        # Version 8 says how many records there are; in version 5 blanks fill the last card.
        count = self._head[-32:-17].strip()
        self._count = int(count) if b"OBSV8" in self._head[-_CARD:] and count.isdigit() else None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()

    def kinds(self) -> dict[str, tuple[str, str]]:
        """The type and unit that each column's own type fits, by its first rows."""
        chunk, records = next(self._chunks(), (b"", 0))
        frame, _ = self._read(chunk, records, output_format="dict")
        return {header: own_type(_array(values).type) for header, values in frame.items()}

    def portions(self, columns: Sequence[SourceColumn]) -> Iterator[Portion]:
        """The cells of these columns as text; SAS missing values are null, blank character cells are ""."""
        wanted = [c.header for c in columns]
        blank = 0
        for chunk, records in self._chunks():
            frame, _ = self._read(chunk, records, usecols=wanted, output_format="dict")
            rows = len(frame[wanted[0]])
            if rows:
                # Blank records at an end are taken for filling; what follows shows that they were rows.
                cells = {c.header: self._cells(c, [""] * blank + frame[c.header]) for c in columns}
                yield Portion(cells=cells, rows=blank + rows, done=self._file.tell())
                blank = 0
            blank += records - rows
        if blank and self._count is not None:
            cells = {c.header: self._cells(c, [""] * blank) for c in columns}
            yield Portion(cells=cells, rows=blank, done=self.total)

    def _cells(self, source: SourceColumn, values: list[Any]) -> Any:
        cells = _array(values)
        require_fit(self._name, source, cells.type)
        return as_text(source, cells)

    # --- the file ----------------------------------------------------------------------------------------------------

    def _header(self) -> bytes:
        data = b""
        while len(data) < _MAX_HEADER and (more := self._bytes(1024 * 1024)):
            data += more
            found = _RECORDS.search(data)
            if found:
                return data[: found.end()]
        raise self._broken()

    def _chunks(self) -> Iterator[tuple[bytes, int]]:
        """Whole records and their number, and at last what the file ends with."""
        self._file.seek(len(self._head))
        size, left = max(1, PORTION_BYTES // self._record) * self._record, self._count
        while chunk := self._bytes(size):
            while len(chunk) < size and (more := self._bytes(size - len(chunk))):
                chunk += more
            if _MEMBER in chunk:
                raise Malformed(
                    "xpt.members",
                    f"{self._name}: expected one table, got a transport file with several",
                    hint="write each table into a file of its own",
                )
            records, rest = divmod(len(chunk), self._record)
            if rest and (rest >= _CARD or chunk[-rest:].strip(b" ")):
                raise self._broken()
            if left is not None:
                records = min(left, records)
                left -= records
            yield chunk, records
        if left:
            raise self._broken()

    def _bytes(self, size: int) -> bytes:
        try:
            return self._file.read(size)
        except OSError as error:
            raise Unavailable("ingest.read", f"expected to read {self._name}, got: {error.strerror}") from None

    def _read(self, chunk: bytes, records: int, **options: Any) -> Any:
        head = self._head
        if b"OBSV8" in head[-_CARD:]:
            head = head[:-32] + b"%15d" % records + head[-17:]
        filled = chunk + b" " * (-len(chunk) % _CARD)
        try:
            return pyreadstat.read_xport(io.BytesIO(head + filled), encoding=self._encoding, **options)
        except (pyreadstat.ReadstatError, pyreadstat.PyreadstatError, ValueError, OSError):
            raise self._broken() from None

    def _broken(self) -> Malformed:
        return Malformed(
            "xpt.broken",
            f"{self._name}: expected a SAS transport file in {self._encoding}, got one that cannot be read",
            hint='write it again with PROC COPY or %LOC2XPT; or declare its encoding: [file] encoding = "cp932"',
        )


def _array(values: list[Any]) -> Any:
    first = next((v for v in values if v is not None), None)
    if isinstance(first, dt.time):
        values = [None if v is None else v.isoformat() for v in values]
    return pa.array(values, from_pandas=True)
