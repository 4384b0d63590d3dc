"""What a schema says of a row's other cells: order in time, and what a concept allows. Each good row has bad twins."""

from __future__ import annotations

from pathlib import Path

import pytest

from kakoi.core.errors import Malformed
from kakoi.sdk.ingest.draft import Draft
from kakoi.sdk.ingest.report import Report
from kakoi.sdk.ingest.schema import parse_schema
from kakoi.sdk.ingest.seal import validate

TEXT = """
table = "labs"
title = "Labs"
[columns]
born = { type = "date", missing = [""] }
taken = { type = "date", missing = [""], after = "born" }
concept = { type = "integer", missing = [""] }
unit = { type = "integer", missing = [""] }
value = { type = "number", missing = [""] }
sex = { type = "string", missing = [""] }
[[plausible]]
check = "plausibleUnitConceptIds"
where = { concept = [3004249] }
column = "unit"
values = [8876, 8753]
[[plausible]]
check = "plausibleValueLow"
where = { concept = [3004249], unit = [8876] }
column = "value"
min = 40
[[plausible]]
check = "plausibleValueHigh"
where = { concept = [3004249], unit = [8876] }
column = "value"
max = 300.5
[[plausible]]
check = "plausibleGender"
where = { concept = [4163261, 200962] }
column = "sex"
values = ["M"]
"""
GOOD = "1950-01-01,1950-01-01,3004249,8876,120,F"


def report(tmp_path: Path, *rows: str, text: str = TEXT, **more: object) -> Report:
    path = tmp_path / "labs.csv"
    path.write_text("\n".join(("born,taken,concept,unit,value,sex", *rows)) + "\n")
    return validate(path, parse_schema(text), **more)  # type: ignore[arg-type]


def broken(found: Report) -> dict[str, tuple[int, int, int | None]]:
    return {check.title: (check.violated, check.rows, check.first_row) for check in found.failed}


@pytest.mark.parametrize(
    "row",
    [
        GOOD,
        GOOD.replace("120", "40"),
        GOOD.replace("120", "300.5"),
        GOOD.replace(",8876,120", ",8753,9000"),  # the limits speak of the other unit
        GOOD.replace("3004249,8876", "1,1"),
        GOOD.replace("8876", ""),
        GOOD.replace("3004249", ""),
        GOOD.replace("1950-01-01,", ",", 1),
        "1950-01-01,1950-01-02,4163261,,,M",
        "1950-01-01,1950-01-02,4163261,,,",
    ],
)
def test_good_rows_break_nothing(tmp_path: Path, row: str) -> None:
    assert broken(report(tmp_path, GOOD, row)) == {}


@pytest.mark.parametrize(
    ("row", "title", "of"),
    [
        (GOOD.replace("1950-01-01,1950-01-01", "1950-01-02,1950-01-01"), "plausibleTemporalAfter:taken", 3),
        (GOOD.replace("8876", "8840"), "plausibleUnitConceptIds:unit", 3),
        (GOOD.replace("120", "39.9"), "plausibleValueLow:value", 3),
        (GOOD.replace("120", "300.6"), "plausibleValueHigh:value", 3),
        ("1950-01-01,1950-01-02,200962,,,F", "plausibleGender:sex", 1),
    ],
)
def test_a_bad_twin_is_counted_named_and_refused_unless_accepted(tmp_path: Path, row: str, title: str, of: int) -> None:
    found = report(tmp_path, GOOD, GOOD, row)
    assert broken(found) == {title: (1, of, 4)}
    assert b"1950" not in found.encode()
    assert b"300" not in found.encode()
    accepted = report(tmp_path, GOOD, GOOD, row, accept=[title])
    assert [check.title for check in accepted.accepted] == [title]
    assert not accepted.failed


def test_several_rules_on_one_column_are_one_check_with_the_first_row_of_any(tmp_path: Path) -> None:
    more = TEXT + '[[plausible]]\ncheck = "plausibleValueHigh"\nwhere = { sex = ["F"] }\ncolumn = "value"\nmax = 110\n'
    rows = [GOOD, GOOD.replace("120", "301"), GOOD.replace("120,F", "301,M")]
    assert broken(report(tmp_path, *rows, text=more)) == {"plausibleValueHigh:value": (4, 5, 2)}


def test_a_schema_with_rules_is_read_back_from_its_own_text() -> None:
    schema = parse_schema(TEXT)
    assert len(schema.plausible) == 4
    assert parse_schema(Draft(schema=schema).to_toml()) == schema


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('after = "born"', 'after = "taken"'),
        ('after = "born"', 'after = "value"'),
        ('after = "born"', 'after = "birth"'),
        ('after = "born"', "after = 1"),
        ('column = "unit"', 'column = "units"'),
        ('column = "unit"', ""),
        ("where = { concept = [3004249] }", ""),
        ("where = { concept = [3004249] }", "where = {}"),
        ("where = { concept = [3004249] }", "where = { concept = [] }"),
        ("where = { concept = [3004249] }", 'where = { concept = ["3004249"] }'),
        ("where = { concept = [3004249] }", "where = { concept = [true] }"),
        ("where = { concept = [3004249] }", "where = { concept = [1000000000000000000] }"),
        ("where = { concept = [3004249] }", "where = { other = [3004249] }"),
        ("where = { concept = [3004249] }", "where = { value = [1] }"),
        ("values = [8876, 8753]", ""),
        ("values = [8876, 8753]", "max = 3"),
        ("values = [8876, 8753]", 'values = ["8876"]'),
        ("min = 40", ""),
        ("min = 40", "max = 40"),
        ("min = 40", 'min = "40"'),
        ("min = 40", "min = inf"),
        ('check = "plausibleGender"', 'check = "plausibleGenderUseDescendants"'),
        ('check = "plausibleGender"', ""),
        ('["M"]', '["M"]\nhint = 1'),
        ("[[plausible]]", "[plausible]\n[[other]]"),
    ],
)
def test_what_is_declared_wrongly_is_refused(old: str, new: str) -> None:
    assert old in TEXT
    with pytest.raises(Malformed) as caught:
        parse_schema(TEXT.replace(old, new, 1))
    assert caught.value.code.startswith("schema.")
