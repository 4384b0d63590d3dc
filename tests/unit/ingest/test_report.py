"""The report before sealing: what is checked, what may be accepted by name, and what acceptance makes of cells."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from kakoi.core.errors import Misuse
from kakoi.core.ids import PartyId
from kakoi.dataset.format import associated_data
from kakoi.dataset.open import SealedReader
from kakoi.sdk.ingest.fit import fitted
from kakoi.sdk.ingest.omop import omop_schema
from kakoi.sdk.ingest.report import CATEGORIES, RULES, InvalidCells, Report
from kakoi.sdk.ingest.schema import parse_schema
from kakoi.sdk.ingest.seal import seal_dataset, validate

SCHEMA = parse_schema(
    """
table = "visits"
title = "Visits"
person_column = "pid"
[columns]
pid = { type = "string", missing = [""] }
age = { type = "integer", min = 18, max = 99 }
grade = { type = "string", codes = ["I", "II"], required = true, missing = ["", "NA"] }
visit_start_date = { type = "date" }
visit_end_date = { type = "date", missing = [""] }
drug_concept_id = { type = "integer" }
drug_source_concept_id = { type = "integer" }
"""
)
HEADER = "pid,age,grade,visit_start_date,visit_end_date,drug_concept_id,drug_source_concept_id\n"
GOOD = "a,40,I,2024-01-01,2024-01-02,5,0\n"
BAD = "b,150,III,2024-01-05,2024-01-02,0,0\nc,nine,NA,2024-01-05,,0,3\n"
ACCEPT = (
    "plausibleValueHigh:age",
    "cdmDatatype:age",
    "isForeignKey:grade",
    "isRequired:grade",
    "plausibleStartBeforeEnd:visit_start_date",
)


def file(tmp_path: Path, text: str = GOOD + BAD) -> Path:
    path = tmp_path / "visits.csv"
    path.write_text(HEADER + text)
    return path


def found(report: Report) -> dict[str, int]:
    return {check.title: check.violated for check in report.checks if check.violated}


def sealed(path: Path, out: Path, **more: Any) -> Any:
    """The table that the enclave would see."""
    key, dataset = bytes(32), "0" * 32
    manifest = seal_dataset(
        path,
        SCHEMA,
        out,
        owner=PartyId("a" * 64),
        data_key=key,
        dataset=dataset,
        version=1,
        created=0,
        publish_rows=False,
        **more,
    )
    (part,) = manifest.files
    with (out / f"{part.blob}.sealed").open("rb") as ciphertext:
        reader = SealedReader(
            ciphertext,
            data_key=key,
            associated_data=associated_data(dataset, 1, part.name),
            size=part.size,
            segment_digests=part.segment_digests,
        )
        return pq.read_table(reader)


def test_every_check_counts_and_only_some_forbid(tmp_path: Path) -> None:
    report = validate(file(tmp_path), SCHEMA)
    assert found(report) == {
        "plausibleValueHigh:age": 1,
        "cdmDatatype:age": 1,
        "isForeignKey:grade": 1,
        "isRequired:grade": 1,
        "measureValueCompleteness:grade": 1,
        "plausibleStartBeforeEnd:visit_start_date": 1,
        "measureValueCompleteness:visit_end_date": 1,
        "standardConceptRecordCompleteness:drug_concept_id": 2,
        "sourceConceptRecordCompleteness:drug_source_concept_id": 2,
    }
    assert {check.title for check in report.failed} == set(ACCEPT)
    rows = {check.title: check.first_row for check in report.failed}
    assert (rows["plausibleValueHigh:age"], rows["cdmDatatype:age"]) == (3, 4)
    assert rows["plausibleStartBeforeEnd:visit_start_date"] == 3


def test_each_rule_belongs_to_a_check_with_a_category() -> None:
    assert {name for name, _ in RULES.values()} == set(CATEGORIES)


def test_a_report_is_a_record_and_holds_no_cell(tmp_path: Path) -> None:
    report = validate(file(tmp_path), SCHEMA)
    data = report.encode()
    assert Report.decode(data) == report
    for cell in (b"nine", b"150", b"III", b"2024"):
        assert cell not in data


def test_a_file_name_cannot_steer_a_terminal(tmp_path: Path) -> None:
    path = tmp_path / "a\x1b[31m\u202e.csv"
    path.write_text(HEADER + GOOD)
    assert validate(path, SCHEMA).file == "a?[31m?.csv"


def test_accepted_by_name_cells_are_sealed_as_missing(tmp_path: Path) -> None:
    seen: list[Report] = []
    table = sealed(file(tmp_path), tmp_path / "out", accept=ACCEPT, reported=seen.append)
    assert table.column("age").to_pylist() == [40, None, None]
    assert table.column("grade").to_pylist() == ["I", None, None]
    assert [str(day) for day in table.column("visit_end_date").to_pylist()] == ["2024-01-02", "2024-01-02", "None"]
    (report,) = seen
    assert not report.failed
    assert {check.title for check in report.accepted} == set(ACCEPT)


@pytest.mark.parametrize("left_out", ACCEPT)
def test_one_name_too_few_seals_nothing_and_shows_the_report_first(tmp_path: Path, left_out: str) -> None:
    seen: list[Report] = []
    with pytest.raises(InvalidCells) as caught:
        sealed(
            file(tmp_path),
            tmp_path / "out",
            accept=[title for title in ACCEPT if title != left_out],
            reported=seen.append,
        )
    assert [check.title for check in seen[0].failed] == [left_out]
    assert f"--accept {left_out}" in caught.value.hint
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize(
    "title", ["plausibleValueHigh:grade", "isRequired:pid", "measureValueCompleteness:grade", "age", "cdmField:age", ""]
)
def test_what_cannot_be_accepted_is_refused_before_the_file_is_read(tmp_path: Path, title: str) -> None:
    """A row that names nobody cannot be sealed: nobody could count it, or take it out."""
    with pytest.raises(Misuse) as caught:
        validate(file(tmp_path), SCHEMA, accept=[title])
    assert caught.value.code == "ingest.acceptance"


def test_a_row_that_names_nobody_forbids_sealing(tmp_path: Path) -> None:
    report = validate(file(tmp_path, GOOD + GOOD.replace("a,", ",", 1)), SCHEMA)
    assert [(check.title, check.rule, check.first_row) for check in report.failed] == [("isRequired:pid", "person", 3)]


def test_a_draft_is_fitted_to_a_files_header() -> None:
    draft = fitted(omop_schema("person"), ["person_id", "gender_concept_id", "shoe_size", "person_source_value"])
    headers = [column.header for column in draft.schema.columns]
    assert "month_of_birth" not in headers
    assert {"person_id", "gender_concept_id", "year_of_birth"} <= set(headers)
    assert draft.schema.leave_out == ("person_source_value", "shoe_size")
    assert any("shoe_size" in note for note in draft.notes[""])
    assert draft.to_check >= 1
