"""The schema of one table: a small TOML file that a person writes and the only thing that converts cells.

``docs/formats/schema.md`` is the human description. Everything that is not written is a stated default or refused; nothing
is guessed from the data.
"""

from __future__ import annotations

import codecs
import difflib
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any, Final, Literal, NoReturn, get_args

from kakoi.contract.model import SITE, Code, Column, ColumnType, each_name_once
from kakoi.core.errors import KakoiError, Malformed, Misuse, Refused
from kakoi.core.records import Name, Record, Title
from kakoi.sdk.ingest import ucum

MAX_SCHEMA_BYTES: Final = 4 * 1024 * 1024
Identifier = Literal["no", "direct", "join-key", "opt-out"]
PlausibleCheck = Literal["plausibleUnitConceptIds", "plausibleGender", "plausibleValueLow", "plausibleValueHigh"]
ZONED: Final = "UTC"
"""Unit of a datetime column whose cells carry an offset; its values are kept as UTC."""
MAX_PLAUSIBLE: Final = 1000
"""Of rules on concepts in one schema, each of which costs one look at every portion."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FileOptions:
    """How the source file is written. Applies to text files, ``sheet`` to Excel."""

    delimiter: str = ","
    encoding: str = "utf-8"
    has_header: bool = True
    line_breaks: bool = False
    """Whether a cell may hold a line break."""
    sheet: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceColumn:
    """A declared column and the header under which the file holds it, byte for byte."""

    column: Column
    header: str
    required: bool = False
    """Whether every cell must have a value."""
    after: str | None = None
    """The column of the same row that a day or instant must not lie before."""
    mapped_to: str | None = None
    """The column of the same row that holds the standard concept of a source value, 0 if there is none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plausible:
    """What ``column`` may hold in rows whose other columns hold certain values: units of a concept, sexes with a diagnosis."""

    check: PlausibleCheck
    column: str
    where: tuple[tuple[str, tuple[str | int, ...]], ...]
    """Columns, and for each the values of the rows that are meant; a row must hold one of each."""
    values: tuple[str | int, ...] = ()
    """What ``column`` may hold there; empty for a limit."""
    limit: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Schema:
    """One declared table. ``leave_out`` are headers of the file that are not sealed."""

    table: str
    title: str
    person_column: str | None
    columns: tuple[SourceColumn, ...]
    leave_out: tuple[str, ...] = ()
    file: FileOptions = field(default_factory=FileOptions)
    plausible: tuple[Plausible, ...] = ()
    primary_key: tuple[str, ...] = ()
    """Columns that together name a row: no two rows hold the same, and no cell of them is missing."""

    def required(self, source: SourceColumn) -> bool:
        """Whether every cell of this column must have a value: every row names a person, and itself."""
        return source.required or source.column.name in (self.person_column, *self.primary_key)

    @property
    def contract_columns(self) -> tuple[Column, ...]:
        """The columns as the manifest has them."""
        return tuple(c.column for c in self.columns)

    def require_no_direct_identifier(self) -> None:
        """Raise Refused if a column is declared a direct identifier: such a column is never sealed."""
        direct = [c.column.name for c in self.columns if c.column.identifier == "direct"]
        if direct:
            raise Refused(
                "schema.direct-identifier",
                f"expected no direct identifier among the columns to seal, got {', '.join(direct)}",
                hint="move the header to leave_out; or, if the contract joins on the column, declare it a join-key",
            )


def load_schema(path: Path) -> Schema:
    """The schema in a TOML file. Raises Misuse if there is no file, Malformed for everything else."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_SCHEMA_BYTES + 1)
    except OSError as error:
        raise Misuse("schema.file", f"expected a schema file at {path}, got: {error.strerror}") from None
    if len(data) > MAX_SCHEMA_BYTES:
        raise Malformed("schema.size", f"{path.name}: expected at most {MAX_SCHEMA_BYTES} bytes, got more")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        raise Malformed(
            "schema.toml", f"{path.name}: expected UTF-8, got other bytes", hint="save it as UTF-8"
        ) from None
    return parse_schema(text, name=path.name)


def parse_schema(text: str, *, name: str = "schema") -> Schema:
    """The schema in TOML text; ``name`` is the file's name in messages. Raises Malformed."""
    try:
        document = tomllib.loads(text, parse_float=Decimal)
    except (tomllib.TOMLDecodeError, RecursionError, ValueError) as error:
        raise Malformed(
            "schema.toml", f"{name}: expected TOML, got: {error}", hint="correct the line that the message names"
        ) from None
    return _Reader(name).schema(document)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Heading(Record):
    """What the manifest demands of the names of the table."""

    table: Name
    title: Title


class _Reader:
    """Reads a parsed document, with the file's name for its messages."""

    def __init__(self, name: str) -> None:
        self._name = name

    def schema(self, document: Mapping[str, Any]) -> Schema:
        self._known(document, _TABLE_KEYS, "")
        columns = self._columns(self._member(document, "columns", dict, "", required=True))
        leave_out = self._texts(document.get("leave_out", []), "leave_out")
        person = self._member(document, "person_column", str, "")
        schema = Schema(
            table=self._member(document, "table", str, "", required=True),
            title=self._member(document, "title", str, "", required=True),
            person_column=person,
            columns=columns,
            leave_out=tuple(leave_out),
            file=self._file(self._member(document, "file", dict, "") or {}),
            primary_key=tuple(self._texts(document.get("primary_key", []), "primary_key")),
            plausible=self._plausible(document.get("plausible", []), {c.column.name: c.column for c in columns}),
        )
        self._consistent(schema)
        return schema

    # --- parts -------------------------------------------------------------------------------------------------------

    def _columns(self, tables: Mapping[str, Any]) -> tuple[SourceColumn, ...]:
        if not tables:
            self._fail("columns", "at least one column", "none", code="schema.columns")
        return tuple(self._column(name, table) for name, table in tables.items())

    def _column(self, name: str, table: Any) -> SourceColumn:
        where = f"column {name}"
        if not isinstance(table, dict):
            self._fail(where, 'a table such as { type = "integer" }', _kind(table))
        self._known(table, _COLUMN_KEYS, where)
        kind = self._choice(table, "type", get_args(ColumnType), where)
        column = self._record(
            where,
            name=name,
            type=kind,
            unit=self._unit(table, kind, where),
            codes=self._codes(table.get("codes", []), kind, where),
            missing=tuple(self._texts(table.get("missing", []), f"{where}, missing")),
            minimum=self._bound(table, "min", kind, where),
            maximum=self._bound(table, "max", kind, where),
            identifier=self._choice(table, "identifier", get_args(Identifier), where, default="no"),
            description=self._member(table, "description", str, where) or "",
        )
        header = self._member(table, "header", str, where)
        return SourceColumn(
            column=column,
            header=name if header is None else header,
            required=bool(self._member(table, "required", bool, where)),
            after=self._member(table, "after", str, where),
            mapped_to=self._member(table, "mapped_to", str, where),
        )

    def _record(self, where: str, **fields: Any) -> Column:
        try:
            return Column(**fields)
        except KakoiError as error:
            raise Malformed(
                "schema.column", f"{self._name}: {where}: {error.message}", hint=error.hint or "correct the schema"
            ) from None

    def _unit(self, table: Mapping[str, Any], kind: str, where: str) -> str:
        unit: str = self._member(table, "unit", str, where) or ""
        if not unit or (kind == "datetime" and unit == ZONED):
            return unit
        if kind not in ("integer", "number"):
            self._fail(where, f"a unit on numbers only (or {ZONED} on a datetime)", f"one on a {kind}")
        try:
            ucum.require_unit(unit)
        except KakoiError as error:
            raise Malformed("schema.unit", f"{self._name}: {where}, unit: {error.message}", hint=error.hint) from None
        return unit

    def _codes(self, value: Any, kind: str, where: str) -> tuple[Code, ...]:
        where = f"{where}, codes"
        if value and kind not in ("integer", "number", "string"):
            self._fail(where, "codes on integer, number and string columns only", f"some on a {kind}")
        if isinstance(value, list):
            pairs = [(text, "") for text in self._texts(value, where)]
        elif isinstance(value, dict) and all(isinstance(label, str) for label in value.values()):
            pairs = list(value.items())
        else:
            self._fail(where, 'a list of texts, or a table such as { "1" = "male" }', _kind(value))
        try:
            return tuple(Code(value=text, label=label) for text, label in pairs)
        except KakoiError as error:
            raise Malformed("schema.column", f"{self._name}: {where}: {error.message}", hint=error.hint) from None

    def _bound(self, table: Mapping[str, Any], key: str, kind: str, where: str) -> str | None:
        value = table.get(key)
        if value is None:
            return None
        where = f"{where}, {key}"
        if kind not in ("integer", "number"):
            self._fail(where, "a limit on numbers only", f"one on a {kind}")
        if isinstance(value, bool) or not isinstance(value, (int, Decimal)):
            self._fail(where, "a number", _kind(value))
        number = Decimal(value)
        if not number.is_finite():
            self._fail(where, "a finite number", "infinity or nan")
        return format(number if number else abs(number), "f")

    def _file(self, table: Mapping[str, Any]) -> FileOptions:
        self._known(table, ("delimiter", "encoding", "has_header", "line_breaks", "sheet"), "file")
        given = {key: self._member(table, key, bool, "file") for key in ("has_header", "line_breaks") if key in table}
        texts = {
            key: self._member(table, key, str, "file") for key in ("delimiter", "encoding", "sheet") if key in table
        }
        options = FileOptions(**given, **texts)
        if len(options.delimiter) != 1 or not options.delimiter.isascii() or options.delimiter in '"\r\n\0':
            self._fail("file, delimiter", "one ASCII character such as ',' ';' or '\\t'", "something else")
        try:
            text = codecs.lookup(options.encoding)._is_text_encoding
        except (LookupError, ValueError):
            text = False
        if not text:
            self._fail("file, encoding", 'an encoding such as "utf-8", "utf-8-sig" or "cp932"', "an unknown one")
        return options

    def _plausible(self, value: Any, columns: Mapping[str, Column]) -> tuple[Plausible, ...]:
        if not isinstance(value, list) or not all(isinstance(table, dict) for table in value):
            self._fail("plausible", "tables, each under [[plausible]]", _kind(value))
        if len(value) > MAX_PLAUSIBLE:
            self._fail("plausible", f"at most {MAX_PLAUSIBLE} rules", str(len(value)))
        return tuple(self._rule(table, f"plausible rule {number}", columns) for number, table in enumerate(value, 1))

    def _rule(self, table: Mapping[str, Any], where: str, columns: Mapping[str, Column]) -> Plausible:
        check = self._choice(table, "check", get_args(PlausibleCheck), where)
        says = _SAYS.get(check, "values")
        self._known(table, ("check", "column", "where", says), where)
        column = self._one_of(self._member(table, "column", str, where, required=True), columns, f"{where}, column")
        rows = self._member(table, "where", dict, where, required=True)
        if not rows:
            self._fail(f"{where}, where", "at least one column and its values", "none")
        self._member(table, says, type(table.get(says)), where, required=True)
        return Plausible(
            check=check,
            column=column.name,
            where=tuple(
                (name, self._held(self._one_of(name, columns, f"{where}, where"), held, f"{where}, where"))
                for name, held in rows.items()
            ),
            values=self._held(column, table["values"], f"{where}, values") if says == "values" else (),
            limit=None if says == "values" else self._bound(table, says, column.type, where),
        )

    def _held(self, column: Column, value: Any, where: str) -> tuple[str | int, ...]:
        """A list of values that a column may hold, written as TOML has its type."""
        kind = {"integer": int, "string": str}.get(column.type)
        if kind is None:
            self._fail(where, "an integer or string column", f"{column.name}, a {column.type}")
        if not isinstance(value, list) or not value or not all(type(item) is kind for item in value):
            self._fail(where, f"a list of values of {column.name}, a {column.type}", "another value")
        if column.type == "integer" and not all(abs(item) < 10**18 for item in value):
            self._fail(where, "integers of at most 18 digits", "a larger one")
        return tuple(value)

    def _one_of(self, name: str, columns: Mapping[str, Column], where: str) -> Column:
        if name not in columns:
            self._fail(where, "the name of one of the columns", repr(name), hint=_near(name, columns))
        return columns[name]

    def _linked(self, schema: Schema) -> None:
        """Each ``after``, each ``mapped_to`` and the primary key name columns whose values can serve."""
        columns = {c.column.name: c.column for c in schema.columns}
        for name in schema.primary_key:
            if self._one_of(name, columns, "primary_key").type not in ("integer", "string", "date", "datetime"):
                self._fail("primary_key", "columns of integers, strings, dates or datetimes", repr(name))
        for source in schema.columns:
            if source.mapped_to is not None:
                where = f"column {source.column.name}, mapped_to"
                concept = self._one_of(source.mapped_to, columns, where)
                if (
                    concept.type != "integer"
                    or source.column.type not in ("integer", "string")
                    or concept is source.column
                ):
                    self._fail(
                        where, "an integer column of concepts, on an integer or string column", repr(concept.name)
                    )
            if source.after is None:
                continue
            column, where = source.column, f"column {source.column.name}, after"
            earlier = self._one_of(source.after, columns, where)
            same = earlier.type == column.type and earlier.unit == column.unit
            if column.type not in ("date", "datetime") or not same or earlier is column:
                self._fail(where, "another column, both dates or both datetimes of one kind", repr(source.after))

    def _consistent(self, schema: Schema) -> None:
        self._linked(schema)
        try:
            _Heading(table=schema.table, title=schema.title)
        except KakoiError as error:
            raise Malformed(
                "schema.field",
                f"{self._name}: {error.message.removeprefix('_Heading.')}",
                hint=error.hint or "correct it",
            ) from None
        try:
            each_name_once((c.column.name for c in schema.columns), "column")
        except KakoiError as error:
            self._fail("columns", error.message.removeprefix("expected "), "", code="schema.repeated")
        headers = [c.header for c in schema.columns]
        twice = sorted({h for h in headers if headers.count(h) > 1} | (set(headers) & set(schema.leave_out)))
        if twice:
            self._fail(
                "columns", "each header once, in columns or in leave_out", f"{twice[0]!r} twice", code="schema.repeated"
            )
        if SITE in {c.column.name.lower() for c in schema.columns}:
            self._fail(
                f"column {SITE}",
                "another name: the enclave adds a column of that name from the owner's identity",
                "that one",
                hint=f'rename it, for example: [columns.centre] with header = "{SITE}"',
            )
        names = [c.column.name for c in schema.columns]
        if schema.person_column is not None and schema.person_column not in names:
            self._fail(
                "person_column", "the name of one of the columns", "another", hint=_near(schema.person_column, names)
            )
        if not schema.file.has_header and schema.leave_out:
            self._fail("leave_out", "an empty list where the file has no header", "headers")

    # --- values ------------------------------------------------------------------------------------------------------

    def _known(self, table: Mapping[str, Any], keys: Iterable[str], where: str) -> None:
        for key in table:
            if key not in keys:
                self._fail(where, f"one of {', '.join(keys)}", f"an unknown key {key!r}", hint=_near(key, keys))

    def _member(self, table: Mapping[str, Any], key: str, kind: type, where: str, *, required: bool = False) -> Any:
        value = table.get(key)
        where = f"{where}, {key}" if where else key
        if value is None:
            if required:
                self._fail(where, "a value", "none", hint=f"add {key} to the schema")
        elif type(value) is not kind:
            self._fail(where, _NAMES[kind], _kind(value))
        return value

    def _choice(
        self, table: Mapping[str, Any], key: str, choices: tuple[str, ...], where: str, *, default: str | None = None
    ) -> Any:
        value = table.get(key, default)
        if value not in choices:
            got = f"{value!r}" if isinstance(value, str) else _kind(value)
            hint = _near(value, choices) if isinstance(value, str) else ""
            self._fail(f"{where}, {key}", f"one of {', '.join(choices)}", got, hint=hint)
        return value

    def _texts(self, value: Any, where: str) -> list[str]:
        """A list of texts; whole numbers stand for their digits."""
        if not isinstance(value, list):
            self._fail(where, "a list of texts", _kind(value))
        texts = []
        for item in value:
            if isinstance(item, bool) or not isinstance(item, (str, int)):
                self._fail(where, 'texts such as "NA" or "-9"', _kind(item), hint="put the text between quotes")
            texts.append(str(item))
        if len(set(texts)) != len(texts):
            self._fail(where, "each text once", "a repetition", code="schema.repeated")
        return texts

    def _fail(self, where: str, expected: str, got: str, *, hint: str = "", code: str = "schema.field") -> NoReturn:
        place = f"{self._name}: {where}" if where else self._name
        message = f"{place}: expected {expected}, got {got}" if got else f"{place}: expected {expected}"
        raise Malformed(code, message, hint=hint or "see docs/formats/schema.md")


_COLUMN_KEYS: Final = (
    *("type", "header", "unit", "codes", "missing", "min", "max"),
    *("identifier", "required", "after", "mapped_to", "description"),
)
_TABLE_KEYS: Final = (
    *("table", "title", "person_column", "primary_key", "leave_out"),
    *("file", "columns", "plausible"),
)
_SAYS: Final = {"plausibleValueLow": "min", "plausibleValueHigh": "max"}
"""What a rule on a concept says of its column; the others say ``values``."""
_NAMES: Final = {str: "text", bool: "true or false", dict: "a table", list: "a list", int: "a number"}


def _kind(value: Any) -> str:
    return "nothing" if value is None else _NAMES.get(type(value), "a value of another type")


def _near(word: str, words: Iterable[str]) -> str:
    found = difflib.get_close_matches(word, list(words), n=1)
    return f"did you mean {found[0]}?" if found else ""
