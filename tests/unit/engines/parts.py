"""Small parts for engine tests: tables as Parquet in sealed memory files, and the jobs that read them."""

from __future__ import annotations

import fcntl
import io
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from kakoi.core.ids import ObjectId
from kakoi.enclave.job import (
    Job,
    JobColumn,
    JobOutput,
    JobOutputColumn,
    JobParameter,
    JobPart,
    JobTable,
    PartFd,
)

SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
MANIFEST = ObjectId("0" * 64)


def parquet(table: pa.Table) -> bytes:
    out = io.BytesIO()
    pq.write_table(table, out)
    return out.getvalue()


def sealed(data: bytes) -> int:
    descriptor = os.memfd_create("test-part", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
    fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, SEALS)
    return descriptor


@contextmanager
def part_fds(job: Job, contents: Sequence[bytes]) -> Iterator[list[PartFd]]:
    names = [part for table in job.tables for part in table.parts]
    found = [
        PartFd(manifest=part.manifest, file=part.file, descriptor=sealed(data))
        for part, data in zip(names, contents, strict=True)
    ]
    try:
        yield found
    finally:
        for part in found:
            os.close(part.descriptor)


def column(name: str, kind: str = "integer", *, codes: Sequence[str] = (), **more: object) -> JobColumn:
    fields = {"identifier": "no", "readable": True, **more}
    return JobColumn(name=name, type=kind, codes=tuple(codes), **fields)  # type: ignore[arg-type]


def table(
    name: str, columns: Sequence[JobColumn], sites: Sequence[str] = ("A", "B"), person: str | None = None
) -> JobTable:
    parts = tuple(
        JobPart(site=site, manifest=ObjectId(f"{i:064x}"), file=f"{name}-{i}.parquet", first_unit=i * 10**6)
        for i, site in enumerate(sites)
    )
    return JobTable(name=name, person_column=person, columns=tuple(columns), parts=parts)


def output(name: str, *columns: str, shape: str = "table", max_rows: int = 1000) -> JobOutput:
    """Columns as ``group:sex``, ``count:n``, ``value:mean``."""
    roles = [column.split(":") for column in columns]
    return JobOutput(
        name=name,
        shape=shape,  # type: ignore[arg-type]
        columns=tuple(JobOutputColumn(name=what, role=role) for role, what in roles),  # type: ignore[arg-type]
        max_rows=max_rows,
    )


def job(
    source: str,
    tables: Sequence[JobTable],
    outputs: Sequence[JobOutput],
    *,
    engine: str = "sql",
    parameters: Mapping[str, object] | None = None,
    cohort_terms: int = 6,
    largest_contributors: int = 2,
) -> Job:
    types = {int: "integer", float: "number", str: "string"}
    return Job(
        engine=engine,  # type: ignore[arg-type]
        source=source,
        files=(),
        tables=tuple(tables),
        parameters=tuple(
            JobParameter(name=k, type=types[type(v)], value=str(v) if isinstance(v, float) else v)  # type: ignore[arg-type]
            for k, v in (parameters or {}).items()
        ),
        outputs=tuple(outputs),
        cohort_terms=cohort_terms,
        largest_contributors=largest_contributors,
    )


LUNG_COLUMNS = (
    column("time"),
    column("status", codes=("0", "1")),
    column("age"),
    column("sex", codes=("1", "2")),
    column("ph_ecog", codes=("0", "1", "2", "3", "4")),
)
HOSPITALS = ("North Hospital", "Coast Hospital", "Lake Hospital")


def lung_table() -> JobTable:
    return table("lung", LUNG_COLUMNS, HOSPITALS)


def lung_parts() -> list[bytes]:
    """The NCCTG lung data by institution in three hospitals."""
    from lifelines.datasets import load_lung

    frame: pd.DataFrame = load_lung().rename(columns={"ph.ecog": "ph_ecog"})
    where = frame["inst"].fillna(0).astype(int) % 3
    names = [column.name for column in LUNG_COLUMNS]
    found = []
    for hospital in range(3):
        part = frame.loc[where == hospital, names].astype("Int64")
        found.append(parquet(pa.Table.from_pandas(part, preserve_index=False)))
    return found


MODEL = ("likelihood_ratio", "wald", "score", "concordance")
COUNTS = output("counts", "group:sex", "group:ph_ecog", "count:patients", "value:deaths", "value:median_days")
SURVIVAL = (
    output(
        "curves",
        "group:ph_ecog",
        "group:day",
        "count:patients",
        *(f"value:{n}" for n in ("survival", "error", "low", "high")),
    ),
    output("medians", "group:ph_ecog", "count:patients", *(f"value:{n}" for n in ("deaths", "median", "low", "high"))),
    output(
        "cox_age_sex",
        *(f"value:{n}" for n in ("age_coefficient", "sex_coefficient", "age_error", "sex_error", *MODEL)),
        shape="statistics",
    ),
    output(
        "cox_ecog_age",
        *(f"value:{n}" for n in ("ph_ecog_coefficient", "age_coefficient", "ph_ecog_error", "age_error", *MODEL)),
        shape="statistics",
    ),
)
