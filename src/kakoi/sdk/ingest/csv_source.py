"""Text files: RFC 4180 with a declared delimiter and encoding, every cell as text, in bounded memory.

pyarrow splits rows and cells; what it would let pass is checked on the bytes on their way to it: encoding, byte order
mark, NUL, and quotes inside unquoted cells or left open, which otherwise swallow rows.
"""

from __future__ import annotations

import codecs
import csv
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, Final, Self

import pyarrow as pa
import pyarrow.csv

from kakoi.core.errors import Malformed, Unavailable
from kakoi.sdk.ingest.schema import FileOptions, SourceColumn
from kakoi.sdk.ingest.source import Portion

BLOCK_BYTES: Final = 2 * 1024 * 1024
"""One portion; also the longest record."""
_MAX_HEADER: Final = 1024 * 1024
_DELIMITERS: Final = ",;\t|"
_MARKS: Final = ((codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))


class _Text:
    """The file as checked UTF-8, for pyarrow to read. ``read`` raises Malformed at the first bad place."""

    closed = False

    def __init__(self, file: BinaryIO, name: str, options: FileOptions) -> None:
        self._file = file
        self._name = name
        self._encoding = options.encoding
        self._decoder = codecs.getincrementaldecoder(options.encoding)("strict")
        other = b'[^\\r\\n"' + re.escape(options.delimiter.encode("ascii")) + b"]"
        self._stray = re.compile(b'"(?=' + other + b")(?<=" + other + b'")')
        self._ready = b""
        self._tail = b""
        self._lines = 0
        self._odd = False
        self._end = False
        self.taken = 0

    def readable(self) -> bool:
        """Always."""
        return True

    def read(self, size: int = -1) -> bytes:
        """Up to ``size`` checked bytes; nothing at the end."""
        while not self._ready and not self._end:
            self._fill()
        out = self._ready if size < 0 else self._ready[:size]
        self._ready = self._ready[len(out) :]
        return out

    def back(self, data: bytes) -> None:
        """Put bytes back that were read too far."""
        self._ready = data + self._ready

    def _fill(self) -> None:
        try:
            raw = self._file.read(BLOCK_BYTES // 2)
        except OSError as error:
            raise Unavailable("ingest.read", f"expected to read {self._name}, got: {error.strerror}") from None
        self.taken += len(raw)
        self._end = not raw
        try:
            data = self._decoder.decode(raw, final=not raw).encode("utf-8")
        except UnicodeError as error:
            good = error.object[: error.start].count(b"\n") if isinstance(error, UnicodeDecodeError) else 0
            raise Malformed(
                "csv.encoding",
                f"{self._name}, line {self._lines + good + 1}: expected {self._encoding} text, got other bytes",
                hint='save the file as UTF-8, or declare its encoding, for example [file] encoding = "cp932"',
            ) from None
        self._check(data)
        self._lines += data.count(b"\n")
        self._ready = data

    def _check(self, data: bytes) -> None:
        nul = data.find(b"\0")
        if nul >= 0:
            raise self._bad(
                data, nul, "csv.nul", "text", "a NUL byte", "is this a text file, in the declared encoding?"
            )
        if self._end and self._odd:
            raise Malformed(
                "csv.quote",
                f"{self._name}: expected every quote to be closed, got one that is open at the end of the file",
                hint='a quote inside a cell is written twice ("") and the cell is put between quotes',
            )
        quotes = data.count(b'"')
        if quotes or self._tail.endswith(b'"'):
            self._odd ^= bool(quotes % 2)
            place = self._stray.search(self._tail + data)
            if place:
                raise self._bad(
                    data,
                    place.start() - len(self._tail),
                    "csv.quote",
                    "quotes around whole cells",
                    "a quote inside one",
                    'a quote inside a cell is written twice ("") and the cell is put between quotes',
                )
        self._tail = (self._tail + data)[-2:]

    def _bad(self, data: bytes, place: int, code: str, expected: str, got: str, hint: str) -> Malformed:
        line = self._lines + data[: max(0, place)].count(b"\n") + 1
        return Malformed(code, f"{self._name}, line {line}: expected {expected}, got {got}", hint=hint)


class CsvSource:
    """A text file with one record a line."""

    def __init__(self, path: Path, options: FileOptions, declared: Sequence[str]) -> None:
        self._name = path.name
        self._options = options
        self.total = path.stat().st_size
        self._file = path.open("rb")
        try:
            self._require_no_mark()
            self._text = _Text(self._file, path.name, options)
            self.headers = self._header(declared) if options.has_header else tuple(declared)
        except BaseException:
            self._file.close()
            raise
        self.first_row = 2 if options.has_header else 1
        self._ragged = 0
        self._first_ragged = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()

    def portions(self, columns: Sequence[SourceColumn]) -> Iterator[Portion]:
        """The cells of these columns as text; "" is a text too."""
        start = self._text.read(BLOCK_BYTES)
        if not start.strip(b"\r\n"):
            return
        self._text.back(start)
        names = [str(i) for i in range(len(self.headers))]
        wanted = {c.header: names[self.headers.index(c.header)] for c in columns}
        try:
            for batch in self._batches(names, list(wanted.values())):
                cells = {header: batch.column(name) for header, name in wanted.items()}
                yield Portion(cells=cells, rows=batch.num_rows, done=self._text.taken)
        except pa.ArrowInvalid as error:
            # The library's text may quote cells.
            long = "straddling" in str(error)
            raise Malformed(
                "csv.long-record" if long else "csv.parse",
                f"{self._name}: expected records of at most {BLOCK_BYTES} bytes, got a longer one"
                if long
                else f"{self._name}: expected delimited text, got something else",
                hint="a quote may have been left open" if long else "export the file again",
            ) from None
        self._require_no_ragged()

    def _batches(self, names: list[str], wanted: list[str]) -> Iterator[pa.RecordBatch]:
        with pyarrow.csv.open_csv(
            pa.PythonFile(self._text, mode="r"),
            read_options=pyarrow.csv.ReadOptions(use_threads=False, block_size=BLOCK_BYTES, column_names=names),
            parse_options=pyarrow.csv.ParseOptions(
                delimiter=self._options.delimiter,
                newlines_in_values=True,
                ignore_empty_lines=len(names) > 1,
                invalid_row_handler=self._note_ragged,
            ),
            convert_options=pyarrow.csv.ConvertOptions(
                column_types=dict.fromkeys(names, pa.string()),
                include_columns=wanted,
                null_values=[],
                strings_can_be_null=False,
                check_utf8=False,
            ),
        ) as reader:
            yield from reader

    def _note_ragged(self, row: pyarrow.csv.InvalidRow) -> str:
        self._ragged += 1
        if self._ragged == 1:
            self._first_ragged = (row.number or 1) + self.first_row - 1
        return "skip"

    def _require_no_ragged(self) -> None:
        if self._ragged:
            raise Malformed(
                "csv.ragged",
                f"{self._name}: expected {len(self.headers)} cells in every row, got another number in {self._ragged} rows, "
                f"the first is row {self._first_ragged}",
                hint="a delimiter inside a cell needs quotes around the cell; or the delimiter is another one",
            )

    # --- header ------------------------------------------------------------------------------------------------------

    def _require_no_mark(self) -> None:
        start = self._file.read(4)
        self._file.seek(0)
        for mark, encoding in _MARKS:
            if start.startswith(mark) and codecs.lookup(self._options.encoding) != codecs.lookup(encoding):
                raise Malformed(
                    "csv.bom",
                    f"{self._name}: expected {self._options.encoding} text, got a file that begins with the byte order mark "
                    f"of {encoding}",
                    hint=f'declare it: [file] encoding = "{encoding}"; or save the file without the mark',
                )

    def _header(self, declared: Sequence[str]) -> tuple[str, ...]:
        line = self._header_line()
        try:
            rows = list(csv.reader([line], delimiter=self._options.delimiter, strict=True))
        except csv.Error:
            rows = []
        headers = tuple(rows[0]) if len(rows) == 1 else ()
        if not any(h.strip() for h in headers):
            raise Malformed(
                "csv.header",
                f"{self._name}: expected column names in line 1, got none",
                hint="remove lines above the names; a file without names is declared: [file] has_header = false",
            )
        if len(headers) == 1 and headers[0] not in declared:
            for other in _DELIMITERS.replace(self._options.delimiter, ""):
                if other in headers[0]:
                    raise Malformed(
                        "csv.delimiter",
                        f"{self._name}: expected columns separated by {self._options.delimiter!r}, got one column",
                        hint=f"line 1 holds {other!r}: if that separates the columns, declare [file] delimiter = {other!r}",
                    )
        twice = sorted({h for h in headers if headers.count(h) > 1})
        if twice:
            raise Malformed(
                "csv.duplicate-header",
                f"{self._name}: expected each column name once, got {', '.join(repr(h) for h in twice[:5])} more than once",
                hint="rename the columns in the file",
            )
        return headers

    def _header_line(self) -> str:
        data = b""
        while len(data) < _MAX_HEADER and (more := self._text.read(BLOCK_BYTES)):
            data += more
            end = re.search(rb"\r\n|\n|\r(?=[^\n])", data)
            if end:
                self._text.back(data[end.end() :])
                return data[: end.start()].decode("utf-8")
        if len(data) >= _MAX_HEADER:
            raise Malformed(
                "csv.header",
                f"{self._name}: expected column names in line 1, got one line without an end",
                hint="is this a text file with one row a line?",
            )
        return data.rstrip(b"\r").decode("utf-8")
