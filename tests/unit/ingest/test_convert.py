"""Cells to values: every form, every rule, on texts that other programs silently change."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kakoi.contract.model import Code, Column
from kakoi.sdk.ingest.convert import ARROW, convert

at = dt.datetime.fromisoformat


def column(kind: str, **more: Any) -> Column:
    fields = {
        "name": "c",
        "type": kind,
        "unit": "",
        "codes": (),
        "missing": (),
        "minimum": None,
        "maximum": None,
        "identifier": "no",
        "description": "",
    }
    return Column(**{**fields, **more})


def run(declared: Column, *cells: str | None, **more: Any) -> tuple[list[Any], dict[str, tuple[int, int]], int]:
    got = convert(declared, pa.array(cells, pa.string()), **more)
    assert got.values.type == ARROW[declared.type]
    assert len(got.values) == len(cells)
    return got.values.to_pylist(), {f.rule: (f.cells, f.first) for f in got.faults}, got.missing


ACCEPTED: list[tuple[str, str, Any]] = [
    ("integer", "0", 0),
    ("integer", "-12", -12),
    ("integer", "999999999999999999", 999999999999999999),
    ("number", "0", 0.0),
    ("number", "-0.0", 0.0),
    ("number", ".5", 0.5),
    ("number", "5.", 5.0),
    ("number", "1e-3", 0.001),
    ("number", "8.2471913877810981E-3", 0.0082471913877810981),
    ("number", "0.1", 0.1),
    ("boolean", "TRUE", True),
    ("boolean", "0", False),
    ("date", "2024-02-29", dt.date(2024, 2, 29)),
    ("date", "1899-12-31", dt.date(1899, 12, 31)),
    ("datetime", "2024-02-29 23:59", at("2024-02-29T23:59:00")),
    ("datetime", "2024-02-29T23:59:58.25", at("2024-02-29T23:59:58.250000")),
    ("string", "", ""),
    ("string", "None", "None"),
    ("string", "NA", "NA"),
    ("string", " 007 ", " 007 "),
    ("string", "日本", "日本"),
]
REFUSED = {
    "integer": [
        "",
        " 1",
        "1 ",
        "+1",
        "007",
        "-0",
        "1.0",
        "1e3",
        "0x1F",
        "1_000",
        "1,000",
        "9" * 19,
        "１",
        "NA",
        "None",
        "> 89",
    ],
    "number": [
        "",
        " 1",
        "nan",
        "NaN",
        "inf",
        "-Infinity",
        "1e999",
        "1,5",
        "00.5",
        "0x1p3",
        ".",
        "-",
        "1e",
        "+1",
        "5%",
        "?",
    ],
    "boolean": ["", "yes", "Y", "t", "tRUE", "2", "1.0", "NA"],
    "date": [
        "",
        "2023-02-29",
        "2023-04-31",
        "2023-2-3",
        "20230203",
        "2023-13-01",
        "0000-01-01",
        "2023/02/03",
        "03-02-2023",
        "2023-02-03 ",
        "2023-02-03T00:00",
        "2023-W05-5",
        "1.1.2023",
    ],
    "datetime": [
        "",
        "2023-02-29 10:00",
        "2023-02-03",
        "2023-02-03 24:00",
        "2023-02-03 10",
        "2023-02-03 10:60",
        "2023-02-03T10:00Z",
        "2023-02-03T10:00+09:00",
        "2023-02-03 10:00:00.1234567",
        "2023-02-03  10:00",
        "2023-02-03 9:00",
    ],
}


@pytest.mark.parametrize(("kind", "text", "value"), ACCEPTED)
def test_accepted(kind: str, text: str, value: object) -> None:
    assert run(column(kind), text) == ([value], {}, 0)


@pytest.mark.parametrize(("kind", "text"), [(k, t) for k, texts in REFUSED.items() for t in texts])
def test_refused(kind: str, text: str) -> None:
    """Alone, and among good cells of the same portion."""
    assert run(column(kind), text) == ([None], {"type": (1, 0)}, 0)
    good = {"integer": "1", "number": "1", "boolean": "1", "date": "2024-01-01", "datetime": "2024-01-01 00:00"}[kind]
    values, faults, _ = run(column(kind), good, text, good, text)
    assert (values[1], values[3], faults) == (None, None, {"type": (2, 1)})
    assert values[0] == values[2] is not None


def test_datetimes_in_utc_need_an_offset_and_are_kept_as_utc() -> None:
    declared = column("datetime", unit="UTC")
    values, faults, _ = run(
        declared, "2024-03-01T08:30:00+09:00", "2024-03-01 00:00Z", "2024-03-01T08:30:00", "2023-02-29T00:00Z"
    )
    assert values == [at("2024-02-29T23:30:00"), at("2024-03-01T00:00:00"), None, None]
    assert faults == {"type": (2, 2)}


def test_missing_is_what_is_listed_and_nothing_else() -> None:
    declared = column("integer", missing=("", "NA", "-9"))
    assert run(declared, "", "NA", "-9", "na", "5") == ([None, None, None, None, 5], {"type": (1, 3)}, 3)
    assert run(column("string", missing=("?",)), "?", "", "None", None) == ([None, "", "None", None], {}, 2)


def test_codes_are_compared_as_text() -> None:
    declared = column("integer", codes=(Code(value="1", label="dead"), Code(value="2", label="")), missing=("",))
    assert run(declared, "1", "2", "1.0", "3", "") == ([1, 2, None, None, None], {"code": (2, 2)}, 1)
    declared = column("string", codes=(Code(value="a\u3000b", label=""),))
    assert run(declared, "a\u3000b", "a b", "") == (["a\u3000b", None, None], {"code": (2, 1)}, 0)


def test_limits_belong_to_the_range() -> None:
    declared = column("number", minimum="0", maximum="0.5")
    assert run(declared, "0", "0.5", "-0.001", "0.5000001") == (
        [0, 0.5, None, None],
        {"low": (1, 2), "high": (1, 3)},
        0,
    )
    declared = column("integer", minimum="-1.5", maximum="99999999999999999999")
    assert run(declared, "-1", "-2") == ([-1, None], {"low": (1, 1)}, 0)


def test_line_breaks_only_where_allowed() -> None:
    assert run(column("string"), "a", "b\nc", "d\r") == (["a", None, None], {"line-break": (2, 1)}, 0)
    assert run(column("string"), "b\nc", line_breaks=True) == (["b\nc"], {}, 0)
    assert run(column("integer"), "1\n", line_breaks=True) == ([None], {"type": (1, 0)}, 0)


def test_required_and_unfit_cells() -> None:
    declared = column("string", missing=("",))
    assert run(declared, "a", "", required=True) == (["a", None], {"required": (1, 1)}, 1)
    assert run(declared, "a", "7", "", unfit=pa.array([False, True, True])) == (["a", None, None], {"type": (1, 1)}, 1)


def test_nothing_in_nothing_out() -> None:
    for kind in ARROW:
        assert run(column(kind)) == ([], {}, 0)
        assert run(column(kind), None) == ([None], {}, 1)


@given(
    st.sampled_from(sorted(ARROW)), st.lists(st.none() | st.text(max_size=8) | st.from_regex(r"-?[0-9.e:T Z-]{0,20}"))
)
def test_every_cell_is_a_value_or_missing_or_counted(kind: str, cells: list[str | None]) -> None:
    cells = [c if c is None else c.encode("utf-8", "replace").decode() for c in cells]
    values, faults, missing = run(column(kind, missing=("NA",)), *cells)
    counted = sum(count for count, _ in faults.values())
    assert sum(v is None for v in values) == missing + counted


@given(st.integers(-(10**18) + 1, 10**18 - 1))
def test_whole_numbers_survive(number: int) -> None:
    assert run(column("integer"), str(number)) == ([number], {}, 0)


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_numbers_survive(number: float) -> None:
    assert run(column("number"), repr(number)) == ([number], {}, 0)


@given(st.dates(min_value=dt.date(1000, 1, 1)))
def test_dates_survive(day: dt.date) -> None:
    assert run(column("date"), day.isoformat()) == ([day], {}, 0)


@given(st.datetimes(min_value=at("1000-01-01T00:00:00")))
def test_datetimes_survive(instant: dt.datetime) -> None:
    assert run(column("datetime"), instant.isoformat()) == ([instant], {}, 0)
