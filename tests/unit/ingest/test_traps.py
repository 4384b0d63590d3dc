"""The traps that real files set (FINDINGS §5), each on its file. Skipped where the shared data is not there."""

from __future__ import annotations

import csv
import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from kakoi.core.errors import KakoiError, Malformed, Refused
from kakoi.core.ids import PartyId
from kakoi.dataset.format import associated_data
from kakoi.dataset.open import SealedReader
from kakoi.sdk.ingest.report import InvalidCells
from kakoi.sdk.ingest.schema import Schema, parse_schema
from kakoi.sdk.ingest.seal import seal_dataset, validate

SHARED = Path(os.environ.get("KAKOI_SHARED", Path(__file__).parents[4] / "shared"))
DATA = SHARED / "data"
pytestmark = pytest.mark.skipif(not DATA.is_dir(), reason="the shared data sets are not here (KAKOI_SHARED)")
HEART = "age sex cp trestbps chol fbs restecg thalach exang oldpeak slope ca thal num"
KEY, DATASET = bytes(32), "0" * 32


def schema(path: Path, columns: dict[str, str], *, more: str = "", top: str = "", has_header: bool = True) -> Schema:
    """A schema of these columns; every other column of the file is left out."""
    others: list[str] = []
    if has_header:
        with path.open(newline="", encoding="utf-8") as file:
            others = [h for h in next(csv.reader(file)) if not any(h in (n, c) for n, c in _headers(columns))]
    lines = "\n".join(f"{name} = {{ {text} }}" for name, text in columns.items())
    left = "leave_out = [" + ", ".join(f"'{h}'" for h in others) + "]"
    return parse_schema(f'table = "t"\ntitle = "T"\n{top}\n{left}\n[columns]\n{lines}\n{more}')


def _headers(columns: dict[str, str]) -> list[tuple[str, str]]:
    return [
        (name, text.split('header = "')[1].split('"')[0] if "header" in text else name)
        for name, text in columns.items()
    ]


def sealed(path: Path, declared: Schema, out: Path) -> Any:
    """The table that the enclave would see."""
    manifest = seal_dataset(
        path,
        declared,
        out,
        owner=PartyId("a" * 64),
        data_key=KEY,
        dataset=DATASET,
        version=1,
        created=0,
        publish_rows=False,
    )
    (file,) = manifest.files
    with (out / f"{file.blob}.sealed").open("rb") as ciphertext:
        reader = SealedReader(
            ciphertext,
            data_key=KEY,
            associated_data=associated_data(DATASET, 1, file.name),
            size=file.size,
            segment_digests=file.segment_digests,
        )
        return pq.read_table(reader)


def broken(path: Path, declared: Schema) -> dict[str, tuple[str, int]]:
    return {str(c.column): (c.name, c.violated) for c in validate(path, declared).failed}


def test_none_is_a_result_and_not_a_gap(tmp_path: Path) -> None:
    """diabetes130: 84,748 cells say "None", meaning that HbA1c was not measured; pandas makes them missing."""
    path = DATA / "diabetes130" / "diabetic_data.csv"
    declared = schema(
        path,
        {
            "A1Cresult": 'type = "string", codes = ["None", "Norm", ">7", ">8"]',
            "weight": 'type = "string", missing = ["?"]',
            "time_in_hospital": 'type = "integer", unit = "d", min = 1, max = 14',
        },
    )
    table = sealed(path, declared, tmp_path)
    assert table.num_rows == 101_766
    assert table.column("A1Cresult").null_count == 0
    assert table.column("A1Cresult").to_pylist().count("None") == 84_748
    assert table.column("weight").null_count == 98_569


def heart(name: str, **columns: str) -> tuple[Path, Schema]:
    """A file without header; ``columns`` are declared otherwise than as a number."""
    path = DATA / "uci-heart" / f"processed.{name}.data"
    declared = dict.fromkeys(HEART.split(), 'type = "number", missing = ["?"]') | columns
    return path, schema(path, declared, more="[file]\nhas_header = false", has_header=False)


def test_question_marks_are_missing_only_where_declared(tmp_path: Path) -> None:
    assert broken(*heart("hungarian", chol='type = "number"')) == {"chol": ("cdmDatatype", 23)}
    table = sealed(*heart("hungarian"), tmp_path)
    assert (table.num_rows, table.column("chol").null_count) == (294, 23)


def test_zero_that_means_missing() -> None:
    """Switzerland wrote 0 for every cholesterol: a declared minimum finds it, a declared missing code mends it."""
    chol = 'type = "number", unit = "mg/dL", min = 50, missing = '
    assert broken(*heart("switzerland", chol=chol + '["?"]')) == {"chol": ("plausibleValueLow", 123)}
    report = validate(*heart("switzerland", chol=chol + '["?", "0"]'))
    assert not report.failed
    assert {c.column: c.violated for c in report.checks if c.name == "measureValueCompleteness"}["chol"] == 123


def test_the_same_outcome_coded_otherwise() -> None:
    """Hungary has 0/1 where the others have 0 to 4: declared codes show it, nothing recodes it in silence."""
    two = 'type = "integer", codes = { "0" = "no disease", "1" = "disease" }'
    assert broken(*heart("hungarian", num=two)) == {}
    assert broken(*heart("va", num=two)) == {"num": ("isForeignKey", 93)}


def test_text_among_numbers() -> None:
    """eICU writes "> 89" for old people: as an integer column it is refused and counted."""
    path = DATA / "eicu-demo" / "patient.csv"
    age = 'type = "integer", unit = "a", missing = [""]'
    assert broken(path, schema(path, {"age": age})) == {"age": ("cdmDatatype", 98)}
    report = validate(path, schema(path, {"age": 'type = "integer", missing = ["", "> 89"]'}))
    assert not report.failed
    assert next(c.violated for c in report.checks if c.name == "measureValueCompleteness") == 102


def test_headers_with_blanks_and_an_index_column(tmp_path: Path) -> None:
    path = DATA / "datashield" / "CNSIM1.csv"
    columns = {"LAB_TSC": 'type = "number"'}
    with pytest.raises(Malformed) as caught:
        validate(path, schema(path, columns))
    assert caught.value.code == "ingest.missing-column"
    columns = {
        "LAB_TSC": 'type = "number", unit = "mmol/L", missing = ["NA", ""], header = "LAB_TSC "',
        "LAB_HDL": 'type = "number", unit = "mmol/L", missing = ["NA", ""], header = "LAB_HDL  "',
        "GENDER": 'type = "integer", codes = ["0", "1"], missing = ["NA", ""]',
    }
    declared = schema(path, columns)
    assert "" in declared.leave_out
    assert sealed(path, declared, tmp_path).num_rows == 2163


def test_an_index_column_is_not_taken_unasked() -> None:
    path = DATA / "datashield" / "CNSIM1.csv"
    with pytest.raises(Malformed) as caught:
        validate(path, parse_schema('table = "t"\ntitle = "T"\n[columns]\nDIS_CVA = { type = "integer" }'))
    assert caught.value.code == "ingest.unknown-column"
    assert "''" in caught.value.message


def test_events_coded_one_and_two(tmp_path: Path) -> None:
    """lung: 1 is censored, 2 is dead. As a truth value it is refused; with codes the meaning is in the manifest."""
    path = DATA / "survival" / "lung.csv"
    assert broken(path, schema(path, {"status": 'type = "boolean"'})) == {"status": ("cdmDatatype", 165)}
    declared = schema(path, {"status": 'type = "integer", codes = { "1" = "censored", "2" = "dead" }'})
    assert declared.contract_columns[0].codes[1].label == "dead"
    assert sealed(path, declared, tmp_path).column("status").to_pylist().count(2) == 165


def test_late_entry_rows_are_events_of_people(tmp_path: Path) -> None:
    """cgd: 203 rows of 128 patients, 75 of which begin after time 0; both times and the person stay as they are."""
    path = DATA / "survival" / "cgd.csv"
    columns = {
        "id": 'type = "integer"',
        "tstart": 'type = "integer", unit = "d", min = 0',
        "tstop": 'type = "integer", unit = "d", min = 1',
        "random": 'type = "date"',
    }
    table = sealed(path, schema(path, columns, top='person_column = "id"'), tmp_path)
    assert (table.num_rows, len(set(table.column("id").to_pylist()))) == (203, 128)
    assert sum(start > 0 for start in table.column("tstart").to_pylist()) == 75
    assert table.schema.field("random").type == pa.date32()


def test_a_site_column_is_never_read_from_the_file(tmp_path: Path) -> None:
    """indo_rct: a site of 3 patients in a column called site; that name belongs to the owner's identity."""
    path = DATA / "medicaldata" / "indo_rct.csv"
    with pytest.raises(Malformed) as caught:
        schema(path, {"site": 'type = "string"'})
    assert "header" in caught.value.hint
    centre = 'type = "string", header = "site", codes = ["1_UM", "2_IU", "3_UK", "4_Case"]'
    table = sealed(path, schema(path, {"centre": centre}), tmp_path)
    assert table.column("centre").to_pylist().count("4_Case") == 3


def test_names_of_people_do_not_come_in(tmp_path: Path) -> None:
    path = DATA / "medicaldata" / "covid_testing.csv"
    columns = {
        "fake_first_name": 'type = "string", identifier = "direct"',
        "age": 'type = "number", unit = "a"',
        "subject_id": 'type = "string"',
    }
    with pytest.raises(Refused) as caught:
        sealed(path, schema(path, columns), tmp_path)
    assert caught.value.code == "schema.direct-identifier"
    del columns["fake_first_name"]
    declared = schema(path, columns)
    assert {"fake_first_name", "fake_last_name"} <= set(declared.leave_out)
    table = sealed(path, declared, tmp_path)
    assert (table.column_names, table.num_rows) == (["age", "subject_id"], 15_524)


def test_codes_and_ids_stay_text(tmp_path: Path) -> None:
    """diagnoses such as 250.01 and V57, patient numbers such as 002-1039: as numbers refused, as text unchanged."""
    path = DATA / "diabetes130" / "diabetic_data.csv"
    found = broken(path, schema(path, {"diag_1": 'type = "number", missing = ["?"]'}))
    with path.open(newline="") as file:
        codes = [row["diag_1"] for row in csv.DictReader(file)]
    assert found == {"diag_1": ("cdmDatatype", sum(not c.replace(".", "").isdigit() for c in codes if c != "?"))}
    table = sealed(path, schema(path, {"diag_1": 'type = "string", missing = ["?"]'}), tmp_path)
    assert table.column("diag_1").to_pylist() == [None if c == "?" else c for c in codes]
    path = DATA / "eicu-demo" / "patient.csv"
    table = sealed(path, schema(path, {"uniquepid": 'type = "string"'}), tmp_path)
    assert "002-1039" in table.column("uniquepid").to_pylist()


def test_numbers_in_quotes_with_exponents(tmp_path: Path) -> None:
    path = DATA / "eicu-demo" / "apachepatientresult.csv"
    columns = {"predictedicumortality": 'type = "number", min = -1, max = 1, missing = [""]'}
    table = sealed(path, schema(path, columns), tmp_path)
    assert 8.2471913877810981e-3 in table.column("predictedicumortality").to_pylist()


def test_windows_line_ends_and_wrong_declarations_show_no_cell() -> None:
    path = DATA / "diabetes130" / "IDs_mapping.csv"
    with pytest.raises(KakoiError) as caught:
        validate(
            path,
            parse_schema(
                'table = "t"\ntitle = "T"\n[columns]\nadmission_type_id = { type = "integer" }\ndescription = { type = "integer" }'
            ),
        ).require_sound()
    assert isinstance(caught.value, (InvalidCells, Malformed))
    assert "Emergency" not in str(caught.value)


def test_lung_as_a_whole(tmp_path: Path) -> None:
    """The first demonstration's table: dots in headers, empty cells, 228 patients."""
    path = DATA / "survival" / "lung.csv"
    columns = {
        "inst": 'type = "string", missing = [""]',
        "time": 'type = "integer", unit = "d", min = 1',
        "status": 'type = "integer", codes = { "1" = "censored", "2" = "dead" }',
        "age": 'type = "integer", unit = "a", min = 18, max = 110',
        "sex": 'type = "integer", codes = { "1" = "male", "2" = "female" }',
        "ph_ecog": 'type = "integer", header = "ph.ecog", codes = ["0", "1", "2", "3"], missing = [""]',
        "wt_loss": 'type = "number", header = "wt.loss", unit = "[lb_av]", missing = [""]',
    }
    table = sealed(path, schema(path, columns), tmp_path)
    assert table.num_rows == 228
    assert table.column("ph_ecog").null_count == 1
    assert table.column("wt_loss").null_count == 14
    assert table.column("ph_ecog").to_pylist().count(3) == 1
