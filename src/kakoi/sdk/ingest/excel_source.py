"""One sheet of an Excel workbook (.xlsx), header in its first row.

Excel changes what people type: codes become numbers or dates. So a column of text takes only cells that Excel kept as text; a
number, a date or a truth value there is counted as a cell of the wrong type. An error such as #N/A is its text: list it
under ``missing`` if that is what it means. A blank cell is the empty text.
"""

from __future__ import annotations

import datetime as dt
import warnings
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Final, Self

import openpyxl
import pyarrow as pa
from openpyxl.utils.exceptions import InvalidFileException

from kakoi.core.errors import Malformed, Misuse
from kakoi.sdk.ingest.schema import SourceColumn
from kakoi.sdk.ingest.source import Portion

PORTION: Final = 2_000
Row = tuple[Any, ...]


class ExcelSource:
    """A sheet; ``total`` counts the rows that the sheet claims to have."""

    first_row = 2

    def __init__(self, path: Path, sheet: str) -> None:
        self._name = path.name
        # Our own handles: the library leaves its own open where a reading ends early.
        self._files = (path.open("rb"), path.open("rb"))
        try:
            self._values, self._formulas = (
                self._load(f, values=v) for f, v in zip(self._files, (True, False), strict=True)
            )
            self._sheet = self._choose(sheet)
            self.headers = self._header()
        except BaseException:
            self.close()
            raise
        self.total = max(1, (self._values[self._sheet].max_row or 2) - 1)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the file."""
        for file in self._files:
            file.close()

    def portions(self, columns: Sequence[SourceColumn]) -> Iterator[Portion]:
        """The cells of these columns as text."""
        places = [(c, self.headers.index(c.header)) for c in columns]
        done, rows = 0, list[Row]()
        for row in self._rows():
            rows.append(row)
            if len(rows) == PORTION:
                done += len(rows)
                yield self._portion(places, rows, done)
                rows = []
        if rows:
            yield self._portion(places, rows, done + len(rows))

    def _portion(self, places: Sequence[tuple[SourceColumn, int]], rows: Sequence[Row], done: int) -> Portion:
        cells, unfit = {}, {}
        for source, place in places:
            values = [row[place] for row in rows]
            cells[source.header] = pa.array([_text(v, source) for v in values], pa.string())
            if source.column.type == "string":
                unfit[source.header] = pa.array([not isinstance(v, (str, dt.time, type(None))) for v in values])
        return Portion(cells=cells, unfit=unfit, rows=len(rows), done=min(done, self.total))

    # --- workbook ----------------------------------------------------------------------------------------------------

    def _load(self, file: BinaryIO, *, values: bool) -> Any:
        try:
            with warnings.catch_warnings():
                # The library warns of decoration that it does not read, such as validation rules.
                warnings.simplefilter("ignore")
                return openpyxl.load_workbook(file, read_only=True, data_only=values, keep_links=False)
        except (zipfile.BadZipFile, InvalidFileException, KeyError, ValueError, OSError):
            raise Malformed(
                "excel.broken",
                f"{self._name}: expected an Excel workbook, got one that cannot be read",
                hint="open and save it in Excel; a workbook with a password must be saved without",
            ) from None

    def _choose(self, sheet: str) -> str:
        names = self._values.sheetnames
        if sheet in names:
            return sheet
        if sheet or len(names) != 1:
            raise Misuse(
                "excel.sheet",
                f"{self._name}: expected one sheet, or [file] sheet to name it, got {len(names)} sheets",
                hint="the sheets are: " + ", ".join(repr(n) for n in names[:8]),
            )
        return str(names[0])

    def _header(self) -> tuple[str, ...]:
        first = next(iter(self._values[self._sheet].iter_rows(values_only=True, max_row=1)), ())
        while first and first[-1] is None:
            first = first[:-1]
        headers = tuple("" if cell is None else str(cell) for cell in first)
        if not any(h.strip() for h in headers):
            raise Malformed("ingest.header", f"{self._name}: expected column names in the first row, got none")
        twice = sorted({h for h in headers if headers.count(h) > 1})
        if twice:
            raise Malformed(
                "ingest.duplicate-header",
                f"{self._name}: expected each column name once, got {twice[0]!r} more than once",
            )
        return headers

    def _rows(self) -> Iterator[Row]:
        """Rows of data. Blank rows count only if another row follows: sheets often claim more rows than they have."""
        width, blank = len(self.headers), 0
        both = zip(
            self._values[self._sheet].iter_rows(min_row=2, values_only=True),
            self._formulas[self._sheet].iter_rows(min_row=2),
            strict=False,
        )
        for number, (values, cells) in enumerate(both, start=2):
            if all(v is None for v in values) and not any(c.data_type == "f" for c in cells):
                blank += 1
                continue
            yield from ((None,) * width for _ in range(blank))
            blank = 0
            if any(v is not None for v in values[width:]):
                raise Malformed("excel.ragged", f"{self._name}: row {number} is longer than the row of column names")
            if any(c.data_type == "f" and v is None for v, c in zip(values, cells, strict=False)):
                raise Malformed(
                    "excel.formula",
                    f"{self._name}: expected values, got a formula without its result in row {number}",
                    hint="open and save the workbook in Excel, or paste the column as values",
                )
            yield (*values[:width], *(None,) * (width - len(values)))


def _text(value: Any, source: SourceColumn) -> str:
    """What a person would write for a cell."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return str(int(value))
    if isinstance(value, dt.datetime):
        midnight = value.time() == dt.time()
        return value.date().isoformat() if midnight and source.column.type == "date" else value.isoformat()
    return value.isoformat() if isinstance(value, (dt.date, dt.time)) else str(value)
