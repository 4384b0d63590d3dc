"""Schemas from a REDCap data dictionary and for OMOP tables: what these say is taken over, the rest is left to a person."""

from __future__ import annotations

import csv
import datetime as dt
import io
import os
import zipfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kakoi.contract.model import Column
from kakoi.core.errors import KakoiError, Malformed, Misuse, Refused
from kakoi.sdk.ingest.draft import TOP, Draft
from kakoi.sdk.ingest.omop import IDENTIFYING, omop_schema, table_names
from kakoi.sdk.ingest.redcap import HEADERS, choices, from_redcap
from kakoi.sdk.ingest.schema import Schema, parse_schema
from kakoi.sdk.ingest.seal import validate

SHARED = Path(os.environ.get("KAKOI_SHARED", Path(__file__).parents[4] / "shared"))
DATA = SHARED / "data"
shared = pytest.mark.skipif(not DATA.is_dir(), reason="the shared data sets are not here (KAKOI_SHARED)")


def reread(draft: Draft) -> Schema:
    """The draft as a person gets it."""
    schema = parse_schema(draft.to_toml())
    assert schema == draft.schema
    return schema


def types(draft: Draft) -> dict[str, str]:
    return {c.column.name: c.column.type for c in draft.schema.columns}


def column(draft: Draft, name: str) -> Column:
    return next(c.column for c in draft.schema.columns if c.column.name == name)


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
            fields[name] = pa.array(range(len(cells)), pa.int64())
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
