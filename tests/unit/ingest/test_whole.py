"""What only the whole file shows: keys that repeat, and source values that no concept stands for."""

from __future__ import annotations

import errno
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kakoi.core.errors import Malformed, Unavailable
from kakoi.core.ids import PartyId
from kakoi.sdk.ingest import distinct
from kakoi.sdk.ingest.distinct import Distinct
from kakoi.sdk.ingest.draft import Draft
from kakoi.sdk.ingest.fit import fitted
from kakoi.sdk.ingest.omop import omop_schema, table_names
from kakoi.sdk.ingest.report import Check, InvalidCells, Report
from kakoi.sdk.ingest.schema import parse_schema
from kakoi.sdk.ingest.seal import seal_dataset, validate

TEXT = """
table = "drugs"
title = "Drugs"
primary_key = ["patient", "day"]
[columns]
patient = { type = "string", missing = [""] }
day = { type = "date", missing = [""] }
source = { type = "string", missing = [""], mapped_to = "concept" }
concept = { type = "integer", missing = [""] }
"""
ROWS = ("a,2024-01-01,x,5", "a,2024-01-02,y,0", "b,2024-01-01,y,7", "ab,2024-01-02,,0")


def file(tmp_path: Path, *rows: str) -> Path:
    path = tmp_path / "drugs.csv"
    path.write_text("\n".join(("patient,day,source,concept", *rows)) + "\n")
    return path


def check(report: Report, title: str) -> Check:
    (found,) = (c for c in report.checks if c.title == title)
    return found


def test_different_keys_are_good_and_source_values_are_counted_once_each(tmp_path: Path) -> None:
    report = validate(file(tmp_path, *ROWS), parse_schema(TEXT))
    assert not report.failed
    key = check(report, "isPrimaryKey:patient")
    assert (key.violated, key.rows, key.first_row) == (0, 4, None)
    values = check(report, "sourceValueCompleteness:source")
    # y, once mapped and once not, and the missing value; x is mapped
    assert (values.violated, values.rows, values.first_row) == (2, 3, None)


@pytest.mark.parametrize(
    ("more", "repeated", "first"),
    [
        (("a,2024-01-01,x,5",), 1, 6),
        (("c,2024-01-01,,", "b,2024-01-01,,", "a,2024-01-02,,", "a,2024-01-02,,"), 3, 7),
    ],
)
def test_a_repeated_key_forbids_sealing_unless_it_is_accepted(
    tmp_path: Path, more: tuple[str, ...], repeated: int, first: int
) -> None:
    path, schema = file(tmp_path, *ROWS, *more), parse_schema(TEXT)
    (failed,) = validate(path, schema).failed
    assert (failed.title, failed.violated, failed.rows, failed.first_row) == (
        "isPrimaryKey:patient",
        repeated,
        len(ROWS) + len(more),
        first,
    )
    accepted = validate(path, schema, accept=["isPrimaryKey:patient"])
    assert [c.title for c in accepted.accepted] == ["isPrimaryKey:patient"]
    assert not accepted.failed
    out = tmp_path / "out"
    with pytest.raises(InvalidCells):
        seal_dataset(
            path,
            schema,
            out,
            owner=PartyId("a" * 64),
            data_key=bytes(32),
            dataset="0" * 32,
            version=1,
            created=0,
            publish_rows=False,
        )
    assert list(out.iterdir()) == []


@pytest.mark.parametrize("row", [",2024-01-05,,", "c,,,"])
def test_no_part_of_a_key_may_be_missing_and_what_is_missing_repeats_nothing(tmp_path: Path, row: str) -> None:
    report = validate(file(tmp_path, *ROWS, row, row), parse_schema(TEXT))
    assert [(c.name, c.violated) for c in report.failed] == [("isRequired", 2)]


@pytest.mark.parametrize("in_memory", [distinct.IN_MEMORY, 64])
@given(values=st.lists(st.tuples(st.integers(0, 9), st.sampled_from(["", "a", "b"])), max_size=60))
def test_counts_are_those_of_a_set_in_memory_and_on_disk(in_memory: int, values: list[tuple[int, str]]) -> None:
    held, sources = Distinct(), Distinct()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(distinct, "IN_MEMORY", in_memory)
        for row, value in enumerate(values, 2):
            held.add([(value, row)])
            sources.add([(value, int(value[1] == "a"))])
    again = [row for row, value in enumerate(values, 2) if value in values[: row - 2]]
    assert held.repeated() == (len(again), again[0] if again else None)
    assert sources.marked() == (len(set(values)), len({v for v in values if v[1] == "a"}))
    held.close()
    sources.close()


def test_the_disk_holds_no_value_and_no_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distinct, "IN_MEMORY", 0)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    held = Distinct()
    held.add([(("patient-4711",), 2)])
    assert list(tmp_path.iterdir()) == []
    stored = b""
    for stream in held._files:
        stream.seek(0)
        stored += stream.read()
    assert len(stored) == 16
    assert b"4711" not in stored
    held.close()
    held.close()


class _Full:
    def write(self, _: bytes) -> int:
        raise OSError(errno.ENOSPC, "no room")

    def seek(self, _: int) -> int:
        raise OSError(errno.EIO, "bad disk")


def _no_directory() -> _Full:
    raise OSError(errno.ENOENT, "no directory")


@pytest.mark.parametrize("made", [_Full, _no_directory])
def test_a_full_disk_is_said(monkeypatch: pytest.MonkeyPatch, made: Callable[[], _Full]) -> None:
    monkeypatch.setattr(distinct, "IN_MEMORY", 0)
    monkeypatch.setattr(tempfile, "TemporaryFile", made)
    with pytest.raises(Unavailable) as caught:
        Distinct().add([(1, 2)])
    assert caught.value.code == "disk.temporary"


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('["patient", "day"]', '["patient", "name"]'),
        ('["patient", "day"]', '["patient", "patient"]'),
        ('["patient", "day"]', '"patient"'),
        ('day = { type = "date"', 'day = { type = "number"'),
        ('mapped_to = "concept"', 'mapped_to = "concepts"'),
        ('mapped_to = "concept"', 'mapped_to = "source"'),
        ('mapped_to = "concept"', 'mapped_to = "patient"'),
        ('mapped_to = "concept"', "mapped_to = 0"),
    ],
)
def test_what_is_declared_wrongly_is_refused(old: str, new: str) -> None:
    assert old in TEXT
    with pytest.raises(Malformed):
        parse_schema(TEXT.replace(old, new, 1))


def test_drafts_of_omop_have_keys_and_concepts() -> None:
    drug = omop_schema("drug_exposure").schema
    assert drug.primary_key == ("drug_exposure_id",)
    mapped = {c.column.name: c.mapped_to for c in drug.columns if c.mapped_to}
    assert mapped == {"drug_source_value": "drug_concept_id", "route_source_value": "route_concept_id"}
    assert omop_schema("death").schema.primary_key == ()
    for table in table_names():
        schema = omop_schema(table).schema
        assert parse_schema(Draft(schema=schema).to_toml()) == schema


def test_a_fitted_draft_names_no_column_that_went() -> None:
    headers = [c.header for c in omop_schema("drug_exposure").schema.columns if c.header != "route_concept_id"]
    schema = fitted(omop_schema("drug_exposure"), headers).schema
    assert [c.column.name for c in schema.columns if c.mapped_to] == ["drug_source_value"]
    assert parse_schema(Draft(schema=schema).to_toml()) == schema
