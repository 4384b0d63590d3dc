"""Tokens in the place of identifiers: equal for equal, new for each run, and all that an engine ever gets."""

from __future__ import annotations

import io
import os
import secrets

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kakoi.core.errors import Refused
from kakoi.enclave.engines import keying
from kakoi.enclave.failures import Stopped
from kakoi.enclave.job import KEYING_CHUNK, KeyingColumn, KeyingJob
from kakoi.enclave.keeper.keying import Files
from support.clinic import Clinic, Holding, col, output, shared_engine
from unit.engines.parts import parquet, sealed

KEY = bytes(range(32))


def column(name: str, kind: str = "integer", *, keyed: bool = False) -> KeyingColumn:
    return KeyingColumn(name=name, type=kind, keyed=keyed)  # type: ignore[arg-type]


def keyed(table: pa.Table, *columns: KeyingColumn, key: bytes = KEY, files: int = 1) -> list[pa.Table]:
    """The files as they come out of the sandbox's program, through the keeper's reader."""
    read, write = os.memfd_create("key"), Files(files)
    os.write(read, key)
    parts = [sealed(parquet(table)) for _ in range(files)]
    try:
        keying.run(KeyingJob(table="t", columns=columns, left_out=None, files=files), [read, *parts], write.take)
        assert write.is_whole
        return [pq.read_table(io.BytesIO(os.pread(d, 1 << 26, 0))) for d in write.descriptors]
    finally:
        write.close()
        for descriptor in (read, *parts):
            os.close(descriptor)


def test_equal_identifiers_have_equal_tokens_and_nothing_else_remains() -> None:
    table = pa.table({"id": [7, 8, 7, None], "age": [1, 2, 3, 4], "name": ["a", "b", "c", "d"]})
    (out,) = keyed(table, column("id", keyed=True), column("age"))
    assert out.column_names == ["id", "age"]
    tokens = out["id"].to_pylist()
    assert tokens[0] == tokens[2] == keying.token(KEY, "7")
    assert tokens[1] != tokens[0]
    assert tokens[3] is None
    assert out["age"].to_pylist() == [1, 2, 3, 4]
    assert all(len(token) == 32 for token in tokens[:3])


def test_another_run_has_other_tokens() -> None:
    table = pa.table({"id": ["x"]})
    seen = {
        keyed(table, column("id", "string", keyed=True), key=secrets.token_bytes(32))[0]["id"][0].as_py()
        for _ in range(5)
    }
    assert len(seen) == 5


@pytest.mark.parametrize(
    ("values", "kind", "text"),
    [
        (pa.array([5], pa.int8()), "integer", "5"),
        (pa.array(["05"]), "string", "05"),
        (pa.array(["a"]).dictionary_encode(), "string", "a"),
        (pa.array([0], pa.date32()), "date", "1970-01-01"),
    ],
)
def test_an_identifiers_text_is_its_one_spelling(values: pa.Array, kind: str, text: str) -> None:
    (out,) = keyed(pa.table({"id": values}), column("id", kind, keyed=True))
    assert out["id"].to_pylist() == [keying.token(KEY, text)]


def test_several_files_keep_their_order() -> None:
    found = keyed(pa.table({"id": [1, 2]}), column("id", keyed=True), files=3)
    assert len(found) == 3
    assert found[0].equals(found[2])


@pytest.mark.parametrize(
    ("table", "columns"),
    [
        (pa.table({"id": ["a"]}), (column("id", keyed=True),)),
        (pa.table({"other": [1]}), (column("id", keyed=True),)),
        (pa.table({"id": [1], "age": ["x"]}), (column("id", keyed=True), column("age"))),
    ],
)
def test_parts_that_are_not_as_declared_are_refused(table: pa.Table, columns: tuple[KeyingColumn, ...]) -> None:
    with pytest.raises(Stopped) as caught:
        keyed(table, *columns)
    assert caught.value.code == "engine.part"


@given(st.binary(max_size=400), st.integers(1, 3))
def test_any_bytes_are_whole_files_or_not(data: bytes, expected: int) -> None:
    files = Files(expected)
    try:
        for byte in data:
            files.take(bytes([byte]))
        if files.is_whole:
            assert len(files.descriptors) == expected
        files.failure()
    finally:
        files.close()


def test_a_chunk_too_long_or_a_file_too_many_breaks_the_answer() -> None:
    for data in ((KEYING_CHUNK + 1).to_bytes(4, "big") + b"x", bytes(4) + bytes(4)):
        files = Files(1)
        files.take(data)
        assert not files.is_whole
        files.close()


def holdings(kind: str = "integer") -> tuple[Holding, ...]:
    """Who is ill lies at one owner, who is treated at another; ids are people's own numbers."""
    people = pd.DataFrame({"person": range(1000, 1060), "sex": [i % 2 for i in range(60)]})
    visits = pd.DataFrame({"person": [1000 + i // 2 for i in range(100)], "cost": [float(i) for i in range(100)]})
    if kind == "string":
        people, visits = (frame.assign(person=frame["person"].astype(str)) for frame in (people, visits))
    key = col("person", kind, identifier="join-key")
    return (
        Holding(owner="Registry", table="people", frame=people, columns=(key, col("sex", codes=("0", "1")))),
        Holding(owner="Clinic", table="visits", frame=visits, columns=(key, col("cost", "number")), person="person"),
    )


SQL = """
SELECT sex, count(DISTINCT v.person) AS people, avg(v.cost) AS mean_cost
FROM people p JOIN visits v ON p.person = v.person GROUP BY sex
"""
PYTHON = """
def analyse(tables, parameters):
    both = tables["people"].merge(tables["visits"], on="person")
    cells = both.groupby("sex", as_index=False).agg(people=("person", "nunique"), mean_cost=("cost", "mean"))
    return {"cells": cells}
"""
CELLS = output("cells", "group:sex", "count:people", "value:mean_cost")


@pytest.mark.parametrize("kind", ["integer", "string"])
@pytest.mark.parametrize(("engine", "source"), [("sql", SQL), ("python", PYTHON)])
def test_both_engines_join_by_tokens(engine: str, source: str, kind: str) -> None:
    clinic = Clinic(holdings=holdings(kind))
    answer = clinic.run(shared_engine(), clinic.analysis(source, CELLS, engine=engine))
    assert [(row["sex"], row["people"]) for row in answer.rows()] == [("0", "25"), ("1", "25")]
    assert answer.cell("mean_cost", sex="0") == pytest.approx(48.5)


LOOK = """
import gc, os, mmap


def analyse(tables, parameters):
    seen = tables["people"]["person"]
    raw = sum(str(value) in [str(n) for n in range(1000, 1060)] for value in seen)
    shape = sum(len(str(value)) == 32 for value in seen)
    # Whatever else this process still has: descriptors, and objects that the collector knows.
    readable = 0
    for descriptor in range(3, 256):
        try:
            readable += len(os.pread(descriptor, 4096, 0)) > 0
        except OSError:
            pass
    return {"look": {"raw": raw, "tokens": shape, "readable": readable, "basis": len(seen)}}
"""


def test_the_analysts_code_gets_no_raw_identifier() -> None:
    """Not in its tables, and no descriptor of any file is left to read."""
    clinic = Clinic(holdings=holdings())
    look = output("look", "raw", "tokens", "readable", shape="statistics")
    answer = clinic.run(shared_engine(), clinic.analysis(LOOK, look))
    assert (answer.number("raw"), answer.number("tokens"), answer.number("readable")) == (0, 60, 0)


def test_tokens_leave_nowhere() -> None:
    """As labels they are neither declared nor words of the source; the gate refuses them."""
    clinic = Clinic(holdings=holdings())
    source = 'def analyse(tables, parameters):\n    return {"cells": tables["people"].head(3).assign(people=9, mean_cost=1.0)[["person", "people", "mean_cost"]]}\n'
    leak = output("cells", "group:person", "count:people", "value:mean_cost")
    with pytest.raises(Refused) as caught:
        clinic.run(shared_engine(), clinic.analysis(source, leak))
    assert caught.value.code == "gate.label"


def test_direct_identifiers_cannot_be_read_at_all() -> None:
    made = holdings()
    named = Holding(
        owner="Registry",
        table="people",
        frame=made[0].frame,
        columns=(col("person", identifier="direct"), made[0].columns[1]),
    )
    clinic = Clinic(holdings=(named, made[1]))
    reads = {"people": ["person", "sex"], "visits": ["person", "cost"]}
    with pytest.raises(Refused) as caught:
        clinic.run(shared_engine(), clinic.analysis(SQL, CELLS, engine="sql", reads=reads))
    assert caught.value.code == "analysis.identifier"
