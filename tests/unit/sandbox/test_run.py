"""Running a job end to end in a real sandbox."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from dataclasses import replace

import pyarrow as pa
import pytest

from kakoi.contract.model import Limits
from kakoi.core.errors import Misuse, Refused
from kakoi.enclave.job import Job, Result, ResultTable
from kakoi.enclave.sandbox import box, layers
from kakoi.enclave.sandbox.pool import Pool
from kakoi.enclave.sandbox.run import run_job
from unit.engines.parts import column, job, output, parquet, part_fds, table
from unit.engines.sql_setting import CONTENTS, cells, sql_job

LIMITS = Limits(wall_seconds=20, memory_megabytes=256, lease_seconds=60, grain_milliseconds=100)
ONE = [table("t", [column("a")], ["A", "B"])]
DATA = [parquet(pa.table({"a": [1, 2, 3]})), parquet(pa.table({"a": [4, 5, 6]}))]
OUT = [output("o", "group:g", "count:n")]


@pytest.fixture(scope="module")
def weaknesses() -> tuple[str, ...]:
    reason = {layer.name: layer.missing for layer in layers.layers()}[layers.NAMESPACES]
    if reason:
        pytest.skip(f"bubblewrap does not work here: {reason}")
    return layers.missing()


@pytest.fixture(scope="module")
def pool(weaknesses: tuple[str, ...]) -> Iterator[Pool]:
    with pytest.MonkeyPatch.context() as patch:
        # lifelines takes a second to import, and no test here needs it
        patch.setattr(box, "PRELOAD", {**box.PRELOAD, "python": ("pandas", "pyarrow.parquet")})
        with Pool(without=frozenset(weaknesses)) as made:
            yield made


def python(body: str, **more: object) -> Job:
    source = f"import os, time\ndef analyse(tables, parameters):\n    {body}\n"
    return job(source, ONE, OUT, engine="python", **more)  # type: ignore[arg-type]


def go(made: Job, pool: Pool, contents: list[bytes] | None = None, limits: Limits = LIMITS, **more: object) -> Result:
    with part_fds(made, contents or DATA) as parts:
        answer = run_job(made, parts, limits, layers.missing(), pool=pool, **more)  # type: ignore[arg-type]
    return Result.decode(answer)


def test_both_engines(pool: Pool) -> None:
    from unit.engines.parts import output as out

    made = sql_job("SELECT sex, count(*) AS n FROM people GROUP BY sex", out("o", "group:sex", "count:n"))
    (found,) = go(made, pool, list(CONTENTS)).outputs
    assert isinstance(found, ResultTable)
    assert cells(found, "n") == ("10", "10")
    body = "return {'o': tables['t'].groupby('site').size().rename('n').rename_axis('g').reset_index()}"
    (found,) = go(python(body), pool).outputs
    assert isinstance(found, ResultTable)
    assert (cells(found, "g"), found.people) == (("A", "B"), (3, 3))


def test_parts_are_matched_by_name_not_by_order(pool: Pool) -> None:
    made = python("return {'o': tables['t'].groupby('site')['a'].sum().rename('n').rename_axis('g').reset_index()}")
    with part_fds(made, DATA) as parts:
        answer = run_job(made, parts[::-1], LIMITS, layers.missing(), pool=pool)
    (found,) = Result.decode(answer).outputs
    assert isinstance(found, ResultTable)
    assert found.people == (6, 15)


@pytest.mark.parametrize("wrong", ["missing", "twice", "foreign"])
def test_parts_that_are_not_the_job_s(pool: Pool, wrong: str) -> None:
    made = python("return {}")
    with part_fds(made, DATA) as parts:
        given = {"missing": parts[:1], "twice": [*parts, parts[0]], "foreign": [parts[0], replace(parts[1], file="x")]}
        with pytest.raises(Misuse, match=r"sandbox\.parts"):
            run_job(made, given[wrong], LIMITS, layers.missing(), pool=pool)


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ("raise ValueError('Smith')", "python.failed"),
        ("return {'x': 1}", "python.output"),
        ("os._exit(0)", "engine.failed"),
        ("os._exit(3)", "engine.failed"),
        ("os.abort()", "engine.failed"),
        ("b = bytearray(3 << 30)", "python.failed"),
        ("os.write(3, b'x' * 5000); os._exit(0)", ""),
        (
            'os.write(3, b\'{"code":"sql.function","kind":"kakoi/engine-failure/v1","subject":"Smith"}\'); os._exit(0)',
            "engine.failed",
        ),
    ],
)
def test_failures_have_codes_and_no_words_of_the_analysis(pool: Pool, body: str, code: str) -> None:
    with part_fds(python(body), DATA) as parts:
        if not code:
            assert run_job(python(body), parts, LIMITS, layers.missing(), pool=pool) == b"x" * 5000
            return
        with pytest.raises(Refused) as caught:
            run_job(python(body), parts, LIMITS, layers.missing(), pool=pool)
    assert caught.value.code == code
    assert "Smith" not in caught.value.message + caught.value.hint


def test_the_sql_engine_says_what_it_refuses(pool: Pool) -> None:
    made = sql_job("SELECT sex, string_agg(town) AS n FROM people GROUP BY sex", output("o", "group:sex", "count:n"))
    with part_fds(made, CONTENTS) as parts, pytest.raises(Refused, match="string_agg") as caught:
        run_job(made, parts, LIMITS, layers.missing(), pool=pool)
    assert caught.value.code == "sql.aggregate"


def test_time_is_up(pool: Pool) -> None:
    made = python("time.sleep(60)")
    begun = time.monotonic()
    with part_fds(made, DATA) as parts, pytest.raises(Refused, match=r"sandbox\.timeout"):
        run_job(made, parts, replace(LIMITS, wall_seconds=1), layers.missing(), pool=pool)
    assert time.monotonic() - begun < 50


def test_a_lease_that_ends_stops_the_job(pool: Pool) -> None:
    made, over = python("time.sleep(60)"), threading.Event()
    threading.Timer(0.5, over.set).start()
    with part_fds(made, DATA) as parts, pytest.raises(Refused, match=r"sandbox\.stopped"):
        run_job(made, parts, LIMITS, layers.missing(), pool=pool, stopped=over.is_set)


def test_an_answer_has_a_size(pool: Pool) -> None:
    made = python("while True: os.write(3, b'x' * 65536)")
    with part_fds(made, DATA) as parts, pytest.raises(Refused, match=r"sandbox\.answer-bytes"):
        run_job(made, parts, LIMITS, layers.missing(), pool=pool, answer_bytes=100_000)


def test_many_parts_are_handed_over(pool: Pool) -> None:
    many = table("t", [column("a")], ["A"] * 500)
    made = job(
        "SELECT site AS site, count(*) AS n FROM t GROUP BY site", [many], [output("o", "group:site", "count:n")]
    )
    (found,) = go(made, pool, [DATA[0]] * 500).outputs
    assert isinstance(found, ResultTable)
    assert found.people == (1500,)


def test_jobs_run_beside_each_other_and_share_nothing(pool: Pool) -> None:
    body = "open('/tmp/mark', 'x').write('x'); time.sleep(0.3); return {'o': tables['t'].head(1).assign(g='x', n=len(os.listdir('/tmp')))[['g', 'n']]}"
    results: list[Result] = []
    threads = [threading.Thread(target=lambda: results.append(go(python(body), pool))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    counts = [output.people for result in results for output in result.outputs if isinstance(output, ResultTable)]
    assert len(counts) == 3
    assert len(set(counts)) == 1, "nobody sees another's file"


def test_nothing_happens_without_an_accepted_weakness(monkeypatch: pytest.MonkeyPatch) -> None:
    lacking = tuple(
        replace(layer, missing="not here") if layer.name == layers.CGROUP else layer for layer in layers.layers()
    )
    monkeypatch.setattr(layers, "layers", lambda: lacking)
    made = python("return {}")
    with part_fds(made, DATA) as parts, pytest.raises(Refused, match=r"sandbox\.layer-missing"):
        run_job(made, parts, LIMITS, ())


def test_descriptors_do_not_leak(pool: Pool) -> None:
    pool.warm("python")
    body = "return {'o': tables['t'].head(0).assign(g='x', n=1)[['g', 'n']]}"
    go(python(body), pool)
    time.sleep(0.5)
    pool.warm("python")
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(2):
        go(python(body), pool)
        pool.warm("python")
    time.sleep(0.5)
    assert abs(len(os.listdir("/proc/self/fd")) - before) <= 8, "at most what a waiting sandbox holds"


def test_a_closed_pool_holds_nothing(weaknesses: tuple[str, ...]) -> None:
    made = Pool(without=frozenset(weaknesses), sizes={"sql": 1})
    made.warm("sql")
    made.close()
    made.close()
    assert not any(made._waiting.values())
