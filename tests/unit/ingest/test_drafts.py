"""Drafts of schemas: from a file, a REDCap dictionary, OMOP. They parse, they fit, and they say what a person must decide."""

from __future__ import annotations

import csv
import datetime as dt
import os
from dataclasses import replace
from pathlib import Path

import openpyxl
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pyreadstat
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kakoi.contract.model import Code, Column
from kakoi.core.errors import Malformed, Misuse, Refused
from kakoi.sdk.ingest.describe import describe
from kakoi.sdk.ingest.draft import TOP, Draft, column_names, one_line
from kakoi.sdk.ingest.schema import FileOptions, Schema, SourceColumn, parse_schema
from kakoi.sdk.ingest.seal import validate

SHARED = Path(os.environ.get("KAKOI_SHARED", Path(__file__).parents[4] / "shared"))
DATA = SHARED / "data"
shared = pytest.mark.skipif(not DATA.is_dir(), reason="the shared data sets are not here (KAKOI_SHARED)")


def reread(draft: Draft) -> Schema:
    """The draft as a person gets it."""
    schema = parse_schema(draft.to_toml())
    assert schema == draft.schema
    return schema


def decided(schema: Schema) -> Schema:
    """After a person kept every column that was in doubt."""
    columns = tuple(
        replace(c, column=replace(c.column, identifier="no")) if c.column.identifier == "direct" else c
        for c in schema.columns
    )
    return replace(schema, columns=columns)


def types(draft: Draft) -> dict[str, str]:
    return {c.column.name: c.column.type for c in draft.schema.columns}


def column(draft: Draft, name: str) -> Column:
    return next(c.column for c in draft.schema.columns if c.column.name == name)


def csv_file(tmp_path: Path, **columns: list[str]) -> Path:
    path = tmp_path / "file.csv"
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([list(columns), *zip(*columns.values(), strict=True)])
    return path


# --- from a file -----------------------------------------------------------------------------------------------------


def test_types_are_read_off_the_cells(tmp_path: Path) -> None:
    n = 12
    draft = describe(
        csv_file(
            tmp_path,
            i=[str(i % 4) for i in range(n)],
            x=["1", "2.5", *["1e-3"] * (n - 2)],
            d=["2024-02-29"] * n,
            t=["2024-02-29 10:00"] * n,
            z=["2024-02-29T10:00Z"] * n,
            b=["TRUE", "false"] * 6,
            icd=["E11.9", "I10"] * 6,
            code=["007", "010"] * 6,
            german=["1,5"] * n,
            day=["29.2.2024"] * n,
            impossible=["2024-02-30"] * n,
            nothing=[""] * n,
        )
    )
    assert types(draft) == {
        "i": "integer",
        "x": "number",
        "d": "date",
        "t": "datetime",
        "z": "datetime",
        "b": "boolean",
        "icd": "string",
        "code": "string",
        "german": "string",
        "day": "string",
        "impossible": "date",
        "nothing": "string",
    }
    assert column(draft, "z").unit == "UTC"
    assert "kept as text" in draft.notes["code"][0]
    reread(draft)


def test_nothing_is_guessed_silently(tmp_path: Path) -> None:
    n = 20
    path = csv_file(
        tmp_path,
        lab=["NA"] * 3 + ["1.5"] * 17,
        result=["None"] * 10 + ["high"] * 10,
        old=["> 89"] * 2 + ["70"] * 18,
        rare=["A"] * 19 + ["B"],
        common=["A"] * 10 + ["B"] * 10,
        empty=[""] + ["3"] * 19,
        pid=[f"x{i}" for i in range(n)],
        patient_no=[str(i) for i in range(n)],
        first_name=["Taro"] * n,
        contact=["a@example.org"] * n,
    )
    draft = describe(path)
    notes = {name: " | ".join(lines) for name, lines in draft.notes.items()}
    assert column(draft, "lab").missing == ("NA",)
    assert "3 cells are 'NA', taken as missing" in notes["lab"]
    assert column(draft, "result").missing == ()
    assert "10 cells are 'None': a value, or missing?" in notes["result"]
    assert (column(draft, "old").type, "18 of 20 cells are of type integer" in notes["old"]) == ("string", True)
    assert column(draft, "rare").codes == ()
    assert "some rare" in notes["rare"]
    assert "B" not in notes["rare"]
    assert [c.value for c in column(draft, "common").codes] == ["A", "B"]
    assert column(draft, "empty").missing == ("",)
    assert "1 empty cells, taken as missing" in notes["empty"]
    assert column(draft, "pid").identifier == "direct"
    assert column(draft, "first_name").identifier == "direct"
    assert column(draft, "contact").identifier == "direct"
    assert "a number of a person?" in notes["patient_no"]
    assert all("check" in notes[c] for c in types(draft))
    assert all(c.column.minimum is None and c.column.maximum is None for c in draft.schema.columns)
    schema = reread(draft)
    with pytest.raises(Refused):
        validate(path, schema)
    assert not validate(path, decided(schema)).failed


def test_how_a_text_file_is_written_is_looked_up_and_said(tmp_path: Path) -> None:
    path = tmp_path / "f.csv"
    path.write_bytes(b"\xef\xbb\xbfa;b\n1;2\n")
    draft = describe(path)
    assert draft.schema.file == FileOptions(delimiter=";", encoding="utf-8-sig")
    assert "byte order mark" in " ".join(draft.notes[TOP])
    assert "separated by ';'" in " ".join(draft.notes[TOP])
    assert not validate(path, reread(draft)).failed
    path.write_bytes("a\té\n1\t2\n".encode("cp1252"))
    with pytest.raises(Malformed) as caught:
        describe(path)
    assert caught.value.code == "csv.encoding"
    draft = describe(path, options=FileOptions(delimiter="\t", encoding="cp1252"))
    assert [c.header for c in reread(draft).columns] == ["a", "é"]


def test_typed_files_keep_their_types(tmp_path: Path) -> None:
    at = dt.datetime.fromisoformat
    table = pa.table(
        {
            "n": pa.array([1, None]),
            "x": pa.array([0.5, 1.0]),
            "d": pa.array([dt.date(2024, 1, 1)] * 2),
            "w": pa.array([at("2024-01-01")] * 2, pa.timestamp("us")),
            "u": pa.array([at("2024-01-01")] * 2, pa.timestamp("us", "Asia/Tokyo")),
            "s": pa.array(["a", "a"]),
        }
    )
    pq.write_table(table, tmp_path / "f.parquet")
    draft = describe(tmp_path / "f.parquet")
    assert list(types(draft).values()) == ["integer", "number", "date", "datetime", "datetime", "string"]
    assert not validate(tmp_path / "f.parquet", reread(draft)).failed

    frame = pd.DataFrame({"AGE": [30.0, None], "BIRTH": [dt.date(1950, 3, 4), None], "SEX": ["F", "F"]})
    pyreadstat.write_xport(
        frame, str(tmp_path / "f.xpt"), column_labels=["Age <b>in</b> years", "Birth\u200b date", "Sex"]
    )
    draft = describe(tmp_path / "f.xpt")
    assert types(draft) == {"AGE": "number", "BIRTH": "date", "SEX": "string"}
    assert [c.column.description for c in draft.schema.columns] == ["Age in years", "Birth date", "Sex"]
    assert not validate(tmp_path / "f.xpt", decided(reread(draft))).failed

    book = openpyxl.Workbook()
    sheet = book.active
    assert sheet is not None
    for row in (["n", "d", "mixed"], [1, dt.date(2024, 1, 1), "x"], [2, dt.date(2024, 1, 2), 5]):
        sheet.append(row)
    book.save(tmp_path / "f.xlsx")
    draft = describe(tmp_path / "f.xlsx")
    assert types(draft) == {"n": "integer", "d": "date", "mixed": "string"}
    assert "numbers or dates in the workbook" in " ".join(draft.notes["mixed"])


def test_a_file_without_header_gets_numbered_columns(tmp_path: Path) -> None:
    path = tmp_path / "f.data"
    path.write_text("63.0,1,?\n67.0,1,3\n")
    draft = describe(path, options=FileOptions(has_header=False))
    assert types(draft) == {"c1": "number", "c2": "integer", "c3": "integer"}
    assert not validate(path, decided(reread(draft))).failed


def test_empty_tables_have_no_draft(tmp_path: Path) -> None:
    (tmp_path / "f.csv").write_text("a,b\n")
    with pytest.raises(Malformed) as caught:
        describe(tmp_path / "f.csv")
    assert caught.value.code == "ingest.no-rows"
    with pytest.raises(Misuse):
        describe(tmp_path / "none.csv")


FILES = [
    "datashield/CNSIM1.csv",
    "datashield/expand_no_missing_study1.csv",
    "diabetes130/IDs_mapping.csv",
    "diabetes130/diabetic_data.csv",
    "eicu-demo/apachepatientresult.csv",
    "eicu-demo/hospital.csv",
    "eicu-demo/patient.csv",
    "medicaldata/covid_testing.csv",
    "medicaldata/indo_rct.csv",
    "survival/cgd.csv",
    "survival/lung.csv",
    "survival/veteran.csv",
]


@shared
@pytest.mark.parametrize("name", FILES)
def test_drafts_of_real_files_fit_them(name: str) -> None:
    path = DATA / name
    draft = describe(path)
    assert not validate(path, decided(reread(draft))).failed
    if "covid" in name:
        assert column(draft, "fake_first_name").identifier == "direct"
        assert column(draft, "fake_last_name").identifier == "direct"
    if "diabetic" in name:
        assert "84748 cells are 'None': a value, or missing?" in " ".join(draft.notes["A1Cresult"])
    if "indo_rct" in name:
        assert "site" not in types(draft)
        assert any(c.header == "site" for c in draft.schema.columns)


# --- names and TOML --------------------------------------------------------------------------------------------------


def test_names_for_headers() -> None:
    assert column_names(["ph.ecog", "LAB_HDL  ", "1st", "", "年齢", "site", "A b", "a_B", "ok_name", "x" * 100]) == {
        "ph.ecog": "ph_ecog",
        "LAB_HDL  ": "LAB_HDL",
        "1st": "c_1st",
        "": "column",
        "年齢": "column_2",
        "site": "site_2",
        "A b": "A_b",
        "a_B": "a_B_2",
        "ok_name": "ok_name",
        "x" * 100: "x" * 56,
    }


headers = st.text(max_size=10)


@given(st.lists(headers, unique=True, max_size=8))
def test_every_header_gets_a_name_of_its_own(found: list[str]) -> None:
    names = column_names(found)
    for name in names.values():
        Column(
            name=name,
            type="string",
            unit="",
            codes=(),
            missing=(),
            minimum=None,
            maximum=None,
            identifier="no",
            description="",
        )
    assert len({n.lower() for n in names.values()}) == len(found)


line = st.text(st.characters(codec="utf-8"), max_size=20).map(lambda text: one_line(text, 60))


@given(
    found=st.lists(headers.filter(lambda h: h.isprintable()), unique=True, min_size=1, max_size=5),
    title=line.filter(bool),
    texts=st.lists(line.filter(bool), unique=True, min_size=1, max_size=4),
    label=line,
    low=st.decimals(-1000, 1000, places=2),
    left=st.lists(headers, unique=True, max_size=3),
    delimiter=st.sampled_from(",;|\t"),
    breaks=st.booleans(),
)
def test_what_a_draft_writes_is_what_a_schema_reads(
    found: list[str],
    title: str,
    texts: list[str],
    label: str,
    low: object,
    left: list[str],
    delimiter: str,
    breaks: bool,
) -> None:
    names = column_names(found)
    columns = []
    for i, header in enumerate(found):
        kind = ("string", "integer", "number")[i % 3]
        columns.append(
            SourceColumn(
                header=header,
                required=i == 1,
                column=Column(
                    name=names[header],
                    type=kind,  # type: ignore[arg-type]
                    unit="mg/dL" if kind == "number" else "",
                    codes=tuple(Code(value=t, label=label) for t in texts[:2]),
                    missing=tuple(texts[2:]),
                    minimum=f"{low}".replace("-0.00", "0.00") if kind != "string" else None,
                    maximum=None,
                    identifier="join-key" if i == 2 else "no",
                    description=label,
                ),
            )
        )
    schema = Schema(
        table="t",
        title=title,
        person_column=names[found[0]],
        columns=tuple(columns),
        leave_out=tuple(h for h in left if h not in found),
        file=FileOptions(delimiter=delimiter, line_breaks=breaks),
    )
    reread(Draft(schema=schema, notes={TOP: ("a note",), names[found[0]]: ("another",)}))
