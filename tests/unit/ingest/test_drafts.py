"""Drafts of schemas: from a file, a REDCap dictionary, OMOP. They parse, they fit, and they say what a person must decide."""

from __future__ import annotations

import csv
import datetime as dt
import io
import os
import zipfile
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
from kakoi.core.errors import KakoiError, Malformed, Misuse, Refused
from kakoi.sdk.ingest.describe import describe
from kakoi.sdk.ingest.draft import TOP, Draft, column_names, one_line
from kakoi.sdk.ingest.omop import IDENTIFYING, omop_schema, table_names
from kakoi.sdk.ingest.redcap import HEADERS, choices, from_redcap
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
    assert types(draft) == {"n": "integer", "d": "datetime", "mixed": "string"}
    assert "numbers or dates in the workbook" in " ".join(draft.notes["mixed"])


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


# --- REDCap ----------------------------------------------------------------------------------------------------------


def dictionary(tmp_path: Path, *fields: dict[str, str], titles: list[str] | None = None) -> Path:
    names = list(HEADERS.values())
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(titles or list(HEADERS))
    for entry in fields:
        writer.writerow([{"form_name": "base", "field_type": "text", **entry}.get(name, "") for name in names])
    path = tmp_path / "dictionary.csv"
    path.write_text(text.getvalue(), "utf-8")
    return path


FIELDS: list[dict[str, str]] = [
    {"field_name": "record_id", "field_label": "Record ID"},
    {"field_name": "surname", "identifier": "y"},
    {
        "field_name": "born",
        "text_validation_type_or_show_slider_number": "date_dmy",
        "field_label": "Date of <b>birth</b>",
    },
    {"field_name": "seen", "text_validation_type_or_show_slider_number": "datetime_seconds_ymd"},
    {
        "field_name": "age",
        "text_validation_type_or_show_slider_number": "integer",
        "text_validation_min": "18",
        "text_validation_max": "110",
    },
    {"field_name": "crp", "text_validation_type_or_show_slider_number": "number_1dp", "text_validation_min": "today"},
    {"field_name": "mail", "text_validation_type_or_show_slider_number": "email"},
    {"field_name": "at_time", "text_validation_type_or_show_slider_number": "time"},
    {"field_name": "comma", "text_validation_type_or_show_slider_number": "number_comma_decimal"},
    {"field_name": "remark", "field_type": "notes"},
    {"field_name": "sex", "field_type": "radio", "select_choices_or_calculations": "1, Male | 2, Female, or other"},
    {"field_name": "region", "field_type": "dropdown", "select_choices_or_calculations": "EU, Europe | AS, Asia"},
    {
        "field_name": "drugs",
        "field_type": "checkbox",
        "select_choices_or_calculations": "1, A|-9, None of them|X, Other",
    },
    {"field_name": "secret", "field_type": "checkbox", "select_choices_or_calculations": "1, a", "identifier": "y"},
    {"field_name": "smoker", "field_type": "yesno", "form_name": "habits"},
    {"field_name": "agreed", "field_type": "truefalse", "form_name": "habits"},
    {"field_name": "bmi", "field_type": "calc", "form_name": "habits"},
    {"field_name": "pain", "field_type": "slider", "form_name": "habits"},
    {"field_name": "scan", "field_type": "file", "form_name": "habits"},
    {"field_name": "intro", "field_type": "descriptive", "form_name": "habits"},
    {"field_name": "list", "field_type": "sql", "form_name": "habits"},
]


def test_a_dictionary_becomes_a_schema(tmp_path: Path) -> None:
    draft = from_redcap(dictionary(tmp_path, *FIELDS), table="study")
    schema = reread(draft)
    assert (schema.table, schema.person_column) == ("study", "record_id")
    assert types(draft) == {
        "record_id": "string",
        "born": "date",
        "seen": "datetime",
        "age": "integer",
        "crp": "number",
        "mail": "string",
        "at_time": "string",
        "comma": "string",
        "remark": "string",
        "sex": "integer",
        "region": "string",
        "drugs___1": "integer",
        "drugs____9": "integer",
        "drugs___x": "integer",
        "smoker": "integer",
        "agreed": "integer",
        "bmi": "number",
        "pain": "integer",
        "list": "string",
        "base_complete": "integer",
        "habits_complete": "integer",
    }
    assert schema.leave_out == ("surname", "secret___1", "scan")
    assert [(c.value, c.label) for c in column(draft, "sex").codes] == [("1", "Male"), ("2", "Female, or other")]
    assert [c.value for c in column(draft, "drugs____9").codes] == ["0", "1"]
    assert (column(draft, "age").minimum, column(draft, "age").maximum) == ("18", "110")
    assert (column(draft, "pain").minimum, column(draft, "pain").maximum) == ("0", "100")
    assert column(draft, "crp").minimum is None
    assert column(draft, "born").description == "Date of birth"
    assert column(draft, "mail").identifier == "direct"
    assert column(draft, "remark").identifier == "direct"
    assert [c.label for c in column(draft, "habits_complete").codes] == ["Incomplete", "Unverified", "Complete"]


EXPORT = (
    "record_id,redcap_event_name,redcap_repeat_instance,redcap_data_access_group,redcap_survey_identifier,born,age,sex,"
    "drugs___1,drugs____9,drugs___x,base_timestamp,base_complete,surname\n"
    "1,visit_1,,tokyo,,1950-03-04,74,1,0,1,0,[not completed],2,Yamada\n"
    "1,visit_2,1,tokyo,,,,,0,0,1,,0,\n"
)


def test_an_export_fits_the_schema_of_its_dictionary(tmp_path: Path) -> None:
    export = tmp_path / "export.csv"
    export.write_text(EXPORT)
    draft = from_redcap(dictionary(tmp_path, *FIELDS), header=EXPORT.split("\n")[0].split(","))
    schema = reread(draft)
    assert schema.leave_out == ("surname", "redcap_survey_identifier", "base_timestamp")
    assert "redcap_data_access_group" in types(draft)
    assert "owner's identity" in " ".join(draft.notes["redcap_data_access_group"])
    assert "in the dictionary, but not in the export: seen" in " ".join(draft.notes[TOP])
    report = validate(export, schema)
    assert not report.failed
    assert report.rows == 2


def test_program_names_of_the_dictionary_columns_work_too(tmp_path: Path) -> None:
    path = dictionary(tmp_path, *FIELDS, titles=list(HEADERS.values()))
    assert from_redcap(path).schema == from_redcap(dictionary(tmp_path, *FIELDS)).schema


def test_a_record_id_that_is_an_identifier_must_be_decided(tmp_path: Path) -> None:
    draft = from_redcap(dictionary(tmp_path, {"field_name": "mrn", "identifier": "y"}))
    assert column(draft, "mrn").identifier == "direct"
    with pytest.raises(Refused):
        reread(draft).require_no_direct_identifier()


def test_long_names_stay_apart(tmp_path: Path) -> None:
    long = "a" * 80
    draft = from_redcap(
        dictionary(tmp_path, {"field_name": "id"}, {"field_name": long + "1"}, {"field_name": long + "2"})
    )
    assert len(set(types(draft))) == 4
    assert [c.header for c in reread(draft).columns][1:3] == [long + "1", long + "2"]


BAD_DICTIONARIES: dict[str, tuple[str, str]] = {
    "empty": ("", "redcap.dictionary"),
    "another table": ("a,b\n1,2\n", "redcap.dictionary"),
    "no fields": (",".join(f'"{h}"' for h in HEADERS) + "\n", "redcap.dictionary"),
    "17 columns": (",".join(f'"{h}"' for h in list(HEADERS)[:-1]) + "\nx" + "," * 16 + "\n", "redcap.dictionary"),
    "short row": (",".join(f'"{h}"' for h in HEADERS) + "\nx,y,z\n", "redcap.dictionary"),
    "no type": (",".join(f'"{h}"' for h in HEADERS) + "\nx,form" + "," * 16 + "\n", "redcap.dictionary"),
}


@pytest.mark.parametrize("case", BAD_DICTIONARIES, ids=str)
def test_bad_dictionaries(tmp_path: Path, case: str) -> None:
    text, code = BAD_DICTIONARIES[case]
    path = tmp_path / "d.csv"
    path.write_text(text)
    with pytest.raises(Malformed) as caught:
        from_redcap(path)
    assert caught.value.code == code
    with pytest.raises(Misuse):
        from_redcap(tmp_path / "none.csv")


@pytest.mark.parametrize(
    "entry",
    [
        {"field_name": "x", "field_type": "hologram"},
        {"field_name": "x", "field_type": "radio", "select_choices_or_calculations": ""},
        {"field_name": "x", "field_type": "radio", "select_choices_or_calculations": "1 Male"},
        {"field_name": "x", "field_type": "radio", "select_choices_or_calculations": "1, a | 1, b"},
        {
            "field_name": "x",
            "text_validation_type_or_show_slider_number": "integer",
            "text_validation_min": "5",
            "text_validation_max": "1",
        },
    ],
)
def test_bad_fields_are_named(tmp_path: Path, entry: dict[str, str]) -> None:
    with pytest.raises(Malformed) as caught:
        from_redcap(dictionary(tmp_path, {"field_name": "record_id"}, entry))
    assert caught.value.code == "redcap.field"
    assert "'x'" in caught.value.message


@given(st.text(max_size=60))
def test_any_choices_give_only_our_errors(text: str) -> None:
    outcome = ""
    try:
        assert choices(text)
    except KakoiError as error:
        outcome = error.code
    assert outcome in {"", "redcap.choices"}


# --- OMOP ------------------------------------------------------------------------------------------------------------


def test_every_omop_table_is_a_schema() -> None:
    assert len(table_names()) == 39
    for name in table_names():
        schema = reread(omop_schema(name))
        schema.require_no_direct_identifier()
        assert (schema.person_column == "person_id") == (
            name != "person" and "person_id" in {c.column.name for c in schema.columns}
        )
    with pytest.raises(Misuse) as caught:
        omop_schema("persons")
    assert caught.value.code == "omop.table"


def test_omop_fields_have_the_types_of_the_specification() -> None:
    draft = omop_schema("measurement")
    kinds = types(draft)
    assert (kinds["value_as_number"], kinds["measurement_date"], kinds["measurement_datetime"]) == (
        "number",
        "date",
        "datetime",
    )
    assert (kinds["unit_concept_id"], kinds["unit_source_value"], kinds["unit_source_concept_id"]) == (
        "integer",
        "string",
        "integer",
    )
    required = {c.header for c in draft.schema.columns if c.required}
    assert required == {
        "measurement_id",
        "person_id",
        "measurement_concept_id",
        "measurement_date",
        "measurement_type_concept_id",
    }


def test_fields_that_identify_people_are_fields_of_the_model_and_left_out() -> None:
    for name, fields in IDENTIFYING.items():
        schema = omop_schema(name).schema
        assert schema.leave_out == fields
        assert not set(fields) & {c.header for c in schema.columns}


def test_a_required_omop_field_is_checked(tmp_path: Path) -> None:
    fields = {c.header: pa.array([None, 1], pa.int64()) for c in omop_schema("condition_era").schema.columns}
    for name, cells in fields.items():
        if name.endswith("_date"):
            fields[name] = pa.array([dt.date(2024, 1, 1)] * 2)
        elif name != "person_id":
            fields[name] = pa.array([1] * len(cells))
    pq.write_table(pa.table(fields), tmp_path / "condition_era.parquet")
    failed = validate(tmp_path / "condition_era.parquet", omop_schema("condition_era").schema).failed
    assert [(c.column, c.name, c.violated, c.first_row) for c in failed] == [("person_id", "isRequired", 1, 1)]


@shared
def test_a_real_cdm_fits(tmp_path: Path) -> None:
    """Synthea 27 (Eunomia): every table that has rows."""
    archive = DATA / "omop-synthea27nj" / "Synthea27NjParquet_5.4.zip"
    rows = {}
    with zipfile.ZipFile(archive) as files:
        for name in table_names():
            path = tmp_path / f"{name}.parquet"
            path.write_bytes(files.read(f"Synthea27NjParquet/{name}.parquet"))
            if pq.ParquetFile(path).metadata.num_rows:
                report = validate(path, omop_schema(name).schema)
                assert not report.failed, name
                rows[name] = report.rows
    assert len(rows) >= 15
    assert (rows["person"], rows["measurement"], rows["condition_occurrence"]) == (28, 10_040, 470)
