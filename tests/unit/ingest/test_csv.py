"""Text files: each way in which an export goes wrong is one clear error, and nothing is guessed."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kakoi.core.errors import KakoiError, Malformed, Misuse
from kakoi.sdk.ingest.csv_source import BLOCK_BYTES
from kakoi.sdk.ingest.opening import open_source
from kakoi.sdk.ingest.schema import Schema, parse_schema
from kakoi.sdk.ingest.seal import validate

TWO = 'table = "t"\ntitle = "T"\n{top}\n[columns]\na = {{ type = "string" }}\nb = {{ type = "string" }}\n{more}'


def schema(*, top: str = "", more: str = "") -> Schema:
    return parse_schema(TWO.format(top=top, more=more))


def cells(path: Path, declared: Schema) -> list[tuple[str, ...]]:
    with open_source(path, declared) as source:
        rows: list[tuple[str, ...]] = []
        for portion in source.portions(declared.columns):
            columns = [portion.cells[c.header].to_pylist() for c in declared.columns]
            assert {len(c) for c in columns} == {portion.rows}
            rows += zip(*columns, strict=True)
    return rows


def written(tmp_path: Path, data: bytes, name: str = "f.csv") -> Path:
    path = tmp_path / name
    path.write_bytes(data)
    return path


GOOD = {
    "plain": (b"a,b\n1,2\n3,4\n", [("1", "2"), ("3", "4")]),
    "no line end": (b"a,b\n1,2", [("1", "2")]),
    "windows lines": (b"a,b\r\n1,2\r\n3,4\r\n", [("1", "2"), ("3", "4")]),
    "old mac lines": (b"a,b\r1,2\r3,4\r", [("1", "2"), ("3", "4")]),
    "texts that others take for missing": (b"a,b\nNA,None\n,null\nNaN,\n", [("NA", "None"), ("", "null"), ("NaN", "")]),
    "quotes": (b'"a","b"\n"1","x, ""y"""\n"",z\n', [("1", 'x, "y"'), ("", "z")]),
    "line break in a cell": (b'a,b\n1,"x\ny"\n', [("1", "x\ny")]),
    "leading zeros and blanks": (b"a,b\n007, 1 \n", [("007", " 1 ")]),
    "empty lines between": (b"a,b\n\n1,2\n\n\n3,4\n\n", [("1", "2"), ("3", "4")]),
    "other order": (b"b,a\n1,2\n", [("2", "1")]),
    "japanese": ("a,b\n東京,囲い\n".encode(), [("東京", "囲い")]),
}


@pytest.mark.parametrize("case", GOOD, ids=str)
def test_cells_are_the_texts_of_the_file(tmp_path: Path, case: str) -> None:
    data, rows = GOOD[case]
    assert cells(written(tmp_path, data), schema()) == rows


def test_declared_dialects(tmp_path: Path) -> None:
    semicolon = schema(more='[file]\ndelimiter = ";"')
    assert cells(written(tmp_path, b"a;b\n1,5;2\n"), semicolon) == [("1,5", "2")]
    tab = schema(more='[file]\ndelimiter = "\\t"')
    assert cells(written(tmp_path, b"a\tb\n1\t2\n", "f.tsv"), tab) == [("1", "2")]
    mark = schema(more='[file]\nencoding = "utf-8-sig"')
    assert cells(written(tmp_path, b"\xef\xbb\xbfa,b\n1,2\n"), mark) == [("1", "2")]
    assert cells(written(tmp_path, b"a,b\n1,2\n"), mark) == [("1", "2")]
    japanese = schema(more='[file]\nencoding = "cp932"')
    assert cells(written(tmp_path, "a,b\n表示,能ソ\n".encode("cp932")), japanese) == [("表示", "能ソ")]
    sixteen = schema(more='[file]\nencoding = "utf-16"')
    assert cells(written(tmp_path, "a,b\né,2\n".encode("utf-16")), sixteen) == [("é", "2")]
    bare = schema(more="[file]\nhas_header = false")
    assert cells(written(tmp_path, b"1,2\n3,4\n", "f.data"), bare) == [("1", "2"), ("3", "4")]


def test_headers_are_taken_byte_for_byte_and_others_left_out(tmp_path: Path) -> None:
    declared = parse_schema(
        'table = "t"\ntitle = "T"\nleave_out = ["", "name"]\n[columns]\nhdl = { type = "number", header = "LAB_HDL  " }'
    )
    assert cells(written(tmp_path, b'"",LAB_HDL  ,name\n1,0.5,X\n'), declared) == [("0.5",)]


def test_a_table_of_one_column_may_have_empty_cells(tmp_path: Path) -> None:
    one = parse_schema('table = "t"\ntitle = "T"\n[columns]\na = { type = "string" }')
    assert cells(written(tmp_path, b"a\n1\n\n3\n"), one) == [("1",), ("",), ("3",)]


BAD: dict[str, tuple[bytes, str, str]] = {
    "empty": (b"", "ingest.empty-file", "an empty file"),
    "blank": (b"\n\n", "csv.header", "column names in line 1"),
    "no rows": (b"a,b\n", "ingest.no-rows", "rows of data"),
    "no rows, no line end": (b"a,b", "ingest.no-rows", "rows of data"),
    "no rows but blank lines": (b"a,b\r\n\r\n\r\n", "ingest.no-rows", "rows of data"),
    "missing column": (b"a,c\n1,2\n", "ingest.missing-column", "without 'b'"),
    "unknown column": (b"a,b,c\n1,2,3\n", "ingest.unknown-column", "got also 'c'"),
    "header in other case": (b"A,b\n1,2\n", "ingest.missing-column", "'a'"),
    "duplicate header": (b"a,b,a\n1,2,3\n", "csv.duplicate-header", "'a' more than once"),
    "wrong delimiter": (b"a;b\n1;2\n", "csv.delimiter", "separated by ','"),
    "tab instead": (b"a\tb\n1\t2\n", "csv.delimiter", "separated by ','"),
    "byte order mark": (b"\xef\xbb\xbfa,b\n1,2\n", "csv.bom", "utf-8-sig"),
    "utf-16": ("a,b\n1,2\n".encode("utf-16"), "csv.bom", "utf-16"),
    "utf-16 without mark": ("a,b\n1,2\n".encode("utf-16-le"), "csv.nul", "line 1"),
    "latin-1": ("a,b\n1,2\nx,é\n".encode("latin-1"), "csv.encoding", "line 3"),
    "cut in a character": ("a,b\n1,é".encode()[:-1], "csv.encoding", "line 2"),
    "latin-1 header": ("a,bé\n1,2\n".encode("latin-1"), "csv.encoding", "line 1"),
    "NUL": (b"a,b\n1,2\n1,\x002\n", "csv.nul", "line 3"),
    "short row": (b"a,b\n1,2\n3\n4,5\n6\n", "csv.ragged", "in 2 rows, the first is row 3"),
    "long row": (b"a,b\n1,2,3\n", "csv.ragged", "in 1 rows, the first is row 2"),
    "open quote": (b'a,b\n1,2\n3,"4\n5,6\n', "csv.quote", "open at the end"),
    "quote in a cell": (b'a,b\n1,2\n3,5" pipe\n', "csv.quote", "line 3"),
    "text after a quote": (b'a,b\n1,"x"y\n', "csv.quote", "line 2"),
    "quotes after a blank": (b'a,b\n1, "x"\n', "csv.quote", "line 2"),
    "quotes that meet by chance": (
        b'a,b\n1,"x\n2,3\n4,y"\n',
        "ingest.invalid-cells",
        "b: 1 of 1 cells hold a line break",
    ),
    "open quote in header": (b'"a,b\n1,2\n', "csv.header", "line 1"),
}


@pytest.mark.parametrize("case", BAD, ids=str)
def test_bad_files(tmp_path: Path, case: str) -> None:
    data, code, part = BAD[case]
    with pytest.raises(KakoiError) as caught:
        validate(written(tmp_path, data), schema()).require_sound()
    assert caught.value.code == code
    assert part in caught.value.message
    assert "f.csv" in caught.value.message
    assert caught.value.hint


def test_bad_places_in_later_blocks_are_found(tmp_path: Path) -> None:
    """Blocks end anywhere: at the quote, before it and after it, inside a character."""
    line = b"1,2\n"
    lead = line * (BLOCK_BYTES // 2 // len(line) - 1)
    for shift in range(-3, 4):
        pad = b"x" * (8 + shift)
        for tail, code in ((b'3,5" pipe\n', "csv.quote"), (b"\xe9,1\n", "csv.encoding"), (b"1\n", "csv.ragged")):
            with pytest.raises(Malformed) as caught:
                validate(written(tmp_path, b"a,b\n" + lead + pad + b",1\n" + tail), schema())
            assert caught.value.code == code
        good = b"a,b\n" + lead + pad + '"東",1\n'.encode().replace(b'"', b"") + b'"q",1\n'
        assert len(cells(written(tmp_path, good), schema())) == len(lead) // len(line) + 2


def test_a_record_longer_than_a_block(tmp_path: Path) -> None:
    with pytest.raises(Malformed) as caught:
        validate(written(tmp_path, b"a,b\n1," + b"x" * (3 * BLOCK_BYTES) + b"\n2,3\n"), schema())
    assert caught.value.code == "csv.long-record"


def test_no_message_shows_a_cell(tmp_path: Path) -> None:
    secret = "Yamada-Taro-1961"
    declared = parse_schema(
        'table = "t"\ntitle = "T"\n[columns]\na = { type = "integer", codes = ["1"] }\nb = { type = "date" }'
    )
    for body in (f"{secret},{secret}", secret, f"{secret},1,2", f'{secret}"x,1', f'"{secret},1'):
        with pytest.raises(KakoiError) as caught:
            validate(written(tmp_path, f"a,b\n1,2024-01-01\n{body}\n".encode()), declared).require_sound()
        assert secret not in f"{caught.value} {caught.value.hint} {caught.value.__cause__}"
        assert caught.value.__cause__ is None


def test_hints(tmp_path: Path) -> None:
    hints = {
        b"a ,b\n1,2\n": "the file writes it 'a ': put header = 'a ' into the schema",
        b"A,b\n1,2\n": "the file writes it 'A'",
        b"a;b\n1;2\n": "declare [file] delimiter = ';'",
        b"\xef\xbb\xbfa,b\n1,2\n": 'encoding = "utf-8-sig"',
        b"a,b,c\n1,2,3\n": "list them under leave_out",
    }
    for data, part in hints.items():
        with pytest.raises(KakoiError) as caught:
            validate(written(tmp_path, data), schema())
        assert part in caught.value.hint


def test_what_is_left_out_must_exist(tmp_path: Path) -> None:
    with pytest.raises(Malformed) as caught:
        validate(written(tmp_path, b"a,b\n1,2\n"), schema(top='leave_out = ["name"]'))
    assert caught.value.code == "ingest.missing-column"


def test_files_that_are_not_there_or_of_another_kind(tmp_path: Path) -> None:
    cases: list[tuple[Path, str]] = [
        (tmp_path / "none.csv", "ingest.no-file"),
        (tmp_path, "ingest.no-file"),
        (written(tmp_path, b"a,b\n1,2\n", "f.xls"), "ingest.suffix"),
        (written(tmp_path, b"a,b\n1,2\n", "f"), "ingest.suffix"),
        (written(tmp_path, b"a,b\n1,2\n", "f.parquet"), "ingest.kind"),
        (written(tmp_path, b"a,b\n1,2\n", "f.xlsx"), "ingest.kind"),
        (written(tmp_path, b"a,b\n1,2\n", "f.xpt"), "ingest.kind"),
        (written(tmp_path, b"PAR1abc", "g.csv"), "ingest.kind"),
        (written(tmp_path, b"PK\x03\x04abc", "h.csv"), "ingest.kind"),
    ]
    for path, code in cases:
        with pytest.raises((Misuse, Malformed)) as caught:
            validate(path, schema())
        assert caught.value.code == code


def test_a_consumer_that_stops_early_leaves_no_thread_and_no_open_file(tmp_path: Path) -> None:
    path = written(tmp_path, b"a,b\n" + b"1,2\n" * 3_000_000)
    with open_source(path, schema()) as source:
        portions = source.portions(schema().columns)
        next(portions)
        portions.close()  # type: ignore[attr-defined]
    assert pa.total_allocated_bytes() < 10 * BLOCK_BYTES


@given(
    st.lists(
        st.tuples(*[st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12)] * 2),
        min_size=1,
        max_size=6,
    )
)
def test_what_a_csv_writer_writes_is_what_we_read(rows: list[tuple[str, str]]) -> None:
    import tempfile

    text = io.StringIO(newline="")
    csv.writer(text, quoting=csv.QUOTE_ALL).writerows([("a", "b"), *rows])
    with tempfile.TemporaryDirectory() as place:
        assert cells(written(Path(place), text.getvalue().encode()), schema()) == rows


@given(st.binary(max_size=200))
def test_any_bytes_give_only_our_errors(data: bytes) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as place:
        outcome = "accepted"
        try:
            validate(written(Path(place), b"a,b\n" + data), schema())
        except KakoiError as error:
            outcome = error.code
    assert outcome == "accepted" or outcome.split(".")[0] in {"csv", "ingest"}
