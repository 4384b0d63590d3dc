"""Three small tables for SQL tests: people, their visits, and a table of wards."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

import pyarrow as pa

from kakoi.enclave.engines import sql_engine
from kakoi.enclave.job import Job, JobOutput, JobTable, ResultTable
from unit.engines.parts import column, job, parquet, part_fds, table

PEOPLE = table(
    "people",
    [
        column("pid", "string", identifier="join-key"),
        column("sex", codes=("1", "2")),
        column("age"),
        column("weight", "number"),
        column("smokes", "boolean"),
        column("born", "date"),
        column("town", "string"),
        column("ph.ecog", codes=("0", "1", "2", "3")),
    ],
    person="pid",
)
VISITS = table(
    "visits",
    [
        column("pid", "string", identifier="join-key"),
        column("ward", "string", codes=("north", "south")),
        column("cost", "number"),
        column("hidden_note", "string", readable=False),
    ],
    person="pid",
)
WARDS = table("wards", [column("ward", "string", codes=("north", "south")), column("beds")])
TABLES: tuple[JobTable, ...] = (PEOPLE, VISITS, WARDS)


def people(first: int, count: int) -> pa.Table:
    n = range(first, first + count)
    return pa.table(
        {
            "pid": [f"p{i}" for i in n],
            "sex": pa.array([1 + i % 2 for i in n], pa.int64()),
            "age": pa.array([20 + i for i in n], pa.int64()),
            "weight": pa.array([None if i % 5 == 0 else 50.0 + i for i in n], pa.float64()),
            "smokes": [i % 3 == 0 for i in n],
            "born": pa.array([19000 - 365 * i for i in n], pa.int32()).cast(pa.date32()),
            "town": [f"town {i}" for i in n],
            "ph.ecog": pa.array([i % 3 for i in n], pa.int64()),
        }
    )


def visits() -> pa.Table:
    """Person p0 has 50 visits, p1 to p9 two each; p10 and later none."""
    who = ["p0"] * 50 + [f"p{i}" for i in range(1, 10) for _ in range(2)]
    return pa.table(
        {
            "pid": who,
            "ward": ["north" if i % 2 else "south" for i in range(len(who))],
            "cost": [float(i) for i in range(len(who))],
            "hidden_note": ["note"] * len(who),
        }
    )


CONTENTS = (
    parquet(people(0, 10)),
    parquet(people(10, 10)),
    parquet(visits()),
    parquet(visits().slice(0, 0)),
    parquet(pa.table({"ward": ["north"], "beds": pa.array([10], pa.int64())})),
    parquet(pa.table({"ward": ["south"], "beds": pa.array([20], pa.int64())})),
)


def sql_job(source: str, out: JobOutput, parameters: Mapping[str, object] | None = None) -> Job:
    return job(source, TABLES, [out], parameters=parameters)


def run(source: str, out: JobOutput, parameters: Mapping[str, object] | None = None) -> ResultTable:
    made = sql_job(source, out, parameters)
    with part_fds(made, CONTENTS) as parts:
        return run_with(made, [part.descriptor for part in parts])


def run_with(made: Job, descriptors: Sequence[int]) -> ResultTable:
    result = sql_engine.run(made, descriptors, memory_megabytes=256, threads=2, milliseconds=10_000).outputs[0]
    assert isinstance(result, ResultTable)
    assert os.fstat(descriptors[0]).st_size > 0
    return result


def cells(found: ResultTable, name: str) -> tuple[str | None, ...]:
    return next(c.cells for c in found.columns if c.name == name)
