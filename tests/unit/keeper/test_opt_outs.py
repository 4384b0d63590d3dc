"""People who opted out are in no table that an engine gets: lists are applied first, in the sandbox that also makes tokens."""

from __future__ import annotations

import datetime as dt
import io
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from kakoi.contract.model import Analysis, Column
from kakoi.contract.opt_out import at_least, require_column, usable_columns
from kakoi.core.errors import Refused
from kakoi.core.ids import object_id
from kakoi.dataset.opt_out import encode_list
from kakoi.enclave.engines import keying
from kakoi.enclave.failures import Stopped
from kakoi.enclave.job import PLACE_COLUMN, KeyingColumn, KeyingJob
from kakoi.enclave.keeper.keying import Files
from kakoi.enclave.keeper.opt_out import Listed, OptOuts
from kakoi.testing.world import NOW
from kakoi.wire.messages import LeftOut, RunRequest
from support.clinic import RULES, Answer, Clinic, Holding, col, data_secret, output, shared_engine
from unit.engines.parts import parquet, sealed

KEY = bytes(range(32))


# -- the program in the sandbox ----------------------------------------------------------------------------------------


def column(name: str, kind: str = "integer", *, keyed: bool = False) -> KeyingColumn:
    return KeyingColumn(name=name, type=kind, keyed=keyed)  # type: ignore[arg-type]


def without(
    tables: Sequence[pa.Table], left_out: KeyingColumn, people: bytes, *columns: KeyingColumn
) -> tuple[Any, int]:
    """The files as they come out, and how many people were left out."""
    key, files = os.memfd_create("key"), Files(len(tables), counted=True)
    os.write(key, KEY)
    descriptors = [key, sealed(people), *(sealed(parquet(table)) for table in tables)]
    try:
        job = KeyingJob(table="t", columns=columns, left_out=left_out, files=len(tables))
        keying.run(job, descriptors, files.take)
        assert files.is_whole
        return [pq.read_table(io.BytesIO(os.pread(d, 1 << 26, 0))) for d in files.descriptors], files.count
    finally:
        files.close()
        for descriptor in descriptors:
            os.close(descriptor)


@pytest.mark.parametrize(
    ("kind", "values", "listed"),
    [
        ("string", ["007", "7", "8", None], ["007"]),
        ("integer", [7, 8, 9, None], ["7"]),
        ("date", [dt.date(2024, 1, 1), dt.date(2024, 1, 2), dt.date(2024, 1, 3), None], ["2024-01-01"]),
    ],
)
def test_rows_of_listed_people_are_gone_and_others_stay(kind: str, values: list[Any], listed: list[str]) -> None:
    """007 is not 7, and a row that names nobody is nobody's who opted out."""
    arrow = {"string": pa.string(), "integer": pa.int64(), "date": pa.date32()}[kind]
    table = pa.table({"id": pa.array(values, arrow), "x": [1, 2, 3, 4]})
    (out,), people = without([table], column("id", kind), encode_list(listed), column("x"))
    assert out.to_pydict() == {"x": [2, 3, 4], PLACE_COLUMN: [1, 2, 3]}
    assert people == 1


def test_people_are_counted_once_over_all_files_and_rows() -> None:
    tables = [pa.table({"id": [1, 1, 2, 3], "x": [1, 2, 3, 4]}), pa.table({"id": [1, 4], "x": [5, 6]})]
    out, people = without(tables, column("id"), encode_list(["1", "3", "999"]), column("x"))
    assert [table["x"].to_pylist() for table in out] == [[3], [6]]
    assert people == 2


def test_tokens_are_made_of_those_who_stay() -> None:
    table = pa.table({"id": ["a", "b"], "x": [1, 2]})
    (out,), _ = without(
        [table], column("id", "string"), encode_list(["a"]), column("id", "string", keyed=True), column("x")
    )
    assert out.to_pydict() == {"id": [keying.token(KEY, "b")], "x": [2], PLACE_COLUMN: [1]}


def test_everybody_may_opt_out() -> None:
    (out,), people = without(
        [pa.table({"id": [1, 2], "x": [1, 2]})], column("id"), encode_list(["1", "2"]), column("x")
    )
    assert (out.num_rows, people) == (0, 2)


@pytest.mark.parametrize("data", [b"", b"1\n2\n", encode_list(["1"])[:-1], encode_list(["1"]) + b"2\n"])
def test_what_is_no_list_stops_the_run(data: bytes) -> None:
    with pytest.raises(Stopped) as caught:
        without([pa.table({"id": [1], "x": [1]})], column("id"), data, column("x"))
    assert caught.value.code == "engine.list"


@pytest.mark.parametrize("counted", [True, False])
def test_an_answer_has_a_count_exactly_if_one_is_wanted(counted: bool) -> None:
    for data in (bytes(4), bytes(4) + (8).to_bytes(4, "big") + (3).to_bytes(8, "big")):
        files = Files(1, counted=counted)
        files.take((1).to_bytes(4, "big") + b"x" + data)
        assert files.is_whole == (counted == (len(data) > 4))
        assert files.count == (3 if counted and len(data) > 4 else 0)
        files.close()


def test_a_count_of_another_length_or_a_second_one_breaks_the_answer() -> None:
    count = (8).to_bytes(4, "big") + bytes(8)
    for data in (bytes(4) + (7).to_bytes(4, "big") + bytes(7), bytes(4) + count + count):
        files = Files(1, counted=True)
        files.take(data)
        assert not files.is_whole
        files.close()


# -- engine and gate ---------------------------------------------------------------------------------------------------

IDS: dict[str, list[Any]] = {"string": [f"p{i:03d}" for i in range(60)], "integer": list(range(100, 160))}


def holding(owner: str, flag: str, kind: str = "string", *, person: bool = False) -> Holding:
    ids = IDS[kind] if owner == "North" else [f"{owner}/{number}" for number in IDS[kind]]
    frame = pd.DataFrame({"pid": ids, "sex": [i % 2 for i in range(60)], "age": [30 + i for i in range(60)]})
    columns = (col("pid", kind, identifier=flag), col("sex", codes=("0", "1")), col("age"))
    return Holding(owner=owner, table="people", frame=frame, columns=columns, person="pid" if person else None)


CELLS = output("cells", "group:sex", "count:people", "value:mean_age")
SQL = "SELECT sex, count(*) AS people, avg(age) AS mean_age FROM people GROUP BY sex"
PYTHON = """
def analyse(tables, parameters):
    cells = tables["people"].groupby("sex", as_index=False).agg(people=("age", "size"), mean_age=("age", "mean"))
    return {"cells": cells}
"""


@contextmanager
def applied(clinic: Clinic, lists: Mapping[str, Sequence[str]], column: str = "pid") -> Iterator[OptOuts]:
    """The owners' lists, as the keeper has them after decryption."""
    opt_outs, descriptors = OptOuts(), []
    agreement = clinic.agreement()
    for identity, manifest in agreement.manifests.items():
        owner = agreement.cards[manifest.record.owner].record.name
        if owner in lists:
            descriptors.append(sealed(encode_list(lists[owner])))
            opt_outs.add(identity, Listed(column=column, descriptor=descriptors[-1], name=f"{len(descriptors):032x}"))
    try:
        yield opt_outs
    finally:
        for descriptor in descriptors:
            os.close(descriptor)


def run(clinic: Clinic, analysis: Analysis, lists: Mapping[str, Sequence[str]]) -> tuple[Answer, tuple[LeftOut, ...]]:
    clinic.analyses = [analysis]
    agreement = clinic.agreement()
    (identity,) = agreement.analyses
    request = RunRequest(
        contract=agreement.id,
        analysis=object_id(agreement.analyses[identity].envelope.payload),
        parameters=(),
        party=clinic.analyst.id,
        nonce=bytes(32),
        requested_at=NOW,
    )
    with clinic.opened(agreement) as tables, applied(clinic, lists) as opt_outs:
        judged = shared_engine().compute(
            agreement,
            request,
            tables,
            secret=data_secret(agreement),
            opt_outs=opt_outs,
            seconds=60,
            stopped=lambda: False,
        )
        return Answer(judged.released), opt_outs.said(agreement)


@pytest.mark.parametrize(("engine", "source"), [("sql", SQL), ("python", PYTHON)])
@pytest.mark.parametrize("flag", ["opt-out", "no"])
def test_no_number_knows_who_opted_out(engine: str, source: str, flag: str) -> None:
    """By a column that no analysis reads, and by the person column of a table of events. Seven of North's, none of South's."""
    clinic = Clinic(holdings=[holding(owner, flag, person=flag == "no") for owner in ("North", "South")])
    analysis = clinic.analysis(source, CELLS, engine=engine, reads={"people": ["sex", "age"]})
    gone = IDS["string"][:14:2]
    answer, said = run(clinic, analysis, {"North": [*map(str, gone), "p999"]})
    rest = pd.concat([clinic.holdings[0].frame.query("pid not in @gone"), clinic.holdings[1].frame])
    for sex in (0, 1):
        mine = rest[rest["sex"] == sex]
        assert answer.cell("people", sex=sex) == len(mine)
        assert answer.cell("mean_age", sex=sex) == pytest.approx(mine["age"].mean())
    assert [item.people_at_least for item in said] == [6]


def test_joined_tables_lose_them_by_the_join_key() -> None:
    key = col("pid", identifier="join-key")
    people = pd.DataFrame({"pid": IDS["integer"], "sex": [i % 2 for i in range(60)]})
    visits = pd.DataFrame({"pid": IDS["integer"] * 2, "cost": [float(i) for i in range(120)]})
    clinic = Clinic(
        holdings=[
            Holding(owner="Registry", table="people", frame=people, columns=(key, col("sex", codes=("0", "1")))),
            Holding(owner="Clinic", table="visits", frame=visits, columns=(key, col("cost", "number")), person="pid"),
        ]
    )
    sql = "SELECT sex, count(DISTINCT v.pid) AS people, sum(v.cost) AS mean_age FROM people p JOIN visits v ON p.pid = v.pid GROUP BY sex"
    answer, _ = run(clinic, clinic.analysis(sql, CELLS, engine="sql"), {"Clinic": ["100", "102"]})
    assert (answer.cell("people", sex=0), answer.cell("people", sex=1)) == (28, 30)


def test_an_identifier_reaches_no_engine_though_nothing_reads_it() -> None:
    """A part whose file holds an identifier is written anew without it, whatever the analysis reads."""
    clinic = Clinic(holdings=[holding("North", "join-key")])
    analysis = clinic.analysis(SQL, CELLS, engine="sql", reads={"people": ["sex", "age"]})
    answer, said = run(clinic, analysis, {})
    assert (answer.cell("people", sex=0), said) == (30, ())


def test_a_list_that_was_not_applied_lets_nothing_leave() -> None:
    clinic = Clinic(holdings=[holding("North", "opt-out")])
    clinic.analyses = [clinic.analysis(SQL, CELLS, engine="sql", reads={"people": ["sex", "age"]})]
    agreement, opt_outs = clinic.agreement(), OptOuts()
    opt_outs.add(next(iter(agreement.manifests)), Listed(column="pid", descriptor=-1, name="0" * 32))
    with pytest.raises(Refused) as caught:
        opt_outs.said(agreement)
    assert caught.value.code == "opt-out.not-applied"


def test_no_analysis_reads_the_column_that_opt_outs_are_found_by() -> None:
    clinic = Clinic(holdings=[holding("North", "opt-out")])
    clinic.analyses = [clinic.analysis(SQL, CELLS, engine="sql", reads={"people": ["sex", "age", "pid"]})]
    with pytest.raises(Refused) as caught:
        clinic.agreement()
    assert caught.value.code == "analysis.identifier"


# -- rules -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("people", "said"), [(0, 0), (1, 0), (2, 0), (3, 3), (5, 3), (6, 6), (1000, 999)])
def test_a_count_is_told_in_steps_of_the_owners_rule(people: int, said: int) -> None:
    assert at_least(people, RULES) == said
    assert at_least(people, replace(RULES, minimum_contributors=10)) == people - people % 10


def test_columns_that_name_people() -> None:
    def made(*columns: Column, person: str | None = None) -> tuple[str, ...]:
        frame = pd.DataFrame({c.name: [] for c in columns})
        _, record = Clinic(
            holdings=[Holding(owner="North", table="t", frame=frame, columns=columns, person=person)]
        ).manifest(0)
        for name in usable_columns(record):
            assert require_column(record, name).name == name
        with pytest.raises(Refused) as caught:
            require_column(record, "age")
        assert caught.value.code == "opt-out.column"
        return usable_columns(record)

    age, key, flagged = col("age"), col("key", identifier="join-key"), col("mrn", "string", identifier="opt-out")
    assert made(age) == ()
    assert made(age, key) == ("key",)
    assert made(age, key, flagged) == ("mrn", "key")
    assert made(age, col("pid"), key, person="pid") == ("pid", "key")
