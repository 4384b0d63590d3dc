"""No row makes a query stop: what fails on one row is missing there, and what could fail on aggregates is refused from the text alone."""

from __future__ import annotations

import pytest

from kakoi.enclave.engines.sql_total import common, of_function
from kakoi.enclave.failures import Stopped
from unit.engines.parts import output
from unit.engines.sql_setting import run

BIG = 9223372036854775807


def answers(value: str = "avg(age)", *, where: str = "age > 0", group: str = "sex") -> list[str | None]:
    """The values of a query over twenty people by a group."""
    source = f"SELECT {group} AS g, count(*) AS n, {value} AS v FROM people WHERE {where} GROUP BY g"  # noqa: S608
    return list(run(source, output("o", "group:g", "count:n", "value:v")).columns[2].cells)


@pytest.mark.parametrize(
    "where",
    [
        f"CASE WHEN age = 25 THEN {BIG} + age ELSE 1 END > 0",
        f"CASE WHEN age = 25 THEN age * {BIG} ELSE 1 END > 0",
        "age % (age - 25) >= 0 OR age > 0",
        "(10 // (age - 25)) IS NOT NULL",
        "CASE WHEN age = 25 THEN town ELSE '1' END = 1",
        "CASE WHEN age = 25 THEN town ELSE '1' END IN (1, 2)",
        "CASE WHEN age = 25 THEN town ELSE 'true' END = true",
        "NOT (CASE WHEN age = 25 THEN town ELSE 'false' END)",
        "CASE WHEN (CASE WHEN age = 25 THEN town ELSE 'true' END) THEN true ELSE false END",
        "(CASE WHEN age = 25 THEN town ELSE 'true' END) AND age > 0",
        f"length(left(town, CASE WHEN age = 25 THEN {BIG} ELSE 1 END)) > 0",
        f"substring(town, 1, CASE WHEN age = 25 THEN {BIG} ELSE 1 END) <> 'x'",
        "date_part(CASE WHEN age = 25 THEN town ELSE 'year' END, born) > 0",
        f"abs(CASE WHEN age = 25 THEN -{BIG} - 1 ELSE 1 END) > 0",
        f"-(CASE WHEN age = 25 THEN -{BIG} - 1 ELSE 1 END) <> 0",
        f"round(age) + CASE WHEN age = 25 THEN {BIG} ELSE 1 END > 0",
        f"born + CASE WHEN age = 25 THEN {2**31 - 1} ELSE 1 END > born",
    ],
)
def test_a_row_stops_no_query(where: str) -> None:
    for found in (answers(where=where), answers(f"sum(CASE WHEN {where} THEN 1 ELSE 0 END)")):
        assert len(found) == 2
    source = f"SELECT ({where}) AS g, count(*) AS n FROM people GROUP BY g"  # noqa: S608
    assert len(run(source, output("o", "group:g", "count:n")).rows) in (1, 2, 3)


@pytest.mark.parametrize("value", [f"avg(age + {BIG - 30})", f"sum(age * {BIG // 30})", f"median({BIG - 30} + age)"])
def test_where_a_number_is_missing_by_failing_those_who_are_told_apart_are_counted(value: str) -> None:
    """Ages from 31 overflow: the average is of the others, and its support is the smaller of both groups."""
    source = f"SELECT count(*) AS n, {value} AS v FROM people"  # noqa: S608
    found = run(source, output("o", "count:n", "value:v")).columns[1].support_people
    assert found
    assert found[0] <= 9


@pytest.mark.parametrize(
    "value",
    [
        "sum(age) // (count(*) - 10)",
        "sum(age) % (count(*) - 10)",
        "left('abc', sum(age))",
    ],
)
def test_arithmetic_of_aggregates_that_can_fail_is_refused(value: str) -> None:
    with pytest.raises(Stopped) as caught:
        answers(value)
    assert caught.value.code in ("sql.fails", "sql.failed")
    with pytest.raises(Stopped) as other:
        answers(value, where="age > 1000")
    assert other.value.code == caught.value.code, "whatever the data"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("round(100.0 * sum(CASE WHEN smokes THEN 1 ELSE 0 END) / nullif(count(*), 0), 1)", ["40", "30"]),
        ("coalesce(sum(age), 0) - 1", ["289", "299"]),
        (f"CASE WHEN count(*) > 5 THEN {BIG} ELSE 0 END + 1", ["9223372036854776000"] * 2),
        (f"count(*) * {BIG}", ["92233720368547760000"] * 2),
        ("sqrt(var_pop(age))", ["5.744562646538029"] * 2),
    ],
)
def test_other_arithmetic_of_aggregates_stays(value: str, expected: list[str]) -> None:
    assert answers(value) == expected


@pytest.mark.parametrize("where", ["town", "born", "left(town, 1)"])
def test_a_condition_is_true_or_false(where: str) -> None:
    with pytest.raises(Stopped) as caught:
        answers(where=where)
    assert caught.value.code == "sql.not-allowed"


def test_tables_join_by_columns_of_one_type() -> None:
    with pytest.raises(Stopped) as caught:
        run("SELECT count(*) AS n FROM people p JOIN wards w ON p.age = w.ward", output("o", "count:n"))
    assert caught.value.code == "sql.join"


def test_kinds() -> None:
    assert common(["integer", "double", ""]) == "double"
    assert common(["text", "text"]) == "text"
    assert common(["text", "integer"]) == "?"
    assert of_function("+", ["integer", "integer"], [None, "1"]) == ("integer", False)
    assert of_function("+", ["double", "integer"], [None, "1"]) == ("double", True)
    assert of_function("%", ["integer", "integer"], [None, "10"]) == ("integer", True)
    assert of_function("%", ["integer", "integer"], [None, "0"])[1] is False
    assert of_function("made_up", ["text"], [None]) == ("?", False)
