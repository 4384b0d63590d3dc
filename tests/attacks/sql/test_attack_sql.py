"""Hostile queries: refused from their text alone; and, were one admitted, DuckDB is locked and its process is confined."""

from __future__ import annotations

import contextlib
import os
import time

import duckdb
import pyarrow as pa
import pytest

from attacks.sql.sql_cases import REFUSED
from kakoi.contract.model import Limits
from kakoi.core.errors import Refused
from kakoi.enclave.engines import sql_engine
from kakoi.enclave.failures import Stopped
from kakoi.enclave.sandbox import layers
from kakoi.enclave.sandbox.run import run_job
from unit.engines.parts import column, job, output, parquet, part_fds, sealed, table
from unit.engines.sql_setting import CONTENTS, run, sql_job

OUT = output("o", "group:sex", "count:n", "value:v")


@pytest.mark.parametrize(("source", "code"), REFUSED, ids=lambda value: str(value)[:70] or "empty")
def test_the_query_is_refused(source: str, code: str) -> None:
    """Refused by its text; no table exists yet."""
    made = sql_job(source or " ", OUT, {"p": 1})
    if not code:
        with contextlib.suppress(Stopped):
            sql_engine.check(made)
        return
    with pytest.raises(Stopped) as caught:
        sql_engine.check(made)
    assert caught.value.code == code


def test_the_list_is_long_and_has_no_doubles() -> None:
    sources = [source for source, _ in REFUSED]
    assert len(sources) > 180
    assert len(set(sources)) == len(sources)


LOCKED_OUT = [
    "SELECT * FROM read_text('/etc/passwd')",
    "SELECT * FROM read_csv('/etc/passwd')",
    "SELECT * FROM read_blob('/proc/self/environ')",
    "SELECT * FROM '/etc/passwd'",
    "SELECT * FROM glob('/etc/*')",
    "SELECT * FROM read_parquet('/tmp/x.parquet')",
    "SELECT * FROM read_parquet('kakoi://99')",
    "SELECT * FROM read_parquet('https://example.org/x.parquet')",
    "SELECT * FROM read_json('s3://bucket/x')",
    "COPY (SELECT 1) TO '/tmp/kakoi-x.csv'",
    "COPY (SELECT 1) TO 'kakoi://0'",
    "EXPORT DATABASE '/tmp/kakoi-x'",
    "IMPORT DATABASE '/tmp/kakoi-x'",
    "ATTACH '/tmp/kakoi-x.db' AS x",
    "ATTACH '/etc/passwd' AS x (TYPE SQLITE)",
    "INSTALL httpfs",
    "INSTALL spatial FROM community",
    "LOAD httpfs",
    "LOAD '/tmp/x.duckdb_extension'",
    "SET enable_external_access = true",
    "SET lock_configuration = false",
    "SET memory_limit = '100GB'",
    "SET threads = 64",
    "SET allowed_paths = ['/etc/passwd']",
    "SET disabled_filesystems = ''",
    "SET autoload_known_extensions = true",
    "SET temp_directory = '/tmp'",
    "SET python_enable_replacements = true",
    "SET max_execution_time = 0",
    "RESET enable_external_access",
    "PRAGMA enable_profiling='json'",
    "PRAGMA profiling_output='/tmp/kakoi-x'",
    "CREATE PERSISTENT SECRET s (TYPE S3, KEY_ID 'a', SECRET 'b')",
    "SELECT getenv('HOME')",
    "SELECT * FROM frame_of_the_caller",
]


@pytest.mark.parametrize("statement", LOCKED_OUT)
def test_the_locked_instance_refuses_by_itself(statement: str) -> None:
    """Were a query to pass the judge, the instance still reaches nothing but its parts."""
    frame_of_the_caller = pa.table({"a": [1]})
    part = sealed(CONTENTS[0])
    try:
        connection = sql_engine.locked([part], memory_megabytes=64, threads=1, milliseconds=2000)
        with pytest.raises(duckdb.Error):
            connection.execute(statement).fetchall()
        rows = connection.execute("SELECT count(*) FROM read_parquet('kakoi://0')").fetchall()
        assert rows == [(10,)], "and its parts it can read"
        connection.close()
    finally:
        os.close(part)
    assert frame_of_the_caller.num_rows == 1
    assert not os.path.exists("/tmp/kakoi-x")
    assert not os.path.exists("/tmp/kakoi-x.csv")


def test_two_jobs_do_not_share_an_instance() -> None:
    first = sql_engine.locked([], memory_megabytes=64, threads=1, milliseconds=1000)
    first.execute("CREATE TABLE left_behind AS SELECT 1")
    second = sql_engine.locked([], memory_megabytes=64, threads=1, milliseconds=1000)
    with pytest.raises(duckdb.Error):
        second.execute("FROM left_behind")
    first.close()
    second.close()


@pytest.mark.parametrize(
    "source",
    [
        "SELECT sex, count(*) AS n, avg(age) AS v FROM people WHERE age = 21 GROUP BY sex",
        "SELECT sex, count(*) AS n, avg(age) AS v FROM people WHERE weight = 51 GROUP BY sex",
        "SELECT sex, count(*) AS n, avg(age) AS v FROM people WHERE town = 'town 1' GROUP BY sex",
        "SELECT sex, count(*) AS n, sum(age) AS v FROM people WHERE age IN (21) GROUP BY sex",
        "SELECT p.sex AS sex, count(*) AS n, avg(p.age) AS v FROM people p JOIN visits v ON p.pid = v.pid WHERE p.age = 21 GROUP BY p.sex",
        "SELECT p.sex AS sex, count(*) AS n, sum(v.cost) AS v FROM people p JOIN visits v ON p.pid = v.pid WHERE v.cost < 1 GROUP BY p.sex",
    ],
)
def test_filter_then_aggregate_is_counted(source: str) -> None:
    """Nothing stops such a query but the engine's own count, which the gate judges."""
    out = output("o", "group:sex", "count:n", "value:w")
    found = run(source.replace(" AS v ", " AS w "), out)
    assert found.people == (1,)


def _limits(seconds: int, megabytes: int) -> Limits:
    return Limits(wall_seconds=seconds, memory_megabytes=megabytes, lease_seconds=60, grain_milliseconds=100)


def _explosion(select: str) -> tuple[str, list[bytes]]:
    """An admitted query over a join that makes 4·10^10 rows."""
    rows = pa.table({"k": pa.array([1] * 200_000, pa.int64()), "x": pa.array(range(200_000), pa.int64())})
    source = f"SELECT a.k AS g, count(*) AS n, {select} AS v FROM a JOIN b ON a.k = b.k GROUP BY a.k"  # noqa: S608
    return source, [parquet(rows), parquet(rows)]


@pytest.mark.parametrize("select", ["sum(a.x * b.x)", "count(DISTINCT a.x * 200000 + b.x)"])
def test_a_query_that_explodes_is_stopped(select: str) -> None:
    source, contents = _explosion(select)
    tables = [table(name, [column("k"), column("x")], ["A"]) for name in ("a", "b")]
    made = job(source, tables, [output("o", "group:g", "count:n", "value:v")])
    begun = time.monotonic()
    with part_fds(made, contents) as parts, pytest.raises(Refused) as caught:
        run_job(made, parts, _limits(2, 128), layers.missing())
    assert caught.value.code in ("sql.failed", "sandbox.timeout", "engine.failed")
    assert time.monotonic() - begun < 60


@pytest.mark.parametrize("call", ["repeat('x', 1000000000)", "range(0, 400000000)"])
def test_what_passes_duckdb_s_own_limits_is_held_by_the_process(call: str) -> None:
    """Known: ``repeat`` passes memory_limit and max_execution_time (docs/adr/0060). Here DuckDB runs in the Python engine."""
    query = f"SELECT length({call}) FROM range(8)"  # noqa: S608
    source = (
        "import duckdb\n"
        "duckdb.sql(\"SET memory_limit='64MB'\")\n"
        f"duckdb.sql({query!r}).fetchall()\n"
        "def analyse(tables, parameters): return {}"
    )
    made = job(source, [table("t", [column("a")], ["A"])], [output("o", "count:n")], engine="python")
    begun = time.monotonic()
    with part_fds(made, [parquet(pa.table({"a": [1]}))]) as parts, pytest.raises(Refused) as caught:
        run_job(made, parts, _limits(5, 128), layers.missing())
    assert caught.value.code in ("python.failed", "engine.failed", "sandbox.timeout")
    assert time.monotonic() - begun < 60


def test_a_parquet_bomb_is_held() -> None:
    """Two hundred megabytes of one value are a few hundred bytes of Parquet."""
    rows = pa.table({"a": pa.array([7], pa.int64()).take(pa.array([0] * 12_000_000))})
    bomb = parquet(rows)
    assert len(bomb) < 1_000_000
    for engine, source in (
        (
            "python",
            "def analyse(tables, parameters): return {'o': tables['t'].groupby('a').size().reset_index(name='n')[['n']]}",
        ),
        ("sql", "SELECT count(*) AS n FROM t WHERE a > 0"),
    ):
        made = job(source, [table("t", [column("a")], ["A"] * 8)], [output("o", "count:n")], engine=engine)
        with part_fds(made, [bomb] * 8) as parts:
            if engine == "sql":
                assert run_job(made, parts, _limits(20, 256), layers.missing())
            else:
                with pytest.raises(Refused) as caught:
                    run_job(made, parts, _limits(20, 256), layers.missing())
                assert caught.value.code in ("python.failed", "engine.failed", "sandbox.timeout")
