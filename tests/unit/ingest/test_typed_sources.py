"""Parquet, SAS transport and Excel: types of the file never decide, and never lose a digit in silence."""

from __future__ import annotations

import datetime as dt
import decimal
from pathlib import Path
from typing import Any

import openpyxl
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pyreadstat
import pytest

from kakoi.core.errors import KakoiError, Malformed, Misuse
from kakoi.sdk.ingest.opening import open_source
from kakoi.sdk.ingest.report import Report
from kakoi.sdk.ingest.schema import Schema, parse_schema
from kakoi.sdk.ingest.seal import validate

at = dt.datetime.fromisoformat


def schema(*columns: str, more: str = "") -> Schema:
    return parse_schema('table = "t"\ntitle = "T"\n[columns]\n' + "\n".join(columns) + "\n" + more)


def texts(path: Path, declared: Schema) -> dict[str, list[str | None]]:
    out: dict[str, list[str | None]] = {c.column.name: [] for c in declared.columns}
    with open_source(path, declared) as source:
        for portion in source.portions(declared.columns):
            for column in declared.columns:
                out[column.column.name] += portion.cells[column.header].to_pylist()
    return out


def failed(report: Report) -> dict[str, tuple[str, int]]:
    return {str(c.column): (c.name, c.violated) for c in report.failed}


# --- Parquet ---------------------------------------------------------------------------------------------------------


def parquet(tmp_path: Path, **columns: Any) -> Path:
    path = tmp_path / "f.parquet"
    pq.write_table(pa.table(columns), path)
    return path


def test_parquet_values_become_the_text_that_a_person_would_write(tmp_path: Path) -> None:
    path = parquet(
        tmp_path,
        i=pa.array([7, None], pa.int32()),
        f=pa.array([1.0, 0.1]),
        half=pa.array([0.5, 2.0], pa.float32()),
        money=pa.array([decimal.Decimal("1.50"), None]),
        b=pa.array([True, False]),
        d=pa.array([dt.date(2024, 2, 29), None]),
        wall=pa.array([at("2024-02-29T10:00:00.250000"), None], pa.timestamp("ns")),
        zoned=pa.array([at("2024-02-29T01:00:00"), None], pa.timestamp("ms", "Asia/Tokyo")),
        day=pa.array([at("2024-02-29T00:00:00"), at("2024-02-29T00:00:01")], pa.timestamp("us")),
        s=pa.array(["007", ""]).dictionary_encode(),
    )
    declared = schema(
        'i = { type = "integer" }',
        'f = { type = "number" }',
        'half = { type = "number" }',
        'money = { type = "number" }',
        'b = { type = "boolean" }',
        'd = { type = "date" }',
        'wall = { type = "datetime" }',
        'zoned = { type = "datetime", unit = "UTC" }',
        'day = { type = "date" }',
        's = { type = "string" }',
    )
    assert texts(path, declared) == {
        "i": ["7", None],
        "f": ["1", "0.1"],
        "half": ["0.5", "2"],
        "money": ["1.50", None],
        "b": ["true", "false"],
        "d": ["2024-02-29", None],
        "wall": ["2024-02-29T10:00:00.250000", None],
        "zoned": ["2024-02-29T01:00:00.000000Z", None],
        "day": ["2024-02-29", "2024-02-29T00:00:01.000000"],
        "s": ["007", ""],
    }
    assert failed(validate(path, declared)) == {"day": ("cdmDatatype", 1)}


def test_parquet_whole_numbers_kept_as_floats(tmp_path: Path) -> None:
    """pandas turns whole numbers with a gap into floats; a fraction in them is counted, not cut off."""
    path = parquet(tmp_path, n=pa.array([1.0, None, 2.5, 1e18]))
    assert failed(validate(path, schema('n = { type = "integer" }'))) == {"n": ("cdmDatatype", 2)}


MISFITS = {
    "number as text": (pa.array([1, 2]), "string", ""),
    "time of day": (pa.array([dt.time(1)]), "datetime", ""),
    "instant as local time": (pa.array([at("2024-01-01")], pa.timestamp("us", "UTC")), "datetime", ""),
    "local time as instant": (pa.array([at("2024-01-01")], pa.timestamp("us")), "datetime", 'unit = "UTC"'),
    "truth as number": (pa.array([True]), "integer", ""),
    "date as number": (pa.array([dt.date(2024, 1, 1)]), "number", ""),
    "list": (pa.array([[1]]), "integer", ""),
    "record": (pa.array([{"x": 1}]), "string", ""),
    "bytes": (pa.array([b"x"]), "string", ""),
}


@pytest.mark.parametrize("case", MISFITS, ids=str)
def test_parquet_types_that_do_not_fit(tmp_path: Path, case: str) -> None:
    cells, kind, unit = MISFITS[case]
    extra = f", {unit}" if unit else ""
    with pytest.raises(Malformed) as caught:
        validate(parquet(tmp_path, a=cells), schema(f'a = {{ type = "{kind}"{extra} }}'))
    assert caught.value.code == "ingest.column-type"
    assert "column a" in caught.value.message


def test_parquet_text_is_converted_by_the_schema(tmp_path: Path) -> None:
    path = parquet(tmp_path, a=pa.array(["1", "007", "NA"]))
    assert failed(validate(path, schema('a = { type = "integer", missing = ["NA"] }'))) == {"a": ("cdmDatatype", 1)}


def test_parquet_broken(tmp_path: Path) -> None:
    whole = parquet(tmp_path, a=pa.array(range(100_000))).read_bytes()
    declared = schema('a = { type = "integer" }')
    for data in (whole[:-1], whole[: len(whole) // 2], b"PAR1" + bytes(100), whole[:5000] + bytes(1000) + whole[6000:]):
        (tmp_path / "x.parquet").write_bytes(data)
        with pytest.raises(Malformed) as caught:
            validate(tmp_path / "x.parquet", declared)
        assert caught.value.code == "parquet.broken"
    with pytest.raises(Malformed) as caught:
        validate(parquet(tmp_path, a=pa.array([], pa.int64())), declared)
    assert caught.value.code == "ingest.no-rows"
    pq.write_table(pa.Table.from_arrays([pa.array([1]), pa.array([1])], names=["a", "a"]), tmp_path / "x.parquet")
    with pytest.raises(Malformed) as caught:
        validate(tmp_path / "x.parquet", declared)
    assert caught.value.code == "ingest.duplicate-header"


# --- SAS transport ---------------------------------------------------------------------------------------------------


def xpt(tmp_path: Path, frame: pd.DataFrame, **more: Any) -> Path:
    path = tmp_path / "f.xpt"
    pyreadstat.write_xport(frame, str(path), table_name="DM", **more)
    return path


DM = (
    'id = { header = "USUBJID", type = "string" }',
    'age = { header = "AGE", type = "integer" }',
    'weight = { header = "WEIGHT", type = "number" }',
    'birth = { header = "BIRTH", type = "date" }',
    'seen = { header = "SEEN", type = "datetime" }',
)


def dm(**more: list[Any]) -> pd.DataFrame:
    columns: dict[str, list[Any]] = {
        "USUBJID": ["001", "", "A-3"],
        "AGE": [30.0, None, 45.0],
        "WEIGHT": [60.5, None, 1e-3],
        "BIRTH": [dt.date(1950, 3, 4), None, dt.date(2020, 2, 29)],
        "SEEN": [at("2020-01-02T03:04:05"), None, at("2020-01-02T00:00:00")],
    }
    return pd.DataFrame({**columns, **more})


def test_xpt_values_labels_and_dates(tmp_path: Path) -> None:
    path = xpt(tmp_path, dm(), column_labels=["Subject", "Age", "Weight", "Birth date", "Seen at"])
    assert texts(path, schema(*DM)) == {
        "id": ["001", "", "A-3"],
        "age": ["30", None, "45"],
        "weight": ["60.5", None, "0.001"],
        "birth": ["1950-03-04", None, "2020-02-29"],
        "seen": ["2020-01-02T03:04:05.000000", None, "2020-01-02T00:00:00.000000"],
    }
    assert not validate(path, schema(*DM)).failed
    with open_source(path, schema(*DM)) as source:
        assert getattr(source, "labels", {})["BIRTH"] == "Birth date"


@pytest.mark.parametrize("version", [5, 8])
def test_xpt_in_several_portions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: int) -> None:
    monkeypatch.setattr("kakoi.sdk.ingest.xpt_source.PORTION_BYTES", 700)
    rows = 350
    frame = pd.DataFrame({"A": [float(i) for i in range(rows)], "B": [f"x{i}" for i in range(rows)]})
    declared = schema('a = { header = "A", type = "integer" }', 'b = { header = "B", type = "string" }')
    path = xpt(tmp_path, frame, file_format_version=version)
    assert texts(path, declared) == {"a": [str(i) for i in range(rows)], "b": [f"x{i}" for i in range(rows)]}
    seen: list[tuple[int, int]] = []
    assert validate(path, declared, progress=lambda *at: seen.append(at)).rows == rows
    assert len(seen) > 4
    assert seen[-1] == (path.stat().st_size, path.stat().st_size)


@pytest.mark.parametrize("version", [5, 8])
@pytest.mark.parametrize("portion", [1, 3, 26, 29, 40, 1000])
def test_xpt_blank_records_are_rows_unless_they_end_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, portion: int, version: int
) -> None:
    """Records of one byte, so that the blanks that fill the last card look like 51 more of them."""
    monkeypatch.setattr("kakoi.sdk.ingest.xpt_source.PORTION_BYTES", portion)
    cells = ["a", *[""] * 25, "b", "", "c", *([""] if version == 8 else [])]
    path = xpt(tmp_path, pd.DataFrame({"A": cells}), file_format_version=version)
    declared = schema('a = { header = "A", type = "string" }')
    whole, _ = pyreadstat.read_xport(str(path))
    assert texts(path, declared)["a"] == cells == list(whole["A"])


def test_xpt_with_several_tables(tmp_path: Path) -> None:
    one = xpt(tmp_path, pd.DataFrame({"A": [1.0]}), file_format_version=5).read_bytes()
    (tmp_path / "two.xpt").write_bytes(one + one[240:])
    with pytest.raises(Malformed) as caught:
        validate(tmp_path / "two.xpt", schema('a = { header = "A", type = "integer" }'))
    assert caught.value.code == "xpt.members"


def test_xpt_of_version_8_with_fewer_records_than_it_says(tmp_path: Path) -> None:
    whole = xpt(tmp_path, pd.DataFrame({"A": [float(i) for i in range(300)]}), file_format_version=8).read_bytes()
    (tmp_path / "cut.xpt").write_bytes(whole[: len(whole) - 160])
    with pytest.raises(Malformed) as caught:
        validate(tmp_path / "cut.xpt", schema('a = { header = "A", type = "integer" }'))
    assert caught.value.code == "xpt.broken"


def test_xpt_cut_in_a_record(tmp_path: Path) -> None:
    frame = pd.DataFrame({"A": [float(i) for i in range(300)], "B": ["x" * 90] * 300})
    whole = xpt(tmp_path, frame, file_format_version=5).read_bytes()
    (tmp_path / "cut.xpt").write_bytes(whole[: len(whole) - 163])
    with pytest.raises(Malformed) as caught:
        validate(
            tmp_path / "cut.xpt",
            schema('a = { header = "A", type = "integer" }', 'b = { header = "B", type = "string" }'),
        )
    assert caught.value.code == "xpt.broken"


def test_xpt_that_does_not_fit(tmp_path: Path) -> None:
    path = xpt(tmp_path, dm(AGE=[30.5, 1, 2]))
    assert failed(validate(path, schema(*DM))) == {"age": ("cdmDatatype", 1)}
    with pytest.raises(Malformed) as caught:
        validate(
            path,
            schema(
                *DM[1:],
                'id = { header = "USUBJID", type = "integer" }',
                DM[0].replace("id =", "x =").replace("USUBJID", "X"),
            ),
        )
    assert caught.value.code == "ingest.missing-column"
    with pytest.raises(Malformed) as caught:
        validate(path, schema(DM[0], DM[1], DM[2], DM[4], 'birth = { header = "BIRTH", type = "string" }'))
    assert caught.value.code == "ingest.column-type"


def test_xpt_broken(tmp_path: Path) -> None:
    whole = xpt(tmp_path, dm()).read_bytes()
    for data in (whole[:100], whole[:500], whole[:240] + b"\xff" * 400):
        (tmp_path / "f.xpt").write_bytes(data)
        with pytest.raises(KakoiError) as caught:
            validate(tmp_path / "f.xpt", schema(*DM))
        assert caught.value.code in {"xpt.broken", "ingest.missing-column", "ingest.no-rows"}


# --- Excel -----------------------------------------------------------------------------------------------------------


def excel(tmp_path: Path, *rows: list[Any], sheets: tuple[str, ...] = ("Data",)) -> Path:
    book = openpyxl.Workbook()
    sheet = book.active
    assert sheet is not None
    sheet.title = sheets[0]
    for row in rows:
        sheet.append(row)
    for name in sheets[1:]:
        book.create_sheet(name)
    path = tmp_path / "f.xlsx"
    book.save(path)
    return path


XL = (
    'id = { type = "string" }',
    'n = { type = "integer", missing = [""] }',
    'x = { type = "number", missing = ["", "#N/A"] }',
    'd = { type = "date", missing = [""] }',
    't = { type = "datetime", missing = [""] }',
    'b = { type = "boolean", missing = [""] }',
)
HEAD = ["id", "n", "x", "d", "t", "b"]


def test_excel_values(tmp_path: Path) -> None:
    path = excel(
        tmp_path,
        HEAD,
        ["007", 1, 1.5, dt.date(2024, 2, 29), at("2024-02-29T10:11:12"), True],
        ["", None, "#N/A", None, None, None],
        ["250.00", 2.0, "0.25", "2024-02-29", at("2024-02-29T00:00:00"), False],
        [None] * 6,
        [None] * 6,
    )
    assert texts(path, schema(*XL)) == {
        "id": ["007", "", "250.00"],
        "n": ["1", "", "2"],
        "x": ["1.5", "#N/A", "0.25"],
        "d": ["2024-02-29", "", "2024-02-29"],
        "t": ["2024-02-29T10:11:12", "", "2024-02-29T00:00:00"],
        "b": ["true", "", "false"],
    }
    report = validate(path, schema(*XL))
    assert not report.failed
    assert report.rows == 3


def test_excel_that_changed_what_people_typed(tmp_path: Path) -> None:
    """A code that became a number, a gene that became a date, a date with a time, a broken formula."""
    path = excel(
        tmp_path,
        HEAD,
        [250.0, 1.5, "#REF!", at("2024-02-29T10:00:00"), dt.date(2024, 1, 1), 1],
        [at("2024-03-02T00:00:00"), 1, 1, 45000, "10:00", 2],
        [True, 1, True, "29.2.2024", None, "x"],
    )
    assert failed(validate(path, schema(*XL))) == {
        "id": ("cdmDatatype", 3),
        "n": ("cdmDatatype", 1),
        "x": ("cdmDatatype", 2),
        "d": ("cdmDatatype", 3),
        "t": ("cdmDatatype", 1),
        "b": ("cdmDatatype", 2),
    }


def test_excel_blank_rows_count_only_between_rows(tmp_path: Path) -> None:
    path = excel(tmp_path, ["id"], ["a"], [None], [None], ["b"], [None])
    assert texts(path, schema('id = { type = "string" }'))["id"] == ["a", "", "", "b"]


def test_excel_in_several_portions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kakoi.sdk.ingest.excel_source.PORTION", 3)
    path = excel(tmp_path, ["id"], *[[f"p{i}"] for i in range(7)])
    assert texts(path, schema('id = { type = "string" }'))["id"] == [f"p{i}" for i in range(7)]


def test_excel_sheets_are_named_not_guessed(tmp_path: Path) -> None:
    path = excel(tmp_path, ["id"], ["a"], sheets=("Notes", "Data"))
    column = 'id = { type = "string" }'
    for more in ("", '[file]\nsheet = "data"'):
        with pytest.raises(Misuse) as caught:
            validate(path, schema(column, more=more))
        assert caught.value.code == "excel.sheet"
        assert "'Notes', 'Data'" in caught.value.hint
    assert validate(path, schema(column, more='[file]\nsheet = "Notes"')).rows == 1


BAD_SHEETS: dict[str, list[list[Any]]] = {
    "excel.formula": [["id"], ["=1+1"]],
    "excel.ragged": [["id"], ["a", "b"]],
    "ingest.duplicate-header": [["id", "id"], ["a", "b"]],
    "ingest.header": [[None], ["a"]],
    "ingest.no-rows": [["id"]],
}


@pytest.mark.parametrize("code", BAD_SHEETS)
def test_excel_bad_sheets(tmp_path: Path, code: str) -> None:
    with pytest.raises(Malformed) as caught:
        validate(excel(tmp_path, *BAD_SHEETS[code]), schema('id = { type = "string" }'))
    assert caught.value.code == code


def test_excel_broken(tmp_path: Path) -> None:
    with pytest.raises(Malformed) as caught:
        validate(excel(tmp_path), schema('id = { type = "string" }'))
    assert caught.value.code == "ingest.header"
    broken = tmp_path / "b.xlsx"
    broken.write_bytes(b"PK\x03\x04" + bytes(200))
    with pytest.raises(Malformed) as caught:
        validate(broken, schema('id = { type = "string" }'))
    assert caught.value.code == "excel.broken"
