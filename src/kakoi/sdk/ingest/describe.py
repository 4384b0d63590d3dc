"""A first schema from a file: types are read off the cells, and everything that a person must decide is said.

What is never taken from the data: limits and units. A schema's limits and codes are published in the manifest, so codes are
proposed only where every value occurs often enough to say nothing about anybody.
"""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from kakoi.contract.model import Code, Column
from kakoi.core.errors import Malformed
from kakoi.sdk.ingest.convert import FORMS
from kakoi.sdk.ingest.draft import TOP, Draft, column_names, one_line
from kakoi.sdk.ingest.opening import open_source
from kakoi.sdk.ingest.schema import ZONED, FileOptions, Schema, SourceColumn
from kakoi.sdk.ingest.seal import Progress, no_progress
from kakoi.sdk.ingest.source import Source

FEWEST: Final = 5
"""A value that occurs less often is not proposed as a code."""
_MOST_CODES: Final = 20
_MOST_DISTINCT: Final = 20_000
_MARKERS: Final = (
    "NA",
    "N/A",
    "n/a",
    "NaN",
    "nan",
    "NULL",
    "null",
    "None",
    "none",
    ".",
    "?",
    "-",
    "#N/A",
    "unknown",
    "Unknown",
)
_ORDER: Final = ("integer", "number", "date", "datetime", "datetime-utc", "truth")
_FORMS: Final = {**{k: FORMS[k] for k in _ORDER[:-1]}, "truth": r"\A(?:[Tt]rue|TRUE|[Ff]alse|FALSE)\z"}
_LEADING_ZERO: Final = r"\A-?0[0-9]+\z"
_NAMES: Final = re.compile(
    r"name|surname|address|street|phone|fax|mail|post.?code|zip|birth|dob|ssn|nhs|mrn|passport|insurance|account|url|"
    r"(^|_)ip(_|$)|license|licence|氏名|名前|住所|電話|生年月日|患者番号",
    re.IGNORECASE,
)
_PERSONS: Final = re.compile(r"patient|subj|person|pid(\b|_|$)|^id$|case.?no", re.IGNORECASE)
_VALUES: Final = r"[^@\s]+@[^@\s]+\.[a-zA-Z]{2,}|\A\+?[0-9]{2,4}[- ][0-9]{2,4}[- ][0-9]{3,4}\z"


def describe(
    path: Path,
    *,
    options: FileOptions | None = None,
    remarks: Sequence[str] = (),
    progress: Progress = no_progress,
) -> Draft:
    """A draft for the table at ``path``. ``options`` say how a text file is written; delimiter and mark are looked up if absent.
    ``remarks`` are said at its top.

    Raises what opening the file raises; Malformed ``ingest.no-rows`` for an empty table.
    """
    given, remarks = (options, remarks) if options else file_options(path)
    bare = {f"c{i}": f"c{i}" for i in range(1, _width(path, given) + 1)}
    with open_source(path, _provisional(bare, given)) as source:
        names = column_names(source.headers)
        schema = _provisional(names, given, _kinds(source))
        workbook = path.suffix.lower() == ".xlsx"
        profiles = {c.column.name: _Profile(c, workbook=workbook) for c in schema.columns}
        rows, size = 0, path.stat().st_size
        for portion in source.portions(schema.columns):
            for column in schema.columns:
                profiles[column.column.name].add(portion.cells[column.header], portion.unfit.get(column.header))
            rows += portion.rows
            progress(size * min(portion.done, source.total) // source.total, size)
        labels: Mapping[str, str] = getattr(source, "labels", {})
    if not rows:
        raise Malformed("ingest.no-rows", f"{path.name}: expected rows of data, got none")
    notes: dict[str, tuple[str, ...]] = {
        TOP: (
            f"Drafted from {path.name}. Correct it: only what stands here converts a cell.",
            "Codes, limits, units and descriptions are published in the manifest.",
            *remarks,
            "If rows are events, and not people, name the column that names the person: person_column",
        )
    }
    columns = []
    for column in schema.columns:
        judged, notes[column.column.name] = profiles[column.column.name].judge(rows)
        description = one_line(labels.get(column.header, ""), 400)
        columns.append(SourceColumn(header=column.header, column=replace(judged, description=description)))
    table = column_names([path.stem])[path.stem]
    return Draft(
        schema=replace(schema, table=table, title=one_line(path.stem, 120) or "table", columns=tuple(columns)),
        notes=notes,
    )


def _provisional(names: Mapping[str, str], options: FileOptions, kinds: Mapping[str, Any] | None = None) -> Schema:
    columns = []
    for header, name in names.items():
        kind, unit = (kinds or {}).get(header, ("string", ""))
        columns.append(SourceColumn(header=header, column=_column(name, kind, unit)))
    return Schema(table="t", title="t", person_column=None, columns=tuple(columns), file=options)


def _column(name: str, kind: Any, unit: str = "", **more: Any) -> Column:
    fields: dict[str, Any] = {
        "codes": (),
        "missing": (),
        "minimum": None,
        "maximum": None,
        "identifier": "no",
        "description": "",
        **more,
    }
    return Column(name=name, type=kind, unit=unit, **fields)


def _kinds(source: Source) -> Mapping[str, tuple[str, str]]:
    """Types that the file itself declares (Parquet, SAS), as type and unit."""
    kinds = getattr(source, "kinds", None)
    return kinds() if kinds else {}


def file_options(path: Path) -> tuple[FileOptions, Sequence[str]]:
    """How a text file seems to be written, and what was assumed."""
    options, remarks = FileOptions(), list[str]()
    if path.suffix.lower() not in (".csv", ".tsv", ".txt", ".data") or not path.is_file():
        return options, remarks
    with path.open("rb") as file:
        start = file.read(65536)
    for mark, encoding in ((b"\xef\xbb\xbf", "utf-8-sig"), (b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16")):
        if start.startswith(mark):
            options = replace(options, encoding=encoding)
            remarks.append(f"check: the file begins with the byte order mark of {encoding}")
    line = start.decode(options.encoding, "replace").splitlines()[:1]
    counts = Counter({d: line[0].count(d) for d in ",;\t|"} if line else {})
    delimiter, found = counts.most_common(1)[0] if counts else (",", 0)
    if found and delimiter != ",":
        options = replace(options, delimiter=delimiter)
        remarks.append(f"check: columns seem to be separated by {delimiter!r}")
    return options, remarks


def headers_of(path: Path, options: FileOptions) -> tuple[str, ...]:
    """The column headers of a file, byte for byte. Raises what opening the file raises."""
    with open_source(path, _provisional({}, options)) as source:
        return source.headers


def _width(path: Path, options: FileOptions) -> int:
    """How many columns a file without a header has, by its first line; 0 where the header tells."""
    if options.has_header or not path.is_file():
        return 0
    with path.open(encoding=options.encoding, errors="replace", newline="") as file:
        return len(next(csv.reader([file.readline(1024 * 1024)], delimiter=options.delimiter), []))


class _Profile:
    """What the cells of one column look like, counted as they go by."""

    def __init__(self, source: SourceColumn, *, workbook: bool) -> None:
        self._source, self._workbook = source, workbook
        self._midnights = self._empty = self._null = self._unfit = self._zeros = self._breaks = self._personal = 0
        self._forms = dict.fromkeys(_ORDER, 0)
        self._markers: Counter[str] = Counter()
        self._distinct: Counter[str] | None = Counter()
        self._different = True
        self._seen = 0

    def add(self, cells: Any, unfit: Any) -> None:
        """Count one portion."""
        self._null += cells.null_count
        self._unfit += (pc.sum(unfit).as_py() or 0) if unfit is not None else 0
        counts = pc.value_counts(cells.drop_null())
        values, numbers = counts.field("values"), counts.field("counts")
        marked = pc.is_in(values, value_set=pa.array(["", *_MARKERS]))
        for value, number in zip(values.filter(marked).to_pylist(), numbers.filter(marked).to_pylist(), strict=True):
            if value:
                self._markers[value] += number
            else:
                self._empty += number
        plain, weights = values.filter(pc.invert(marked)), numbers.filter(pc.invert(marked))
        for name in _ORDER:
            self._forms[name] += _matching(plain, weights, _FORMS[name])
        self._midnights += _matching(plain, weights, r"T00:00:00\z") if self._workbook else 0
        self._zeros += _matching(plain, weights, _LEADING_ZERO)
        self._breaks += _matching(plain, weights, "[\r\n]")
        self._personal += _matching(plain, weights, _VALUES)
        if self._distinct is not None:
            self._distinct.update(dict(zip(plain.to_pylist(), weights.to_pylist(), strict=True)))
            self._seen += pc.sum(weights).as_py() or 0
            self._different = len(self._distinct) > 0.9 * self._seen
            if len(self._distinct) > _MOST_DISTINCT:
                self._distinct = None

    def judge(self, rows: int) -> tuple[Column, tuple[str, ...]]:
        """The column as drafted, and what a person must decide."""
        cells = rows - self._empty - self._null - sum(self._markers.values())
        kind, unit, notes = self._type(cells)
        missing = [""] if self._empty else []
        if self._empty:
            notes.append(f"check: {self._empty} empty cells, taken as missing")
        for marker, count in sorted(self._markers.items()):
            if kind == "string":
                notes.append(
                    f"check: {count} cells are {marker!r}: a value, or missing? If missing, list it under missing"
                )
            else:
                missing.append(marker)
                notes.append(f"check: {count} cells are {marker!r}, taken as missing")
        if self._breaks:
            notes.append(
                f"check: {self._breaks} cells hold line breaks: [file] line_breaks = true, if they belong there"
            )
        identifier = self._identifier(kind, cells, notes)
        codes = () if identifier == "direct" else self._codes(kind, notes)
        if kind in ("integer", "number") and cells and not codes:
            notes.append("check: unit (UCUM), and min and max if you know plausible limits")
        name = self._source.column.name
        return _column(name, kind, unit, missing=tuple(missing[:16]), identifier=identifier, codes=codes), tuple(notes)

    def _type(self, cells: int) -> tuple[str, str, list[str]]:
        declared = self._source.column
        if declared.type != "string":
            return declared.type, declared.unit, ["the type is the file's own"]
        if not cells:
            return "string", "", ["check: no cell has a value"]
        if self._zeros and self._forms["integer"] + self._zeros == cells:
            return "string", "", [f"{self._zeros} cells begin with 0: kept as text so that no digit is lost"]
        for name in _ORDER:
            if self._forms[name] == cells:
                if name == "datetime" and self._midnights == cells:
                    return "date", "", ["check: Excel keeps days as times at midnight, drafted as days"]
                kind, unit = {"datetime-utc": ("datetime", ZONED), "truth": ("boolean", "")}.get(name, (name, ""))
                return kind, unit, []
        best = max(_ORDER, key=lambda name: self._forms[name])
        notes = []
        if self._forms[best] * 2 > cells:
            notes.append(f"check: {self._forms[best]} of {cells} cells are of type {best}, the others are not")
        if self._unfit:
            notes.append(
                f"check: {self._unfit} cells are numbers or dates in the workbook: a column of text must hold text only"
            )
        return "string", "", notes

    def _identifier(self, kind: str, cells: int, notes: list[str]) -> str:
        if _NAMES.search(self._source.header):
            notes.append(
                'check: the header sounds like a direct identifier; move it to leave_out, or set identifier = "no"'
            )
            return "direct"
        if self._personal:
            notes.append("check: cells look like mail addresses or telephone numbers; move the column to leave_out")
            return "direct"
        if cells > 1 and self._different and kind == "string":
            notes.append('check: (nearly) every value is different: an identifier? leave_out, or join-key, or "no"')
            return "direct"
        if _PERSONS.search(self._source.header):
            notes.append("check: a number of a person? It may be the person_column, a join-key, or belong in leave_out")
        elif cells > 1 and self._different and kind == "integer":
            notes.append("check: (nearly) every value is different: a number that names a person or a visit?")
        return "no"

    def _codes(self, kind: str, notes: list[str]) -> tuple[Code, ...]:
        if kind not in ("integer", "string") or self._distinct is None:
            return ()
        values = self._distinct + (self._markers if kind == "string" else Counter())
        if not 0 < len(values) <= _MOST_CODES:
            return ()
        if min(values.values()) < FEWEST or any(len(v) > 80 or one_line(v, 80) != v for v in values):
            notes.append(
                f"check: {len(values)} different values, some rare: list them as codes if they may be published"
            )
            return ()
        notes.append("check: the codes and what each means")
        return tuple(
            Code(value=value, label="")
            for value in sorted(values, key=lambda v: (len(v), v) if kind == "integer" else (0, v))
        )


def _matching(values: Any, weights: Any, pattern: str) -> int:
    return int(pc.sum(weights.filter(pc.match_substring_regex(values, pattern))).as_py() or 0)
