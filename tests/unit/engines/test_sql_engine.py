"""The SQL engine's own counting: what stands behind each row and each number, whatever the query says."""

from __future__ import annotations

import json
from dataclasses import replace

import pyarrow as pa
import pytest

from kakoi.enclave.engines import sql_engine
from kakoi.enclave.failures import Stopped
from unit.engines.parts import LUNG_COLUMNS, column, job, output, parquet, part_fds, table
from unit.engines.sql_setting import CONTENTS, PEOPLE, TABLES, cells, run, run_with, sql_job

BY_SEX = output("o", "group:sex", "count:n", "value:v")
BY_WARD = output("o", "group:ward", "count:n", "value:v")


def test_groups_counts_and_values() -> None:
    found = run("SELECT sex, count(*) AS n, avg(age) AS v FROM people GROUP BY sex", BY_SEX)
    assert cells(found, "sex") == ("1", "2")
    assert cells(found, "n") == ("10", "10")
    assert cells(found, "v") == ("29", "30")
    assert found.rows == found.people == (10, 10)
    assert found.columns[0].domain == ("1", "2")


def test_the_site_is_the_owner_s_label() -> None:
    out = output("o", "group:site", "count:n")
    found = run("SELECT site, count(*) AS n FROM people GROUP BY site", out)
    assert cells(found, "site") == ("A", "B")
    assert found.columns[0].domain == ("A", "B")


def test_a_site_column_in_a_file_is_not_read() -> None:
    made = job(
        "SELECT site, count(*) AS n FROM t GROUP BY site",
        [table("t", [column("a")], ["A'; --"])],
        [output("o", "group:site", "count:n")],
    )
    with part_fds(made, [parquet(pa.table({"a": [1, 2], "site": ["forged", "forged"]}))]) as parts:
        assert cells(run_with(made, [parts[0].descriptor]), "site") == ("A'; --",)


def test_people_are_counted_once() -> None:
    out = output("o", "group:ward", "count:n", "value:visits")
    found = run("SELECT ward, count(*) AS n, count(ward) AS visits FROM visits GROUP BY 1", out)
    assert found.rows == (34, 34)
    assert found.people == (10, 10)
    assert cells(found, "n") == ("10", "10"), "the count column is people, whatever the query counts"
    assert cells(found, "visits") == ("34", "34")


def test_a_join_cannot_multiply_people() -> None:
    """Person p0 alone has fifty visits: fifty rows, one person."""
    source = "SELECT p.sex, count(*) AS n, sum(v.cost) AS v FROM people p JOIN visits v USING (pid) WHERE p.age < 21 GROUP BY p.sex"
    found = run(source, BY_SEX)
    assert found.people == (1,)
    assert found.rows == (1,), "one row of people behind it, however many rows the join makes"


def test_a_join_with_a_lookup_table_counts_its_rows_too() -> None:
    source = (
        "SELECT v.ward, count(*) AS n, avg(w.beds) AS v FROM visits v JOIN wards w ON v.ward = w.ward GROUP BY v.ward"
    )
    found = run(source, output("o", "group:ward", "count:n", "value:v"))
    assert found.people == (1, 1), "one row of wards stands behind each: its beds would be told"


def test_left_join_counts_the_side_that_is_missing() -> None:
    source = (
        "SELECT p.sex, count(*) AS n, sum(v.cost) AS v FROM people p LEFT JOIN visits v ON p.pid = v.pid GROUP BY p.sex"
    )
    found = run(source, BY_SEX)
    assert found.people == (5, 5)


def test_missing_values_shrink_the_support() -> None:
    found = run("SELECT sex, count(*) AS n, avg(weight) AS v FROM people WHERE age < 32 GROUP BY sex", BY_SEX)
    assert found.people == (6, 6)
    value = found.columns[2]
    assert value.support_people == (4, 5)


@pytest.mark.parametrize(
    ("expression", "support"),
    [
        ("sum(CASE WHEN age = 20 THEN weight END)", (10, 10)),  # missing: nobody adds anything; the cell itself
        ("sum(CASE WHEN age = 21 THEN weight ELSE 0 END)", (10, 1)),  # one person adds something
        ("avg(CASE WHEN age = 21 THEN weight ELSE 0 END)", (10, 1)),  # the same, divided by a count that is shown
        ("avg(CASE WHEN age = 21 THEN weight ELSE 0.5 END)", (10, 1)),
        ("sum(CASE WHEN age = 21 THEN weight ELSE 7 END)", (10, 1)),
        ("avg(coalesce(CASE WHEN age = 21 THEN weight END, 3))", (10, 1)),
        ("stddev(CASE WHEN age = 21 THEN weight ELSE 0 END)", (10, 1)),
        ("covar_pop(age, CASE WHEN age = 21 THEN weight ELSE 0 END)", (10, 1)),
        ("avg(CASE WHEN age > 24 THEN weight ELSE 0 END)", (1, 2)),  # those without a weight
        ("sum(CASE WHEN age = 21 THEN 1 ELSE 0 END)", (10, 1)),
        ("sum(CASE WHEN age <> 21 THEN 1 ELSE 0 END)", (10, 1)),  # all but one
        ("sum(CASE WHEN age > 24 THEN 1 ELSE 0 END)", (3, 2)),
        ("avg(CASE WHEN age = 21 THEN weight END)", (0, 1)),
        ("avg((age > 24)::INTEGER)", (3, 2)),
        ("count(CASE WHEN age = 21 THEN 1 END)", (10, 1)),
        ("count(weight)", (2, 2)),
        ("count(DISTINCT town)", (10, 10)),
        ("quantile_cont(age, 0.05)", (1, 1)),
        ("quantile_cont(age, 0.25)", (5, 5)),
        ("median(age)", (10, 10)),
        ("corr(age, weight)", (8, 8)),
        ("sum(weight) / sum(age)", (8, 8)),
        ("sum(age) - sum(CASE WHEN age = 21 THEN 0 ELSE age END)", (10, 1)),  # the difference is one person
        ("avg(CASE WHEN age <> 21 THEN weight END)", (2, 3)),  # two have no weight, one was left out
        ("median(nullif(age, 21))", (10, 1)),
        ("sum(coalesce(weight, 0))", (2, 2)),
    ],
)
def test_support_of_a_number(expression: str, support: tuple[int, int]) -> None:
    """How many people a number tells about. What it cannot see is in docs/adr/0061."""
    source = f"SELECT sex, count(*) AS n, {expression} AS v FROM people GROUP BY sex"  # noqa: S608
    found = run(source, BY_SEX)
    assert (found.columns[2].support_people or found.people) == support
    # and where each row is a person, so that counts add up
    made = replace(sql_job(source, BY_SEX), tables=(replace(PEOPLE, person_column=None),))
    with part_fds(made, CONTENTS[:2]) as parts:
        found = run_with(made, [part.descriptor for part in parts])
    assert (found.columns[2].support_rows or found.rows) == support


def test_parameters_are_bound_not_pasted() -> None:
    source = "SELECT sex, count(*) AS n, avg(age) AS v FROM people WHERE age >= $least AND town <> $town GROUP BY sex"
    found = run(source, BY_SEX, {"least": 30, "town": "'; DROP TABLE people; --", "unused": 1.5})
    assert found.people == (5, 5)


def test_margins_are_told_apart_from_missing_labels() -> None:
    source = 'SELECT sex, "ph.ecog", count(*) AS n FROM people GROUP BY ROLLUP ("ph.ecog", sex)'
    found = run(source, output("o", "group:sex", "group:ph.ecog", "count:n"))
    assert sum(1 for mask in found.margins if mask == 0) == 6
    assert sum(1 for mask in found.margins if mask == 1) == 3, "bit 0 is the first column of the result"
    assert found.margins.count(3) == 1
    total = found.margins.index(3)
    assert found.people[total] == 20


def test_rows_come_in_the_order_of_their_labels() -> None:
    source = "SELECT age % 4 AS rest, count(*) AS n FROM people GROUP BY rest ORDER BY rest DESC"
    assert cells(run(source, output("o", "group:rest", "count:n")), "rest") == ("3", "2", "1", "0")
    assert cells(run(source.split(" ORDER")[0], output("o", "group:rest", "count:n")), "rest") == ("0", "1", "2", "3")


def test_labels_of_dates_and_truth_values() -> None:
    source = "SELECT smokes, date_trunc('year', born) AS year, count(*) AS n FROM people GROUP BY ALL"
    found = run(source, output("o", "group:smokes", "group:year", "count:n"))
    assert set(cells(found, "smokes")) == {"true", "false"}
    assert all(year and year[4:10] == "-01-01" for year in cells(found, "year"))
    assert found.columns[0].domain == ("true", "false")
    assert found.columns[1].domain == ()


def test_a_cast_that_fails_is_missing_not_an_answer() -> None:
    found = run("SELECT sex, count(*) AS n, avg(CAST(town AS INTEGER)) AS v FROM people GROUP BY sex", BY_SEX)
    assert cells(found, "v") == (None, None)
    assert found.columns[2].support_people == (0, 0)


def test_a_whole_table_is_a_group() -> None:
    found = run(
        "SELECT count(*) AS n, stddev(age) AS v FROM people WHERE age > 1000", output("o", "count:n", "value:v")
    )
    assert found.rows == (0,)
    assert cells(found, "n") == ("0",)


def test_many_rows_and_long_labels_stop_nothing() -> None:
    """One person may be the row too many, or have the long text: the gate judges rows of enough people."""
    found = run("SELECT age, count(*) AS n FROM people GROUP BY age", output("o", "group:age", "count:n", max_rows=19))
    assert len(found.rows) == 20
    made = job(
        "SELECT s, count(*) AS n FROM t GROUP BY s",
        [table("t", [column("s", "string")], ["A"])],
        [output("o", "group:s", "count:n")],
    )
    with part_fds(made, [parquet(pa.table({"s": ["x" * 121]}))]) as parts:
        assert cells(run_with(made, [parts[0].descriptor]), "s") == ("x" * 119 + "…",)


def test_values_must_be_numbers() -> None:
    with pytest.raises(Stopped, match=r"sql\.(type|failed)"):
        run("SELECT sex, count(*) AS n, median(born) AS v FROM people GROUP BY sex", BY_SEX)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"PAR1",
        CONTENTS[0][:-1],
        CONTENTS[0][: len(CONTENTS[0]) // 2],
        parquet(pa.table({"pid": ["x"]})),
        parquet(pa.table({"time": ["1"], "status": [1], "age": [1], "sex": [1], "ph_ecog": [1]})),
        parquet(pa.table({"time": [1.5], "status": [1], "age": [1], "sex": [1], "ph_ecog": [1]})),
    ],
)
def test_parts_that_are_not_what_was_declared(content: bytes) -> None:
    source = "SELECT sex, count(*) AS n FROM lung GROUP BY sex"
    made = job(source, [table("lung", LUNG_COLUMNS, ["A"])], [output("o", "group:sex", "count:n")])
    with part_fds(made, [content]) as parts, pytest.raises(Stopped, match=r"engine\.part"):
        run_with(made, [parts[0].descriptor])


def test_smaller_file_types_are_widened() -> None:
    data = pa.table(
        {
            "a": pa.array([1, 2, 3], pa.int8()),
            "b": pa.array([1.5, 2.5, None], pa.float32()),
            "c": pa.array([1, 2, 3], pa.int32()),
        }
    )
    columns = [column("a"), column("b", "number"), column("c", "number")]
    made = job(
        "SELECT a, count(*) AS n, sum(b) AS v FROM t GROUP BY a",
        [table("t", columns, ["A"])],
        [output("o", "group:a", "count:n", "value:v")],
    )
    with part_fds(made, [parquet(data)]) as parts:
        assert cells(run_with(made, [parts[0].descriptor]), "v") == ("1.5", "2.5", None)


def test_check_judges_without_data() -> None:
    sql_engine.check(sql_job("SELECT sex, count(*) AS n, avg(age) AS v FROM people GROUP BY sex", BY_SEX))
    with pytest.raises(Stopped, match=r"sql\.aggregate"):
        sql_engine.check(sql_job("SELECT sex, count(*) AS n, max(age) AS v FROM people GROUP BY sex", BY_SEX))


def test_hidden_names_cannot_be_declared() -> None:
    with pytest.raises(Exception, match="name"):
        column("kakoi row")
    assert all(" " not in c.name for t in TABLES for c in t.columns)
    assert replace(PEOPLE, name="other").readable[0] == "site"


def test_the_serializer_is_the_parser_that_runs() -> None:
    connection = sql_engine.locked([], memory_megabytes=64, threads=1, milliseconds=1000)
    tree = json.loads(sql_engine.serialize(connection)("SELECT 1"))
    assert tree["statements"][0]["node"]["type"] == "SELECT_NODE"


def magnitudes(source: str) -> list[list[tuple[str | None, tuple[str | None, ...]]]]:
    """For each magnitude of the value column, for each row: the total and the largest contributions."""
    found = run(source, BY_SEX if "BY sex" in source else BY_WARD).columns[2].magnitudes
    return [[(total, m.largest[2 * i : 2 * i + 2]) for i, total in enumerate(m.totals)] for m in found]


def test_the_largest_contributors_are_stated() -> None:
    (found,) = magnitudes("SELECT sex, count(*) AS n, avg(age) AS v FROM people GROUP BY sex")
    assert found == [("290", ("38", "36")), ("300", ("39", "37"))]
    (found,) = magnitudes("SELECT sex, count(*) AS n, sum(-age) AS v FROM people GROUP BY sex")
    assert found[0] == ("290", ("38", "36")), "without their sign"


def test_contributors_are_people_not_rows() -> None:
    """p0 has 50 of 68 visits; each visit adds little, the person nearly all."""
    (found,) = magnitudes("SELECT ward, count(*) AS n, sum(cost) AS v FROM visits GROUP BY ward")
    costs = {ward: [sum(range(i, 50, 2)), *range(50 + i, 68, 2)] for i, ward in ((1, "north"), (0, "south"))}
    for (total, largest), of_each in zip(found, (costs["north"], costs["south"]), strict=True):
        assert total == str(sum(of_each))
        assert largest == (str(of_each[0]), str(max(of_each[1:])))


def test_margins_and_joins_have_contributors_too() -> None:
    source = (
        "SELECT v.ward, count(*) AS n, sum(p.age) AS v FROM visits v JOIN people p ON v.pid = p.pid GROUP BY v.ward"
    )
    assert len(magnitudes(source)) == 2, "by the people of each table"
    (found,) = magnitudes("SELECT ward, count(*) AS n, avg(cost) AS v FROM visits GROUP BY ROLLUP (ward)")
    assert len(found) == 3
    assert found[2] == (str(sum(range(68))), (str(sum(range(50))), str(66 + 67)))


@pytest.mark.parametrize("expression", ["sum(CASE WHEN age > 30 THEN 1 ELSE 0 END)", "count(weight)", "median(age)"])
def test_frequencies_have_none(expression: str) -> None:
    """Where each row is a person. A person with many visits contributes to counts of visits."""
    source = f"SELECT sex, count(*) AS n, {expression} AS v FROM people GROUP BY sex"  # noqa: S608
    made = replace(sql_job(source, BY_SEX), tables=(replace(PEOPLE, person_column=None),))
    with part_fds(made, CONTENTS[:2]) as parts:
        assert run_with(made, [part.descriptor for part in parts]).columns[2].magnitudes == ()
    (found,) = magnitudes("SELECT ward, count(*) AS n, count(cost) AS v FROM visits GROUP BY ward")
    assert found[0] == ("34", ("25", "1"))
