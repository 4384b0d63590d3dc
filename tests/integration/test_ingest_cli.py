"""From a hospital's file to a sealed data set by the command line: describe, correct, validate, seal, inspect."""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path

import openpyxl
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pyreadstat
import pytest

from kakoi.sdk.ingest.redcap import HEADERS
from kakoi.sdk.ingest.report import Report
from kakoi.sdk.ingest.schema import load_schema
from support.command_line import Run, runner


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    monkeypatch.setenv("KAKOI_LANG", "en")
    monkeypatch.chdir(tmp_path)
    return runner(capsys)


CSV = "id,age,sex\n" + "".join(f"{i:03d},{20 + i},{'MF'[i % 2]}\n" for i in range(40)) + "040,,M\n"


def corrected(path: Path, *changes: tuple[str, str]) -> None:
    """What a person does to a draft."""
    text = path.read_text("utf-8")
    for before, after in changes:
        assert before in text, before
        text = text.replace(before, after)
    path.write_text(text, "utf-8")


def test_from_a_file_to_sealed_data(run: Run, tmp_path: Path) -> None:
    Path("people.csv").write_text(CSV)
    drafted = run("dataset", "describe", "people.csv", "--out", "people.toml")
    assert (drafted.code, drafted.out) == (0, "")
    assert "# check" in drafted.err
    assert run("dataset", "describe", "people.csv", "--out", "people.toml").error == "file.exists"

    # As drafted, the identifier keeps it from being sealed: somebody has to decide.
    assert run("dataset", "validate", "people.csv", "--schema", "people.toml").error == "schema.direct-identifier"
    corrected(Path("people.toml"), ('table = "people"', 'table = "people"\nleave_out = ["id"]'))
    text = Path("people.toml").read_text()
    start = text.index("[columns.id]")
    Path("people.toml").write_text(text[:start] + text[text.index("[columns.age]") :])
    corrected(Path("people.toml"), ("[columns.age]\n", '[columns.age]\nunit = "a"\nmin = 18\nmax = 50\n'))

    checked = run("dataset", "validate", "people.csv", "--schema", "people.toml")
    assert checked.code == 4
    assert checked.error == "ingest.invalid-cells"
    assert "plausibleValueHigh" in checked.out
    assert "Plausibility: 2 checks, 1 failed, 0 accepted by name" in checked.out
    machine = run("dataset", "validate", "people.csv", "--schema", "people.toml", "--json")
    report = Report.decode(machine.out.strip().encode())
    assert [(c.title, c.violated, c.first_row) for c in report.failed] == [("plausibleValueHigh:age", 9, 33)]

    assert run("party", "new", "north", "--name", "North", "--key-file", "north.key").code == 0
    seal = ("dataset", "seal", "people.csv", "--schema", "people.toml", "--party", "north", "--key-file", "north.key")
    refused = run(*seal)
    assert refused.error == "ingest.invalid-cells"
    assert "people.csv, table people: 41 rows" in refused.err
    assert not list(Path("north").glob("datasets/*"))
    made = run(*seal, "--accept", "plausibleValueHigh:age")
    assert made.code == 0
    assert len(made.out.strip()) == 64
    assert made.err.index("1 accepted by name") < made.err.index("Sealed and signed")
    (directory,) = Path("north").glob("datasets/*")
    assert b"plausibleValueHigh" not in (directory / "report.wrapped").read_bytes()

    seen = run("dataset", "inspect", directory)
    assert made.out.strip() in seen.out.replace("\n", "")
    for word in ("not published", "a person", "18 to 50", "tink-aes256-gcm-hkdf-1mb/parquet"):
        assert word in seen.out, word


def test_a_redcap_dictionary_gives_the_schema_of_its_export(run: Run) -> None:
    rows = [
        ("record_id", "demo", "text", "Record", "", "", "", "", "", "", ""),
        ("surname", "demo", "text", "Surname", "", "", "", "", "", "y", ""),
        ("sex", "demo", "radio", "Sex", "1, Male | 2, Female", "", "", "", "", "", ""),
        ("race", "demo", "checkbox", "Race", "a, A | b, B", "", "", "", "", "", ""),
        ("age", "demo", "text", "Age", "", "", "integer", "18", "99", "", "y"),
    ]
    titles = list(HEADERS)
    lines = [",".join(f'"{title}"' for title in titles)]
    for name, form, kind, label, choices, note, valid, low, high, identifier, required in rows:
        cells = [
            name,
            form,
            "",
            kind,
            label,
            choices,
            note,
            valid,
            low,
            high,
            identifier,
            "",
            required,
            "",
            "",
            "",
            "",
            "",
        ]
        lines.append(",".join(f'"{cell}"' for cell in cells))
    Path("dictionary.csv").write_text("\n".join(lines) + "\n")
    header = "record_id,redcap_data_access_group,surname,sex,race___a,race___b,age,demo_complete"
    Path("export.csv").write_text(f"{header}\n1,north,Doe,1,0,1,40,2\n2,north,Roe,2,1,0,41,2\n")
    assert run("dataset", "describe", "export.csv", "--redcap", "dictionary.csv", "--out", "s.toml").code == 0
    schema = load_schema(Path("s.toml"))
    assert schema.leave_out == ("surname",)
    assert schema.person_column == "record_id"
    kinds = {c.header: (c.column.type, [code.label for code in c.column.codes]) for c in schema.columns}
    assert kinds["sex"] == ("integer", ["Male", "Female"])
    assert kinds["race___b"] == ("integer", ["unchecked", "checked"])
    assert "redcap_data_access_group" in kinds
    assert run("dataset", "validate", "export.csv", "--schema", "s.toml").code == 0
    Path("export.csv").write_text(f"{header}\n1,north,Doe,3,0,1,17,2\n")
    assert "isForeignKey" in run("dataset", "validate", "export.csv", "--schema", "s.toml").out


def test_an_omop_table_needs_no_guess(run: Run) -> None:
    table = pa.table(
        {
            "condition_era_id": [1, 2],
            "person_id": [1, 2],
            "condition_concept_id": [0, 4],
            "condition_era_start_date": [dt.date(2024, 1, 1)] * 2,
            "condition_era_end_date": [dt.date(2024, 1, 2), dt.date(2023, 1, 2)],
            "own_field": ["x", "y"],
        }
    )
    pq.write_table(table, "condition_era.parquet")
    assert run("dataset", "describe", "--omop", "condition_eras").error == "omop.table"
    drafted = run("dataset", "describe", "condition_era.parquet", "--omop", "condition_era", "--out", "s.toml")
    assert drafted.code == 0
    assert "own_field" in Path("s.toml").read_text()
    checked = run("dataset", "validate", "condition_era.parquet", "--schema", "s.toml")
    assert checked.error == "ingest.invalid-cells"
    assert "condition_concept_id 1 (50.0 %)" in checked.out
    accept = ("--accept", "plausibleStartBeforeEnd:condition_era_start_date")
    assert run("dataset", "validate", "condition_era.parquet", "--schema", "s.toml", *accept).code == 0


def test_sheets_of_a_workbook_are_chosen_and_never_guessed(run: Run) -> None:
    book = openpyxl.Workbook()
    book.active.title = "Notes"
    book.create_sheet("Data").append(["case", "day"])
    for number in range(6):
        book["Data"].append([f"c{number}", dt.date(2024, 1, number + 1)])
    book.save("book.xlsx")
    refused = run("dataset", "describe", "book.xlsx")
    assert refused.error == "excel.sheet"
    assert "'Notes', 'Data'" in refused.err
    made = run("dataset", "describe", "book.xlsx", "--sheet", "Data")
    assert 'sheet = "Data"' in made.out
    assert 'type = "date"' in made.out


def test_labels_and_dates_of_a_sas_file(run: Run) -> None:
    frame = pd.DataFrame(
        {"SUBJ": ["1", "2"], "RFSTDT": [dt.date(2024, 1, 2), dt.date(2024, 3, 4)], "AGE": [40.0, 41.0]}
    )
    pyreadstat.write_xport(frame, "dm.xpt", column_labels=["Subject", "Start of reference", "Age"], table_name="DM")
    made = run("dataset", "describe", "dm.xpt", "--out", "dm.toml")
    assert made.code == 0
    columns = {c.header: c.column for c in load_schema(Path("dm.toml")).columns}
    assert (columns["RFSTDT"].type, columns["RFSTDT"].description) == ("date", "Start of reference")
    assert columns["AGE"].description == "Age"
    assert json.loads(run("dataset", "validate", "dm.xpt", "--schema", "dm.toml", "--json").out)["rows"] == 2


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ((), "describe.file"),
        (("f.csv", "--redcap", "d.csv", "--omop", "person"), "describe.model"),
        (("gone.csv",), "file.missing"),
        (("--redcap", "gone.csv"), "redcap.file"),
        (("f.doc",), "ingest.suffix"),
        (("empty.csv",), "ingest.empty-file"),
    ],
)
def test_bad_input_is_one_clear_error(run: Run, arguments: tuple[str, ...], code: str) -> None:
    for name, text in (("f.csv", "a\n1\n"), ("f.doc", "x"), ("empty.csv", "")):
        Path(name).write_text(text)
    assert run("dataset", "describe", *arguments).error == code
