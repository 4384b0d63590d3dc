"""The Python engine: tables as declared, and an honest shape of what comes back."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from kakoi.enclave.engines import harness
from kakoi.enclave.engines.collect import collect
from kakoi.enclave.engines.frames import frames
from kakoi.enclave.failures import Stopped
from kakoi.enclave.job import Job, ResultStatistics, ResultTable
from unit.engines.parts import column, job, output, parquet, part_fds, table

TABLE = output("o", "group:g", "count:n", "value:v")
NUMBERS = output("s", "value:a", "value:b", shape="statistics")
ALL_TYPES = [
    column("i"),
    column("f", "number"),
    column("s", "string"),
    column("b", "boolean"),
    column("d", "date"),
    column("t", "datetime"),
    column("person", "string", readable=False),
]


def _frames(first: pa.Table, *more: pa.Table) -> tuple[Job, dict[str, pd.DataFrame]]:
    made = job(
        "x = 1", [table("t", ALL_TYPES, ["A", "B", "C"][: 1 + len(more)], person="person")], [TABLE], engine="python"
    )
    with part_fds(made, [parquet(part) for part in (first, *more)]) as parts:
        return made, frames(made, [part.descriptor for part in parts])


def _rows(values: dict[str, Any], count: int = 1) -> pa.Table:
    fixed = {
        "i": pa.array([2**53 + 1] * count, pa.int64()),
        "f": pa.array([1.5] * count, pa.float64()),
        "s": pa.array(["007"] * count, pa.string()),
        "b": pa.array([True] * count, pa.bool_()),
        "d": pa.array([dt.date(1899, 12, 31)] * count, pa.date32()),
        "t": pa.array([pd.Timestamp(2020, 2, 29, 12)] * count, pa.timestamp("us")),
        "person": pa.array(["p"] * count, pa.string()),
    }
    return pa.table(fixed | values)


def test_dtypes_do_not_depend_on_the_data() -> None:
    full = _frames(_rows({}))[1]["t"]
    missing = _frames(_rows({name: pa.nulls(1, _rows({}).schema.field(name).type) for name in "ifsbdt"}))[1]["t"]
    empty = _frames(_rows({}, 0))[1]["t"]
    expected: list[str] = ["str", "Int64", "float64", "str", "boolean", "datetime64[s]", "datetime64[us]"]
    for frame in (full, missing, empty):
        assert list(map(str, frame.dtypes)) == expected
        assert list(frame.columns) == ["site", "i", "f", "s", "b", "d", "t"], "the person column is not shown"
    assert full["i"][0] == 2**53 + 1, "64-bit integers stay exact"
    assert full["s"][0] == "007"
    assert full["d"][0] == pd.Timestamp(1899, 12, 31)
    assert missing.iloc[0, 1:].isna().all()


def test_parts_are_put_together_under_their_sites() -> None:
    frame = _frames(_rows({}, 2), _rows({"site": ["forged"]}), _rows({}, 0))[1]["t"]
    assert list(frame["site"]) == ["A", "A", "B"]


def test_dictionaries_and_small_types_are_admitted() -> None:
    frame = _frames(
        _rows({"s": pa.array(["x"]).dictionary_encode(), "i": pa.array([1], pa.int8()), "f": pa.array([2], pa.int32())})
    )[1]["t"]
    assert list(frame[["s", "i", "f"]].itertuples(index=False, name=None)) == [("x", 1, 2.0)]


@pytest.mark.parametrize(
    "wrong",
    [
        {"i": pa.array(["1"])},
        {"i": pa.array([1.0])},
        {"i": pa.array([1], pa.uint64())},
        {"f": pa.array(["1"])},
        {"s": pa.array([1])},
        {"b": pa.array([1])},
        {"d": pa.array(["2020-01-01"])},
        {"t": pa.array([pd.Timestamp(2020, 1, 1)], pa.timestamp("us", "UTC"))},
    ],
)
def test_other_types_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(Stopped, match=r"engine\.part"):
        _frames(_rows(wrong))


@pytest.mark.parametrize("content", [b"", b"PAR1", b"not parquet at all", parquet(pa.table({"x": [1]}))])
def test_files_that_are_not_the_part(content: bytes) -> None:
    made = job("x = 1", [table("t", [column("i")], ["A"])], [TABLE], engine="python")
    with part_fds(made, [content]) as parts, pytest.raises(Stopped, match=r"engine\.part"):
        frames(made, [parts[0].descriptor])


def _table(frame: pd.DataFrame) -> ResultTable:
    found = collect({"o": frame}, [TABLE]).outputs[0]
    assert isinstance(found, ResultTable)
    return found


def test_a_table_becomes_text() -> None:
    found = _table(pd.DataFrame({"g": ["x", None], "n": [3, 4.0], "v": [-0.0, float("nan")]}))
    assert [c.cells for c in found.columns] == [("x", None), ("3", "4"), ("0", None)]
    assert found.rows == found.people == (3, 4)


@pytest.mark.parametrize(
    ("label", "text"),
    [
        ("a", "a"),
        (1, "1"),
        (1.0, "1"),
        (np.int8(7), "7"),
        (np.float64(0.25), "0.25"),
        (True, "true"),
        (np.bool_(False), "false"),
        (dt.date(2020, 1, 2), "2020-01-02"),
        (pd.Timestamp(2020, 1, 2), "2020-01-02T00:00:00"),
        (pd.Interval(0, 10), "(0, 10]"),
        (pd.NA, None),
        (pd.NaT, None),
    ],
)
def test_labels(label: object, text: str | None) -> None:
    frame = pd.DataFrame({"g": pd.Series([label], dtype=object), "n": [5], "v": [1.0]})
    assert _table(frame).columns[0].cells == (text,)


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (Decimal("1.10"), "1.1"),
        (np.float32(0.5), "0.5"),
        (10**40, "1e40"),
        (float("inf"), None),
        (pd.NA, None),
        (2, "2"),
    ],
)
def test_numbers(number: object, text: str | None) -> None:
    frame = pd.DataFrame({"g": ["x"], "n": [5], "v": pd.Series([number], dtype=object)})
    assert _table(frame).columns[2].cells == (text,)


class Loud(float):
    """A number that prints what it likes."""

    def __repr__(self) -> str:
        return "Smith, born 1950"


@pytest.mark.parametrize(
    "value",
    ["text", b"bytes", Loud(1.0), True, 1j, [1], {"a": 1}, object(), dt.timedelta(1), pd.Timestamp(0), np.array([1])],
)
def test_values_that_are_not_plain_numbers(value: object) -> None:
    column_of_one = pd.Series([None], dtype=object)
    column_of_one[0] = value
    with pytest.raises(Stopped, match=r"python\.output"):
        _table(pd.DataFrame({"g": ["x"], "n": [5], "v": column_of_one}))


@pytest.mark.parametrize("count", [-1, 1.5, None, "3", float("nan"), 2**60, True])
def test_counts_that_count_nobody(count: object) -> None:
    with pytest.raises(Stopped, match=r"python\.output"):
        _table(pd.DataFrame({"g": ["x"], "n": pd.Series([count], dtype=object), "v": [1.0]}))


@pytest.mark.parametrize(
    "returned",
    [
        None,
        [],
        {},
        {"o": None},
        {"o": {"g": 1}},
        {"o": pd.DataFrame({"g": [], "n": [], "v": []}), "extra": 1},
        {"o": pd.DataFrame({"g": ["x"], "n": [3]})},
        {"o": pd.DataFrame({"n": [3], "g": ["x"], "v": [1.0]})},
        {"o": pd.DataFrame({"g": ["x"], "n": [3], "v": [1.0], "w": [1.0]})},
        {1: 2},
    ],
)
def test_other_shapes_are_refused(returned: object) -> None:
    with pytest.raises(Stopped, match=r"python\.output"):
        collect(returned, [TABLE])


def test_rows_and_label_lengths_are_bounded() -> None:
    with pytest.raises(Stopped, match=r"engine\.rows"):
        collect(
            {"o": pd.DataFrame({"g": range(4), "n": [3] * 4, "v": [1.0] * 4})},
            [output("o", "group:g", "count:n", "value:v", max_rows=3)],
        )
    with pytest.raises(Stopped, match=r"engine\.text"):
        _table(pd.DataFrame({"g": ["x" * 121], "n": [3], "v": [1.0]}))


def test_statistics() -> None:
    found = collect({"s": {"b": np.float64(2.5), "a": float("nan"), "basis": np.int64(7)}}, [NUMBERS]).outputs[0]
    assert isinstance(found, ResultStatistics)
    assert [(v.name, v.number) for v in found.values] == [("a", None), ("b", "2.5")]
    assert found.basis == 7
    for wrong in (
        {"a": 1, "b": 2},
        {"a": 1, "b": 2, "basis": -1},
        {"a": "x", "b": 1, "basis": 5},
        {"a": 1, "b": 2, "c": 3, "basis": 5},
        [1, 2],
    ):
        with pytest.raises(Stopped, match=r"python\.output"):
            collect({"s": wrong}, [NUMBERS])


@pytest.mark.parametrize("source", ["def analyse(:", "x = 1", "analyse = 3", "\x00", "(" * 3000])
def test_sources_that_define_nothing(source: str) -> None:
    with pytest.raises(Stopped, match=r"python\.source"):
        harness.load(source)


@pytest.mark.parametrize(
    "body",
    ["raise ValueError(secret)", "import sys; sys.exit(3)", "raise KeyboardInterrupt", "1 / 0", "assert False, secret"],
)
def test_exceptions_of_an_analysis_say_nothing(body: str) -> None:
    source = f"secret = 'Smith, born 1950'\ndef analyse(tables, parameters):\n    {body}\n"
    made = job(source, [table("t", [column("a")], ["A"])], [TABLE], engine="python")
    with pytest.raises(Stopped) as caught:
        harness.run(made, dict)
    assert caught.value.code == "python.failed"
    assert "Smith" not in str(caught.value) + caught.value.hint
    assert caught.value.__suppress_context__


def test_the_source_runs_when_the_tables_have_been_read() -> None:
    """Only then are the files closed, with the columns that it may not read."""
    order: list[str] = []

    def tables() -> dict[str, pd.DataFrame]:
        order.append("tables")
        return {}

    made = job("raise RuntimeError", [table("t", [column("a")], ["A"])], [TABLE], engine="python")
    with pytest.raises(Stopped, match=r"python\.failed"):
        harness.run(made, tables)
    assert order == ["tables"]
    broken = job("def (", [table("t", [column("a")], ["A"])], [TABLE], engine="python")
    with pytest.raises(Stopped, match=r"python\.source"):
        harness.run(broken, tables)
    assert order == ["tables"], "a source that does not compile reads nothing"


def test_the_same_function_runs_locally_with_its_own_exceptions() -> None:
    def analyse(tables: dict[str, pd.DataFrame], parameters: dict[str, Any]) -> dict[str, object]:
        frame = tables["t"].groupby("g", as_index=False).agg(n=("x", "size"), v=("x", "mean"))
        return {"o": frame[frame["n"] >= parameters["least"]]}

    data = {"t": pd.DataFrame({"g": ["a", "a", "b"], "x": [1.0, 2.0, 3.0]})}
    found = harness.run_function(analyse, data, {"least": 2}, [TABLE]).outputs[0]
    assert isinstance(found, ResultTable)
    assert found.columns[2].cells == ("1.5",)
    with pytest.raises(KeyError):
        harness.run_function(analyse, {}, {"least": 2}, [TABLE])


def test_parameters_arrive_with_their_types() -> None:
    made = job(
        "x = 1", [table("t", [column("a")], ["A"])], [TABLE], engine="python", parameters={"i": 3, "f": 0.5, "s": "x"}
    )
    assert harness.values(made.parameters) == {"i": 3, "f": 0.5, "s": "x"}
