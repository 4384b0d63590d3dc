"""Exact tables: what declarations allow is there whatever the data are, and one person moves it by no more than it says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kakoi.enclave.engines import sql_engine
from kakoi.enclave.exact import ExactRanks, ExactSum, ExactTable
from kakoi.enclave.failures import Stopped
from kakoi.enclave.job import Job, JobTable
from unit.engines.parts import column, job, output, parquet, part_fds, table

COLUMNS = [
    column("sex", codes=("1", "2")),
    column("age", minimum="0", maximum="100"),
    column("cost", "number", minimum="-5", maximum="20.5"),
    column("smokes", "boolean"),
    column("town", "string"),
    column("grade", minimum="1", maximum="3"),
]
PERSONS = table("t", COLUMNS)
VISITS = table("t", [column("pid", "string", identifier="join-key"), *COLUMNS], person="pid")
Row = dict[str, Any]
SCHEMA = pa.schema(
    [
        ("pid", pa.string()),
        ("sex", pa.int64()),
        ("age", pa.int64()),
        ("cost", pa.float64()),
        ("smokes", pa.bool_()),
        ("town", pa.string()),
        ("grade", pa.int64()),
    ]
)
EVERYTHING = (
    "SELECT sex, count(*) AS n, sum(age) AS ages, avg(cost) AS mean, median(cost) AS middle, quantile_cont(age, 0.9) AS old, "
    "sum(CASE WHEN smokes THEN 1 ELSE 0 END) AS smokers, count(cost) AS known FROM t WHERE age >= 10 GROUP BY sex"
)
COLUMNS_OF_IT = (
    "group:sex",
    "count:n",
    "value:ages",
    "value:mean",
    "value:middle",
    "value:old",
    "value:smokers",
    "value:known",
)


def noisy_job(source: str, *columns: str, of: JobTable = PERSONS, rows: int = 1, max_rows: int = 1000) -> Job:
    return replace(job(source, [of], [output("o", *columns, max_rows=max_rows)]), rows_per_person=rows)


def answer(made: Job, *owners: Sequence[Row]) -> ExactTable:
    rows = [pa.Table.from_pylist([dict.fromkeys(SCHEMA.names) | row for row in part], SCHEMA) for part in owners]
    rows += [SCHEMA.empty_table()] * (len(made.tables[0].parts) - len(rows))
    with part_fds(made, [parquet(part) for part in rows]) as parts:
        found = sql_engine.run(
            made, [p.descriptor for p in parts], memory_megabytes=256, threads=2, milliseconds=10_000
        ).outputs[0]
    assert isinstance(found, ExactTable)
    return found


def exact(found: ExactTable, name: str) -> list[list[int]]:
    """The cells of each sum behind a column."""
    places = next(c.measures for c in found.columns if c.name == name)
    sums = [m for m in (found.measures[i] for i in places) if isinstance(m, ExactSum)]
    return [list(map(int, m.cells)) for m in sums]


def labels(found: ExactTable, name: str) -> tuple[str | None, ...]:
    return next(c.labels for c in found.columns if c.name == name)


def moved(one: ExactTable, other: ExactTable) -> list[tuple[int, int]]:
    """For each measure by how much two answers differ in all cells together, and by how much they may."""
    out = []
    for a, b in zip(one.measures, other.measures, strict=True):
        if isinstance(a, ExactSum) and isinstance(b, ExactSum):
            change = sum(abs(int(x) - int(y)) for x, y in zip(a.cells, b.cells, strict=True))
            out.append((change, int(a.reach)))
        else:
            assert isinstance(a, ExactRanks)
            assert isinstance(b, ExactRanks)
            out.append((sum(abs(n) for n in _ranks_changed(a, b)), a.reach))
    return out


def _ranks_changed(a: ExactRanks, b: ExactRanks) -> list[int]:
    counts: dict[tuple[int, int], int] = {}
    for sign, ranks in ((1, a), (-1, b)):
        for at in range(0, len(ranks.filled), 3):
            cell, candidate, rows = ranks.filled[at : at + 3]
            counts[cell, candidate] = counts.get((cell, candidate), 0) + sign * rows
    return list(counts.values())


def test_every_declared_cell_is_there_whether_or_not_anybody_is_in_it() -> None:
    made = noisy_job(
        "SELECT sex, smokes, grade, site, count(*) AS n FROM t GROUP BY sex, smokes, grade, site",
        "group:sex",
        "group:smokes",
        "group:grade",
        "group:site",
        "count:n",
    )
    nobody, somebody = answer(made), answer(made, [{"sex": 2, "smokes": True, "grade": 3}])
    sites = len(made.tables[0].sites)
    assert len(labels(nobody, "sex")) == 3 * 3 * 4 * sites
    assert [c.labels for c in nobody.columns] == [c.labels for c in somebody.columns]
    assert set(labels(nobody, "grade")) == {"1", "2", "3", None}
    assert None not in labels(nobody, "site")
    assert exact(nobody, "n") == [[0] * len(labels(nobody, "sex"))]
    assert sorted(exact(somebody, "n")[0])[-2:] == [0, 1]


def test_labels_that_nobody_declared_are_not_counted() -> None:
    made = noisy_job("SELECT sex, count(*) AS n FROM t GROUP BY sex", "group:sex", "count:n")
    found = answer(made, [{"sex": 7}, {"sex": 1}, {"sex": None}])
    assert dict(zip(labels(found, "sex"), exact(found, "n")[0], strict=True)) == {"1": 1, "2": 0, None: 1}


def test_values_are_clamped_to_their_declared_range_and_counted_in_steps() -> None:
    made = noisy_job(
        "SELECT count(*) AS n, sum(age) AS a, sum(cost) AS c, avg(cost) AS m FROM t",
        *("count:n", "value:a", "value:c", "value:m"),
    )
    rows = [
        {"age": 30, "cost": 1.25},
        {"age": 10**15, "cost": 1e300},
        {"age": -7, "cost": float("-inf")},
        {"cost": float("nan")},
    ]
    found = answer(made, rows)
    assert exact(found, "a") == [[130]]
    step = next(c.step for c in found.columns if c.name == "c")
    assert exact(found, "c") == [[round((1.25 + 20.5 - 5) / float(step))]]
    above, known = exact(found, "m")
    assert known == [3], "missing, and what is no number, is no value"
    centre = next(c.centre for c in found.columns if c.name == "m")
    assert above[0] + 3 * centre == exact(found, "c")[0][0]
    assert [int(m.reach) for m in found.measures if isinstance(m, ExactSum)][1] == 100


def test_of_a_person_with_many_rows_so_many_count_that_the_query_selects() -> None:
    rows = [{"pid": "a", "age": age} for age in range(20)] + [{"pid": "b", "age": 90}, {"pid": None, "age": 50}]
    made = noisy_job(
        "SELECT count(*) AS n, sum(age) AS a FROM t WHERE age > 4", "count:n", "value:a", of=VISITS, rows=3
    )
    found = answer(made, rows)
    assert exact(found, "a") == [[5 + 6 + 7 + 90]], "the first three selected rows of a, all of b, and nobody's not"
    assert exact(found, "n") == [[2]], "people"
    rows_counted = answer(
        noisy_job("SELECT count(*) AS n, count(age) AS k FROM t", "count:n", "value:k", of=VISITS, rows=3), rows
    )
    assert exact(rows_counted, "k") == [[4]]


def test_the_same_person_at_two_owners_is_protected_at_each() -> None:
    mine = [{"pid": "a", "age": 1}, {"pid": "a", "age": 2}]
    made = noisy_job("SELECT count(*) AS n, sum(age) AS a FROM t", "count:n", "value:a", of=VISITS)
    assert exact(answer(made, mine, mine), "a") == [[1 + 1]]
    assert exact(answer(made, mine), "a") == [[1]]


def test_no_row_can_stop_the_query() -> None:
    """Overflow, a cast that fails, a logarithm of nothing: the row is missing there, and the others count."""
    for condition in (
        "ln(age - 20) >= 0 OR age < 21",
        "age * 9000000000000000000 >= 0 OR age = 30",
        "town = 5 OR age = 30",
    ):
        made = noisy_job(f"SELECT count(*) AS n FROM t WHERE {condition}", "count:n")  # noqa: S608 - a test
        found = answer(made, [{"age": 30, "town": "x"}, {"age": 0, "town": "5"}])
        assert exact(found, "n")[0][0] in (1, 2), condition


PERSON = st.fixed_dictionaries(
    {
        "sex": st.sampled_from([1, 2, 3, None]),
        "age": st.one_of(st.none(), st.integers(-(2**62), 2**62), st.integers(0, 100)),
        "cost": st.one_of(st.none(), st.floats(), st.floats(-5, 20.5)),
        "smokes": st.sampled_from([True, False, None]),
    }
)


@settings(max_examples=25, deadline=None)
@given(st.lists(PERSON, min_size=1, max_size=12), st.data())
def test_one_person_moves_no_measure_further_than_its_reach(people: list[Row], data: st.DataObject) -> None:
    made = noisy_job(EVERYTHING, *COLUMNS_OF_IT)
    gone = data.draw(st.integers(0, len(people) - 1))
    without = people[:gone] + people[gone + 1 :]
    for change, reach in moved(answer(made, people), answer(made, without)):
        assert change <= reach


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("abc"), PERSON), min_size=1, max_size=25), st.integers(1, 4))
def test_one_person_with_many_rows_neither(visits: list[tuple[str, Row]], rows: int) -> None:
    made = noisy_job(EVERYTHING, *COLUMNS_OF_IT, of=VISITS, rows=rows)
    everybody = [{"pid": pid, **row} for pid, row in visits]
    without = [row for row in everybody if row["pid"] != "a"]
    for change, reach in moved(answer(made, everybody), answer(made, without)):
        assert change <= reach


def test_the_reach_is_reached() -> None:
    """It is not wider than it need be: somebody at the end of the range moves a sum by all of it."""
    made = noisy_job("SELECT count(*) AS n, sum(age) AS a, avg(cost) AS m FROM t", "count:n", "value:a", "value:m")
    found = moved(answer(made, [{"age": 100, "cost": 20.5}]), answer(made))
    assert [change for change, _ in found] == [reach for _, reach in found]


@pytest.mark.parametrize(
    ("source", "columns", "code"),
    [
        ("SELECT count(*) AS n, stddev(age) AS v FROM t", "count:n value:v", "sql.noise-number"),
        ("SELECT count(*) AS n, sum(age) / count(*) AS v FROM t", "count:n value:v", "sql.noise-number"),
        ("SELECT count(*) AS n, sum(age) + sum(cost) AS v FROM t", "count:n value:v", "sql.noise-number"),
        ("SELECT count(*) AS n, corr(age, cost) AS v FROM t", "count:n value:v", "sql.noise-number"),
        ("SELECT count(*) AS n, sum(exp(age)) AS v FROM t", "count:n value:v", "sql.noise-range"),
        ("SELECT count(*) AS n, avg(length(town)) AS v FROM t", "count:n value:v", "sql.noise-range"),
        ("SELECT town, count(*) AS n FROM t GROUP BY town", "group:town count:n", "sql.noise-group"),
        ("SELECT cost, count(*) AS n FROM t GROUP BY cost", "group:cost count:n", "sql.noise-group"),
        ("SELECT age // 10 AS decade, count(*) AS n FROM t GROUP BY decade", "group:decade count:n", "sql.noise-group"),
        ("SELECT sex, count(*) AS n FROM t GROUP BY ROLLUP (sex)", "group:sex count:n", "sql.noise-margins"),
        ("SELECT age, sex, count(*) AS n FROM t GROUP BY age, sex", "group:age group:sex count:n", "sql.noise-cells"),
    ],
)
def test_what_has_no_bound_is_refused_before_any_row_is_read(source: str, columns: str, code: str) -> None:
    with pytest.raises(Stopped) as refused:
        sql_engine.check(noisy_job(source, *columns.split(), max_rows=100))
    assert refused.value.code == code
    sql_engine.check(replace(noisy_job(source, *columns.split(), max_rows=100), rows_per_person=0))


def test_a_join_is_refused() -> None:
    other = table("u", [column("sex", codes=("1", "2")), column("beds")])
    made = replace(
        job("SELECT count(*) AS n FROM t JOIN u ON t.sex = u.sex", [PERSONS, other], [output("o", "count:n")]),
        rows_per_person=1,
    )
    with pytest.raises(Stopped, match=r"sql\.noise-join"):
        sql_engine.check(made)


@pytest.mark.parametrize(
    ("expression", "low", "high"),
    [
        ("age", 0, 100),
        ("greatest(least(exp(age), 50), 0)", 0, 50),
        ("age - 50", -50, 50),
        ("age * sex", 0, 200),
        ("CASE WHEN smokes THEN age END", 0, 100),
        ("CASE WHEN smokes THEN 3 ELSE -1 END", -1, 3),
        ("CAST(smokes AS INTEGER)", 0, 1),
        ("coalesce(age, 120)", 0, 120),
        ("CAST(age AS DOUBLE)", 0, 100),
        ("CAST(age > 5 AS BIGINT)", 0, 1),
    ],
)
def test_ranges_follow_from_declarations(expression: str, low: int, high: int) -> None:
    made = noisy_job(f"SELECT count(*) AS n, quantile_cont({expression}, 0.5) AS v FROM t", "count:n", "value:v")  # noqa: S608 - a test
    found = answer(made, [{"age": 30, "sex": 1, "smokes": True}])
    column = found.columns[1]
    assert (column.low * Decimal(column.step), column.high * Decimal(column.step)) == (Decimal(low), Decimal(high))
    (_, ranks) = found.measures
    assert isinstance(ranks, ExactRanks)
    assert ranks.candidates <= 1001
    assert sum(ranks.filled[2::3]) == 1


def test_parameters_and_numbers_spelled_otherwise_find_their_cells() -> None:
    source = "SELECT CASE WHEN age > 50 THEN 1.50 ELSE 0 END AS old, count(*) AS n FROM t GROUP BY old"
    found = answer(noisy_job(source, "group:old", "count:n"), [{"age": 60}, {"age": 70}, {"age": 1}])
    assert dict(zip(labels(found, "old"), exact(found, "n")[0], strict=True)) == {"0": 1, "1.50": 2, None: 0}


def test_where_nothing_can_be_missing_there_is_no_row_for_it() -> None:
    made = noisy_job("SELECT sex, count(*) AS n FROM t GROUP BY sex", "group:sex", "count:n")
    sure = replace(
        made,
        tables=(replace(PERSONS, columns=tuple(replace(c, may_be_missing=False) for c in PERSONS.columns)),),
    )
    assert labels(answer(made), "sex") == ("1", "2", None)
    assert labels(answer(sure, [{"sex": 1}, {"sex": None}]), "sex") == ("1", "2")
