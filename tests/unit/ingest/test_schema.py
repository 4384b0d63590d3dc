"""The schema file: everything stated, everything else refused with the place and the next step."""

from __future__ import annotations

from pathlib import Path

import pytest

from kakoi.contract.model import Code, Column
from kakoi.core.errors import KakoiError, Malformed, Misuse, Refused
from kakoi.sdk.ingest.schema import FileOptions, SourceColumn, load_schema, parse_schema

GOOD = """
table = "visits"
title = "Visits of hospital A"
person_column = "patient"
leave_out = ["name", ""]

[file]
delimiter = ";"
encoding = "cp932"
has_header = true
line_breaks = true
sheet = "Data"

[columns.patient]
type = "string"
header = "Patient no. "
identifier = "join-key"
required = true
description = "Hospital number"

[columns.age]
type = "integer"
unit = "a"
min = 0
max = 120.5
missing = ["", "NA", -9]

[columns.sex]
type = "integer"
codes = { "1" = "male", "2" = "female" }

[columns.grade]
type = "string"
codes = ["I", "II", 3]

[columns.seen]
type = "datetime"
unit = "UTC"

[columns.crp]
type = "number"
min = -0.0
max = 1e3
"""


def column(name: str, kind: str, **more: object) -> Column:
    fields: dict[str, object] = {
        "name": name,
        "type": kind,
        "unit": "",
        "codes": (),
        "missing": (),
        "minimum": None,
        "maximum": None,
        "identifier": "no",
        "description": "",
    }
    return Column(**{**fields, **more})  # type: ignore[arg-type]


def test_everything_that_a_schema_can_say() -> None:
    schema = parse_schema(GOOD)
    assert (schema.table, schema.title, schema.person_column) == ("visits", "Visits of hospital A", "patient")
    assert schema.leave_out == ("name", "")
    assert schema.file == FileOptions(delimiter=";", encoding="cp932", line_breaks=True, sheet="Data")
    assert schema.columns == (
        SourceColumn(
            header="Patient no. ",
            required=True,
            column=column("patient", "string", identifier="join-key", description="Hospital number"),
        ),
        SourceColumn(
            header="age",
            column=column("age", "integer", unit="a", minimum="0", maximum="120.5", missing=("", "NA", "-9")),
        ),
        SourceColumn(
            header="sex",
            column=column("sex", "integer", codes=(Code(value="1", label="male"), Code(value="2", label="female"))),
        ),
        SourceColumn(
            header="grade",
            column=column("grade", "string", codes=tuple(Code(value=v, label="") for v in ("I", "II", "3"))),
        ),
        SourceColumn(header="seen", column=column("seen", "datetime", unit="UTC")),
        SourceColumn(header="crp", column=column("crp", "number", minimum="0.0", maximum="1000")),
    )
    assert schema.contract_columns == tuple(c.column for c in schema.columns)


def test_required_columns() -> None:
    schema = parse_schema(GOOD.replace("required = true", "") + "[columns.z]\ntype = 'date'\nrequired = true\n")
    assert [schema.required(c) for c in schema.columns] == [True, False, False, False, False, False, True]


def test_what_is_left_out_has_stated_defaults() -> None:
    schema = parse_schema('table = "t"\ntitle = "T"\n[columns]\na = { type = "string" }')
    assert schema.file == FileOptions(delimiter=",", encoding="utf-8", has_header=True, line_breaks=False, sheet="")
    assert (schema.person_column, schema.leave_out) == (None, ())
    assert schema.columns == (SourceColumn(header="a", column=column("a", "string")),)


def with_column(line: str) -> str:
    return f'table = "t"\ntitle = "T"\n[columns]\nother = {{ type = "string" }}\n{line}'


BAD = {
    "not TOML": ("table = \ntitle = 1\n", "schema.toml", "line 1"),
    "deep": ("a = " + "[" * 5000, "schema.toml", "expected TOML"),
    "no table": (
        'title = "T"\n[columns]\na = { type = "string" }',
        "schema.field",
        "table: expected a value, got none",
    ),
    "no title": ('table = "t"\n[columns]\na = { type = "string" }', "schema.field", "title: expected"),
    "bad table": (
        'table = "my table"\ntitle = "T"\n[columns]\na = { type = "string" }',
        "schema.field",
        ": table: expected a",
    ),
    "bad title": (
        'table = "t"\ntitle = " T"\n[columns]\na = { type = "string" }',
        "schema.field",
        ": title: expected one",
    ),
    "required": (
        with_column('a = { type = "string", required = 1 }'),
        "schema.field",
        "required: expected true or false",
    ),
    "no columns": ('table = "t"\ntitle = "T"', "schema.field", "columns: expected"),
    "empty columns": ('table = "t"\ntitle = "T"\n[columns]', "schema.columns", "at least one column"),
    "column is text": (with_column('a = "string"'), "schema.field", "column a: expected a table"),
    "no type": (with_column("a = {}"), "schema.field", "column a, type: expected one of integer"),
    "other type": (with_column('a = { type = "float" }'), "schema.field", "got 'float'"),
    "unknown key": (with_column('a = { type = "string", units = "a" }'), "schema.field", "unknown key 'units'"),
    "unknown top key": ('tabel = "t"', "schema.field", "unknown key 'tabel'"),
    "unknown file key": (with_column("") + "[file]\nseparator = ';'", "schema.field", "unknown key 'separator'"),
    "bad name": (with_column('"1a" = { type = "string" }'), "schema.column", "a name of ASCII letters"),
    "name twice in TOML": (with_column('a = { type = "string" }\na = { type = "string" }\n'), "schema.toml", "line 6"),
    "name twice but for case": (with_column('Other = { type = "string" }'), "schema.repeated", "capitals"),
    "header twice": (with_column('a = { type = "string", header = "other" }'), "schema.repeated", "'other' twice"),
    "header left out too": ('leave_out = ["other"]\n' + with_column(""), "schema.repeated", "'other' twice"),
    "site": (with_column('Site = { type = "string" }'), "schema.field", "another name"),
    "person column unknown": ('person_column = "othr"\n' + with_column(""), "schema.field", "person_column"),
    "identifier": (with_column('a = { type = "string", identifier = "yes" }'), "schema.field", "no, direct, join-key"),
    "limit on text": (with_column('a = { type = "string", min = 1 }'), "schema.field", "a limit on numbers only"),
    "limit is text": (with_column('a = { type = "number", min = "1" }'), "schema.field", "a number, got text"),
    "limit is true": (with_column('a = { type = "number", max = true }'), "schema.field", "a number"),
    "limit infinite": (with_column('a = { type = "number", max = inf }'), "schema.field", "a finite number"),
    "limits crossed": (with_column('a = { type = "number", min = 2, max = 1 }'), "schema.column", "minimum"),
    "codes on a date": (with_column('a = { type = "date", codes = ["x"] }'), "schema.field", "codes on integer"),
    "codes of numbers": (with_column('a = { type = "number", codes = [1.5] }'), "schema.field", "texts such as"),
    "codes twice": (with_column('a = { type = "string", codes = ["1", 1] }'), "schema.repeated", "each text once"),
    "code that is missing": (
        with_column('a = { type = "string", codes = ["x"], missing = ["x"] }'),
        "schema.column",
        "code or missing",
    ),
    "label is a number": (with_column('a = { type = "string", codes = { x = 1 } }'), "schema.field", "a list of texts"),
    "missing is text": (with_column('a = { type = "string", missing = "NA" }'), "schema.field", "a list of texts"),
    "missing is false": (with_column('a = { type = "string", missing = [false] }'), "schema.field", "true or false"),
    "unit on text": (with_column('a = { type = "string", unit = "kg" }'), "schema.field", "a unit on numbers"),
    "unit not UCUM": (with_column('a = { type = "number", unit = "mmHg" }'), "schema.unit", "'mmHg'"),
    "control character": (
        with_column('a = { type = "string", description = "x\\u001b[2J" }'),
        "schema.column",
        "text without",
    ),
    "delimiter": (with_column("") + "[file]\ndelimiter = ', '", "schema.field", "one ASCII character"),
    "delimiter quote": (with_column("") + "[file]\ndelimiter = '\"'", "schema.field", "one ASCII character"),
    "encoding": (with_column("") + "[file]\nencoding = 'utf8000'", "schema.field", "an unknown one"),
    "encoding that is none": (with_column("") + "[file]\nencoding = 'base64'", "schema.field", "an unknown one"),
    "no header but left out": (
        'leave_out = ["x"]\n' + with_column("") + "[file]\nhas_header = false",
        "schema.field",
        "leave_out",
    ),
}


@pytest.mark.parametrize("case", BAD, ids=str)
def test_bad_schemas(case: str) -> None:
    text, code, part = BAD[case]
    with pytest.raises(Malformed) as caught:
        parse_schema(text, name="lung.toml")
    assert caught.value.code == code
    assert part in caught.value.message
    assert caught.value.message.startswith("lung.toml: ")
    assert caught.value.hint


def test_hints_name_the_slip() -> None:
    cases = {
        with_column('a = { type = "string", desciption = "x" }'): "did you mean description?",
        with_column('a = { type = "strin" }'): "did you mean string?",
        with_column('a = { type = "number", unit = "years" }'): "write a",
        'person_column = "othr"\n' + with_column(""): "did you mean other?",
    }
    for text, hint in cases.items():
        with pytest.raises(Malformed) as caught:
            parse_schema(text)
        assert caught.value.hint == hint


def test_direct_identifiers_are_read_but_never_sealed() -> None:
    schema = parse_schema(with_column('mrn = { type = "string", identifier = "direct" }'))
    with pytest.raises(Refused) as caught:
        schema.require_no_direct_identifier()
    assert caught.value.code == "schema.direct-identifier"
    assert "mrn" in caught.value.message
    parse_schema(GOOD).require_no_direct_identifier()


def test_files(tmp_path: Path) -> None:
    path = tmp_path / "s.toml"
    with pytest.raises(Misuse) as no_file:
        load_schema(path)
    assert no_file.value.code == "schema.file"
    path.write_text(GOOD, "utf-8")
    assert load_schema(path) == parse_schema(GOOD)
    bad: list[tuple[bytes, str]] = [(b"\xff", "schema.toml"), (b"#" * (4 * 1024 * 1024 + 1), "schema.size")]
    for data, code in bad:
        path.write_bytes(data)
        with pytest.raises(KakoiError) as caught:
            load_schema(path)
        assert caught.value.code == code
