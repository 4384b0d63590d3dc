"""Jobs and answers as records."""

from __future__ import annotations

from dataclasses import replace
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kakoi.contract import model
from kakoi.core.errors import KakoiError, Malformed
from kakoi.enclave import job as job_module
from kakoi.enclave.failures import FAILURES, PYTHON_CODES, Stopped, of_failure
from kakoi.enclave.job import Failure, Job, Result, code_labels
from unit.engines.parts import COUNTS, column, job, lung_table, output, table


def test_column_types_are_the_contract_s() -> None:
    assert get_args(job_module.ColumnType) == get_args(model.ColumnType)


def test_a_job_survives_its_encoding() -> None:
    made = job("select 1", [lung_table()], [COUNTS], parameters={"a": 1, "b": 1.5, "c": "x"})
    assert Job.decode(made.encode()) == made


def test_nobody_declares_the_site_column() -> None:
    for name in ("site", "SITE"):
        with pytest.raises(Malformed, match=r"job\.repeated"):
            table("t", [column(name)])


def test_names_that_sql_folds_together_are_refused() -> None:
    with pytest.raises(Malformed, match=r"job\.repeated"):
        table("t", [column("age"), column("Age")])
    made = job("x", [table("t", [column("a")])], [output("o", "count:n")])
    with pytest.raises(Malformed, match=r"job\.repeated"):
        replace(made, tables=(table("t", [column("a")]), table("T", [column("a")])))


def test_the_person_column_is_a_column() -> None:
    with pytest.raises(Malformed, match=r"job\.person-column"):
        table("t", [column("a")], person="p")


def test_labels_of_codes() -> None:
    assert code_labels(column("a", codes=("1", "2.0", "x"))) == ("1", "2", "x")
    assert code_labels(column("a", "string", codes=("1.0",))) == ("1.0",)
    assert code_labels(column("a", "boolean")) == ("true", "false")
    assert code_labels(column("a")) == ()


@given(st.binary(max_size=400))
def test_any_bytes_are_a_result_or_our_error(data: bytes) -> None:
    for kind in (Result, Failure, Job):
        with pytest.raises(KakoiError):
            kind.decode(data)


def test_a_failure_says_nothing_but_its_code() -> None:
    loud = Failure(code="python.failed", subject="Smith, born 1950")
    assert "Smith" not in str(of_failure(loud, engine="python"))
    assert of_failure(loud, engine="sql").code == "engine.failed"
    told = of_failure(Stopped("sql.function", "string_agg").failure(), engine="sql")
    assert told.code == "sql.function"
    assert "string_agg" in told.message
    assert of_failure(Failure(code="sql.function", subject=""), engine="python").code == "engine.failed"
    assert (
        of_failure(Failure(code="sql.function", subject="a\x1b[2J"), engine="sql").message
        == FAILURES["sql.function"][0]
    )
    assert of_failure(Failure(code="invented.code", subject=""), engine="sql").code == "engine.failed"


def test_every_code_has_words() -> None:
    assert set(FAILURES) >= PYTHON_CODES
    for code, (message, hint) in FAILURES.items():
        assert message, code
        assert hint, code
        assert Stopped(code, "x").hint == hint
