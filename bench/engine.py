"""Engines on ten million generated rows, against the plain tools on the same rows in the same run.

    sealed SQL      decrypt the sealed Parquet into sealed memory and run the query in a waiting sandbox, against DuckDB on the
                    plain Parquet file with a fresh connection; and the same for a second query, when the data are decrypted
    engine alone    the query as the engine completes it (hidden counts, locked instance, parts through a file system of their
                    own), against the query as written; and a Python aggregate in the sandbox against the same function directly
    start-up        the smallest job through a waiting sandbox, from the call to the answer

Ratios are of CPU time, which a busy machine disturbs less than time on the wall (in the details). A sandbox's CPU time is read from
outside while it works, from the moment it is taken from the pool.
"""

from __future__ import annotations

import contextlib
import fcntl
import io
import os
import secrets
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import duckdb

from kakoi.contract.model import Limits
from kakoi.core.errors import Refused
from kakoi.core.ids import ObjectId
from kakoi.dataset.format import associated_data
from kakoi.dataset.open import open_stream
from kakoi.dataset.seal import SealedSummary, SealingWriter
from kakoi.enclave.engines import sql_engine
from kakoi.enclave.job import Job, JobColumn, JobOutput, JobOutputColumn, JobPart, JobTable, PartFd, Result
from kakoi.enclave.sandbox import layers
from kakoi.enclave.sandbox.box import Box
from kakoi.enclave.sandbox.pool import Pool
from kakoi.enclave.sandbox.run import run_job

ROWS: Final = 10_000_000
LIMITS: Final = Limits(wall_seconds=300, memory_megabytes=4096, lease_seconds=600, grain_milliseconds=100)
QUERY: Final = (
    "SELECT sex, ward, count(*) AS patients, avg(cost) AS mean_cost, sum(CASE WHEN age > 65 THEN 1 ELSE 0 END) AS older "
    "FROM visits GROUP BY sex, ward ORDER BY sex, ward"
)
FUNCTION: Final = """
def analyse(tables, parameters):
    frame = tables["visits"]
    made = frame.groupby(["sex", "ward"], as_index=False).agg(patients=("cost", "size"), mean_cost=("cost", "mean"), older=("age", "mean"))
    return {"cells": made[["sex", "ward", "patients", "mean_cost", "older"]]}
"""
TINY: Final = "def ("
"""No engine's language: refused before the tables would be read."""
COLUMNS: Final = {"sex": "integer", "ward": "integer", "age": "integer", "cost": "number"}
SEALS: Final = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
Row = tuple[str, float, str]


class _WatchedPool(Pool):
    """A pool that follows the CPU time of each sandbox it gives away."""

    used = 0.0

    def take(self, engine: str) -> Box:
        box = super().take(engine)
        box.wait_ready(60)
        threading.Thread(target=self._follow, args=(_innermost(box.process_id),), daemon=True).start()
        return box

    def _follow(self, process: int) -> None:
        last = first = _cpu_of(process)
        begun = self.used
        while last is not None and first is not None:
            self.used = begun + last - first
            time.sleep(0.002)
            last = _cpu_of(process)


def _innermost(process: int) -> int:
    """The interpreter below bubblewrap."""
    while True:
        children = [c for f in Path(f"/proc/{process}/task").glob("*/children") for c in f.read_text().split()]
        if not children:
            return process
        process = int(children[0])


def _cpu_of(process: int) -> float | None:
    """User and system seconds of a process (proc(5), fields 14 and 15 of stat); None if it has ended."""
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()
    except OSError:
        return None
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK") if fields[0] != "Z" else None


class _Cost:
    """Least wall and CPU seconds of several runs; CPU is this process' and, with a pool, its sandboxes'."""

    def __init__(
        self,
        work: Callable[[], object],
        repeat: int = 3,
        *,
        pool: _WatchedPool | None = None,
        engine: str = "",
    ) -> None:
        self.wall = self.cpu = float("inf")
        for _ in range(repeat):
            if pool is not None:
                pool.warm(engine)
                pool.used = 0.0
            wall, cpu = time.perf_counter(), time.process_time()
            work()
            wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
            self.wall, self.cpu = min(self.wall, wall), min(self.cpu, cpu + (pool.used if pool else 0.0))


def _row(what: str, ours: _Cost, plain: _Cost, note: str) -> Row:
    times = f"CPU {ours.cpu:.2f} s / {plain.cpu:.2f} s, wall {ours.wall:.2f} s / {plain.wall:.2f} s"
    return what, ours.cpu / plain.cpu, f"{times}; {note}"


def _job(engine: str, source: str) -> Job:
    columns = tuple(
        JobColumn(name=name, type=kind, identifier="no", codes=(), readable=True)  # type: ignore[arg-type]
        for name, kind in COLUMNS.items()
    )
    part = JobPart(site="A", manifest=ObjectId("0" * 64), file="visits.parquet", first_unit=0)
    roles = {"sex": "group", "ward": "group", "patients": "count", "mean_cost": "value", "older": "value"}
    output = JobOutput(
        name="cells",
        shape="table",
        columns=tuple(JobOutputColumn(name=name, role=role) for name, role in roles.items()),  # type: ignore[arg-type]
        max_rows=1000,
    )
    table = JobTable(name="visits", person_column=None, columns=columns, parts=(part,))
    return Job(
        engine=engine,  # type: ignore[arg-type]
        source=source,
        files=(),
        tables=(table,),
        parameters=(),
        outputs=(output,),
        cohort_terms=6,
        largest_contributors=2,
    )


def _generate(path: Path, rows: int) -> None:
    with duckdb.connect() as connection:
        connection.execute(
            f"""COPY (SELECT 1 + (hash(i) % 2)::BIGINT AS sex, (hash(i + 1) % 12)::BIGINT AS ward,
                (hash(i + 2) % 90)::BIGINT AS age, (hash(i + 3) % 1000000) / 100.0::DOUBLE AS cost, i AS unread
                FROM range({rows}) t(i)) TO '{path}' (FORMAT parquet, COMPRESSION zstd)"""  # noqa: S608
        )


class _Sealed:
    """The file as its owner would upload it."""

    def __init__(self, plaintext: bytes) -> None:
        self.key, self.associated = secrets.token_bytes(32), associated_data("0" * 32, 1, "visits.parquet")
        kept = io.BytesIO()
        with SealingWriter(
            kept,
            data_key=self.key,
            associated_data=self.associated,
            salt=secrets.token_bytes(32),
            nonce_prefix=secrets.token_bytes(7),
        ) as writer:
            writer.write(plaintext)
        self.summary: SealedSummary = writer.summary
        self.ciphertext = kept.getvalue()

    def decrypted(self) -> int:
        """As the keeper does it: a sealed memory file."""
        descriptor = os.memfd_create("bench", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        mib = 1 << 20
        chunks = (self.ciphertext[i : i + mib] for i in range(0, len(self.ciphertext), mib))
        for chunk in open_stream(
            chunks,
            data_key=self.key,
            associated_data=self.associated,
            size=self.summary.size,
            segment_digests=self.summary.segment_digests,
        ):
            os.write(descriptor, chunk)
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, SEALS)
        return descriptor


@contextmanager
def _open(descriptor: int) -> Iterator[int]:
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _plain_sql(path: Path) -> None:
    with duckdb.connect() as connection:
        connection.execute(f"CREATE VIEW visits AS FROM read_parquet('{path}')")
        connection.execute(QUERY).fetchall()


_FRESH: Final = """
import sys, time
import lifelines, pandas, pyarrow.parquet
names = {}
exec(sys.argv[2], names)
wall, cpu = time.perf_counter(), time.process_time()
names["analyse"]({"visits": pandas.read_parquet(sys.argv[1], columns=sys.argv[3:])}, {})
print(time.perf_counter() - wall, time.process_time() - cpu)
"""


class _Fresh(_Cost):
    """The function in a new interpreter that has its libraries loaded, as a sandbox is and has."""

    def __init__(self, path: Path, repeat: int = 3) -> None:
        self.wall = self.cpu = float("inf")
        for _ in range(repeat):
            command = [sys.executable, "-c", _FRESH, str(path), FUNCTION, *COLUMNS]
            printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
            wall, cpu = map(float, printed.split())
            self.wall, self.cpu = min(self.wall, wall), min(self.cpu, cpu)


class _Bench:
    def __init__(self, path: Path, pool: _WatchedPool) -> None:
        self.path, self.pool = path, pool
        self.sealed = _Sealed(path.read_bytes())

    def sandboxed(self, job: Job, descriptor: int) -> bytes:
        part = job.tables[0].parts[0]
        given = [PartFd(manifest=part.manifest, file=part.file, descriptor=descriptor)]
        return run_job(job, given, LIMITS, layers.missing(), pool=self.pool)

    def later(self, job: Job, descriptor: int, repeat: int = 3) -> _Cost:
        """A job on data that are decrypted already."""
        return _Cost(lambda: self.sandboxed(job, descriptor), repeat, pool=self.pool, engine=job.engine)

    def first(self, job: Job) -> _Cost:
        """From ciphertext to answer."""

        def work() -> None:
            with _open(self.sealed.decrypted()) as descriptor:
                self.sandboxed(job, descriptor)

        return _Cost(work, pool=self.pool, engine=job.engine)

    def smallest(self, engine: str, descriptor: int) -> _Cost:
        """A job that ends at once."""

        def work() -> None:
            with contextlib.suppress(Refused):
                self.sandboxed(_job(engine, TINY), descriptor)

        return _Cost(work, 5, pool=self.pool, engine=engine)


def _sql(bench: _Bench, descriptor: int) -> list[Row]:
    job = _job("sql", QUERY)
    threads = os.cpu_count() or 1
    plain = _Cost(lambda: _plain_sql(bench.path))
    engine = _Cost(
        lambda: sql_engine.run(job, [descriptor], memory_megabytes=4096, threads=threads, milliseconds=300_000)
    )
    size = len(bench.sealed.ciphertext) / 1e6
    return [
        _row("sealed SQL, first query / DuckDB", bench.first(job), plain, f"{size:.0f} MB decrypted too"),
        _row("sealed SQL, later query / DuckDB", bench.later(job, descriptor), plain, "in the sandbox"),
        _row("SQL engine / DuckDB", engine, plain, "hidden counts, no sandbox"),
    ]


def _python(bench: _Bench, descriptor: int) -> list[Row]:
    job = _job("python", FUNCTION)
    direct = _Fresh(bench.path)
    return [
        _row("Python engine / the function directly", bench.later(job, descriptor), direct, "in the sandbox"),
    ]


def run(rows: int = ROWS) -> list[Row]:
    """CPU ratios, and the start-up in seconds."""
    with tempfile.TemporaryDirectory() as directory, _WatchedPool(without=frozenset(layers.missing())) as pool:
        path = Path(directory, "visits.parquet")
        _generate(path, rows)
        bench = _Bench(path, pool)
        with _open(bench.sealed.decrypted()) as descriptor:
            small = {engine: bench.smallest(engine, descriptor) for engine in ("sql", "python")}
            found = _sql(bench, descriptor) + _python(bench, descriptor)
            checked = Result.decode(bench.sandboxed(_job("sql", QUERY), descriptor))
        if checked.outputs[0].KIND != "table":
            raise RuntimeError("the bench measured something else")
    note = "smallest job on a waiting sandbox, call to answer; at most 0.15 wanted"
    return [*found, *((f"start-up from the pool, {name}, seconds", cost.wall, note) for name, cost in small.items())]
